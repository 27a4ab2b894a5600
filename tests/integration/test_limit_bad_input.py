"""Questions that cannot be answered: the same status over HTTP and on the bus, the field named, and never a 5xx."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from limits import PEOPLE, LimitAsker, entitle, entitlements, limit, plan, publish_plans
from metering_platform import MeteringPlatform
from usage import native

from aragora_nats.connecting import connect_once

UNKNOWN = "org_nobody_has_heard_of"


@pytest.fixture(scope="module")
async def asker(platform: MeteringPlatform) -> AsyncIterator[LimitAsker]:
    bus = await connect_once(platform.bus_url)
    await publish_plans(platform.database_url, plan("free", limit(PEOPLE, 1)), plan("pro", limit(PEOPLE, 2), rank=1))
    yield LimitAsker(platform, bus)
    await bus.close()


@pytest.fixture
async def known(asker: LimitAsker, org: str) -> str:
    """An organization that may do three calls."""
    allowance = {org: entitlements(limit("api_calls", 3), limit("cost_usd", "1"), limit(PEOPLE, None))}
    await entitle(asker.platform.database_url, allowance, datetime.now(UTC))
    return org


async def refused(asker: LimitAsker, verb: str, question: Any, status: int) -> dict[str, Any]:
    """Ask both ways, and return the problem."""
    over_http = await asker.ask(verb, question)
    assert over_http.status_code == status, over_http.text
    assert over_http.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = over_http.json()
    assert problem.keys() == {"type", "title", "status", "detail", "errors"}
    if verb in ("check", "reserve") and not isinstance(question, bytes):
        assert await asker.ask_on_the_bus(verb, question) == (status, problem)
    return problem


CALL: dict[str, Any] = {"provider": "openai"}
BAD_OPERATIONS: list[tuple[Any, str]] = [
    ({}, "event_type"),
    ({"meter": "unheard_of", "amount": 1}, "meter"),
    ({"meter": "calls:", "amount": 1}, "meter"),
    ({"meter": "calls:open ai", "amount": 1}, "meter"),
    ({"meter": "words:openai", "amount": 1}, "meter"),
    ({"meter": "Debates", "amount": 1}, "meter"),
    ({"meter": "", "amount": 1}, "meter"),
    ({"meter": "m" * 129, "amount": 1}, "meter"),
    ({"meter": "api_calls"}, "amount"),
    ({"amount": 1}, "meter"),
    ({"meter": "api_calls", "amount": 1, "provider": "openai"}, "meter"),
    ({"meter": "api_calls", "amount": 0}, "amount"),
    ({"meter": "api_calls", "amount": -1}, "amount"),
    ({"meter": "api_calls", "amount": 1.5}, "amount"),
    ({"meter": "api_calls", "amount": 2**53 + 1}, "amount"),
    ({"meter": "api_calls", "amount": 10**30}, "amount"),
    ({"meter": "api_calls", "amount": "1"}, "amount"),
    ({"meter": "api_calls", "amount": True}, "amount"),
    ({"meter": "api_calls", "amount": []}, "amount"),
    ({"meter": "people", "amount": "1.5"}, "amount"),
    *(({"meter": "cost_usd", "amount": wrong}, "amount") for wrong in ("0", "-1", "NaN", "1e3", "inf", "", "abc", 1e9)),
    ({"meter": "cost_usd", "amount": "1000000000.01"}, "amount"),
    ({"meter": "cost_usd", "amount": "0." + "0" * 18 + "1"}, "amount"),
    *(
        (CALL | {name: wrong}, name)
        for name in ("requests", "tokens", "tokens_in", "tokens_out", "images", "searches", "pages")
        for wrong in (0, -1, 1.5, "1", 2**53 + 1)
    ),
    *((CALL | {"seconds": wrong}, "seconds") for wrong in (1, "0", "-1", "a minute", "1e3", "9" * 40)),
    *((CALL | {"cost_usd": wrong}, "cost_usd") for wrong in (0.5, "0", "-0.5", "abc", "NaN", "Infinity", "1,5")),
    (CALL | {"tokens": 2, "tokens_in": 1}, "tokens"),
    (CALL | {"tokens_used": 1}, "tokens_used"),
    ({"provider": 7}, "provider"),
    ({"provider": ""}, "provider"),
    ({"provider": "open\x00ai"}, "provider"),
    (CALL | {"model": "\x1b[31m"}, "model"),
    (CALL | {"event_type": "x" * 129}, "event_type"),
    ("a call", "operations"),
    (None, "operations"),
]


@pytest.mark.parametrize(("operation", "field"), BAD_OPERATIONS, ids=str)
async def test_an_operation_that_cannot_be(asker: LimitAsker, known: str, operation: Any, field: str):
    for verb in ("check", "reserve"):
        problem = await refused(asker, verb, {"org_id": known, "operations": [CALL, operation]}, 422)
        (error,) = problem["errors"]
        assert error["field"].rsplit(".", 1)[-1] == field
        if field != "tokens_used":  # an unknown field is named, but not where it is
            assert error["field"].startswith("operations")
            assert error["index"] == 1


QUESTIONS: list[tuple[dict[str, Any], str]] = [
    ({"operations": []}, "operations"),
    ({"operations": [CALL] * 51}, "operations"),
    ({"operations": CALL}, "operations"),
    ({}, "operations"),
    ({"operations": [CALL], "user_id": ""}, "user_id"),
    ({"operations": [CALL], "user_id": 1}, "user_id"),
    ({"operations": [CALL], "user_id": "nul\x00"}, "user_id"),
    ({"operations": [CALL], "user_id": "u" * 129}, "user_id"),
    ({"operations": [CALL], "org": "x"}, "org"),
    *(({"operations": [CALL], "org_id": wrong}, "org_id") for wrong in (None, "", "a.b", "*", "é", "o" * 65, 1, "a\n")),
]
RESERVATIONS: list[tuple[dict[str, Any], str]] = [
    *(({"operations": [CALL], "ttl_seconds": ttl}, "ttl_seconds") for ttl in (0, -1, 1.5, "60", 86_401, None)),
    *(({"operations": [CALL], "idempotency_key": key}, "idempotency_key") for key in ("", "k" * 129, 1, "\x00")),
]


@pytest.mark.parametrize(("question", "field"), [*QUESTIONS, *RESERVATIONS], ids=str)
async def test_a_question_that_cannot_be(asker: LimitAsker, known: str, question: dict[str, Any], field: str):
    for verb in ("reserve",) if (question, field) in RESERVATIONS else ("check", "reserve"):
        problem = await refused(asker, verb, {"org_id": known} | question, 422)
        assert [each["field"] for each in problem["errors"]] == [field]


@pytest.mark.parametrize("verb", ["check", "reserve"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"operations": "\\ud800"}', b"null", b"[]", b"7"], ids=str
)
async def test_a_body_that_is_no_question(asker: LimitAsker, verb: str, body: bytes):
    answer = await asker.ask(verb, body)
    assert answer.status_code in (400, 422), answer.text
    status, problem = await asker.ask_on_the_bus(verb, body)
    assert (status, problem) == (answer.status_code, answer.json())


@pytest.mark.parametrize("verb", ["check", "reserve", "release", "extend"])
async def test_an_unknown_organization(asker: LimitAsker, verb: str):
    question = {"org_id": UNKNOWN} | (
        {"operations": [CALL]} if verb in ("check", "reserve") else {"reservation_id": "r", "ttl_seconds": 5}
    )
    if verb == "release":
        question.pop("ttl_seconds")
    over_http = await asker.ask(verb, question)
    assert over_http.status_code == 404
    assert UNKNOWN in over_http.json()["detail"]
    assert await asker.ask_on_the_bus(verb, question) == (404, over_http.json())


@pytest.mark.parametrize("reservation_id", ["unknown", "01a20000-0000-7000-8000-000000000000", "ü", "a/b", "r" * 128])
async def test_an_unknown_reservation(asker: LimitAsker, known: str, reservation_id: str):
    question = {"org_id": known, "reservation_id": reservation_id}
    for verb, more in (("release", {}), ("extend", {"ttl_seconds": 60})):
        status, problem = await asker.ask_on_the_bus(verb, question | more)
        assert status == 404
        assert reservation_id in problem["detail"]
        if "/" not in reservation_id:  # it would be another path
            answer = await asker.ask(verb, question | more)
            assert (answer.status_code, answer.json()) == (404, problem)


@pytest.mark.parametrize(
    ("verb", "question", "field"),
    [
        ("release", {"org_id": "o", "reservation_id": ""}, "reservation_id"),
        ("release", {"org_id": "o", "reservation_id": "r\x00"}, "reservation_id"),
        ("release", {"org_id": "o"}, "reservation_id"),
        ("release", {"reservation_id": "r"}, "org_id"),
        ("extend", {"org_id": "o", "reservation_id": "r"}, "ttl_seconds"),
        ("extend", {"org_id": "o", "reservation_id": "r", "ttl_seconds": 0}, "ttl_seconds"),
        ("extend", {"org_id": "o", "reservation_id": "r", "ttl_seconds": 86_401}, "ttl_seconds"),
        ("extend", {"org_id": "o", "reservation_id": "r", "ttl_seconds": "60"}, "ttl_seconds"),
        ("extend", {"org_id": "o", "reservation_id": "r", "ttl_seconds": 60, "more": 1}, "more"),
    ],
    ids=str,
)
async def test_a_release_or_extension_that_cannot_be(
    asker: LimitAsker, verb: str, question: dict[str, Any], field: str
):
    status, problem = await asker.ask_on_the_bus(verb, question)
    assert (status, [each["field"] for each in problem["errors"]]) == (422, [field])
    if question.get("reservation_id"):
        answer = await asker.ask(verb, question)
        assert answer.status_code == 422
        assert field in answer.text


async def test_bad_questions_leave_nothing_behind_and_good_ones_beside_them_are_answered(asker: LimitAsker, known: str):
    """They are decided in one batch: what is wrong with one is nobody else's trouble."""
    await asker.platform.record(native(org_id=known, user_id="ann", occurred_at=datetime.now(UTC).isoformat()))
    wrong = [operation for operation, _ in BAD_OPERATIONS]
    good = [{"org_id": known, "operations": [CALL], "idempotency_key": f"k{number}"} for number in range(2)]
    questions = [*({"org_id": known, "operations": [each]} for each in wrong), *good]
    replies = [await each for each in [asker.ask_on_the_bus("reserve", one) for one in questions]]
    assert [status for status, _ in replies] == [422] * len(wrong) + [201] * 2
    check = await asker.ask("check", {"org_id": known, "operations": [CALL]})
    (calls, _) = check.json()["limits"]
    assert (calls["used"], calls["held"], calls["allowed"]) == (1, 2, False)
