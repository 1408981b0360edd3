"""The chart, rendered by Helm: what it makes, what it refuses, and that it holds no second copy of anything."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator
from conftest import CHART, ROOT, container, find, helm, merge, render, tool, values_file
from helm_python.errors import HelmError

import chart_readme

ENVIRONMENTS = ["values-usdfdev-prompt-processing.yaml", "values-usdfprod-prompt-processing.yaml"]
EVERYTHING = {
    "redis": {
        "urls": ["rediss://redis.prompt-redis:6380"],
        "auth": {"secretName": "redis", "usernameKey": "redis-user"},
        "tls": {"secretName": "redis-tls", "certKey": "tls.crt", "keyKey": "tls.key"},
    },
    "web": {"config": {"secretName": "web", "tls": True}},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "tlsConfig": {"insecureSkipVerify": True}},
    "prometheusRule": {
        "enabled": True,
        "labels": {"release": "prometheus"},
        "grafanaUrl": "https://grafana.example.org",
        "memoryLimitBytes": 8589934592,
    },
    "dashboards": {"configMaps": True, "annotations": {"folder": "Prompt"}, "grafanaOperator": {"enabled": True, "folder": "Prompt"}},
    "networkPolicy": {"scrapers": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]},
    "imagePullSecrets": [{"name": "pull-secret"}],
    "priorityClassName": "important",
    "podAnnotations": {"note": "true"},
    "podLabels": {"prompt-redis-client": "true"},
    "nodeSelector": {"disk": "none"},
    "tolerations": [{"key": "only", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}
CASES = {
    "defaults": {},
    **{name: values_file(name) for name in ENVIRONMENTS},
    "everything": EVERYTHING,
    "PodMonitor": {"podMonitor": {"enabled": True, "basicAuth": {"password": {"name": "web", "key": "password"}}}},
    "PrometheusRule": {"prometheusRule": {"enabled": True}},
    "ConfigMaps": {"dashboards": {"configMaps": True}},
    "GrafanaDashboards": {"dashboards": {"grafanaOperator": {"enabled": True}}},
    "password": {"redis": {"auth": {"secretName": "redis", "username": "exporter"}}},
    "TLS with the system's CAs": {"redis": {"urls": ["rediss://redis"], "tls": {"secretName": "t", "caKey": "", "certKey": "c", "keyKey": "k"}}},
    "web configuration": {"web": {"config": {"secretName": "web"}}},
    "Sentinel": {
        "redis": {"urls": ["redis://s1:26379", "redis://s2:26379"], "sentinelMaster": "prompt"},
        "networkPolicy": {"redisPorts": [6379]},
    },
    "Cluster": {"redis": {"urls": ["redis://c1:7000", "redis://c2:7001"], "cluster": True}},
    "the neutral set": {
        "monitoringSet": "redis-streams",
        "prometheusRule": {"enabled": True, "grafanaUrl": "https://grafana.example.org"},
        "dashboards": {"configMaps": True, "grafanaOperator": {"enabled": True}},
    },
    "nothing optional": {"networkPolicy": {"enabled": False}, "serviceAccount": {"create": False}, "scrapeAnnotations": False, "resources": {}},
    "another name": {"fullnameOverride": "second", "serviceAccount": {"name": "mine"}},
    "a digest": {"image": {"tag": "0.1.0@sha256:" + "0" * 64}},
}
each_case = pytest.mark.parametrize("values", CASES.values(), ids=CASES.keys())


# --- one copy of everything -------------------------------------------------------------------------------------------


def test_rules_and_dashboards_are_links_to_the_repositorys_files():
    wanted = {
        f"alerts/{file.name}": file for file in (ROOT / "alerts").glob("*.yaml") if file.name != "alertmanager.example.yaml"
    } | {f"dashboards/{file.name}": file for file in (ROOT / "dashboards").glob("*.json")}
    found = {str(path.relative_to(CHART / "files")): path for path in (CHART / "files").rglob("*") if not path.is_dir()}
    assert found.keys() == wanted.keys()
    for name, path in found.items():
        assert path.is_symlink(), f"{name} is a copy"
        # Relative and inside the repository, else Argo CD refuses the whole application.
        assert not os.path.isabs(os.readlink(path))
        assert path.resolve() == wanted[name].resolve()


def test_one_version_everywhere():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    image = re.search(r"^ARG PROMPT_REDIS_EXPORTER_VERSION=(.*)$", (ROOT / "Dockerfile").read_text(), re.M)[1]
    application = yaml.safe_load((ROOT / "deploy" / "argocd-application.yaml").read_text())
    assert chart["version"] == version
    assert chart["appVersion"] == version
    assert image == version
    assert application["spec"]["source"]["targetRevision"] == f"v{version}"


def test_readme_is_what_helm_docs_writes():
    message = "README.md is out of date: tests/deploy/chart_readme.py --write"
    assert (CHART / "README.md").read_text() == chart_readme.readme(), message


# What each set consists of: the files of rules, and those of dashboards.
SETS = {
    "prompt-redis": (
        ["prompt-redis.alerts.yaml", "prompt-redis.rules.yaml"],
        ["prompt-redis-capacity.json", "prompt-redis-observing.json"],
    ),
    "redis-streams": (["redis-streams.alerts.yaml"], ["redis-streams.json"]),
}
each_set = pytest.mark.parametrize("name", SETS)


def rules(values: dict) -> dict:
    """The specs of the PrometheusRules, by the last part of their names."""
    objects = render({"prometheusRule": {"enabled": True}, **values})
    rules = [item for item in objects if item["kind"] == "PrometheusRule"]
    return {item["metadata"]["name"].removeprefix("prompt-redis-exporter-"): item["spec"] for item in rules}


@each_set
def test_rules_are_rendered_as_they_are(name):
    specs = rules({"monitoringSet": name})
    assert specs == {file.split(".")[1]: yaml.safe_load((ROOT / "alerts" / file).read_text()) for file in SETS[name][0]}
    # The braces are Prometheus's. If Helm had evaluated them, this would be empty.
    assert "{{ $labels.stream }}" in json.dumps(specs["alerts"])


def test_the_default_set_is_that_of_prompt_processing():
    assert rules({}) == rules({"monitoringSet": "prompt-redis"})


@each_set
@pytest.mark.parametrize("address", ["https://grafana.example.org/x", "https://grafana.example.org/x/"])
def test_a_value_makes_the_links_to_the_dashboards_absolute(name, address):
    specs = rules({"monitoringSet": name, "prometheusRule": {"enabled": True, "grafanaUrl": address}})
    alerts = [rule for group in specs["alerts"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        assert alert["annotations"]["dashboard_url"].startswith("https://grafana.example.org/x/d/"), alert["alert"]


def test_a_value_is_the_memory_limit_of_the_alert():
    alerts = rules({"prometheusRule": {"enabled": True, "memoryLimitBytes": 12884901888}})["alerts"]
    (rule,) = [rule for group in alerts["groups"] for rule in group["rules"] if rule.get("alert") == "PromptRedisMemoryHigh"]
    assert "0 * redis_memory_max_bytes + 12884901888," in rule["expr"]
    assert "4294967296" not in rule["expr"]


@each_set
def test_rendered_rules_pass_promtool(tmp_path, name):
    for item in render({"monitoringSet": name, "prometheusRule": {"enabled": True, "grafanaUrl": "https://grafana"}}):
        if item["kind"] == "PrometheusRule":
            file = tmp_path / f"{item['metadata']['name']}.yaml"
            file.write_text(yaml.safe_dump(item["spec"]))
            done = subprocess.run([tool("promtool", "prometheus"), "check", "rules", file], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr


@each_set
def test_dashboards_are_rendered_as_they_are(name):
    objects = render({"monitoringSet": name, "dashboards": {"configMaps": True}})
    data = {}
    for item in objects:
        if item["kind"] == "ConfigMap":
            assert item["metadata"]["labels"]["grafana_dashboard"] == "1"
            data |= item["data"]
    files = {file: (ROOT / "dashboards" / file).read_text() for file in SETS[name][1]}
    assert {name: text.rstrip("\n") for name, text in data.items()} == {name: text.rstrip("\n") for name, text in files.items()}


def test_nothing_is_too_big_to_apply():
    # `kubectl apply`, and Argo CD by default, keep the whole object in an annotation, and annotations end at 256 KiB.
    for item in render(EVERYTHING):
        assert len(json.dumps(item)) < 250 * 1024, item["metadata"]["name"]


# --- Helm and Kubernetes take it --------------------------------------------------------------------------------------


@each_case
def test_lint(values):
    report = helm.lint(CHART, values, strict=True)
    assert report["errors"] == []
    # 1 is information: the one that there is says that an icon is recommended.
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@each_case
def test_objects_fit_their_schemas(values):
    objects = render(values)
    names = [(item["kind"], item["metadata"]["name"]) for item in objects]
    assert len(names) == len(set(names))
    for item in objects:
        group = item["apiVersion"].split("/")[0]
        if group == "monitoring.coreos.com":
            model = getattr(prometheus_operator, item["kind"]).model_validate(item)
            # The model takes unknown fields and forgets them; so what it remembers must be all.
            remembered = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
            assert remembered["spec"] == item["spec"]
        elif group == "grafana.integreatly.org":
            # No package has its schema. These are the fields of v1beta1, read off its documentation.
            assert item["apiVersion"] == "grafana.integreatly.org/v1beta1"
            assert item["spec"].keys() <= {"instanceSelector", "allowCrossNamespaceImport", "folder", "configMapRef"}
            assert item["spec"]["configMapRef"].keys() == {"name", "key"}
        else:
            # The oldest version that Chart.yaml lets in, and the newest that we have.
            for version in ("1.25.0", kubernetes_validate.latest_version()):
                kubernetes_validate.validate(item, version, strict=True)


@each_case
def test_objects_belong_together(values):
    objects = render(values)
    deployment = find(objects, "Deployment")
    pod = deployment["spec"]["template"]
    selectors = [deployment["spec"]["selector"]["matchLabels"], find(objects, "Service")["spec"]["selector"]]
    for item in objects:
        if item["kind"] == "NetworkPolicy":
            selectors.append(item["spec"]["podSelector"]["matchLabels"])
        if item["kind"] == "PodMonitor":
            selectors.append(item["spec"]["selector"]["matchLabels"])
            # The alert for an exporter that is down goes by this name.
            assert pod["metadata"]["labels"][item["spec"]["jobLabel"]] == "prompt-redis-exporter"
    for selector in selectors:
        assert selector == selectors[0]
        assert selector.items() <= pod["metadata"]["labels"].items()
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    assert ports == {"metrics"}
    accounts = [item["metadata"]["name"] for item in objects if item["kind"] == "ServiceAccount"]
    assert pod["spec"]["serviceAccountName"] in accounts or not accounts
    configmaps = {(item["metadata"]["name"], key) for item in objects if item["kind"] == "ConfigMap" for key in item["data"]}
    for item in objects:
        if item["kind"] == "GrafanaDashboard":
            reference = item["spec"]["configMapRef"]
            assert (reference["name"], reference["key"]) in configmaps


# --- the fewest rights ------------------------------------------------------------------------------------------------


@each_case
def test_pod_has_no_rights_that_it_does_not_need(values):
    objects = render(values)
    spec = find(objects, "Deployment")["spec"]["template"]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "privileged": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()
    for volume in spec.get("volumes", []):
        assert volume.keys() == {"name", "secret"}
        assert volume["secret"]["defaultMode"] == 0o440
    for item in objects:
        if item["kind"] == "ServiceAccount":
            assert item["automountServiceAccountToken"] is False
        assert item["kind"] not in {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Secret"}


def test_user_is_that_of_the_image():
    last = (ROOT / "Dockerfile").read_text().split("AS exporter")[1]
    user = find(render(), "Deployment")["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in last


def test_resources():
    assert container(render())["resources"] == {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}}


@pytest.mark.parametrize(("timeout", "grace"), [("1s", 6), ("5s", 10), ("120s", 125)])
def test_pod_may_end_as_slowly_as_the_exporter_does(timeout, grace):
    objects = render({"redis": {"timeout": timeout}})
    assert find(objects, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == grace


def test_probes():
    probes = container(render())
    assert probes["livenessProbe"]["httpGet"] == {"path": "/-/healthy", "port": "metrics"}
    assert probes["readinessProbe"]["httpGet"] == {"path": "/-/ready", "port": "metrics"}
    # A probe has no password and no client certificate, and the web configuration may ask for either.
    probes = container(render(CASES["web configuration"]))
    for name in ("livenessProbe", "readinessProbe"):
        assert "httpGet" not in probes[name]
        assert probes[name]["tcpSocket"] == {"port": "metrics"}


def policy(values: dict) -> dict:
    """The NetworkPolicy's spec."""
    return find(render(values), "NetworkPolicy")["spec"]


def test_network_policy():
    spec = policy({})
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["ingress"] == [{"ports": [{"port": 10036, "protocol": "TCP"}]}]
    to_redis, to_dns = spec["egress"]
    assert to_redis == {"ports": [{"port": 6379, "protocol": "TCP"}]}
    assert [(port["port"], port["protocol"]) for port in to_dns["ports"]] == [(53, "UDP"), (53, "TCP"), (1053, "UDP"), (1053, "TCP")]


def test_network_policy_with_peers():
    spec = policy(CASES["values-usdfprod-prompt-processing.yaml"])
    (peer,) = spec["egress"][0]["to"]
    assert peer["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "prompt-redis"}}
    assert peer["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "redis"}}
    assert policy(EVERYTHING)["ingress"][0]["from"] == EVERYTHING["networkPolicy"]["scrapers"]


@pytest.mark.parametrize(
    ("urls", "more", "ports"),
    [
        (["redis://redis"], [], [6379]),
        (["redis://redis/3"], [], [6379]),
        (["redis://user@redis:6380/3"], [], [6380]),
        (["redis://[::1]"], [], [6379]),
        (["redis://[fe80::1]:7000?protocol=resp3"], [], [7000]),
        (["redis://a:7001", "redis://b:7000", "redis://c"], [7001, 7002], [6379, 7000, 7001, 7002]),
    ],
)
def test_network_policy_lets_out_to_the_ports_of_the_urls(urls, more, ports):
    spec = policy({"redis": {"urls": urls, "cluster": True}, "networkPolicy": {"redisPorts": more}})
    assert [port["port"] for port in spec["egress"][0]["ports"]] == ports


# --- scraping ---------------------------------------------------------------------------------------------------------


def annotations(values: dict) -> dict:
    """The pod's scrape annotations."""
    written = find(render(values), "Deployment")["spec"]["template"]["metadata"]["annotations"]
    return {name: value for name, value in written.items() if name.startswith("prometheus.io/")}


def test_scraped_once():
    asked = {"prometheus.io/scrape": "true", "prometheus.io/port": "10036", "prometheus.io/path": "/metrics"}
    assert annotations({}) == asked
    assert annotations({"web": {"telemetryPath": "/m"}}) == asked | {"prometheus.io/path": "/m"}
    assert annotations({"scrapeAnnotations": False}) == {}
    assert annotations(CASES["PodMonitor"]) == {}
    assert annotations({"web": {"config": {"secretName": "web", "tls": True}}}) == asked | {"prometheus.io/scheme": "https"}
    assert "annotations" not in find(render(), "Service")["metadata"]


def test_pod_monitor():
    (endpoint,) = find(render(CASES["PodMonitor"]), "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint == {
        "port": "metrics",
        "path": "/metrics",
        "scheme": "http",
        "interval": "15s",
        "scrapeTimeout": "10s",
        # A new pod continues the series of the one before it.
        "relabelings": [
            {"sourceLabels": ["namespace"], "targetLabel": "instance", "replacement": "$1/prompt-redis-exporter"},
            {"action": "labeldrop", "regex": "pod|container"},
        ],
        "basicAuth": {"password": {"name": "web", "key": "password"}},
    }
    (endpoint,) = find(render(EVERYTHING), "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["scheme"] == "https"


def test_a_dashboard_is_imported_once():
    # The operator reads the ConfigMap by name; the sidecar's label would make Grafana import it a second time.
    for item in render(CASES["GrafanaDashboards"]):
        if item["kind"] == "ConfigMap":
            assert "grafana_dashboard" not in item["metadata"]["labels"]


# --- where it goes ----------------------------------------------------------------------------------------------------


def environment(objects: list[dict]) -> dict:
    """The container's plain variables, without the prefix that they share."""
    return {item["name"].removeprefix("PROMPT_REDIS_EXPORTER_"): item.get("value") for item in container(objects)["env"]}


def test_values_of_the_environments():
    dev, prod = (environment(render(values_file(name))) for name in ENVIRONMENTS)
    groups = [f"instrument:{name}={name}_consumer_group" for name in ("hsc", "latiss", "lsstcam")]
    assert dev["STREAM"].split(",") == groups
    assert prod["STREAM"].split(",") == groups[2:]
    for variables in (dev, prod):
        assert variables["REDIS_URL"] == "redis://prompt-redis.prompt-redis:6379"
    for name in ENVIRONMENTS:
        # SQuaRE's redis chart lets in pods with this label only.
        labels = find(render(values_file(name)), "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert labels["prompt-redis-client"] == "true"


def parent(folder: pathlib.Path, chart: pathlib.Path = CHART) -> pathlib.Path:
    """A chart as Phalanx's prompt-redis, with ours among its charts."""
    path = folder / "prompt-redis"
    (path / "charts").mkdir(parents=True)
    (path / "Chart.yaml").write_text(
        "apiVersion: v2\nname: prompt-redis\nversion: 1.0.0\n"
        "dependencies:\n  - name: prompt-redis-exporter\n    version: '*'\n    condition: prompt-redis-exporter.enabled\n"
    )
    (path / "values.yaml").write_text('global:\n  host: ""\n  baseUrl: ""\n  vaultSecretsPath: ""\n')
    shutil.copytree(chart, path / "charts" / "prompt-redis-exporter")
    return path


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_as_a_subchart_of_prompt_redis(tmp_path, name):
    alone = render(values_file(name))
    chart = parent(tmp_path)
    assert render({"prompt-redis-exporter": values_file(name)}, chart) == alone
    assert render({"prompt-redis-exporter": {"enabled": False}}, chart) == []


def test_the_packaged_chart_holds_the_files(tmp_path):
    archive = helm.package(CHART, destination=tmp_path)
    with tarfile.open(archive) as package:
        assert all(member.isfile() for member in package.getmembers())
        package.extractall(tmp_path, filter="data")
    assert render(EVERYTHING, tmp_path / "prompt-redis-exporter") == render(EVERYTHING)


def test_a_copy_with_broken_links_is_refused(tmp_path):
    shutil.copytree(CHART, tmp_path / "chart", symlinks=True)
    with pytest.raises(HelmError):
        render(EVERYTHING, tmp_path / "chart")


def test_a_copy_with_links_made_text_is_refused(tmp_path):
    # What a checkout without symbolic links leaves: a small file with the link's target in it.
    shutil.copytree(CHART, tmp_path / "chart")
    for file in (tmp_path / "chart" / "files").rglob("*.*"):
        file.write_text("../../../../alerts/prompt-redis.alerts.yaml")
    with pytest.raises(HelmError, match="links into the repository"):
        render({"prometheusRule": {"enabled": True}}, tmp_path / "chart")
    with pytest.raises(HelmError, match="links into the repository"):
        render({"dashboards": {"configMaps": True}}, tmp_path / "chart")


def test_argocd_application():
    application = yaml.safe_load((ROOT / "deploy" / "argocd-application.yaml").read_text())
    assert (application["apiVersion"], application["kind"]) == ("argoproj.io/v1alpha1", "Application")
    spec = application["spec"]
    assert spec.keys() == {"project", "destination", "source", "syncPolicy"}
    assert (ROOT / spec["source"]["path"]).samefile(CHART)
    values: dict = {}
    for name in spec["source"]["helm"]["valueFiles"]:
        values = merge(values, values_file(name))
    render(merge(values, spec["source"]["helm"]["valuesObject"]))


def test_values_in_the_documents_render(tmp_path):
    text = (ROOT / "docs" / "phalanx.md").read_text()
    chart = parent(tmp_path)
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M)]
    blocks = [block for block in blocks if isinstance(block, dict) and "prompt-redis-exporter" in block]
    assert blocks, "docs/phalanx.md shows no values"
    for block in blocks:
        render(block, chart)
    for name in ENVIRONMENTS:
        assert {"prompt-redis-exporter": values_file(name)} in blocks, f"docs/phalanx.md does not show {name}"


def test_the_network_policy_of_the_keda_document_lets_the_operator_in():
    text = (ROOT / "docs" / "keda.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M)]
    (values,) = [block for block in blocks if "networkPolicy" in block]
    (rule,) = policy(values)["ingress"]
    assert rule["ports"] == [{"port": 10036, "protocol": "TCP"}]
    assert any(peer.get("podSelector", {}).get("matchLabels") == {"app.kubernetes.io/name": "keda-operator"} for peer in rule["from"])
    # The address that its triggers use is that of the Service in Redis's namespace.
    service = find(render(), "Service")
    address = f"http://{service['metadata']['name']}.prompt-redis:{service['spec']['ports'][0]['port']}/metrics"
    jobs = [block for block in blocks if "triggers" in block.get("spec", {})]
    triggers = [trigger for job in jobs for trigger in job["spec"]["triggers"] if trigger["type"] == "metrics-api"]
    assert [trigger["metadata"]["url"] for trigger in triggers] == [address] * len(jobs)


def test_the_oci_dependency_of_the_phalanx_document_is_this_chart():
    text = (ROOT / "docs" / "phalanx.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M)]
    (dependency,) = [block["dependencies"][0] for block in blocks if "dependencies" in block]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (dependency["name"], str(dependency["version"])) == (chart["name"], chart["version"])
    # Where the release workflow pushes it.
    assert dependency["repository"].startswith("oci://ghcr.io/") and dependency["repository"].endswith("/charts")


def test_series_in_the_documents_exist():
    text = (ROOT / "docs" / "phalanx.md").read_text().split("## Series")[1]
    known = (ROOT / "docs" / "metrics.md").read_text()
    new = [name for row in re.findall(r"^\| `.*", text, re.M) for name in re.findall(r"`(redis_\w+|prompt_\w+)`", row.split("|")[2])]
    assert "redis_stream_group_lag" in new
    for name in new:
        assert f"`{name}`" in known, f"{name} is no metric of ours"


# --- wrong values -----------------------------------------------------------------------------------------------------

SCHEMA_REFUSES = [
    ({"redisUrl": "redis://x"}, "redisUrl"),
    ({"redis": {"url": "redis://x"}}, "url"),
    ({"redis": {"urls": "redis://x"}}, "urls"),
    ({"redis": {"urls": []}}, "urls"),
    ({"redis": {"urls": ["prompt-redis:6379"]}}, "urls/0"),
    ({"redis": {"timeout": 5}}, "timeout"),
    ({"redis": {"timeout": "500ms"}}, "timeout"),
    ({"redis": {"cluster": "yes"}}, "cluster"),
    ({"redis": {"auth": {"password": "secret"}}}, "password"),
    ({"redis": {"auth": {"secretName": "Not_A_Name"}}}, "secretName"),
    ({"streams": []}, "streams"),
    ({"streams": "instrument:lsstcam"}, "streams"),
    ({"collector": {"undeliveredMax": -1}}, "undeliveredMax"),
    ({"collector": {"undeliveredMax": "many"}}, "undeliveredMax"),
    ({"log": {"level": "verbose"}}, "level"),
    ({"log": {"format": "text"}}, "format"),
    ({"web": {"telemetryPath": "metrics"}}, "telemetryPath"),
    ({"image": {"tag": "a tag"}}, "tag"),
    ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    ({"podMonitor": {"interval": 15}}, "interval"),
    ({"podMonitor": {"interval": "60s"}}, "interval"),
    ({"podMonitor": {"interval": "1m"}}, "interval"),
    ({"podLabels": {"prompt-redis-client": True}}, "prompt-redis-client"),
    ({"networkPolicy": {"redisPorts": ["6379"]}}, "redisPorts"),
    ({"networkPolicy": {"scrapers": [{}]}}, "scrapers/0"),
    ({"networkPolicy": {"dnsPorts": [0]}}, "dnsPorts"),
    ({"monitoringSet": "both"}, "monitoringSet"),
    ({"prometheusRule": {"grafanaUrl": "grafana.example.org"}}, "grafanaUrl"),
    ({"prometheusRule": {"grafanaUrl": "https://grafana'"}}, "grafanaUrl"),
    ({"prometheusRule": {"memoryLimitBytes": "4Gi"}}, "memoryLimitBytes"),
    ({"replicaCount": 2}, "replicaCount"),
    ({"sleepInterval": 2}, "sleepInterval"),
    ({"auth": {"enabled": False}}, "auth"),
]


@pytest.mark.parametrize(("values", "word"), SCHEMA_REFUSES, ids=[json.dumps(values) for values, _ in SCHEMA_REFUSES])
def test_the_schema_refuses(values, word):
    with pytest.raises(HelmError) as refusal:
        render(values)
    assert "don't meet the specifications of the schema" in str(refusal.value)
    assert word in str(refusal.value)


TEMPLATES_REFUSE = [
    ({"redis": {"urls": ["redis://:secret@redis"]}}, "holds a password"),
    ({"redis": {"urls": ["redis://user:secret@redis:6379"]}}, "redis.auth.secretName"),
    ({"redis": {"urls": ["redis://a", "redis://b"]}}, "redis.sentinelMaster or redis.cluster"),
    ({"redis": {"urls": ["redis://a"], "sentinelMaster": "m", "cluster": True}}, "one or the other"),
    ({"redis": {"urls": ["redis://a:26379"], "sentinelMaster": "m"}}, "networkPolicy.redisPorts"),
    ({"redis": {"urls": ["redis://a,redis://b"]}}, "no commas"),
    ({"streams": ["a,b"]}, "no commas"),
    ({"podMonitor": {"interval": "5s"}}, "longer than podMonitor.interval 5s"),
    ({"redis": {"tls": {"secretName": "tls"}}}, "rediss://"),
    ({"redis": {"urls": ["rediss://a"], "tls": {"secretName": "tls", "certKey": "tls.crt"}}}, "both or neither"),
    ({"redis": {"urls": ["rediss://a"], "tls": {"certKey": "tls.crt", "keyKey": "tls.key"}}}, "redis.tls.secretName"),
    ({"redis": {"auth": {"secretName": "s", "username": "a", "usernameKey": "b"}}}, "one or the other"),
    ({"redis": {"auth": {"usernameKey": "b"}}}, "redis.auth.secretName"),
    ({"web": {"config": {"tls": True}}}, "web.config.secretName"),
]


@pytest.mark.parametrize(("values", "words"), TEMPLATES_REFUSE, ids=[json.dumps(values) for values, _ in TEMPLATES_REFUSE])
def test_the_templates_refuse(values, words):
    with pytest.raises(HelmError) as refusal:
        render(values)
    assert words in str(refusal.value)
    assert "secret@" not in str(refusal.value), "the refusal tells the password"


def test_the_schema_knows_every_value_and_no_other():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def compare(properties: dict, values: dict, path: str) -> None:
        # `global` is a parent's, never ours.
        assert properties.keys() - {"global"} == values.keys() or path == "resources", path
        for key, value in values.items():
            inner = properties[key]
            if isinstance(value, dict) and "properties" in inner:
                assert inner["additionalProperties"] is False, f"{path}.{key}"
                compare(inner["properties"], value, key)

    compare(schema["properties"], yaml.safe_load((CHART / "values.yaml").read_text()), "")
    assert schema["additionalProperties"] is False


# --- notes ------------------------------------------------------------------------------------------------------------


def test_notes_are_short():
    with helm.Chart.load(CHART) as chart:
        notes = chart.render({}, name="prompt-redis", namespace="there")["prompt-redis-exporter/templates/NOTES.txt"]
    assert len(notes.splitlines()) <= 12
    assert "kubectl -n there port-forward deploy/prompt-redis-exporter 10036" in notes
