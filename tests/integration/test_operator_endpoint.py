"""The operator's own endpoint: made from the settings, told of everybody, never given up."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from servers import PostgresServer
from structlog.testing import capture_logs
from webhook_lanes import SECRET, LanesWorld, lanes_world
from webhook_receiver import Receiver

from aragora.contracts.events import PLATFORM
from notifier import schedule, signatures
from notifier.operator_endpoint import UnusableWebhook, operator_endpoint
from notifier.resealing import operator_secret
from notifier.settings import Settings


@pytest.fixture(scope="module")
async def world(postgres_server: PostgresServer, notifier_template: str) -> AsyncIterator[LanesWorld]:
    async with lanes_world(postgres_server, notifier_template) as running:
        yield running


def settings(**given: str) -> Settings:
    return Settings.model_validate(
        {"DATABASE_URL": "postgres://", "ARAGORA_SEALING_KEYS": "k" * 40}
        | {f"ARAGORA_NOTIFICATION_{name.upper()}": value for name, value in given.items()}
    )


async def test_it_hears_of_everybody_and_is_never_disabled(world: LanesWorld, hook: Receiver):
    async with world.pool.acquire() as connection, connection.transaction():
        given = settings(webhook=hook.url, webhook_secret=SECRET)
        await operator_endpoint(connection, given, world.sealer, world.clock())
    hook.status = 410
    (event_id,) = await world.tell("org_of_somebody", kind="notification.undelivered")
    with capture_logs() as logs:
        async with world.work(networks=()):  # it is not vetted: the deployer chose it
            await world.failures(1, PLATFORM, "operator")
            await world.jump(schedule.DISABLED_AFTER)
            # The notice of it is one more message that fails.
            await world.failures(3, PLATFORM, "operator")
    assert await world.statuses(PLATFORM, "operator") == ["failed", "pending"]
    assert await world.alerts(PLATFORM) == ["attention.needed"]
    (last_resort,) = [each for each in logs if each["event"] == "notification_undeliverable"]
    assert last_resort["event_id"] == str(event_id)
    # A restart tries at once; without a secret of its own the one that is there stays.
    hook.status = 200
    async with world.pool.acquire() as connection, connection.transaction():
        await operator_endpoint(connection, settings(webhook=hook.url), world.sealer, world.clock())
    async with world.work(networks=()):
        await world.settled(["failed", "delivered"], PLATFORM, "operator")
    sent = hook.requests[-1]
    at = datetime.fromtimestamp(int(sent.headers["webhook-timestamp"]), UTC)
    signed = signatures.headers(sent.message_id, at, sent.body.decode(), [SECRET])
    assert signed.items() <= sent.headers.items()


async def test_a_start_without_it_disables_it_and_keeps_what_waits_and_its_secret(world: LanesWorld, hook: Receiver):
    async with world.pool.acquire() as connection, connection.transaction():
        await operator_endpoint(connection, settings(webhook=hook.url), world.sealer, world.clock())
        secret = await operator_secret(connection, world.sealer)
    before = await world.statuses(PLATFORM, "operator")
    await world.tell("org_of_somebody", kind="notification.undelivered")
    async with world.pool.acquire() as connection, connection.transaction():
        await operator_endpoint(connection, settings(), world.sealer, world.clock())
    await world.tell("org_of_somebody", kind="notification.undelivered")
    assert await world.statuses(PLATFORM, "operator") == [*before, "pending", "skipped"]
    async with world.pool.acquire() as connection, connection.transaction():
        await operator_endpoint(connection, settings(webhook=hook.url), world.sealer, world.clock())
        assert await operator_secret(connection, world.sealer) == secret
    async with world.work(networks=()):
        await world.settled([*before, "delivered", "skipped"], PLATFORM, "operator")


@pytest.mark.parametrize("given", [{"webhook": "hook"}, {"webhook": "https://example.com/", "webhook_secret": "short"}])
async def test_a_url_or_a_secret_that_is_none_stops_the_start(world: LanesWorld, given: dict[str, str]):
    async with world.pool.acquire() as connection:
        with pytest.raises(UnusableWebhook, match="ARAGORA_NOTIFICATION_WEBHOOK"):
            await operator_endpoint(connection, settings(**given), world.sealer, world.clock())
