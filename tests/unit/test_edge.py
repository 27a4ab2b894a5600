"""The edge's groups: few messages, nobody told a lie, the same message id on every try."""

import asyncio
import json
import random
from collections import Counter

import pytest
from servers import eventually
from usage import NOON

from aragora.contracts.topology import MAX_MESSAGE_BYTES, MAX_MESSAGE_EVENTS, usage_partition, usage_subject
from aragora.contracts.usage import USAGE_RECORDED, Usage, UsageRecorded
from metering import edge
from metering.edge import MAX_WAITING_EVENTS, PUBLISH_TRIES, BusUnavailable, EdgeOverloaded, UsagePublisher


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "PAUSES_SECONDS", [0] * (PUBLISH_TRIES - 1))


def event(event_id: str, org_id: str = "org_acme", endpoint: str | None = None) -> UsageRecorded:
    usage = Usage(event_type="api_call", endpoint=endpoint)
    return UsageRecorded(
        id=event_id, subject=org_id, time=NOON, data=usage, type=USAGE_RECORDED, source="/test", specversion="1.0"
    )


def ids(payload: bytes) -> list[str]:
    return [each["id"] for each in json.loads(payload)]


class Bus:
    """A bus that keeps what it is told. While it is closed nothing is confirmed; `refuses` says what fails."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.tries: list[tuple[str, bytes, str]] = []
        self.kept: dict[str, tuple[str, bytes]] = {}
        self.failures: Counter[str] = Counter()
        """Event id → how many tries of its message fail."""
        self.lost_confirmations: Counter[str] = Counter()
        """Event id → how many tries of its message are kept, but not confirmed."""

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str]) -> None:
        self.tries.append((subject, payload, headers["Nats-Msg-Id"]))
        await self.open.wait()
        for event_id in ids(payload):
            if self.failures[event_id] > 0:
                self.failures[event_id] -= 1
                raise TimeoutError("no confirmation")
        self.kept.setdefault(headers["Nats-Msg-Id"], (subject, payload))
        for event_id in ids(payload):
            if self.lost_confirmations[event_id] > 0:
                self.lost_confirmations[event_id] -= 1
                raise ConnectionError("cut off")

    @property
    def kept_ids(self) -> list[str]:
        return [each for _, payload in self.kept.values() for each in ids(payload)]


async def test_an_event_travels_on_its_organizations_partition():
    bus = Bus()
    events = [event(f"e{n}", f"org_{n}") for n in range(100)]
    await UsagePublisher(bus.publish).publish(events)
    for subject, payload in bus.kept.values():
        assert {usage_subject(usage_partition(each["subject"])) for each in json.loads(payload)} == {subject}
    assert sorted(bus.kept_ids) == sorted(one.id for one in events)
    assert len(bus.kept) == len({usage_partition(one.subject) for one in events})


async def test_requests_that_come_while_a_message_is_written_leave_together():
    bus = Bus()
    bus.open.clear()
    publisher = UsagePublisher(bus.publish)
    requests = [asyncio.create_task(publisher.publish([event(f"e{n}")])) for n in range(1200)]
    await eventually(lambda: bus.tries)
    bus.open.set()
    await asyncio.gather(*requests)
    assert bus.kept_ids == [f"e{n}" for n in range(1200)]
    assert len(bus.kept) <= 1 + -(-1200 // MAX_MESSAGE_EVENTS)


async def test_nobody_is_answered_before_the_bus_has_it():
    bus = Bus()
    bus.open.clear()
    request = asyncio.create_task(UsagePublisher(bus.publish).publish([event("e1"), event("e2", "org_b")]))
    await eventually(lambda: len(bus.tries) == 2)
    assert not request.done()
    assert bus.kept == {}
    bus.open.set()
    await request
    assert sorted(bus.kept_ids) == ["e1", "e2"]


async def test_a_message_keeps_within_its_bounds():
    bus = Bus()
    await UsagePublisher(bus.publish).publish([event(f"e{n}", endpoint="x" * 500) for n in range(3000)])
    sizes = [(len(payload), len(ids(payload))) for _, payload in bus.kept.values()]
    assert all(size <= MAX_MESSAGE_BYTES and count <= MAX_MESSAGE_EVENTS for size, count in sizes)
    assert bus.kept_ids == [f"e{n}" for n in range(3000)]


async def test_every_try_has_the_same_message_id_so_that_a_lost_confirmation_counts_once():
    bus = Bus()
    bus.lost_confirmations["e1"] = PUBLISH_TRIES - 1
    await UsagePublisher(bus.publish).publish([event("e1")])
    assert len(bus.tries) == PUBLISH_TRIES
    assert len({message_id for _, _, message_id in bus.tries}) == 1
    assert bus.kept_ids == ["e1"]
    await UsagePublisher(bus.publish).publish([event("e1")])
    assert len(bus.kept) == 2  # another request is another message


async def test_the_failure_of_one_message_fails_exactly_its_requests():
    bus = Bus()
    bus.failures["bad"] = PUBLISH_TRIES
    publisher = UsagePublisher(bus.publish)
    bus.open.clear()
    before = [asyncio.create_task(publisher.publish([event(f"a{n}")])) for n in range(1)]
    await eventually(lambda: bus.tries)
    # the second message of the lane has room for 500: "bad" and 499 others
    same = [asyncio.create_task(publisher.publish([event(each)])) for each in ("bad", *(f"b{n}" for n in range(499)))]
    after = [asyncio.create_task(publisher.publish([event(f"c{n}")])) for n in range(10)]
    elsewhere = asyncio.create_task(publisher.publish([event("d", "org_far_away")]))
    # half of this request is in the failing message: nobody may tell its sender that all is well
    over_two = asyncio.create_task(publisher.publish([event("e1", "org_far_away"), event("e2")]))
    bus.open.set()
    failed = await asyncio.gather(*same, return_exceptions=True)
    assert all(isinstance(outcome, BusUnavailable) for outcome in failed)
    assert isinstance(failed[0], BusUnavailable)
    assert isinstance(failed[0].__cause__, TimeoutError)
    await asyncio.gather(*before, *after, elsewhere, over_two)
    assert sorted(bus.kept_ids) == sorted(["a0", *(f"c{n}" for n in range(10)), "d", "e1", "e2"])


async def test_a_request_of_which_one_part_failed_has_failed():
    bus = Bus()
    bus.failures["e2"] = PUBLISH_TRIES
    with pytest.raises(BusUnavailable):
        await UsagePublisher(bus.publish).publish([event("e1", "org_far_away"), event("e2")])
    assert bus.kept_ids == ["e1"]


async def test_the_edge_holds_only_so_much_and_recovers():
    bus = Bus()
    bus.open.clear()
    publisher = UsagePublisher(bus.publish)
    full = [event(f"e{n}") for n in range(MAX_WAITING_EVENTS // 2)]
    waiting = [asyncio.create_task(publisher.publish(full)) for _ in range(2)]
    await eventually(lambda: bus.tries)
    with pytest.raises(EdgeOverloaded):
        await publisher.publish([event("one_too_many")])
    bus.open.set()
    await asyncio.gather(*waiting)
    await publisher.publish([event("later")])
    assert "later" in bus.kept_ids
    assert "one_too_many" not in bus.kept_ids


async def test_a_caller_that_goes_away_takes_nobody_with_it():
    bus = Bus()
    bus.open.clear()
    publisher = UsagePublisher(bus.publish)
    requests = [asyncio.create_task(publisher.publish([event(f"e{n}")])) for n in range(20)]
    await eventually(lambda: bus.tries)
    for request in requests[::2]:
        request.cancel()
    bus.open.set()
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert [outcome for outcome in outcomes[1::2] if outcome is not None] == []
    await publisher.publish([event("last")])
    assert set(bus.kept_ids) >= {f"e{n}" for n in range(1, 20, 2)} | {"last"}


async def test_whoever_was_told_yes_is_on_the_bus_whatever_fails():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rnd = random.Random(seed)
    bus = Bus()
    publisher = UsagePublisher(bus.publish)
    batches = [
        [event(f"{n}.{m}", f"org_{rnd.randrange(30)}") for m in range(rnd.choice([1, 1, 5, 40]))] for n in range(400)
    ]
    for batch in rnd.sample(batches, 40):
        bus.failures[batch[0].id] = rnd.randrange(1, 2 * PUBLISH_TRIES)
    for batch in rnd.sample(batches, 40):
        bus.lost_confirmations[batch[-1].id] = rnd.randrange(1, 2 * PUBLISH_TRIES)
    requests = []
    for batch in batches:
        requests.append(asyncio.create_task(publisher.publish(batch)))
        await asyncio.sleep(0)  # what comes at once leaves together, and would fail together
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    kept = Counter(bus.kept_ids)
    assert max(kept.values()) == 1
    assert Counter(map(type, outcomes)).keys() == {type(None), BusUnavailable}
    for batch, outcome in zip(batches, outcomes, strict=True):
        if outcome is None:
            assert all(one.id in kept for one in batch)
