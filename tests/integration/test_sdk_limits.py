"""Limits through the SDK, against metering itself."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import limits
import pytest
from metering_platform import MeteringPlatform
from one_service import ALL_SCOPES, KEYS, token

from aragora.billing.limits import (
    APIProvider,
    LimitsClient,
    NotAuthorized,
    Operation,
    RequestRefused,
    UsageLimitExceededException,
)
from aragora.billing.usage import UsageEventType, UsageTracker

DEBATE = Operation(event_type=UsageEventType.DEBATE)


@pytest.fixture
async def client(platform: MeteringPlatform, org: str) -> AsyncIterator[LimitsClient]:
    """Asks about an organization with three debates, ten dollars, and five calls to Gemini, two for each person."""
    given = limits.entitlements(
        limits.limit("debates", 3),
        limits.limit("calls:gemini", 5),
        limits.limit("cost_usd", "10"),
        limits.limit("calls:gemini", 2, "user"),
    )
    await limits.entitle(platform.database_url, {org: given}, datetime.now(UTC))
    with LimitsClient(org, base_url=platform.url, api_key=ALL_SCOPES) as client:
        yield client


async def counted(platform: MeteringPlatform, org: str) -> tuple[int, int]:
    """The debates that are (used, held) this month."""
    found = await limits.standing(platform.database_url, org)
    used, held = found.get((f"{datetime.now(UTC):%Y-%m}", "debates", ""), (0, 0))
    return int(used), int(held)


async def test_the_documented_example(client: LimitsClient, user: str):
    usage_service = client
    can_proceed, message, usage_info = await usage_service.enforce_usage_limits(
        user_id=user, provider=APIProvider.GEMINI, tokens_requested=1000
    )
    assert (can_proceed, message) == (True, "")
    assert {(each["meter"], each["per"]) for each in usage_info["limits"]} == {
        ("calls:gemini", "organization"), ("calls:gemini", "user"), ("cost_usd", "organization"),
    }  # fmt: skip
    for _ in range(2):
        usage_service.reserve(Operation(provider=APIProvider.GEMINI), user_id=user)
    can_proceed, message, usage_info = await usage_service.enforce_usage_limits(user, "gemini", 0)
    assert not can_proceed
    assert "calls:gemini" in message
    assert [each["allowed"] for each in usage_info["limits"] if each["per"] == "user"] == [False]
    assert (await usage_service.enforce_usage_limits("somebody", "gemini"))[0]


def test_a_check_holds_nothing(client: LimitsClient):
    for _ in range(5):
        check = client.check(DEBATE, Operation(provider="gemini", cost_usd="9.5"))
        assert (check.allowed, check.message, check.plan, check.undecided) == (True, None, "test", False)
        assert [(each.meter, each.used == each.held == 0, each.remaining == each.limit) for each in check.limits] == [
            ("debates", True, True), ("calls:gemini", True, True), ("cost_usd", True, True),
        ]  # fmt: skip
    short = client.check(Operation(provider="gemini", cost_usd="10.000000000000000001"))
    assert not short.allowed
    assert short.message
    assert [each.requested for each in short.limits if not each.allowed] == [Decimal("10.000000000000000001")]


async def test_a_reservation_is_settled_by_the_usage_that_names_it(
    platform: MeteringPlatform, client: LimitsClient, org: str, tmp_path: Path
):
    with UsageTracker(tmp_path / "usage.db", base_url=platform.url, api_key=ALL_SCOPES) as tracker:
        with client.reserve(DEBATE, user_id="ann") as held:
            assert await counted(platform, org) == (0, 1)
            assert {each.meter: str(each.remaining) for each in held.limits} == {"debates": "2", "cost_usd": "10"}

            assert held.expires_at is not None
            assert held.expires_at > datetime.now(UTC)
            tracker.record_event(
                org_id=org, event_type=UsageEventType.DEBATE, user_id="ann", reservation_id=held.reservation_id
            )
        assert await asyncio.to_thread(tracker.flush, 20)
    await platform.settled()
    assert await counted(platform, org) == (1, 0)


async def test_a_limit_that_is_short_is_an_exception_that_says_which(
    platform: MeteringPlatform, client: LimitsClient, org: str
):
    held = [client.reserve(DEBATE, ttl_seconds=600) for _ in range(3)]
    with pytest.raises(UsageLimitExceededException, match="debates") as exceeded:
        client.reserve(DEBATE)
    refusal = exceeded.value.refusal
    assert (refusal.meter, refusal.per) == ("debates", "organization")
    assert [str(each) for each in (refusal.used, refusal.held, refusal.limit, refusal.requested)] == [
        "0",
        "3",
        "3",
        "1",
    ]
    least = min(500, (refusal.resets_at - datetime.now(UTC)).total_seconds())  # the month may end before what is held
    assert least < refusal.retry_after_seconds <= 600
    assert refusal.resets_at > datetime.now(UTC)
    held[0].release()
    held[0].release()
    with client.reserve(DEBATE):
        assert await counted(platform, org) == (0, 3)


async def test_an_exception_in_the_block_gives_back_what_is_held(
    platform: MeteringPlatform, client: LimitsClient, org: str
):
    async def fail_in(block: str) -> None:
        if block == "async":
            async with await asyncio.to_thread(client.reserve, DEBATE):
                raise LookupError(await counted(platform, org))
        with client.reserve(DEBATE, DEBATE):
            raise LookupError(await counted(platform, org))

    for block, held in (("plain", (0, 2)), ("async", (0, 1))):
        with pytest.raises(LookupError) as error:
            await fail_in(block)
        assert error.value.args == (held,)
        assert await counted(platform, org) == (0, 0)
    async with await asyncio.to_thread(client.reserve, DEBATE):
        assert await counted(platform, org) == (0, 1)
    assert await counted(platform, org) == (0, 1)


def test_extend_and_release_and_what_is_over(client: LimitsClient):
    with client.reserve(DEBATE, ttl_seconds=60) as held:
        assert held.reservation_id is not None
        held.extend(3600)
        assert held.expires_at is not None
        assert held.expires_at > datetime.now(UTC) + timedelta(minutes=50)
        held.release()
        held.release()
        with pytest.raises(RequestRefused) as refused:
            held.extend(10)
        assert refused.value.status == 409
    for unknown in ("nobody's", "a/b?c"):
        with pytest.raises(RequestRefused) as refused:
            client.release(unknown)
        assert refused.value.status == 404


async def test_a_key_of_ones_own_makes_one_reservation(platform: MeteringPlatform, client: LimitsClient, org: str):
    first, again = (client.reserve(DEBATE, idempotency_key="job-1") for _ in range(2))
    assert first.reservation_id == again.reservation_id
    assert await counted(platform, org) == (0, 1)
    with pytest.raises(RequestRefused) as refused:
        client.reserve(DEBATE, DEBATE, idempotency_key="job-1")
    assert refused.value.status == 409


async def test_questions_that_make_no_sense_are_refused(client: LimitsClient, platform: MeteringPlatform):
    dreams, negative = Operation(meter="dreams", amount=1), Operation(provider="x", tokens=-1)
    for operations in ((), (Operation(),), (dreams,), (negative,), (DEBATE, negative)):
        for ask in (client.check, client.reserve):
            with pytest.raises(RequestRefused) as refused:
                ask(*operations)
            assert refused.value.status == 422
    with pytest.raises(RequestRefused) as refused:
        client.check(DEBATE, org_id="org_that_nobody_knows")
    assert refused.value.status == 404
    with LimitsClient(base_url=platform.url, api_key=ALL_SCOPES) as nowhere, pytest.raises(RequestRefused, match="422"):
        nowhere.check(DEBATE)


def test_people_ask_about_themselves_with_their_token(platform: MeteringPlatform, client: LimitsClient, org: str):
    assert client.check(DEBATE).allowed
    with LimitsClient(base_url=platform.url, api_key=token("ann", org)) as ann:
        found = {(each.meter, each.per) for each in ann.check(Operation(provider="gemini")).limits}
        assert found >= {("calls:gemini", "organization"), ("calls:gemini", "user")}
        for ask in (lambda: ann.check(DEBATE, user_id="bob"), lambda: ann.reserve(DEBATE)):
            with pytest.raises(NotAuthorized):
                ask()


def test_a_key_that_may_not_ask_is_no_reason_to_let_calls_through(platform: MeteringPlatform):
    for fail_open in (False, True):
        key = KEYS["usage.read"]
        with LimitsClient("org_a", base_url=platform.url, api_key=key, fail_open=fail_open) as reader:
            for ask in (reader.check, reader.reserve):
                with pytest.raises(NotAuthorized):
                    ask(DEBATE)
