"""The three NATS servers get the configuration of deploy/nats, and every variable that it asks for."""

import re
import subprocess
from pathlib import Path

import pytest
from deploy.kustomization import OVERLAYS, ROOT, Manifests, Pod, manifests, secrets_of

from aragora.contracts.topology import ACCOUNTS
from standalone.nats import server_binary

FILES = ROOT / "deploy/nats"


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> Manifests:
    return manifests(request.param)


@pytest.fixture
def nats(rendered: Manifests) -> Pod:
    return next(pod for pod in rendered.pods("StatefulSet") if pod.name == "nats")


def mounted(rendered: Manifests, nats: Pod) -> dict[str, str]:
    """The files that the server finds, by name."""
    (volume,) = (one["configMap"] for one in nats.spec["volumes"] if "configMap" in one)
    data = rendered.named("ConfigMap", volume["name"])["data"]
    return {each["path"]: data[each["key"]] for each in volume["items"]}


def environment(nats: Pod) -> dict[str, str]:
    """The container's variables, as Kubernetes works them out, with a password for each secret."""
    found: dict[str, str] = {}
    for one in nats.container["env"]:
        value = one.get("value") or {"secretKeyRef": "pass", "fieldRef": "nats-0"}[next(iter(one["valueFrom"]))]
        found[one["name"]] = re.sub(r"\$\((\w+)\)", lambda name: found[name[1]], value)
    return found


def test_the_files_are_those_of_the_folder(rendered: Manifests, nats: Pod):
    files = mounted(rendered, nats)
    encrypted = rendered.overlay == "production"
    assert files.keys() == {"accounts.conf", "cluster.conf", "server.conf", "encryption.conf"}
    for name, text in files.items():
        source = "encryption-on.conf" if encrypted and name == "encryption.conf" else name
        assert text == (FILES / source).read_text()


def test_the_server_takes_its_configuration(rendered: Manifests, nats: Pod, tmp_path: Path):
    for name, text in mounted(rendered, nats).items():
        (tmp_path / name).write_text(text)
    given = environment(nats)
    done = subprocess.run(
        [str(server_binary()), "--config", str(tmp_path / "cluster.conf"), "-t"],
        env=given, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked_for = {name for text in mounted(rendered, nats).values() for name in re.findall(r"[^\w\"]\$(\w+)", text)}
    assert asked_for <= given.keys()
    used = {name for name in given if name.startswith("NATS_")}
    assert used == asked_for


def test_the_routes_name_the_three_servers(rendered: Manifests, nats: Pod):
    stateful_set = rendered.named("StatefulSet", "nats")["spec"]
    given = environment(nats)
    names = [f"nats-{number}.{stateful_set['serviceName']}" for number in range(stateful_set["replicas"])]
    assert [given[f"NATS_ROUTE_{number}"] for number in range(3)] == [
        f"nats://cluster:pass@{name}:6222" for name in names
    ]


def test_each_password_of_a_service_is_kept_in_one_place(rendered: Manifests, nats: Pod):
    servers = secrets_of(nats)
    for account in ACCOUNTS:
        source = servers[f"NATS_PASSWORD_{account.name.upper()}"]
        mine = [secrets_of(pod)["NATS_PASSWORD"] for pod in rendered.pods("Deployment") if pod.service == account.name]
        assert all(source == each for each in mine)
    (topology,) = (secrets_of(pod) for pod in rendered.pods("Job") if pod.name == "nats-topology")
    assert topology["NATS_PASSWORD"] == servers["NATS_PASSWORD_OPERATOR"]


def test_the_disk_holds_what_jetstream_may_write():
    stored = re.search(r"max_file_store: (\d+)GB", (FILES / "server.conf").read_text())
    assert stored
    (claim,) = manifests("production").named("StatefulSet", "nats")["spec"]["volumeClaimTemplates"]
    gibibytes = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    assert gibibytes * 1024**3 > int(stored[1]) * 1000**3


def test_a_server_leaves_as_a_lame_duck_and_has_the_time(nats: Pod):
    durations = re.findall(r"lame_duck_\w+: (\d+)s", (FILES / "server.conf").read_text())
    assert sum(map(int, durations)) + 30 < nats.spec["terminationGracePeriodSeconds"]
    arguments = nats.container["args"]
    pid_file = arguments[arguments.index("--pid") + 1]
    command = nats.container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["nats-server", "--signal", f"ldm={pid_file}"]
    writable = {mount["mountPath"] for mount in nats.container["volumeMounts"] if not mount.get("readOnly")}
    assert str(Path(pid_file).parent) in writable


def test_probes_ask_the_monitoring_port(nats: Pod):
    ports = {each["name"]: each["containerPort"] for each in nats.container["ports"]}
    configured = (FILES / "server.conf").read_text() + (FILES / "cluster.conf").read_text()
    assert ports == {"client": 4222, "cluster": 6222, "monitor": 8222}
    assert re.findall(r"^\s*(?:port|http): (\d+)", configured, re.MULTILINE) == ["4222", "8222", "6222"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert nats.container[probe]["httpGet"]["port"] == "monitor"
        assert nats.container[probe]["httpGet"]["path"].startswith("/healthz")
