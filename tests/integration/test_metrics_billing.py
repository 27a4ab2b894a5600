"""What billing says about itself, after each thing has happened once."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from metrics_said import Said, grown, said_here, wrong_in
from payments_over_http import PaymentsSite, new_site
from servers import PostgresServer

from billing import metrics, reconciling, stripe_following
from billing.stripe_gateway import StripeAway, StripeRefused
from standalone.stripe_simulator.faults import Fault


@pytest.fixture(scope="module")
async def site(postgres_server: PostgresServer, billing_template: str, nats_server: str) -> AsyncIterator[PaymentsSite]:
    async with new_site(postgres_server, billing_template, nats_server) as running:
        yield running


def outcomes(before: Said, name: str, *values: str, **labels: str) -> list[float]:
    return [grown(before, name, outcome=value, **labels) for value in values]


async def test_calls_of_stripe(site: PaymentsSite):
    gateway, before = site.world.payments.gateway, said_here()
    await gateway.events_since(site.world.now - timedelta(days=1))
    with pytest.raises(StripeRefused):
        await gateway.subscription("sub_nobody")
    site.world.simulator.faults.ordered.append(Fault(path="/v1/subscriptions", status=500))
    with pytest.raises(StripeAway):
        await gateway.subscription("sub_nobody")
    name, values = "billing_stripe_calls_total", ("answered", "refused", "away")
    assert outcomes(before, name, *values, operation="subscription") == [0, 1, 1]
    assert outcomes(before, name, *values, operation="events_since") == [1, 0, 0]
    assert grown(before, "billing_stripe_call_seconds", "count", operation="subscription") == 2


async def test_webhooks_and_what_became_of_them(site: PaymentsSite, org: str):
    world, before = site.world, said_here()
    await world.enroll(org)
    await world.subscribe(org)
    first, second, *others = world.simulator.world.events
    for _ in range(2):
        assert (await site.tell(first)).status_code == 200
    assert (await site.post_webhook(b"{}", {"Stripe-Signature": "t=1,v1=forged"})).status_code == 400
    assert outcomes(before, "billing_stripe_webhooks_total", "kept", "repeated", "refused") == [1, 1, 1]
    await reconciling.read_lost_events(world.payments, world.now)
    found = grown(before, "billing_stripe_webhooks_total", outcome="lost")
    assert 0 < found <= len([second, *others])

    world.simulator.faults.ordered.append(Fault(status=500))
    handled = await stripe_following.follow_events(world.payments, world.now)
    assert handled
    assert outcomes(before, "billing_stripe_events_total", "handled", "postponed", "unresolved") == [0, handled, 0]
    await world.advance(timedelta(minutes=1))
    await world.settle()
    assert grown(before, "billing_stripe_events_total", outcome="handled") == handled
    about = {"id": "in_9", "object": "invoice", "customer": "cus_nobody"}
    await world.receive(first | {"id": "evt_stranger", "type": "invoice.paid", "data": {"object": about}})
    await world.settle()
    assert grown(before, "billing_stripe_events_total", outcome="unresolved") == 1
    assert wrong_in(said_here()) == []


async def test_what_waits(site: PaymentsSite, org: str):
    async def waits() -> list[float]:
        async with site.world.pool.acquire() as connection:
            await metrics.read(connection)
        return [sample.value for gauge in metrics.gauges for family in gauge.collect() for sample in family.samples]

    await site.world.settle()
    assert await waits() == [0, 0, 0, 0]
    await site.world.pool.execute(
        "INSERT INTO stripe_intents (org_id, intent_id, kind, parameters, requested_at, next_attempt_at) "
        "SELECT $1, n::text, 'cancel_now', '{}', now() - n * interval '1 hour', now() FROM generate_series(1, 2) AS n",
        org,
    )
    await site.world.pool.execute(
        "INSERT INTO stripe_events (event_id, type, created_at, received_at, payload, state, next_attempt_at) "
        "SELECT 'evt_' || n, 'invoice.paid', now(), now() - n * interval '1 minute', '{}', 'pending', now() "
        "FROM generate_series(1, 3) AS n"
    )
    events, oldest_event, intents, oldest_intent = await waits()
    assert (events, intents) == (3, 2)
    assert 180 <= oldest_event < 240
    assert 7200 <= oldest_intent < 7260
