"""compose.yaml: its shape, and that all it mounts, builds and passes on exists and fits. No container is started."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import subprocess

import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from conftest import ROOT, built, tool
from jsonschema import Draft7Validator

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
# The sets of alerts that a variable chooses from; without it, the first.
SETS = [{}, {"MONITORING_SET": "redis-streams"}]
each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def interpolated(text: str, variables: dict[str, str]) -> str:
    """A text as Compose fills it in: `${NAME-default}`."""
    return re.sub(r"\$\{(\w+)-([^}]*)\}", lambda match: variables.get(match[1], match[2]), text)


def mounts(service: dict, variables: dict[str, str] | None = None) -> list[tuple[pathlib.Path, pathlib.PurePosixPath]]:
    """What a service mounts of the repository, and where."""
    found = []
    for volume in service.get("volumes", []):
        source, target, *mode = interpolated(volume, variables or {}).split(":")
        if source.startswith("."):
            assert mode == ["ro"], f"{volume}: a container must not write into the repository"
            found.append((ROOT / source, pathlib.PurePosixPath(target)))
    return found


def tree(service: dict, folder: pathlib.Path, variables: dict[str, str] | None = None) -> pathlib.Path:
    """A folder that holds what the service would see of the repository, at the paths where it would see it."""
    for source, target in mounts(service, variables):
        place = folder / target.relative_to("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(source)
    return folder


def test_shape():
    errors = Draft7Validator(get_builtin_schema("vendor.compose-spec")).iter_errors(COMPOSE)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


@each_service
def test_mounted_files_exist(service):
    for source, _ in mounts(service):
        assert source.is_file(), source
        # Docker makes a folder of what does not exist, and a link out of the build context shows nothing.
        assert not source.is_symlink(), source


@each_service
def test_images_are_pinned_and_ports_are_local(service):
    if "build" in service:
        targets = re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
        assert service["build"]["target"] in targets
        assert service["build"]["context"] == "."
    else:
        assert re.fullmatch(r"docker\.io/[a-z]+/[a-z]+:v?\d+\.\d+\.\d+", service["image"])
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), f"{port}: without a password this is for this machine alone"


def test_what_depends_on_what_exists():
    for service in SERVICES.values():
        for name in service.get("depends_on", []):
            assert name in SERVICES
    named = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", []) if volume[0] != "."}
    assert named == set(COMPOSE["volumes"])


def test_every_repository_file_for_people_is_mounted():
    mounted = {source.resolve() for variables in SETS for service in SERVICES.values() for source, _ in mounts(service, variables)}
    for file in [*(ROOT / "dashboards").glob("*.json"), *(ROOT / "alerts").glob("*.yaml"), *(ROOT / "deploy/compose").rglob("*.yaml")]:
        assert file in mounted, f"{file} is mounted nowhere"


@pytest.mark.parametrize(
    ("variables", "wanted"), [(SETS[0], "prompt-redis.alerts.yaml"), (SETS[1], "redis-streams.alerts.yaml")]
)
def test_a_variable_chooses_one_of_the_two_sets_of_alerts(variables, wanted):
    files = [source.name for source, _ in mounts(SERVICES["prometheus"], variables) if source.name.endswith(".alerts.yaml")]
    assert files == [wanted]


@pytest.mark.parametrize("variables", SETS)
def test_prometheus_takes_its_configuration(tmp_path, variables):
    service = SERVICES["prometheus"]
    (option,) = [option for option in service["command"] if option.startswith("--config.file=")]
    path = pathlib.PurePosixPath(option.removeprefix("--config.file="))
    place = tree(service, tmp_path, variables) / path.relative_to("/")
    done = subprocess.run([tool("promtool", "prometheus"), "check", "config", place], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # Both rule files, and not a pattern that matches nothing.
    assert "SUCCESS: 2 rule files found" in done.stdout
    config = yaml.safe_load(place.read_text())
    targets = config["scrape_configs"][0]["static_configs"][0]["targets"]
    targets += config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    for target in targets:
        name, port = target.split(":")
        assert any(published.endswith(f":{port}") for published in SERVICES[name]["ports"]), target
    # The alert for an exporter that is down goes by this name.
    assert config["scrape_configs"][0]["job_name"] == "prompt-redis-exporter"


def test_alertmanager_takes_its_configuration(tmp_path):
    service = SERVICES["alertmanager"]
    (option,) = [option for option in service["command"] if option.startswith("--config.file=")]
    place = tree(service, tmp_path) / option.removeprefix("--config.file=/")
    done = subprocess.run([tool("amtool", "prometheus-alertmanager"), "check-config", place], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_its_dashboards(tmp_path):
    root = tree(SERVICES["grafana"], tmp_path)
    provisioning = root / "etc/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prompt-redis.yaml").read_text())["datasources"]
    name, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()
    assert any(published.endswith(f":{port}") for published in SERVICES[name]["ports"])
    assert source["isDefault"] is True
    # Rates look back four scrapes, so Grafana must know Prometheus's interval.
    prometheus = yaml.safe_load((ROOT / "deploy/compose/prometheus.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == prometheus["global"]["scrape_interval"]

    (provider,) = yaml.safe_load((provisioning / "dashboards/prompt-redis.yaml").read_text())["providers"]
    boards = list((root / provider["options"]["path"].lstrip("/")).glob("*.json"))
    assert {json.loads(board.read_text())["uid"] for board in boards} == {
        "prompt-redis-observing",
        "prompt-redis-capacity",
        "redis-streams",
    }
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (root / home.lstrip("/")) in boards


def test_bootstrap_makes_the_groups(tmp_path, redis):
    service = SERVICES["bootstrap"]
    # Compose writes $$ for a dollar.
    script = service["command"][0].replace("$$", "$")
    client = tmp_path / "redis-cli"
    client.write_text(f'#!/bin/sh\nshift 2\nexec {shlex.join(redis.client)} "$@"\n')
    client.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for _ in range(2):
        done = subprocess.run([*service["entrypoint"], script], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    for instrument in ("hsc", "latiss", "lsstcam"):
        assert f"{instrument}_consumer_group" in redis.cli("XINFO", "GROUPS", f"instrument:{instrument}")

    redis.stop()
    done = subprocess.run([*service["entrypoint"], script], env=environment, capture_output=True, text=True)
    assert done.returncode == 1, "a Redis that does not answer is no success"


def test_the_exporter_watches_what_is_bootstrapped(options):
    environment = SERVICES["exporter"]["environment"]
    assert set(environment) <= set(re.findall(r"\[env: (\w+)\]", options))
    assert environment["PROMPT_REDIS_EXPORTER_STREAM"].split(",") == [
        f"instrument:{name}={name}_consumer_group" for name in ("hsc", "latiss", "lsstcam")
    ]


def test_the_night_plays_on(redis):
    night = built("NIGHT", "target/debug/examples/observing_night", "cargo build --examples")
    command = [part.replace("redis://redis:6379", f"redis://127.0.0.1:{redis.port}") for part in SERVICES["night"]["command"]]
    with subprocess.Popen([night, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        process.terminate()
        process.wait(10)
    assert int(redis.cli("XLEN", "instrument:lsstcam")) >= 172
    # The instruments take turns, so the other's first visit comes later; its group is there.
    assert "latiss_consumer_group" in redis.cli("XINFO", "GROUPS", "instrument:latiss")
