"""Every user of the bus may do what it must and nothing else."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from nats.aio.client import Client
from servers import eventually
from usage import cloudevent, message

from aragora.contracts.topology import EVENTS, USAGE
from standalone.nats import EmbeddedNats
from standalone.platform import apply_streams


@pytest.mark.parametrize(
    ("account", "allowed", "forbidden"),
    [
        (
            "publisher",
            ["usage.recorded.0", "usage.recorded.15"],
            ["events.metering.LimitReached.org_a", "events.billing.PaymentFailed.org_a", "rpc.billing.check"],
        ),
        (
            "metering",
            ["usage.recorded.0", "events.metering.LimitReached.org_a"],
            ["events.billing.PaymentFailed.org_a", "events.auth.TokenRevoked.org_a", "$JS.API.STREAM.PURGE.EVENTS"],
        ),
        (
            "billing",
            ["events.billing.EntitlementsChanged.org_a", "events.billing.PlanPublished.platform"],
            ["usage.recorded.0", "events.auth.MemberJoined.org_a", "events.metering.LimitReached.org_a"],
        ),
    ],
)
async def test_an_account_may_do_what_it_must_and_nothing_else(
    private_nats: Callable[[], Awaitable[EmbeddedNats]], account: str, allowed: list[str], forbidden: list[str]
):
    nats = await private_nats()
    await apply_streams(nats)
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error).lower())

    def mentioned(what: str) -> bool:
        return any(what in error for error in errors)

    client = Client()
    inbox = f"_INBOX.{account}".encode()
    await client.connect(nats.url(account), inbox_prefix=inbox, error_cb=note, allow_reconnect=False)
    try:
        for subject in allowed:
            await client.jetstream().publish(subject, message(cloudevent()))
        assert errors == []
        admin = ["STREAM.DELETE.USAGE", "STREAM.CREATE.MINE", "STREAM.MSG.DELETE.USAGE", "CONSUMER.CREATE.USAGE"]
        for subject in [*forbidden, *(f"$JS.API.{each}" for each in admin)]:
            await client.publish(subject, b"{}")
            await client.flush()
            await eventually(partial(mentioned, subject.lower()))
        for subject in ("usage.recorded.*", "events.>", ">", "_INBOX.>", "_INBOX.operator.>"):
            await client.subscribe(subject)
            await client.flush()
            await eventually(partial(mentioned, f'subscription to "{subject.lower()}"'))
        assert all("permissions violation" in each for each in errors)
    finally:
        await client.close()
    operator = await nats.connect()
    streams = {each.config.name: each.state.messages for each in await operator.jetstream().streams_info()}
    await operator.close()
    usage = sum(subject.startswith("usage") for subject in allowed)
    assert streams == {USAGE.name: usage, EVENTS.name: len(allowed) - usage}
