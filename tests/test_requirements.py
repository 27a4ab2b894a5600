"""What is installed is pinned, by version and hash, and is what the packages say they need."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMAGES = ("auth", "billing", "metering", "nats", "notifier")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def requirements_of(path: Path) -> set[str]:
    dependencies = tomllib.loads(path.read_text())["project"]["dependencies"]
    return {one.replace(" ", "") for one in dependencies if not one.startswith("aragora-")}


def test_requirements_are_those_of_the_packages():
    runtime = set(lines_of("requirements/runtime.in"))
    shipped = [*ROOT.glob("libs/*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")]
    assert runtime == set().union(*map(requirements_of, [*shipped, ROOT / "deploy/nats/pyproject.toml"]))
    assert set(lines_of("requirements/dev.in")) >= requirements_of(ROOT / "deploy/standalone/pyproject.toml") - runtime


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_installs_what_its_packages_need(image: str):
    files = [ROOT / f"libs/{name}/pyproject.toml" for name in ("contracts", "sdk", "chassis")]
    home = "deploy/nats" if image == "nats" else f"services/{image}"
    needed = set().union(*map(requirements_of, [*files, ROOT / home / "pyproject.toml"]))
    assert set(lines_of(f"requirements/images/{image}.in")) == needed


def lines_of(path: str) -> list[str]:
    return [line for line in (ROOT / path).read_text().splitlines() if line and not line.startswith(("#", "-r"))]


@pytest.mark.parametrize("name", ["runtime", "dev", "images/build", *(f"images/{image}" for image in IMAGES)])
def test_requirements_are_pinned_with_hashes(name: str):
    pinned = (ROOT / f"requirements/{name}.txt").read_text()
    versions = dict(re.findall(r"^([\w.-]+)==(\S+)", pinned, re.MULTILINE))
    for line in lines_of(f"requirements/{name}.in"):
        assert re.split(r"[\[<>=~! ]", line)[0] in versions, "run `make lock`"
    for requirement in re.split(r"\n(?=[\w.-]+==)", pinned)[1:]:
        assert "--hash=sha256:" in requirement
    if name != "runtime":
        runtime = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements/runtime.txt").read_text(), re.MULTILINE))
        same = runtime.keys() & versions.keys() if name.startswith("images/") else runtime.keys()
        assert {each: versions[each] for each in same} == {each: runtime[each] for each in same}


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("requirements/**/*.*"), *ROOT.rglob("pyproject.toml"), ROOT / "Makefile", ROOT / ".ci/run"],
    ids=name_of,
)
def test_no_registry_is_named(path: Path):
    if ".venv" not in path.parts:
        assert not re.search(r"https?://|file://|(?<!no-emit-)index-url|find-links|trusted-host", path.read_text())
