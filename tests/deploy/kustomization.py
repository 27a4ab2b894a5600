"""The manifests of deploy/kubernetes as `kubectl kustomize` renders them, and what tests ask about them."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
OVERLAYS = ("dev", "production")
SERVICES = ("auth", "metering", "billing", "notifier")
Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """What a Deployment, StatefulSet or Job starts. `name` is theirs."""

    kind: str
    name: str
    labels: Mapping[str, str]
    spec: Object

    @property
    def container(self) -> Object:
        """Its only container."""
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def service(self) -> str:
        """Which service it is a process or a job of: the last part of its image's name."""
        return str(self.container["image"]).rpartition("/")[2].partition(":")[0]


@dataclass(frozen=True)
class Manifests:
    """All objects of an overlay."""

    overlay: str
    objects: tuple[Object, ...]

    def of(self, *kinds: str) -> list[Object]:
        """The objects of these kinds."""
        return [one for one in self.objects if one["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object:
        """The object of this kind and name."""
        (found,) = (one for one in self.of(kind) if one["metadata"]["name"] == name)
        return found

    def pods(self, *kinds: str) -> list[Pod]:
        """What the workloads of these kinds start; of every kind, without any."""
        return [
            Pod(one["kind"], one["metadata"]["name"], one["spec"]["template"]["metadata"]["labels"],
                one["spec"]["template"]["spec"])
            for one in self.of(*(kinds or ("Deployment", "StatefulSet", "Job")))
        ]  # fmt: skip

    def ours(self) -> list[Pod]:
        """The processes and the jobs of the four services."""
        return [pod for pod in self.pods("Deployment", "Job") if pod.service in SERVICES]

    def settings(self, pod: Pod) -> dict[str, str]:
        """A container's variables that are not secret, with their values."""
        plain: dict[str, str] = {}
        for source in pod.container.get("envFrom", []):
            assert source.keys() == {"configMapRef"}, "a Secret is named variable by variable"
            plain |= self.named("ConfigMap", source["configMapRef"]["name"])["data"]
        return plain | {one["name"]: one["value"] for one in pod.container.get("env", []) if "value" in one}

    def selected(self, selector: Object) -> list[Pod]:
        """The pods that a label selector selects."""
        return [pod for pod in self.pods() if selects(selector, pod.labels)]


def secrets_of(pod: Pod) -> dict[str, Object]:
    """A container's variables that come from Secrets, with the reference."""
    return {
        one["name"]: one["valueFrom"]["secretKeyRef"]
        for one in pod.container.get("env", [])
        if "secretKeyRef" in one.get("valueFrom", {})
    }


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector (`matchLabels`, `matchExpressions` with In) selects these labels; an empty one does."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    wanted = selector.get("matchLabels", {})
    expressions = selector.get("matchExpressions", [])
    assert all(one["operator"] == "In" for one in expressions)
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        labels.get(one["key"]) in one["values"] for one in expressions
    )


@cache
def manifests(overlay: str) -> Manifests:
    """Render an overlay; the one for development with new secrets. Skips the test where there is no kubectl."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: https://kubernetes.io/docs/tasks/tools")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "deploy"
        shutil.copytree(ROOT / "deploy", copy, ignore=shutil.ignore_patterns("*.py", "secrets", "__pycache__"))
        path = copy / "kubernetes/overlays" / overlay
        if overlay == "dev":
            subprocess.run(["sh", str(path / "secrets.sh")], check=True, capture_output=True)
        done = subprocess.run(["kubectl", "kustomize", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return Manifests(overlay, tuple(_loaded(done.stdout)))


def _loaded(text: str) -> Iterator[Object]:
    yield from yaml.safe_load_all(text)
