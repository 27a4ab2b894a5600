"""What the pages for operators tell somebody to type, look at or set exists, under that name."""

import json
import re
import subprocess
from importlib import import_module

import asyncpg
import pytest
import yaml
from deploy.operations_pages import (
    PAGES,
    ROOT,
    SERVICES,
    anchors,
    blocks,
    everything_named,
    found,
    spans,
    statements,
    text_of,
)
from typer.core import TyperGroup
from typer.main import get_command

from billing.payments import TURNS
from metering.limit_desk import LANES

PROGRAMS = {name: f"{name}.cli" for name in SERVICES} | {
    "aragora": "standalone.cli",
    "aragora-nats": "aragora_nats.cli",
}
RUNBOOK = ROOT / "docs/operations.md"
RULES = yaml.safe_load((ROOT / "deploy/observability/rules/aragora.yml").read_text())["groups"]
ALERTS = {rule["alert"]: rule for group in RULES for rule in group["rules"] if "alert" in rule}
TEXTS = [pytest.param(page, id=page.name if page.parent.name == "docs" else page.parent.name) for page in PAGES]
OF_OTHERS = {
    "held_by", "organizations_left", "org_123", "user_bob", "EVENT_ID",
    "aragora_nats", "aragora_postgres", "usage_events_2025_01",
    "pg_blocking_pids", "pg_ctl", "pg_dump", "pg_dumpall", "pg_locks", "pg_promote", "pg_reload_conf",
    "pg_replication_slots", "pg_rewind", "pg_stat_activity", "pg_terminate_backend", "pg_wal",
    "application_name", "backend_start", "convert_to", "current_date", "query_start",
    "target_session_attrs", "slot_name", "synchronous_standby_names", "wait_event", "wait_event_type", "wal_status",
    "prev_encryption_key", "status_code",
}  # fmt: skip
"""Names of Postgres and of NATS, and those that the pages make up themselves."""


def test_they_are_read():
    assert len(ALERTS) > 30
    assert len(command_lines()) > 30
    assert len(statements()) > 30


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_explained(name: str):
    section = text_of(RUNBOOK).partition(f"### Alert: {name}\n")[2].partition("\n### ")[0]
    assert section.strip().startswith(f"**{ALERTS[name]['labels']['severity']}.**"), "as urgent as the rule says"
    assert "**Look" in section or "**Do" in section or "](" in section, "what to look at, and what to do"


def test_there_is_no_alert_in_the_runbook_that_never_comes():
    assert set(re.findall(r"^### Alert: (\w+)$", text_of(RUNBOOK), re.MULTILINE)) == set(ALERTS)


def missing_of(program: str, words: list[str]) -> str | None:
    """What a program does not know of a command line, if anything."""
    command = get_command(import_module(PROGRAMS[program]).app)
    while isinstance(command, TyperGroup):
        if not words or not re.fullmatch(r"[a-z][a-z-]+", words[0]):
            return None
        name, *words = words
        if name not in command.commands:
            return f"{program} has no {name}"
        command = command.commands[name]
    if command.context_settings.get("ignore_unknown_options"):  # `aragora verify` is `metering verify`
        return None
    known = {option for param in command.params for option in param.opts}
    unknown = [word for word in words if word.startswith("--") and word.partition("=")[0] not in known]
    return f"{program} {command.name} takes no {unknown[0]}" if unknown else None


def command_lines() -> set[tuple[str, ...]]:
    """Programs of ours that are named with a command: by the shell's `at`, in a container, or as they are."""
    words = r"((?: +[^\s|;&()#<>`\"]+)+)"
    names = "|".join(PROGRAMS)
    typed = found(rf"(?:^|\(| -- |; |&& |api |worker ) *({names}){words}")
    operator = found(rf"nats-topology((?= +(?:topology|backup|restore)\b){words})")
    return typed | {("aragora-nats", line) for line, _ in operator}


@pytest.mark.parametrize(("program", "line"), sorted(command_lines()))
def test_a_command_exists(program: str, line: str):
    assert missing_of(program, line.split()) is None


def test_a_command_runs_where_its_service_is():
    places = found(r"\b(?:at|exec(?: -T)?) (auth|metering|billing|notifier)-(?:api|worker) (\w+)")
    assert {place for place in places if place[0] != place[1]} - {(each, "python") for each in SERVICES} == set()


def test_what_make_is_told_to_do_it_can():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {name for (name,) in found(r"\bmake ([a-z][a-z-]+)")} - targets == set()


def test_scripts_and_tests_that_are_named_exist():
    paths = found(r"\b((?:deploy|tests|services)/[\w/.-]+\.(?:sh|py|yml|yaml|conf))\b")
    assert paths
    assert [path for (path,) in paths if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_what_is_to_be_pasted_is_shell(page):
    for block in blocks(page):
        checked = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr + block


def test_every_variable_is_one_that_is_read():
    documented = (ROOT / "docs/configuration.md").read_text()
    compose = [ROOT / "docker-compose.yml", ROOT / "deploy/nats/encryption-on.conf", *ROOT.glob("deploy/docker/*.sh")]
    known = documented + "".join(path.read_text() for path in compose)
    named = {
        name for (name,) in found(r"\b((?:ARAGORA|NATS|STRIPE|POSTGRES|AUTH|NOTIFIER|GRAFANA|OTEL)_[A-Z_]+[A-Z])\b")
    }
    assert len(named) > 30
    assert {name for name in named if not re.search(rf"\b{name}\b", known)} == set()


def test_every_metric_column_and_word_of_the_log_is_one_of_the_sources():
    words = {word for page in PAGES for each in (*blocks(page), *spans(page)) for word in names_in(each)}
    assert len(words) > 100
    assert words - everything_named() - OF_OTHERS == set()


def names_in(text: str) -> list[str]:
    """Words with an underscore, but for variables, which have a test of their own, and what begins a name."""
    text = re.sub(r"tests/\S+|(?<=_seconds)_(?:sum|count|bucket)\b", "", text)
    return [word for word in re.findall(r"[A-Za-z0-9]+(?:_[A-Za-z0-9]+)+", text) if not word.isupper()]


def test_every_route_is_one_of_the_documented():
    templates = {
        re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)) + r"\Z")
        for document in ROOT.glob("docs/api/*.openapi.json")
        for path in json.loads(document.read_text())["paths"]
    }
    named = {path for (path,) in found(r"(/(?:api|\.well-known)/[^\s\"'`?)]+)")}
    assert len(named) > 25
    assert {path for path in named if not any(one.match(path.rstrip(",;")) for one in templates)} == set()


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/*/README.md")], ids=str
)
def test_a_link_leads_to_a_heading(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", text_of(page)):
        if ":" not in target:
            place = (page.parent / target).resolve() if target else page
            assert anchor in anchors(place), f"{page.name}: {target}#{anchor}"


def test_what_is_rotated_on_kubernetes_is_a_key_of_a_secret_there():
    manifests = "".join(path.read_text() for path in (ROOT / "deploy/kubernetes").rglob("*.yaml"))
    keys = set(re.findall(r"\{name: ([\w-]+), key: ([\w-]+)", manifests))
    keys |= {(f"{service}-database", "password") for service in SERVICES}
    table = text_of(RUNBOOK).partition("## Rotate every secret")[2].partition("**Has it leaked?**")[0]
    named = set(re.findall(r"`([a-z-]+)/([a-z-]+)`", table)) | found(r"(?:^|; )secret ([a-z-]+) ([a-z][a-z-]+) [\"…]")
    assert len(named) > 12
    assert named - keys == set()


async def test_postgres_understands_what_it_is_asked(
    auth_database_url: str, metering_database_url: str, billing_database_url: str, notifier_database_url: str
):
    urls = (auth_database_url, metering_database_url, billing_database_url, notifier_database_url)
    for service, url in zip(SERVICES, urls, strict=True):
        connection = await asyncpg.connect(url)
        try:
            for asked in sorted(each for of, each in statements() if of == service):
                if re.match(r"SELECT|INSERT|UPDATE", asked):
                    await connection.prepare(asked)
        finally:
            await connection.close()


def test_the_connections_of_a_process_are_those_of_its_pools():
    table = dict(re.findall(r"^\| (\w+-(?:api|worker)) \| (\d+) \|$", text_of(ROOT / "docs/sizing.md"), re.MULTILINE))
    counted = {}
    for service in SERVICES:
        for role, module in (("api", "main"), ("worker", "worker")):
            source = (ROOT / f"services/{service}/{service}/{module}.py").read_text()
            sizes = re.findall(r"max_size=(\w+)", source) + ["TURNS"] * source.count("with paying_with(")
            named = {"LANES": LANES, "TURNS": TURNS}
            counted[f"{service}-{role}"] = str(sum(named.get(size) or int(size) for size in sizes))
    assert table == counted
