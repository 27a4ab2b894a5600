"""What refers to something finds it: selectors, autoscalers, budgets, monitors; and the steps in which all applies."""

import re
from collections import Counter
from typing import Any

import pytest
import yaml
from deploy.kustomization import KUBERNETES, OVERLAYS, ROOT, SERVICES, Manifests, Object, manifests, secrets_of

from aragora.contracts.topology import CONSUMERS, METERING_WORKERS
from billing.payments import TURNS
from metering.limit_desk import LANES

STEPS = ("ground", "jobs", "processes")
FIELDS_OF_OPERATORS = {
    "Cluster": ("instances", "storage", "postgresql.synchronous", "managed.roles", "plugins"),
    "Database": ("name", "owner", "cluster.name"),
    "ObjectStore": ("configuration.destinationPath", "configuration.wal", "retentionPolicy"),
    "ScheduledBackup": ("schedule", "cluster.name", "method", "pluginConfiguration.name"),
    "ScaledObject": ("scaleTargetRef.name", "minReplicaCount", "maxReplicaCount", "triggers"),
    "ServiceMonitor": ("selector", "endpoints"),
    "PodMonitor": ("selector", "podMetricsEndpoints"),
    "PrometheusRule": ("groups",),
}
"""What the schemas of operators require, and what we count on: kubernetes-validate knows only Kubernetes' own kinds."""


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Manifests:
    return manifests(request.param)


@pytest.fixture(scope="module")
def production() -> Manifests:
    return manifests("production")


def at(one: Any, path: str) -> Any:
    for key in path.split("."):
        one = one[key]
    return one


def test_a_service_leads_to_its_api_and_to_nobody_else(rendered: Manifests):
    for service in SERVICES:
        spec = rendered.named("Service", service)["spec"]
        assert [pod.name for pod in rendered.selected({"matchLabels": spec["selector"]})] == [f"{service}-api"]
        assert spec["ports"] == [{"name": "http", "port": 8000, "targetPort": "http"}]


def test_services_lead_to_ports_that_are_listened_on(rendered: Manifests):
    for service in rendered.of("Service"):
        (pod,) = rendered.selected({"matchLabels": service["spec"]["selector"]})
        ports = {each["name"]: each["containerPort"] for each in pod.container["ports"]}
        assert all(ports[each["targetPort"]] == each["port"] for each in service["spec"]["ports"])


def test_each_process_has_a_budget_of_its_own(rendered: Manifests):
    covered = Counter(
        pod.name
        for budget in rendered.of("PodDisruptionBudget")
        for pod in rendered.selected(budget["spec"]["selector"])
    )
    assert covered == Counter({pod.name: 1 for pod in rendered.pods("Deployment")} | {"nats": 1})
    assert all(budget["spec"]["maxUnavailable"] == 1 for budget in rendered.of("PodDisruptionBudget"))


def test_pods_are_spread_with_their_like(rendered: Manifests):
    for pod in rendered.pods("Deployment"):
        for constraint in pod.spec["topologySpreadConstraints"]:
            same = {key: pod.labels[key] for key in constraint["matchLabelKeys"] if key != "pod-template-hash"}
            assert pod in rendered.selected(constraint["labelSelector"])
            assert [one.name for one in rendered.selected({"matchLabels": same})] == [pod.name]


def test_names_and_selectors_of_workloads_agree(rendered: Manifests):
    for workload in rendered.of("Deployment", "StatefulSet"):
        assert [pod.name for pod in rendered.selected(workload["spec"]["selector"])] == [workload["metadata"]["name"]]
    assert rendered.named("StatefulSet", "nats")["spec"]["serviceName"] == "nats-cluster"


def test_one_scaler_for_a_process_and_no_replicas_beside_it(production: Manifests):
    scaled = Counter(
        one["spec"]["scaleTargetRef"]["name"] for one in production.of("HorizontalPodAutoscaler", "ScaledObject")
    )
    assert scaled == Counter([*(f"{service}-api" for service in SERVICES), "metering-worker"])
    fixed = {one["metadata"]["name"] for one in production.of("Deployment") if "replicas" in one["spec"]}
    assert fixed == {"auth-worker", "billing-worker", "notifier-worker"}


def test_metering_workers_are_scaled_by_their_consumers(production: Manifests):
    (scaler,) = production.of("ScaledObject")
    triggers = [one["metadata"] for one in scaler["spec"]["triggers"]]
    assert [(one["stream"], one["consumer"]) for one in triggers] == [
        (one.stream, one.name) for one in METERING_WORKERS
    ]
    assert set(METERING_WORKERS) <= set(CONSUMERS)
    assert {one["natsServerMonitoringEndpoint"] for one in triggers} == {"nats.aragora.svc.cluster.local:8222"}
    behind = {each["port"] for each in production.named("Service", "nats")["spec"]["ports"]}
    assert behind == {4222, 8222}


def test_monitors_see_every_process_once(production: Manifests):
    services = [
        service
        for monitor in production.of("ServiceMonitor")
        for service in production.of("Service")
        if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    ]
    seen = [pod.name for one in services for pod in production.selected({"matchLabels": one["spec"]["selector"]})]
    for monitor in production.of("PodMonitor"):
        seen += [pod.name for pod in production.selected(monitor["spec"]["selector"])]
    assert Counter(seen) == Counter(pod.name for pod in production.pods("Deployment", "StatefulSet"))
    endpoints = [
        each
        for one in production.of("ServiceMonitor", "PodMonitor")
        if one["metadata"]["name"].startswith("aragora")
        for each in (one["spec"].get("endpoints") or one["spec"]["podMetricsEndpoints"])
    ]
    assert all((each["port"], each["path"]) == ("http", "/metrics") for each in endpoints)
    labels = [{one["targetLabel"] for one in each["relabelings"]} for each in endpoints]
    assert labels == [{"job", "service", "role"}] * 2


def test_the_alert_rules_are_those_of_the_observability_folder(production: Manifests):
    (rule,) = production.of("PrometheusRule")
    written = yaml.safe_load((ROOT / "deploy/observability/rules/aragora.yml").read_text())
    assert rule["spec"] == written, "run `make prometheus-rule`"


def test_every_dashboard_is_carried(production: Manifests):
    carried = production.named("ConfigMap", "aragora-dashboards").get("data", {})
    files = {path.name: path.read_text() for path in ROOT.glob("deploy/observability/grafana/dashboards/*.json")}
    assert carried == files


def test_each_object_belongs_to_one_step(rendered: Manifests):
    for one in rendered.objects:
        step = one["metadata"]["labels"]["aragora.ai/step"]
        kind = one["kind"]
        assert step in STEPS
        assert (step == "jobs") == (kind == "Job"), one["metadata"]["name"]
        assert (kind == "Deployment") <= (step == "processes")
        assert kind not in {"ConfigMap", "Secret", "NetworkPolicy", "StatefulSet", "Cluster"} or step == "ground"
    script = (KUBERNETES / "apply.sh").read_text()
    assert [script.index(f"aragora.ai/step={step}") for step in STEPS] == sorted(
        script.index(f"aragora.ai/step={step}") for step in STEPS
    )


def test_everything_is_in_one_namespace(rendered: Manifests):
    assert {one["metadata"].get("namespace") for one in rendered.objects if one["kind"] != "Namespace"} == {"aragora"}


def test_what_operators_read_has_its_fields(production: Manifests):
    theirs = [one for one in production.objects if one["kind"] in FIELDS_OF_OPERATORS]
    assert {one["kind"] for one in theirs} == FIELDS_OF_OPERATORS.keys()
    for one in theirs:
        assert all(at(one["spec"], path) for path in FIELDS_OF_OPERATORS[one["kind"]]), one["kind"]


def test_each_service_has_a_database_and_a_role_of_the_same_name(production: Manifests):
    (cluster,) = production.of("Cluster")
    roles = {one["name"]: one["passwordSecret"]["name"] for one in cluster["spec"]["managed"]["roles"]}
    databases = {one["spec"]["name"]: one["spec"]["owner"] for one in production.of("Database")}
    assert roles == {f"aragora_{service}": f"{service}-database" for service in SERVICES}
    assert databases == {name: name for name in roles}
    assert cluster["spec"]["postgresql"]["pg_hba"] == [
        "hostssl sameuser all all scram-sha-256",
        "host all all all reject",
    ]
    assert cluster["spec"]["postgresql"]["synchronous"]["dataDurability"] == "required"


def test_production_names_versions(production: Manifests):
    for pod in production.pods():
        tag = str(pod.container["image"]).rpartition(":")[2]
        assert tag not in {"", "latest", "dev"}
        assert "/" not in tag


def test_the_readme_names_every_secret_and_every_key(production: Manifests):
    used: dict[str, set[str]] = {}
    for pod in production.pods():
        for source in secrets_of(pod).values():
            used.setdefault(source["name"], set()).add(source["key"])
    for name in [name for name in used if name.endswith("-database")]:
        used[name] |= {"username", "password"}  # CloudNativePG reads these two
    used["postgres-backups"] = {"access-key-id", "secret-access-key"}
    named: dict[str, set[str]] = {}
    secrets: list[str] = []
    table = (KUBERNETES / "README.md").read_text().partition("| Secret |")[2].partition("\n\n")[0]
    for secret, keys in re.findall(r"^\| (.*?) ?\| (`.*?`) \|", table, re.MULTILINE):
        secrets = re.findall(r"`([\w-]+)`", secret) or secrets
        for name in secrets:
            named.setdefault(name, set()).update(re.findall(r"`([\w-]+)`", keys))
    assert named == used
    made = {each["metadata"]["name"] for each in external_secrets()}
    assert made == named.keys()


def external_secrets() -> list[Object]:
    return list(yaml.safe_load_all((KUBERNETES / "components/external-secrets/secrets.yaml").read_text()))


def test_pools_stay_below_what_postgres_takes(production: Manifests):
    (cluster,) = production.of("Cluster")
    limit = int(cluster["spec"]["postgresql"]["parameters"]["max_connections"])
    most = {one["metadata"]["name"]: one["spec"].get("replicas", 1) for one in production.of("Deployment")}
    for one in production.of("HorizontalPodAutoscaler"):
        most[one["spec"]["scaleTargetRef"]["name"]] = one["spec"]["maxReplicas"]
    for one in production.of("ScaledObject"):
        most[one["spec"]["scaleTargetRef"]["name"]] = one["spec"]["maxReplicaCount"]
    connections = 0
    for name, replicas in most.items():
        service, _, role = name.partition("-")
        module = {"api": "main", "worker": "worker"}[role]
        source = (ROOT / f"services/{service}/{service}/{module}.py").read_text()
        sizes = [LANES if size == "LANES" else int(size) for size in re.findall(r"max_size=(\w+)", source)]
        sizes += [TURNS] * source.count("with paying_with(")
        assert sizes, name
        connections += replicas * sum(sizes)
    # While a deployment is rolled out it has one pod more; a relay listens on a connection of its pool.
    assert connections * 1.1 < limit, connections
