#!/usr/bin/env python3
"""Writes the chart's README.md as helm-docs 1.14 does in Phalanx.

    tests/deploy/chart_readme.py --write

Phalanx runs helm-docs over every chart below applications/, with a template of its own: the chart's name, description,
homepage, sources and values. A README that is written differently would be rewritten there. helm-docs is a Go program in no
package registry that the tests use, so this follows the part of its rules that the chart needs: `# -- text` above a key
describes it, further comment lines continue the text, `# @default -- text` replaces the default.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parents[2] / "charts" / "prompt-redis-exporter"
TYPES = {str: "string", bool: "bool", int: "int", float: "float", list: "list", dict: "object"}


def described(text: str) -> dict[str, tuple[str, str | None]]:
    """The description of each key that has one, and its default where a comment replaces it."""
    found = {}
    path: list[tuple[int, str]] = []
    description: str | None = None
    default: str | None = None
    for line in text.splitlines():
        bare = line.strip()
        if match := re.match(r"# --\s*(.*)", bare):
            description, default = match[1], None
        elif match := re.match(r"# @default -- (.*)", bare):
            default = match[1]
        elif bare.startswith("#") and description is not None:
            description += " " + re.sub(r"^#\s?", "", bare)
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


def table(chart: pathlib.Path) -> str:
    """The table of values."""
    text = (chart / "values.yaml").read_text()
    values = yaml.safe_load(text)
    descriptions = described(text)
    bare = [".".join(leaf) for leaf in leaves(values) if not any(".".join(leaf[: n + 1]) in descriptions for n in range(len(leaf)))]
    if bare:
        raise SystemExit(f"values.yaml does not describe: {', '.join(bare)}")
    rows = ["| Key | Type | Default | Description |", "|-----|------|---------|-------------|"]
    for key in sorted(descriptions):
        description, default = descriptions[key]
        value = values
        for step in key.split("."):
            value = value[step]
        shown = default or f"`{json.dumps(value, separators=(',', ':'), sort_keys=True, ensure_ascii=False)}`"
        rows.append(f"| {key} | {TYPES[type(value)]} | {shown} | {description} |")
    return "\n".join(rows)


def readme(chart: pathlib.Path = CHART) -> str:
    """The whole README.md."""
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    parts = [f"# {about['name']}", about["description"]]
    if home := about.get("home"):
        parts.append(f"**Homepage:** <{home}>")
    if sources := about.get("sources"):
        parts.append("## Source Code\n\n" + "\n".join(f"* <{source}>" for source in sources))
    parts += ["## Values", table(chart)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        raise SystemExit("usage: tests/deploy/chart_readme.py --write")
    (CHART / "README.md").write_text(readme())
