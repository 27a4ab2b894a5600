"""The pages for whoever operates the platform, as text: what is in their code, and what they name."""

import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICES = ("auth", "metering", "billing", "notifier")
PAGES = tuple(
    ROOT / name
    for name in (
        "docs/operations.md", "docs/upgrading.md", "docs/sizing.md", "deploy/docker/README.md",
        "deploy/kubernetes/README.md",
    )
)  # fmt: skip


@cache
def text_of(page: Path) -> str:
    """The whole page."""
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[str]:
    """What is to be pasted into a shell."""
    return re.findall(r"^ *```(?:sh|bash)\n(.*?)^ *```", text_of(page), re.MULTILINE | re.DOTALL)


def spans(page: Path) -> list[str]:
    """What is set as code within the text."""
    prose = re.sub(r"^ *```.*?^ *```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", prose)


def code() -> list[tuple[str, str]]:
    """All of it, with the name of the page."""
    return [(page.name, each) for page in PAGES for each in (*blocks(page), *spans(page))]


def found(pattern: str) -> set[tuple[str, ...]]:
    """What a pattern finds in the code of all pages, its groups each time."""
    return {match.groups("") for _, each in code() for match in re.finditer(pattern, each, re.MULTILINE)}


def anchors(page: Path) -> set[str]:
    """Where links into a page may lead, as GitHub names its headings."""
    headings = re.findall(r"^#+ (.+)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def statements() -> set[tuple[str, str]]:
    """What is asked of a service's database: the service and the statement, with values in the place of what varies."""
    asked = set()
    for service, statement in found(r'^ *(?:ids=\$\()?sql (\$?\w+) (?:-At )?-c "([^"]+)"'):
        plain = re.sub("EVENT_ID", "0198a000-0000-7000-8000-000000000000", statement)
        plain = re.sub(r"\$\w+", "x", plain)
        asked |= {(each, plain) for each in (SERVICES if service == "$service" else (service,))}
    return asked


@cache
def everything_named() -> frozenset[str]:
    """Every word with an underscore in the sources: names of metrics, of what the log says, of tables and columns."""
    kinds = (".py", ".sql", ".sh", ".yml", ".yaml", ".conf", ".toml", "Caddyfile")
    files = [path for folder in ("libs", "services", "deploy") for path in (ROOT / folder).rglob("*")]
    words: set[str] = set()
    for path in (ROOT / "docker-compose.yml", *files):
        if path.is_file() and path.name.endswith(kinds):
            words.update(re.findall(r"[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+", path.read_text(encoding="utf-8")))
    return frozenset(words)
