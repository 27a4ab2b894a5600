"""docs/observability.md has a row for each metric there is, and for no other."""

import importlib
import re
from types import ModuleType

import pytest
from metrics_said import PAGE, documented, said_here, wrong_in
from prometheus_client.metrics import MetricWrapperBase

from aragora.contracts.envelope import event_types

MODULES = [
    "aragora.chassis.app", "aragora.chassis.metrics",
    *(f"{service}.metrics" for service in ("auth", "billing", "metering", "notifier")),
]  # fmt: skip


def metrics_in(module: ModuleType) -> dict[str, MetricWrapperBase]:
    found = [one for one in vars(module).values() if isinstance(one, MetricWrapperBase)]
    return {next(iter(one.describe())).name + "_total" * (one._type == "counter"): one for one in found}


@pytest.fixture(scope="module")
def made() -> dict[str, MetricWrapperBase]:
    found: dict[str, MetricWrapperBase] = {}
    for name in MODULES:
        found |= metrics_in(importlib.import_module(name))
    return found


def test_each_has_its_row_and_each_row_its_metric(made: dict[str, MetricWrapperBase]):
    assert set(made) == set(documented())
    for name, metric in made.items():
        assert (metric._type, tuple(metric._labelnames)) == (documented()[name].kind, documented()[name].labels), name


def test_no_label_is_one_that_prometheus_adds(made: dict[str, MetricWrapperBase]):
    named = {label for metric in made.values() for label in metric._labelnames}
    assert named & {"service", "job", "instance", "pod", "namespace", "container", "endpoint", "node"} == set()


@pytest.mark.usefixtures("made")
def test_what_is_there_from_the_beginning_is_as_the_table_says():
    assert wrong_in(said_here()) == []


@pytest.mark.parametrize("name", [name for name, row in documented().items() if row.kind == "counter"])
def test_a_counter_begins_at_zero_for_every_value_that_is_listed(made: dict[str, MetricWrapperBase], name: str):
    row = documented()[name]
    if row.how != "when it happens":
        for label, values in row.listed.items():
            children = {each.labels[label] for family in made[name].collect() for each in family.samples}
            assert children == values, label


def test_the_events_that_the_page_names_exist():
    types = {name.split(".")[2] for name in event_types()}
    named = set(re.findall(r"`([A-Z]\w+[a-z])`", PAGE.read_text().partition("### How they are made")[0]))
    assert len(named) > 10
    assert named - {"StripeGateway"} <= types
