"""What the tests share: the repository's places, the chart rendered by Helm itself, a Redis and the exporter as processes.

A missing tool fails with the command that installs it. Nothing is skipped.
"""

from __future__ import annotations

import base64
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "prompt-redis-exporter"

sys.path.insert(0, str(pathlib.Path(__file__).parent))

try:
    from helm_python import chart as helm
except ImportError as error:
    pytest.exit(f"{error}: pip install -r tests/deploy/requirements.txt", returncode=2)


def tool(name: str, package: str) -> str:
    """The path of a program, or a failure that says how to get it."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"{name} is missing: apt-get install --no-install-recommends {package}")
    return path


def built(variable: str, default: str, command: str) -> pathlib.Path:
    """A program of this repository: where the variable says, or where a debug build leaves it."""
    path = pathlib.Path(os.environ.get(variable) or ROOT / default)
    path = path if path.is_absolute() else ROOT / path
    if not os.access(path, os.X_OK):
        pytest.fail(f"{path} is missing: {command}, or say where it is with {variable}")
    return path


@pytest.fixture(scope="session")
def exporter() -> pathlib.Path:
    """The built exporter."""
    return built("EXPORTER", "target/debug/prompt-redis-exporter", "cargo build")


@pytest.fixture(scope="session")
def options(exporter: pathlib.Path) -> str:
    """What the exporter's help says."""
    return subprocess.run([exporter, "--help"], capture_output=True, text=True, check=True, env={}).stdout


def merge(under: dict, over: dict) -> dict:
    """Values as Helm puts several files together: maps are merged, anything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def values_file(name: str) -> dict:
    """One of the chart's values files."""
    return yaml.safe_load((CHART / name).read_text())


def render(values: dict | None = None, chart: pathlib.Path = CHART) -> list[dict]:
    """The objects that Helm makes of the chart, in a release as Phalanx's."""
    with helm.Chart.load(chart) as loaded:
        texts = loaded.render(values or {}, name="prompt-redis", namespace="prompt-redis")
    objects = []
    for name, text in sorted(texts.items()):
        if not name.endswith("NOTES.txt"):
            objects += [document for document in yaml.safe_load_all(text) if document]
    return objects


def find(objects: list[dict], kind: str) -> dict:
    """The one object of a kind."""
    found = [item for item in objects if item["kind"] == kind]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def container(objects: list[dict]) -> dict:
    """The exporter's container."""
    (only,) = find(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return only


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what: str, check, seconds: float = 15):
    """Asks until there is an answer."""
    end = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"{what}: not within {seconds} s")
        time.sleep(0.05)


@pytest.fixture
def folder():
    """A folder that another user may enter, which pytest's own are not."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="deploy-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


class Redis:
    """A redis-server on a port of its own."""

    def __init__(self, folder: pathlib.Path, *arguments: str, tls: pathlib.Path | None = None, password: str = "") -> None:
        self.port = free_port()
        self.client = [tool("redis-cli", "redis-tools"), "-p", str(self.port)]
        port = ["--port", str(self.port)]
        if tls:
            port = ["--port", "0", "--tls-port", str(self.port)]
            for option, file in (("tls-ca-cert-file", "ca.crt"), ("tls-cert-file", "server.crt"), ("tls-key-file", "server.key")):
                port += [f"--{option}", str(tls / file)]
            self.client += ["--tls", "--cacert", f"{tls}/ca.crt", "--cert", f"{tls}/tls.crt", "--key", f"{tls}/tls.key"]
        if password:
            self.client += ["-a", password, "--no-auth-warning"]
        server = [tool("redis-server", "redis-server"), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
        self.process = subprocess.Popen([*server, *port, *arguments], stdout=subprocess.DEVNULL)
        until("redis-server answers", lambda: self.cli("PING") == "PONG")

    def cli(self, *command: str) -> str:
        """What redis-cli says."""
        return subprocess.run([*self.client, *command], capture_output=True, text=True).stdout.strip()

    def stop(self) -> None:
        """Ends it, and waits for that."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(folder):
    """A plain Redis."""
    server = Redis(folder)
    yield server
    server.stop()


class Pod:
    """The exporter as the rendered Deployment would start it: its environment, its Secrets, its user where we may.

    What Kubernetes would do and this does not: the image, the network, the probes' timing, a read-only root.
    """

    USER = 65532

    def __init__(self, exporter: pathlib.Path, folder: pathlib.Path, objects: list[dict], secrets: dict | None = None) -> None:
        deployment = find(objects, "Deployment")
        self.spec = deployment["spec"]["template"]["spec"]
        self.annotations = deployment["spec"]["template"]["metadata"].get("annotations", {})
        self.container = container(objects)
        self.folder = folder
        self.secrets = secrets or {}
        self.program = folder / "prompt-redis-exporter"
        shutil.copy(exporter, self.program)
        self.port = free_port()
        self.environment = self._environment()
        self._mount()
        # The port is the only thing that is not as rendered: another exporter may have it on this machine.
        self.environment["PROMPT_REDIS_EXPORTER_WEB_LISTEN_ADDRESS"] = f"127.0.0.1:{self.port}"
        self.user = {"user": self.USER, "group": self.USER, "extra_groups": []} if os.getuid() == 0 else {}
        self.log = folder / "exporter.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [self.program, *self.container.get("args", [])],
                env=self.environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self.user,
            )

    def _environment(self) -> dict[str, str]:
        environment = {}
        for variable in self.container["env"]:
            value = variable.get("value")
            if value is None:
                reference = variable["valueFrom"]["secretKeyRef"]
                value = self.secrets[reference["name"]][reference["key"]]
            assert variable["name"] not in environment, f"{variable['name']} twice"
            environment[variable["name"]] = value
        return environment

    def _mount(self) -> None:
        volumes = {volume["name"]: volume["secret"] for volume in self.spec.get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            assert mount["readOnly"]
            volume = volumes[mount["name"]]
            secret = self.secrets[volume["secretName"]]
            place = self.folder / "mounts" / mount["mountPath"].lstrip("/")
            place.mkdir(parents=True)
            items = volume.get("items") or [{"key": key, "path": key} for key in secret]
            for item in items:
                file = place / item["path"]
                file.write_text(secret[item["key"]])
                file.chmod(volume["defaultMode"])
                if os.getuid() == 0:
                    os.chown(file, 0, self.spec["securityContext"]["fsGroup"])
            for name, value in self.environment.items():
                if value.startswith(mount["mountPath"] + "/"):
                    self.environment[name] = str(place) + value.removeprefix(mount["mountPath"])

    def get(self, path: str, login: str = "", tls: ssl.SSLContext | None = None) -> tuple[int, str]:
        """Status and body of a page; status 0 while nothing listens."""
        request = urllib.request.Request(f"{'https' if tls else 'http'}://127.0.0.1:{self.port}{path}")
        if login:
            request.add_header("Authorization", "Basic " + base64.b64encode(login.encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=5, context=tls) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metrics(self) -> dict[str, float]:
        """The samples of the page at the path that the annotation names."""
        path = self.annotations.get("prometheus.io/path", "/metrics")
        status, page = until(f"the exporter answers; its log: {self.said()}", lambda: self._answer(path))
        assert status == 200
        lines = (line.rsplit(" ", 1) for line in page.splitlines() if line and not line.startswith("#"))
        return {series: float(value) for series, value in lines}

    def _answer(self, path: str):
        if self.process.poll() is not None:
            pytest.fail(f"the exporter ended with status {self.process.returncode}: {self.said()}")
        answer = self.get(path)
        return answer if answer[0] else None

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def stop(self) -> float:
        """Ends it as Kubernetes does, and says how many seconds it took."""
        if self.process.poll() is None:
            begun = time.monotonic()
            self.process.terminate()
            try:
                assert self.process.wait(self.spec["terminationGracePeriodSeconds"]) == 0
            finally:
                self.process.kill()
                self.process.wait()
            return time.monotonic() - begun
        return 0


@pytest.fixture
def pod(exporter, folder):
    """Starts pods, and ends them."""
    pods = []

    def start(objects: list[dict], secrets: dict | None = None) -> Pod:
        place = folder / f"pod-{len(pods)}"
        place.mkdir()
        pods.append(Pod(exporter, place, objects, secrets))
        return pods[-1]

    yield start
    for each in pods:
        each.stop()
