"""The alerts and dashboards speak of metrics that there are, and each alert says what to do."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HERE = ROOT / "deploy/observability"
RULES = HERE / "rules/aragora.yml"
RULE_TESTS = sorted(HERE.glob("rules/tests/*.yml"))
DASHBOARDS = sorted(HERE.glob("grafana/dashboards/*.json"))
OF_PROMETHEUS = {"up", "ALERTS"}
OF_THE_CLIENT = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
OF_OTHERS = {
    # prometheus-nats-exporter: collector/jsz.go, and /varz by its fields
    "jetstream_server_max_storage", "jetstream_server_total_message_bytes", "jetstream_stream_limit_bytes",
    "jetstream_stream_total_bytes", "jetstream_stream_total_messages", "gnatsd_varz_routes",
    # CloudNativePG: docs/src/monitoring.md, predefined and default metrics
    "cnpg_backends_total", "cnpg_collector_pg_wal_archive_status", "cnpg_collector_up",
    "cnpg_pg_replication_in_recovery", "cnpg_pg_replication_lag", "cnpg_pg_replication_streaming_replicas",
    "cnpg_pg_settings_setting",
}  # fmt: skip
OF_PROMQL = {
    "absent", "and", "by", "count", "delta", "deriv", "histogram_quantile", "increase", "label_replace", "max",
    "max_over_time", "on", "or", "rate", "sum", "time", "unless",
}  # fmt: skip

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not on the PATH")


def groups() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
    return found


def rules(kind: str) -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"] if kind in rule]


ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RECORDED = {rule["record"] for rule in rules("record")}


@cache
def documented() -> dict[str, set[str]]:
    """The metrics of docs/observability.md as Prometheus knows them, with their labels."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", (ROOT / "docs/observability.md").read_text(), re.MULTILINE)
    found: dict[str, set[str]] = {}
    for name, kind, labels in rows:
        of_histograms = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        extra = {"le"} if kind == "histogram" else set()
        found |= {name + suffix: {*re.findall(r"`(\w+)`", labels), *extra} for suffix in of_histograms}
    return found


def panels(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    return found


def queries(path: Path) -> list[str]:
    return [target["expr"] for panel in panels(path) for target in panel.get("targets", ())]


def metrics_in(expression: str) -> set[str]:
    """What an expression asks for. Left out: what is quoted, labels in braces and behind `by` and `on`, ranges."""
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|on) \([^)]*\)", "", bare)
    return set(re.findall(r"[a-zA-Z_][\w:]*", bare)) - OF_PROMQL


def everything_asked() -> dict[str, str]:
    """Every expression, by where it stands."""
    asked: dict[str, str] = {rule[kind]: rule["expr"] for kind in ("alert", "record") for rule in rules(kind)}
    asked |= {f"{path.name} {number}": query for path in DASHBOARDS for number, query in enumerate(queries(path))}
    return asked


EVERYTHING = everything_asked()


@pytest.mark.parametrize("expression", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_what_is_asked_for_exists(expression: str) -> None:
    known = {*documented(), *RECORDED, *OF_PROMETHEUS, *OF_THE_CLIENT, *OF_OTHERS}
    assert metrics_in(expression)
    assert metrics_in(expression) <= known


@pytest.mark.parametrize("expression", EVERYTHING.values(), ids=EVERYTHING.keys())
def test_a_metric_of_ours_is_asked_only_for_labels_that_it_has(expression: str) -> None:
    added = {"job", "service", "role", "instance", "alertname", "alertstate", "severity"}
    for name, selector in re.findall(r"([a-zA-Z_][\w:]*)\{([^}]*)\}", expression):
        if name in documented():
            assert set(re.findall(r"(\w+)(?:=~|!~|!=|=)", selector)) <= documented()[name] | added


def test_every_metric_that_waits_or_fails_is_looked_at() -> None:
    """A metric of the table that no rule and no dashboard asks for tells nobody anything."""
    asked = set().union(*(metrics_in(expression) for expression in EVERYTHING.values()))
    asked |= {name.removesuffix(suffix) for name in asked for suffix in ("_bucket", "_count", "_sum")}
    assert {name.removesuffix("_bucket") for name in documented() if not name.endswith(("_count", "_sum"))} <= asked


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_urgent_it_is_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert re.fullmatch(r"\d+m", alert["for"]), "what comes and goes within a minute wakes nobody"
    assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["description"].rstrip().endswith(".")
    assert alert["annotations"]["runbook_url"] == f"docs/operations.md#alert-{name.lower()}"


def test_the_runbook_has_a_heading_for_each_alert_and_no_other() -> None:
    headings = re.findall(r"^### Alert: (\w+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(ALERTS)


@cache
def promtool_cases() -> list[dict[str, Any]]:
    tests = [test for path in RULE_TESTS for test in yaml.safe_load(path.read_text())["tests"]]
    return [case for test in tests for case in test["promql_expr_test"]]


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_is_tested_where_it_fires_and_where_it_does_not(name: str) -> None:
    fires = {bool(case["exp_samples"]) for case in promtool_cases() if f'alertname="{name}"' in case["expr"]}
    assert fires == {True, False}


def drawn() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", HERE / "dashboards.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_dashboards_are_those_of_the_code() -> None:
    code = drawn()
    made = {f"{one.uid}.json": code.text_of(one) for one in code.DASHBOARDS}
    assert {path.name: path.read_text() for path in DASHBOARDS} == made, "python deploy/observability/dashboards.py"


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_one_that_grafana_can_read(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"] == path.stem
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource"]
    shown = panels(path)
    assert len({panel["id"] for panel in shown}) == len(shown)
    taken: Counter[tuple[int, int]] = Counter()
    for panel in shown:
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24
        taken.update((place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"]))
        if panel["type"] != "row":
            assert panel["title"]
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}"
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    assert set(taken.values()) == {1}, "no panel lies on another"


def test_what_is_provisioned_is_there() -> None:
    provisioned = {path.parent.name: yaml.safe_load(path.read_text()) for path in HERE.glob("grafana/provisioning/*/*")}
    sources = {source["uid"]: source["type"] for source in provisioned["datasources"]["datasources"]}
    assert sources == {"prometheus": "prometheus", "jaeger": "jaeger"}
    assert [provider["type"] for provider in provisioned["dashboards"]["providers"]] == ["file"]


def test_the_collector_uses_what_it_declares() -> None:
    said = yaml.safe_load((HERE / "otel-collector.yml").read_text())
    pipelines = said["service"]["pipelines"].values()
    for part in ("receivers", "processors", "exporters"):
        assert {name for pipeline in pipelines for name in pipeline[part]} == set(said[part])
    assert set(said["service"]["extensions"]) == set(said["extensions"])


def run_promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    run_promtool("check", "config", HERE / "prometheus.yml")
    run_promtool("check", "rules", RULES)


@needs_promtool
def test_the_rules_do_what_their_tests_say() -> None:
    run_promtool("test", "rules", *RULE_TESTS)


@needs_promtool
def test_every_query_of_a_dashboard_parses(tmp_path: Path) -> None:
    every = [query.replace("$__rate_interval", "5m") for path in DASHBOARDS for query in queries(path)]
    asked = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(every)]
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": asked}]}))
    run_promtool("check", "rules", tmp_path / "queries.yml")
