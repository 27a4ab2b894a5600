"""Who reaches whom, worked out from the network policies as the cluster's network does it."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest
from deploy.kustomization import OVERLAYS, SERVICES, Manifests, Object, Pod, manifests, selects

from notifier import destinations

PROCESSES = frozenset(f"{service}-{role}" for service in SERVICES for role in ("api", "worker"))
JOBS = frozenset(f"{service}-migrate" for service in SERVICES)
POSTGRES = Pod("Cluster", "postgres", {"aragora.ai/serves": "postgres", "cnpg.io/cluster": "postgres"}, {})
"""An instance as CloudNativePG starts it: its cluster's label, and those that it inherits."""
PUBLIC, PRIVATE, METADATA = "93.184.215.14", "10.1.2.3", "169.254.169.254"
SYSTEM_NAMESPACES = ("kube-system", "ingress-nginx", "monitoring", "keda", "cnpg-system", "anywhere-else")

WITHIN = {
    *((name, "postgres", 5432) for name in PROCESSES | JOBS),
    *((name, "nats", 4222) for name in PROCESSES | {"nats-topology"}),
    ("nats", "nats", 6222),
}
ONLY_IN_PRODUCTION = {("postgres", "postgres", 5432), ("postgres", "postgres", 8000)}
FROM_OUTSIDE = {
    "dev": {("ingress-nginx", f"{service}-api", 8000) for service in SERVICES},
    "production": {
        *(("ingress-nginx", f"{service}-api", 8000) for service in SERVICES),
        *(("monitoring", name, 8000) for name in PROCESSES),
        ("monitoring", "nats", 7777),
        ("monitoring", "postgres", 9187),
        ("keda", "nats", 8222),
        ("cnpg-system", "postgres", 5432),
        ("cnpg-system", "postgres", 8000),
    },
}
TO_THE_WORLD = {
    *((f"billing-{role}", 443) for role in ("api", "worker")),
    *(("notifier-worker", port) for port in (443, 465, 587)),
}


class Network:
    """The policies of an overlay, and the pods that they are about."""

    def __init__(self, rendered: Manifests) -> None:
        self.overlay = rendered.overlay
        self.policies = [one["spec"] for one in rendered.of("NetworkPolicy")]
        own = rendered.pods()
        self.pods = own if any(pod.name == "postgres" for pod in own) else [*own, POSTGRES]
        self.ports = {
            port["port"] for spec in self.policies for way in ("ingress", "egress") for rule in spec.get(way, [])
            for port in rule["ports"]
        }  # fmt: skip

    def rules(self, pod: Pod, way: str) -> Iterator[Object]:
        mine = [spec for spec in self.policies if selects(spec["podSelector"], pod.labels)]
        assert any(way.capitalize() in spec["policyTypes"] for spec in mine), "else everything is allowed"
        for spec in mine:
            if way.capitalize() in spec["policyTypes"]:
                yield from spec.get(way, [])

    def inside(self, way: str) -> set[tuple[str, str, int]]:
        """Who reaches whom inside the namespace, as far as that end of the way allows it."""
        return {
            (source.name, target.name, port)
            for source in self.pods
            for target in self.pods
            for port in self.ports
            if (
                self._allowed(source, way, target, port)
                if way == "egress"
                else self._allowed(target, way, source, port)
            )
        }

    def _allowed(self, pod: Pod, way: str, peer: Pod, port: int) -> bool:
        return any(
            "podSelector" in each and "namespaceSelector" not in each and selects(each["podSelector"], peer.labels)
            for each in self._peers(pod, way, port)
        )

    def with_namespace(self, pod: Pod, way: str, namespace: str, port: int) -> bool:
        labels = {"kubernetes.io/metadata.name": namespace}
        return any(
            "namespaceSelector" in each and selects(each["namespaceSelector"], labels)
            for each in self._peers(pod, way, port)
        )

    def to_address(self, pod: Pod, address: str, port: int) -> bool:
        wanted = ip_address(address)
        return any(
            wanted in ip_network(each["ipBlock"]["cidr"])
            and not any(wanted in ip_network(one) for one in each["ipBlock"]["except"])
            for each in self._peers(pod, "egress", port)
            if "ipBlock" in each
        )

    def _peers(self, pod: Pod, way: str, port: int) -> Iterator[Object]:
        end = {"ingress": "from", "egress": "to"}[way]
        for rule in self.rules(pod, way):
            if any(each["port"] == port for each in rule["ports"]):
                yield from rule[end]


@pytest.fixture(scope="module", params=OVERLAYS)
def network(request: pytest.FixtureRequest) -> Network:
    return Network(manifests(request.param))


def test_inside_everybody_reaches_what_it_needs_and_nothing_else(network: Network):
    needed = WITHIN | (ONLY_IN_PRODUCTION if network.overlay == "production" else set())
    # Each end by itself, so that one mistake opens nothing.
    assert network.inside("egress") == needed
    assert network.inside("ingress") == needed


def test_from_outside_come_the_ingress_and_who_watches(network: Network):
    edges = {
        (namespace, pod.name, port)
        for namespace in SYSTEM_NAMESPACES
        for pod in network.pods
        for port in network.ports
        if network.with_namespace(pod, "ingress", namespace, port)
    }
    assert edges == FROM_OUTSIDE[network.overlay]


def test_names_are_looked_up_and_traces_sent(network: Network):
    edges = {
        (pod.name, namespace, port)
        for namespace in SYSTEM_NAMESPACES
        for pod in network.pods
        for port in network.ports
        if network.with_namespace(pod, "egress", namespace, port)
    }
    names = {(pod.name, "kube-system", 53) for pod in network.pods}
    traces = {(name, "monitoring", 4318) for name in PROCESSES} if network.overlay == "production" else set()
    assert edges == names | traces


def test_only_billing_and_the_notifier_reach_the_world(network: Network):
    reached = {
        address: {
            (pod.name, port) for pod in network.pods for port in network.ports if network.to_address(pod, address, port)
        }
        for address in (PUBLIC, PRIVATE, METADATA)
    }
    # CloudNativePG's instances ask Kubernetes, and write their backups to an object store.
    backups = {("postgres", 443), ("postgres", 6443)} if network.overlay == "production" else set()
    assert reached == {PUBLIC: TO_THE_WORLD | backups, PRIVATE: backups, METADATA: set()}


def test_nothing_is_reached_that_the_notifier_refuses_to_call(network: Network):
    worker = next(pod for pod in network.pods if pod.name == "notifier-worker")
    blocks = [each["ipBlock"] for each in network._peers(worker, "egress", 443) if "ipBlock" in each]
    assert [{ip_network(one) for one in each["except"]} for each in blocks] == [
        set(destinations._NOT_PUBLIC_4), set(destinations._NOT_PUBLIC_6)
    ]  # fmt: skip
    assert [ip_network(each["cidr"]) for each in blocks] == [ip_network("0.0.0.0/0"), destinations._GLOBAL_UNICAST_6]
    billing = next(pod for pod in network.pods if pod.name == "billing-api")
    assert blocks == [each["ipBlock"] for each in network._peers(billing, "egress", 443) if "ipBlock" in each]
