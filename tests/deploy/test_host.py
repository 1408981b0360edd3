"""The unit file and its environment file, and the GitHub workflows."""

from __future__ import annotations

import re
import subprocess

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from conftest import ROOT, tool
from jsonschema import Draft7Validator

UNIT = ROOT / "deploy" / "systemd" / "prompt-redis-exporter.service"
VARIABLES = ROOT / "deploy" / "systemd" / "prompt-redis-exporter.env"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*"))


@pytest.fixture
def unit(tmp_path, exporter):
    """The unit, with the program where it is on this machine: systemd-analyze wants it to exist."""
    copy = tmp_path / UNIT.name
    text = UNIT.read_text()
    assert "ExecStart=/usr/local/bin/prompt-redis-exporter\n" in text
    copy.write_text(text.replace("ExecStart=/usr/local/bin/prompt-redis-exporter\n", f"ExecStart={exporter}\n"))
    return copy


def test_systemd_has_nothing_to_say(unit):
    done = subprocess.run([tool("systemd-analyze", "systemd"), "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_unit_is_hardened(unit):
    command = [tool("systemd-analyze", "systemd"), "security", "--offline=true", "--threshold=15", unit]
    done = subprocess.run(command, capture_output=True, text=True)
    # The threshold is ten times the exposure that systemd reckons: 1.5 of 10.
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


def test_environment_file_names_options(options):
    known = set(re.findall(r"\[env: (\w+)\]", options))
    named = re.findall(r"^#?(PROMPT_REDIS_EXPORTER_\w+)=", VARIABLES.read_text(), re.M)
    assert named
    assert set(named) <= known
    assert set(re.findall(r"PROMPT_REDIS_EXPORTER_\w+", UNIT.read_text())) <= known
    assert f"/{VARIABLES.name}" in UNIT.read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflow(path):
    # YAML 1.1 reads the key `on` as true.
    workflow = {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}
    errors = Draft7Validator(get_builtin_schema("vendor.github-workflows")).iter_errors(workflow)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []
    assert workflow["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    for name, job in workflow["jobs"].items():
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file()
            continue
        assert "timeout-minutes" in job, name
        for step in job["steps"]:
            if action := step.get("uses"):
                assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+(\.\d+)*", action), f"{action} is pinned to no version"
            for target in re.findall(r"^make (\S+)$", step.get("run", ""), re.M):
                assert target in targets, f"the Makefile has no target {target}"
