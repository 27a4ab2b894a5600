"""No user of the bus gets at what belongs to another service, whoever uses its password.

What there is to try comes from the topology, and so does who owns it: consumers and subjects carry their owner's name.
`ASKED` says once more who needs whose answers; an account that is not in it may ask nobody.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest
import servers
from nats.aio.client import Client
from nats.aio.msg import Msg
from one_service import jwt_secret
from servers import NATS_PASSWORDS, eventually
from trust import bus_client, following

from aragora.contracts.alerts import UNREAD_ALERTS
from aragora.contracts.contacts import READ_CONTACTS
from aragora.contracts.messages import READ_MESSAGE
from aragora.contracts.topology import (
    ACCOUNTS,
    CONSUMERS,
    EVENTS,
    LIMIT_VERBS,
    REVOCATIONS,
    STREAMS,
    USAGE,
    VERIFY_KEY,
    Account,
    Consumer,
)
from aragora_nats.topology import apply_topology
from standalone.nats import EmbeddedNats

STRANGERS = [account for account in ACCOUNTS if account.name != "operator"]
LIMITS = {f"rpc.metering.{verb}" for verb in LIMIT_VERBS}
QUESTIONS = {VERIFY_KEY, READ_CONTACTS, READ_MESSAGE, UNREAD_ALERTS, *LIMITS}
ASKED = {
    "auth": {VERIFY_KEY},
    "metering": {VERIFY_KEY, UNREAD_ALERTS},
    "billing": {VERIFY_KEY},
    "notifier": {VERIFY_KEY, READ_CONTACTS, READ_MESSAGE},
    "publisher": LIMITS,
}
OF_STREAMS = (
    "STREAM.CREATE.{0}", "STREAM.UPDATE.{0}", "STREAM.DELETE.{0}", "STREAM.PURGE.{0}", "STREAM.INFO.{0}",
    "STREAM.MSG.GET.{0}", "STREAM.MSG.DELETE.{0}", "DIRECT.GET.{0}", "DIRECT.GET.{0}.events.auth.TokenRevoked.o",
    "STREAM.SNAPSHOT.{0}", "STREAM.RESTORE.{0}", "STREAM.LEADER.STEPDOWN.{0}", "STREAM.PEER.REMOVE.{0}",
    "CONSUMER.CREATE.{0}", "CONSUMER.CREATE.{0}.mine", "CONSUMER.CREATE.{0}.mine.events.auth.MemberJoined.o",
    "CONSUMER.CREATE.{0}.mine.usage.recorded.0", "CONSUMER.DURABLE.CREATE.{0}.mine", "CONSUMER.LIST.{0}",
    "CONSUMER.NAMES.{0}",
)  # fmt: skip
OF_THE_BUS = (
    "INFO", "STREAM.NAMES", "STREAM.LIST", "META.LEADER.STEPDOWN", "SERVER.REMOVE", "ACCOUNT.PURGE.$G",
    "STREAM.TEMPLATE.NAMES", "STREAM.CREATE.MINE", "STREAM.RESTORE.MINE",
)  # fmt: skip
OF_CONSUMERS = (
    "CONSUMER.DELETE.{0}.{1}", "CONSUMER.PAUSE.{0}.{1}", "CONSUMER.RESET.{0}.{1}", "CONSUMER.UNPIN.{0}.{1}",
    "CONSUMER.LEADER.STEPDOWN.{0}.{1}", "CONSUMER.DURABLE.CREATE.{0}.{1}", "CONSUMER.CREATE.{0}.{1}",
)  # fmt: skip
"""Not even a consumer's own service changes it, or ends it."""
USED = ("CONSUMER.INFO.{0}.{1}", "CONSUMER.MSG.NEXT.{0}.{1}")


@pytest.fixture(scope="module")
async def bus() -> AsyncIterator[EmbeddedNats]:
    """A server with the platform's topology."""
    async with servers.scratch_dir() as folder:
        server = EmbeddedNats(folder, NATS_PASSWORDS)
        await server.start()
        try:
            client = await server.connect()
            await apply_topology(client.jetstream(), replicas=1, max_bytes=2**28)
            await client.close()
            yield server
        finally:
            await server.stop(10)


def owns(account: Account, consumer: Consumer) -> bool:
    return consumer.name.startswith(f"{account.name}-")


def is_own(account: Account, subject: str) -> bool:
    if subject.startswith("usage."):
        return account.name in ("metering", "publisher")
    return subject.split(".")[1] == account.name


def forbidden_publishing(account: Account) -> list[str]:
    """All that this account must not publish to."""
    subjects = [f"events.{other.name}.MemberJoined.org_a" for other in ACCOUNTS if other != account]
    subjects += ["events", "events.auth", "anything", "rpc.unknown.verb", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO"]
    subjects += [] if is_own(account, USAGE.subjects[0]) else ["usage.recorded.0"]
    subjects += sorted(QUESTIONS - ASKED.get(account.name, set()))
    asking_it = {name for name, asked in ASKED.items() if any(is_own(account, question) for question in asked)}
    subjects += [f"{each.inbox_prefix}.guessed" for each in STRANGERS if each.name not in asking_it]
    api = [verb.format(stream.name) for stream in STREAMS for verb in OF_STREAMS] + [*OF_THE_BUS]
    for consumer in CONSUMERS:
        where = consumer.stream, consumer.name
        api += [verb.format(*where) for verb in OF_CONSUMERS]
        api += [f"CONSUMER.CREATE.{consumer.stream}.{consumer.name}.{subject}" for subject in REVOCATIONS]
        if not owns(account, consumer):
            api += [verb.format(*where) for verb in USED]
            subjects += [consumer.retries]
            subjects += [f"$JS.ACK.{consumer.stream}.{consumer.name}.1.1.1.1.0", f"$JS.ACK.{consumer.stream}.>"]
    return subjects + [f"$JS.API.{verb}" for verb in api]


def forbidden_listening(account: Account) -> list[str]:
    """All that this account must not subscribe to."""
    others = [other for other in ACCOUNTS if other != account]
    subjects = [">", "*", "_INBOX.>", "_INBOX.*", "events.>", "usage.>", "$SYS.>", "$JS.>", "$JS.API.>", "$JS.ACK.>"]
    subjects += ["$JS.EVENT.ADVISORY.>", "rpc.>", "*.>", "usage.recorded.*", *EVENTS.subjects, *REVOCATIONS]
    subjects += [f"{other.inbox_prefix}.>" for other in others] + [f"rpc.{other.name}.*" for other in others]
    return subjects + sorted(question for question in QUESTIONS if not is_own(account, question))


async def refused(client: Client, errors: list[str]) -> list[str]:
    """What the server refused since the last time, in lower case and in order; what comes last is our own mark."""
    await client.publish("the.last")
    await eventually(lambda: errors and '"the.last"' in errors[-1].lower())
    found = [re.search('"([^"]*)"', error) for error in errors[:-1]]
    errors.clear()
    return [each[1].lower() for each in found if each]


async def stranger(bus: EmbeddedNats, account: Account) -> tuple[Client, list[str]]:
    client = await bus.connect(account.name)
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error))

    client._error_cb = note
    return client, errors


def lower(subjects: Iterable[str]) -> list[str]:
    return [subject.lower() for subject in subjects]


@pytest.mark.parametrize("account", STRANGERS, ids=lambda account: account.name)
async def test_what_belongs_to_others_is_refused(bus: EmbeddedNats, account: Account):
    client, errors = await stranger(bus, account)
    forbidden = forbidden_publishing(account)
    for subject in forbidden:
        await client.publish(subject, b"")
    assert await refused(client, errors) == lower(forbidden)
    forbidden = forbidden_listening(account)
    for subject in forbidden:
        await client.subscribe(subject)
    assert await refused(client, errors) == lower(forbidden)
    await client.close()


async def test_nothing_of_it_left_a_trace(bus: EmbeddedNats):
    operator = await bus.connect()
    consumers = [info.name for stream in STREAMS for info in await operator.jetstream().consumers_info(stream.name)]
    assert await messages(operator) == {stream.name: 0 for stream in STREAMS}
    await operator.close()
    assert sorted(consumers) == sorted(consumer.name for consumer in CONSUMERS)


@pytest.mark.parametrize("account", STRANGERS, ids=lambda account: account.name)
async def test_what_an_account_needs_is_allowed(bus: EmbeddedNats, account: Account):
    client, errors = await stranger(bus, account)
    own = [] if account.name == "publisher" else [f"events.{account.name}.SomethingHappened.org_a"]
    for subject in [*own, *(["usage.recorded.0"] if is_own(account, USAGE.subjects[0]) else [])]:
        await client.jetstream().publish(subject, b"{}")
    for consumer in (each for each in CONSUMERS if owns(account, each)):
        assert (await client.jetstream().consumer_info(consumer.stream, consumer.name)).name == consumer.name
        for subject in consumer.subjects[len(consumer.filter_subjects) :]:
            await client.jetstream().publish(subject, b"{}")
        filled = consumer.filter_subjects[0].replace("*", "org_a")
        operator = await bus.connect()
        await operator.jetstream().publish(filled, b"{}")
        await operator.close()
        taken = await client.jetstream().pull_subscribe_bind(consumer.name, consumer.stream)
        (message,) = await taken.fetch(1, timeout=5)
        await message.ack_sync(timeout=5)
    for question in QUESTIONS:
        if is_own(account, question):
            await client.subscribe(question)
    assert await refused(client, errors) == []
    await client.close()


@pytest.mark.parametrize(
    ("asker", "question"), [(name, each) for name, asked in ASKED.items() for each in sorted(asked)]
)
async def test_who_may_ask_is_answered(bus: EmbeddedNats, asker: str, question: str):
    async with bus_client(bus.url(asker), asker) as client, answering(bus, question, b"!"):
        assert (await client.request(question, b"?", timeout=5)).data == b"!"


@pytest.mark.parametrize("victim", ["$JS.API.STREAM.PURGE.USAGE", "$JS.API.STREAM.DELETE.EVENTS", "events.auth.X.o"])
async def test_an_answer_goes_to_who_asked_and_nowhere_else(bus: EmbeddedNats, victim: str):
    operator = await bus.connect()
    await operator.jetstream().publish("usage.recorded.0", b"{}")
    before = await messages(operator)
    async with (
        bus_client(bus.url("publisher"), "publisher") as publisher,
        answering(bus, "rpc.metering.check", b"") as answers,
    ):
        await publisher.publish("rpc.metering.check", b"?", reply=victim)
        await publisher.flush()
        assert victim.lower() in str(await asyncio.wait_for(answers.get(), 5)).lower()
    assert await messages(operator) == before
    await operator.close()


@pytest.mark.parametrize(
    "account", [each for each in STRANGERS if VERIFY_KEY in each.publish], ids=lambda account: account.name
)
async def test_who_verifies_follows_revocations_and_nothing_else(bus: EmbeddedNats, account: Account):
    with jwt_secret():
        async with following(bus.url(account.name), account.name) as trust:
            await asyncio.wait_for(trust.ready(), 10)
    client, errors = await stranger(bus, account)
    for greedy in ({"filter_subject": "events.>"}, {"filter_subjects": ["events.>"]}, {}):
        asked = {"stream_name": EVENTS.name, "config": {"name": "mine", **greedy}}
        subject = f"$JS.API.CONSUMER.CREATE.{EVENTS.name}.mine.{REVOCATIONS[0]}"
        answer = await client.request(subject, json.dumps(asked).encode(), timeout=5)
        assert "error" in json.loads(answer.data)
    assert await refused(client, errors) == []
    await client.close()


async def messages(operator: Client) -> dict[str | None, int]:
    return {each.config.name: each.state.messages for each in await operator.jetstream().streams_info()}


@asynccontextmanager
async def answering(bus: EmbeddedNats, question: str, answer: bytes) -> AsyncIterator[asyncio.Queue[Exception]]:
    """The service that answers a question, and what the server refuses it."""
    client = await bus.connect(question.split(".")[1])
    told: asyncio.Queue[Exception] = asyncio.Queue()
    client._error_cb = told.put

    async def reply(message: Msg) -> None:
        await client.publish(message.reply, answer)

    await client.subscribe(question, cb=reply)
    for _ in range(2):  # nats-py sends the first one's PING before the subscription, and the second's after it
        await client.flush()
    try:
        yield told
    finally:
        await client.close()
