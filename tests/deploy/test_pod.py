"""What the chart renders, started as a real process against a real Redis."""

from __future__ import annotations

import re
import ssl
import subprocess

import pytest
from conftest import Redis, container, free_port, merge, render, tool, until, values_file
from test_chart import CASES, ENVIRONMENTS


@pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())
def test_every_variable_is_an_option_of_the_exporter(values, options):
    known = set(re.findall(r"\[env: (\w+)\]", options))
    assert known, "the help text names no variables"
    used = {variable["name"] for variable in container(render(values))["env"]}
    assert used <= known, f"the exporter does not know {sorted(used - known)}"


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environment(name, pod, redis):
    values = merge(values_file(name), {"redis": {"urls": [f"redis://127.0.0.1:{redis.port}"]}})
    groups = [stream.split("=") for stream in values["streams"]]
    running = pod(render(values))

    samples = running.metrics()
    assert samples["redis_up"] == 1
    for stream, group in groups:
        assert samples[f'redis_stream_group_exists{{stream="{stream}",group="{group}"}}'] == 0

    for stream, group in groups:
        assert redis.cli("XGROUP", "CREATE", stream, group, "$", "MKSTREAM") == "OK"
        redis.cli("XADD", stream, "*", "detector", "1")
    samples = running.metrics()
    for stream, group in groups:
        assert samples[f'redis_stream_group_exists{{stream="{stream}",group="{group}"}}'] == 1
        assert samples[f'redis_stream_group_messages_undelivered{{stream="{stream}",group="{group}"}}'] == 1

    assert samples["process_resident_memory_bytes"] > 0
    for probe in ("livenessProbe", "readinessProbe"):
        assert running.get(running.container[probe]["httpGet"]["path"])[0] == 200

    redis.stop()
    # Neither Redis nor the pod is of use to anybody if the pod goes when Redis does.
    assert running.metrics()["redis_up"] == 0
    for probe in ("livenessProbe", "readinessProbe"):
        assert running.get(running.container[probe]["httpGet"]["path"])[0] == 200
    assert running.stop() < 5


def test_defaults_find_instruments(pod, redis):
    redis.cli("XGROUP", "CREATE", "instrument:lsstcam", "lsstcam_consumer_group", "$", "MKSTREAM")
    redis.cli("XGROUP", "CREATE", "something:else", "group", "$", "MKSTREAM")
    samples = pod(render({"redis": {"urls": [f"redis://127.0.0.1:{redis.port}"]}})).metrics()
    assert samples['redis_stream_exists{stream="instrument:lsstcam"}'] == 1
    assert 'redis_stream_exists{stream="something:else"}' not in samples


def test_every_plain_value_arrives(pod, redis):
    redis.cli("XGROUP", "CREATE", "instrument:lsstcam", "group", "$", "MKSTREAM")
    redis.cli("XADD", "instrument:lsstcam", "*", "detector", "1")
    redis.cli("XREADGROUP", "GROUP", "group", "worker", "COUNT", "1", "STREAMS", "instrument:lsstcam", ">")
    values = {
        "redis": {"urls": [f"redis://127.0.0.1:{redis.port}"], "timeout": "2s"},
        "collector": {"server": False, "consumers": True, "consumersMax": 5, "undeliveredMax": 10},
        "web": {"telemetryPath": "/other"},
        "log": {"level": "debug", "format": "json"},
    }
    running = pod(render(values))
    samples = running.metrics()
    assert running.annotations["prometheus.io/path"] == "/other"
    assert running.get("/metrics")[0] == 404
    assert "redis_memory_used_bytes" not in samples
    assert samples['redis_stream_group_consumer_messages_pending{stream="instrument:lsstcam",group="group",consumer="worker"}'] == 1
    assert running.said().startswith("{")


@pytest.mark.parametrize("key", ["username", "usernameKey"])
def test_password_from_a_secret(key, pod, folder):
    server = Redis(folder, password="the default user's")
    try:
        server.cli("ACL", "SETUSER", "exporter", "on", ">first", "~*", "+@all")
        secrets = {"redis": {"user": "exporter", "redis-password": "first\n", "something-else": "not for us"}}
        auth = {"secretName": "redis", key: "exporter" if key == "username" else "user"}
        objects = render({"redis": {"urls": [f"redis://127.0.0.1:{server.port}"], "auth": auth}})
        running = pod(objects, secrets)
        assert running.metrics()["redis_up"] == 1

        # Only the password is mounted, not the whole Secret.
        password = running.folder / "mounts/etc/prompt-redis-exporter/auth/redis-password"
        assert list(password.parent.iterdir()) == [password]

        # Kubernetes updates a mounted Secret only where it is not mounted by subPath. That the exporter reads the file
        # again is tested in tests/it/failure.rs.
        assert not any("subPath" in mount for mount in running.container["volumeMounts"])
        assert "first" not in running.said()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A CA, a server's certificate for 127.0.0.1, and a client's."""
    folder = tmp_path_factory.mktemp("certificates")

    def openssl(*arguments: str) -> None:
        subprocess.run([tool("openssl", "openssl"), *arguments], check=True, capture_output=True, cwd=folder)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=Test CA", "-days", "2")
    for name, extension in (
        ("server", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth"),
        ("tls", "extendedKeyUsage=clientAuth"),
    ):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (folder / f"{name}.ext").write_text(f"basicConstraints=CA:FALSE\n{extension}\n")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-out", f"{name}.crt", "-days", "2", "-extfile", f"{name}.ext"),
        )
    return folder


def test_tls_from_a_secret(certificates, pod, folder):
    server = Redis(folder, "--tls-auth-clients", "yes", tls=certificates)
    try:
        values = {
            "redis": {
                "urls": [f"rediss://127.0.0.1:{server.port}"],
                "tls": {"secretName": "redis-tls", "certKey": "tls.crt", "keyKey": "tls.key"},
            }
        }
        secrets = {"redis-tls": {name: (certificates / name).read_text() for name in ("ca.crt", "tls.crt", "tls.key")}}
        assert pod(render(values), secrets).metrics()["redis_up"] == 1
    finally:
        server.stop()


@pytest.mark.parametrize(("case", "variable", "value"), [("Sentinel", "SENTINEL_MASTER", "prompt"), ("Cluster", "CLUSTER", "true")])
def test_several_urls(case, variable, value, pod):
    # What the exporter does with them is tested in tests/it/topology.rs. Here: it takes them for what they are.
    urls = [f"redis://127.0.0.1:{free_port()}" for _ in range(2)]
    running = pod(render(merge(CASES[case], {"redis": {"urls": urls}})))
    assert running.environment["PROMPT_REDIS_EXPORTER_REDIS_URL"].split(",") == urls
    assert running.environment[f"PROMPT_REDIS_EXPORTER_REDIS_{variable}"] == value
    assert running.metrics()["redis_up"] == 0
    assert {"Sentinel": "of the Sentinels", "Cluster": "the Cluster of"}[case] in running.said()


def test_web_configuration_from_a_secret(certificates, pod, redis):
    # The password is "test". Its hash is made with the lowest cost, to be quick.
    written = """
tls_server_config:
  cert_file: server.crt
  key_file: server.key
basic_auth_users:
  prometheus: $2b$04$iOVBWRHIoU4UoGPsXZf47evU6.9MgUumLdlHUr55fncraef6Nrxmy
"""
    secret = {"web.yaml": written} | {name: (certificates / name).read_text() for name in ("server.crt", "server.key")}
    values = {"redis": {"urls": [f"redis://127.0.0.1:{redis.port}"]}, "web": {"config": {"secretName": "web", "tls": True}}}
    running = pod(render(values), {"web": secret})
    assert running.annotations["prometheus.io/scheme"] == "https"
    trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))

    def page(login: str = "") -> tuple[int, str]:
        assert running.process.poll() is None, running.said()
        return running.get("/metrics", login, trust)

    until("it answers over TLS", lambda: page()[0] != 0)
    assert page()[0] == 401
    assert page("prometheus:wrong")[0] == 401
    status, text = page("prometheus:test")
    assert status == 200
    assert "redis_up 1\n" in text
