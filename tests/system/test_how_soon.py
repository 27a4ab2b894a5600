"""How soon one knows: of a revocation, of an event at an endpoint, of an alert on a page. Nothing runs beside it."""

import time
from functools import partial

import pytest
import servers
from event_streams import serving, streaming
from mail_server import mail_server
from mailing_world import limit
from notifier_world import notifier_world
from one_service import jwt_secret, token
from servers import PostgresServer, eventually
from shown_alerts import show
from trust import bus_client, following, new_token, say, token_revoked
from webhook_receiver import Receiver

from aragora.billing.jwt_auth import validate_access_token

LATENCY_SECONDS = 1.0
"""From the event to the webhook, for 99 of 100."""
TOLD = 300


def is_refused(text: str) -> bool:
    return validate_access_token(text) is None


@pytest.mark.alone
async def test_a_revocation_is_known_within_milliseconds(bus_url: str):
    taken: list[float] = []
    with jwt_secret():
        async with following(bus_url) as trust, bus_client(bus_url) as auth:
            await trust.ready()
            for _ in range(200):
                text, payload = new_token()
                said_at = time.perf_counter()
                await say(auth, token_revoked(payload))
                await eventually(partial(is_refused, text))
                taken.append(time.perf_counter() - said_at)
    taken.sort()
    print(f"from publishing to refusing: p50 {taken[100] * 1e3:.1f} ms, p99 {taken[198] * 1e3:.1f} ms")
    assert taken[198] < 0.5  # polled every 10 ms


@pytest.mark.alone
async def test_from_the_event_to_the_webhook_is_less_than_a_second(
    postgres_server: PostgresServer, notifier_template: str, nats_server: str, hook: Receiver, org: str, user: str
):
    async with (
        servers.scratch_dir() as folder,
        mail_server(folder, "tls") as mail,
        notifier_world(postgres_server, notifier_template, nats_server, **mail.settings) as world,
    ):
        world.book.add(org, user)
        endpoint = {"url": hook.url, "description": "tests"}
        await world.read("POST", "/api/notifications/endpoints", endpoint, key=token(user, org, "owner"))
        said: dict[str, float] = {}
        for number in range(TOLD):
            before = time.time()
            event_id = await world.tell(limit(80, f"meter_{number}"), org)
            said[f"msg_{event_id.hex}"] = before
            if number % 10 == 9:  # some come together, others when all before them have been told
                await eventually(lambda: len(hook.requests) == len(said), 20, what="all webhooks")
        took = sorted(request.at - said[request.message_id] for request in hook.requests)
        p50, p99 = took[len(took) // 2], took[int(len(took) * 0.99)]
        print(f"from the event to the webhook: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
        assert p99 < LATENCY_SECONDS


@pytest.mark.alone
async def test_an_alert_is_on_an_open_page_within_a_second(
    postgres_server: PostgresServer, notifier_template: str, nats_server: str, org: str, user: str
):
    async with notifier_world(postgres_server, notifier_template, nats_server, works=False) as world:
        await world.app.state.trust.ready()
        async with (
            serving(world.app) as (client, _),
            streaming(client, f"/api/subscription/alerts/{user}/stream", token(user, org)) as events,
        ):
            await eventually(lambda: world.app.state.notifier_alert_streams._live, what="the stream is live")
            began = time.monotonic()
            (alert_id,) = await show(world, org, "limit.reached")
            await eventually(lambda: events.ids == [str(alert_id)])
            assert time.monotonic() - began < 1
