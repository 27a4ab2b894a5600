"""Each alert on metrics of ours fires when what it is about happens, and nothing fires when all is well.

A real Prometheus watches real processes; its rules are the committed ones, with a minute shortened to three seconds.
Alerts on what NATS and Postgres say of themselves need exporters that are not here: deploy/observability/rules/tests.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import breaking_the_platform as breaking
import prometheus_server
import pytest
import yaml
from servers import eventually
from watched_platform import WatchedPlatform, lasting, watched_platform

RULES = Path(__file__).parents[2] / "deploy/observability/rules/aragora.yml"
OF_OTHERS = {"nats", "postgres"}
"""Groups of rules that go by others' metrics."""

Fault = Callable[[WatchedPlatform], AbstractAsyncContextManager[None]]

FAULTS: dict[Fault, tuple[str, ...]] = {
    breaking.a_worker_dies: ("ServiceAbsent", "ProcessDown"),
    breaking.postgres_stops: (
        "ServiceNotReady", "ReadingsBlind", "LimitsUndecided", "ApiErrors", "DeliveriesFailing",
    ),
    breaking.nats_stops: ("BusDisconnected", "OutboxNotDraining"),
    breaking.recording_hangs: ("ConsumerStalled", "ConsumerLagGrowing"),
    breaking.recording_is_slow: ("UsageRecordedLate",),
    breaking.one_organization_is_locked: ("LimitAnswersSlow",),
    breaking.sums_cannot_be_read: ("ApiSlow",),
    breaking.whoever_closes_months_hangs: ("MonthNotClosed",),
    breaking.stripe_is_away: ("StripeCallsFailing", "StripeEventsWaiting", "StripeIntentsStuck"),
    breaking.webhooks_are_forged: ("StripeWebhooksRefused",),
    breaking.the_mail_server_refuses: ("NotificationsFailing",),
    breaking.nobody_says_who_is_to_be_told: ("NotificationsWaiting",),
    breaking.passwords_are_guessed: ("AccountsLocked",),
    # What has happened is not undone by itself: it is told for an hour, or until somebody has settled it.
    breaking.a_session_is_stolen: ("RefreshTokenReused",),
    breaking.every_endpoint_is_gone: ("EndpointsDisabled",),
    breaking.a_model_is_new: ("UnpricedUsage",),
    breaking.stripe_tells_of_live_payments_in_test_mode: ("BillingNeedsAttention",),
    breaking.nonsense_is_published: ("DeadLettersOpen", "DeadLettersGrowing"),
}  # fmt: skip
LINGERS = {
    "RefreshTokenReused", "EndpointsDisabled", "UnpricedUsage", "BillingNeedsAttention", "DeadLettersOpen",
    "StripeEventsWaiting", "StripeIntentsStuck",  # Stripe is asked again later and later
}  # fmt: skip


QUIET_SECONDS = 60
"""Longer than any alert waits."""


def test_every_alert_of_ours_has_a_fault():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    alerts = [
        rule["alert"]
        for group in groups
        if group["name"] not in OF_OTHERS
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert sorted(alerts) == sorted(alert for alerts in FAULTS.values() for alert in alerts)


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[WatchedPlatform]:
    if not prometheus_server.is_here:
        pytest.skip("prometheus is not on the PATH")
    async with watched_platform() as running:
        yield running


@pytest.mark.long
async def test_nothing_fires_when_all_is_well(world: WatchedPlatform):
    everything = 'count(up{job="aragora"} == 1) == 8 and count(service_ready) >= 16'
    await eventually(lambda: world.prometheus.value(everything), 60)
    await world.site.register()
    await lasting(QUIET_SECONDS)
    assert await world.prometheus.value(f'count(count_over_time(ALERTS{{alertstate="firing"}}[{QUIET_SECONDS}s]))') == 0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_somebody_hears_of_it(world: WatchedPlatform, fault: Fault):
    alerts = FAULTS[fault]
    async with fault(world):
        await world.prometheus.fires(alerts)
    for alert in alerts:
        said = world.prometheus.seen[alert]
        assert said["labels"]["service"]
        assert "<no value>" not in str(said["annotations"])
        print(alert, said["annotations"]["summary"])
    await world.parts.ready()
    await world.prometheus.resolves(set(alerts) - LINGERS)
