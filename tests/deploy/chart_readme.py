#!/usr/bin/env python3
"""Makes the values table of the chart's README.md out of the comments in values.yaml, as helm-docs would.

    tests/deploy/chart_readme.py --write

helm-docs is a Go program that no package registry we reach has. This knows the part of its rules that the chart uses:
`# -- text` above a key describes it, further comment lines go on with it, `# @default -- text` replaces the default.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "charts" / "prompt-redis-exporter"
BEGIN = "<!-- values: made by tests/deploy/chart_readme.py --write -->"
END = "<!-- /values -->"
TYPES = {str: "string", bool: "bool", int: "int", list: "list", dict: "object"}


def described(text: str) -> dict[str, tuple[str, str | None]]:
    """The description of each key that has one, and its default where a comment replaces it."""
    found = {}
    path: list[tuple[int, str]] = []
    description: str | None = None
    default: str | None = None
    for line in text.splitlines():
        bare = line.strip()
        if match := re.match(r"# -- (.*)", bare):
            description, default = match[1], None
        elif match := re.match(r"# @default -- (.*)", bare):
            default = match[1]
        elif bare.startswith("#") and description is not None and default is None:
            description += " " + bare.lstrip("# ")
        elif match := re.match(r"( *)([^\s#:-][^:]*):( |$)", line):
            indent = len(match[1])
            path = [step for step in path if step[0] < indent] + [(indent, match[2].strip("\"'"))]
            if description is not None:
                found[".".join(name for _, name in path)] = (description, default)
            description = default = None
        elif not bare:
            description = default = None
    return found


def leaves(value: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths of all values that are no map, or an empty one."""
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key))]
    return [path]


def table() -> str:
    """The table."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    descriptions = described(text)
    bare = [".".join(leaf) for leaf in leaves(values) if not any(".".join(leaf[: n + 1]) in descriptions for n in range(len(leaf)))]
    if bare:
        raise SystemExit(f"values.yaml says nothing of: {', '.join(bare)}")
    rows = ["| Key | Type | Default | Description |", "|-----|------|---------|-------------|"]
    for key in sorted(descriptions):
        description, default = descriptions[key]
        value = values
        for step in key.split("."):
            value = value[step]
        shown = default or f"`{json.dumps(value, separators=(',', ':'))}`"
        rows.append(f"| {key} | {TYPES[type(value)]} | {shown} | {description} |")
    return "\n".join(rows)


def readme() -> str:
    """README.md with the table that belongs in it."""
    text = (CHART / "README.md").read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"README.md needs one line {BEGIN} and one line {END}")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit("usage: tests/deploy/chart_readme.py --write")
    (CHART / "README.md").write_text(readme())
