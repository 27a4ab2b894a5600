"""Dead letters over HTTP: listed, inspected, retried, discarded."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
from contracts.schemas import example
from metering_platform import MeteringPlatform
from one_service import KEYS, bearer, checked
from servers import eventually
from usage import cloudevent, message

from aragora.chassis import dead_letters
from aragora.chassis.dead_letters import Letter
from aragora.contracts.ids import new_id

LETTERS = "/api/usage/dead-letters"


async def publish(platform: MeteringPlatform, *events: dict[str, Any]) -> None:
    """Straight to the bus, as a service in another language does."""
    await platform.bus.publish("usage.recorded.3", message(*events))
    await platform.settled()


async def letters(platform: MeteringPlatform, **filters: Any) -> list[dict[str, Any]]:
    answer = await platform.get(LETTERS, key=KEYS["operator"], **filters)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["dead_letters"]
    return found


async def act(platform: MeteringPlatform, letter: dict[str, Any], what: str) -> httpx.Response:
    url = f"{LETTERS}/{letter['id']}/{what}"
    return checked(await platform.client.post(url, headers=bearer(KEYS["operator"])))


async def test_a_bad_event_is_a_letter_with_the_reason_and_its_neighbours_are_recorded(
    platform: MeteringPlatform, org: str
):
    bad = cloudevent(org_id=org, id="bad", tokens_in=-7, user_id="böb")
    await publish(platform, cloudevent(org_id=org, id="a"), bad, cloudevent(org_id=org, id="b"))
    (letter,) = await letters(platform, org_id=org)
    assert json.loads(letter["payload"]) == bad
    assert (letter["field"], letter["status"], letter["attempts"]) == ("tokens_in", "open", 1)
    assert (letter["subject"], letter["source_stream"]) == ("usage.recorded.3", "USAGE")
    assert letter["reason"]
    answer = await platform.get(f"{LETTERS}/{letter['id']}", key=KEYS["operator"])
    assert answer.json() == letter
    log = (await platform.get("/api/usage/events", org_id=org)).json()
    assert sorted(each["id"] for each in log["events"]) == ["a", "b"]


async def test_what_is_no_batch_at_all_is_shown_as_it_came(platform: MeteringPlatform):
    before = {each["id"] for each in await letters(platform)}
    for body in (b"\xff\xfe binary", b"", b"[" * 10_000):
        await platform.bus.publish("usage.recorded.3", body)
    await platform.settled()
    new = [each for each in await letters(platform) if each["id"] not in before]
    assert [each["payload"] for each in new[::-1]] == ["\ufffd\ufffd binary", "", "[" * 10_000]
    assert {each["org_id"] for each in new} == {None}


async def test_a_letter_that_fails_again_opens_again(platform: MeteringPlatform, org: str):
    await publish(platform, cloudevent(org_id=org, tokens_in=-1))
    (letter,) = await letters(platform, org_id=org)
    answer = await act(platform, letter, "retry")
    assert (answer.status_code, answer.json()["status"]) == (202, "retried")
    await platform.settled()
    (again,) = await letters(platform, org_id=org)
    assert (again["id"], again["status"], again["attempts"]) == (letter["id"], "open", 2)
    assert again["resolved_at"] is None


async def test_a_letter_from_a_fast_clock_is_recorded_when_its_time_has_come(platform: MeteringPlatform, org: str):
    # an hour and some seconds ahead now; so many seconds from now it no longer is too far ahead
    now = datetime.now(UTC)
    ahead = {f"{seconds} s early": now + timedelta(hours=1, seconds=seconds) for seconds in (1.5, 5, 20)}
    sent = [cloudevent(org_id=org, id=name, occurred_at=at.isoformat()) for name, at in ahead.items()]
    await publish(platform, *sent)
    letter = (await letters(platform, org_id=org))[-1]  # of those that still are too far ahead, the least
    early = json.loads(letter["payload"])["id"]
    assert letter["field"] == "occurred_at"
    await eventually(lambda: datetime.now(UTC) > ahead[early] - timedelta(hours=1), 30)
    assert (await act(platform, letter, "retry")).status_code == 202
    await platform.settled()
    log = (await platform.get("/api/usage/events", org_id=org)).json()
    recorded, names = [each["id"] for each in log["events"]], list(ahead)
    assert recorded == names[names.index(early) :: -1]
    waiting = [json.loads(each["payload"])["id"] for each in await letters(platform, org_id=org)]
    assert waiting == names[: names.index(early) : -1]
    (kept,) = await letters(platform, org_id=org, status="retried")
    assert kept["resolved_by"] == "operator"


async def test_a_message_that_was_retried_twice_counts_once(platform: MeteringPlatform, org: str):
    # as if the reason had been a missing price table or a bug that is mended
    connection = await asyncpg.connect(platform.database_url)
    await publish(platform, cloudevent(org_id=org, tokens_in=-1))
    (letter,) = await letters(platform, org_id=org)
    good = message(cloudevent(org_id=org, id="mended"))
    await connection.execute("UPDATE dead_letters SET payload = $1 WHERE id = $2", good, letter["id"])
    for _ in range(2):
        assert (await act(platform, letter, "retry")).status_code == 202
        await connection.execute(
            "UPDATE dead_letters SET status = 'open', resolved_at = NULL WHERE id = $1", letter["id"]
        )
    await connection.close()
    await platform.settled()
    summary = await platform.get(f"/api/usage/organizations/{org}/summary")
    assert summary.json()["data"]["total_events"] == 1


async def test_an_event_of_another_service_is_followed_when_it_is_retried(platform: MeteringPlatform, org: str):
    erased = json.dumps(example("aragora.auth.UserErased.v1")).encode()
    connection = await asyncpg.connect(platform.database_url)
    said = {f"events.auth.UserErased.{org}": erased, f"events.auth.MemberJoined.{org}": b"{}"}
    kept = [Letter(subject=subject, payload=body, reason="r", org_id=org) for subject, body in said.items()]
    await dead_letters.record(connection, kept)
    heard, unheard = sorted(await letters(platform, org_id=org), key=lambda letter: letter["subject"], reverse=True)
    assert (await act(platform, heard, "retry")).status_code == 202
    await eventually(lambda: connection.fetchval("SELECT EXISTS (SELECT FROM erased_people)"))
    refused = await act(platform, unheard, "retry")
    assert (refused.status_code, "discard the letter" in refused.json()["detail"]) == (409, True)
    assert [each["id"] for each in await letters(platform, org_id=org)] == [unheard["id"]]
    await connection.close()


async def test_a_discarded_letter_stays_closed(platform: MeteringPlatform, org: str):
    bad = cloudevent(org_id=org, tokens_in=-1)
    await publish(platform, bad)
    (letter,) = await letters(platform, org_id=org)
    answer = await act(platform, letter, "discard")
    assert (answer.status_code, answer.json()["status"]) == (200, "discarded")
    for what in ("retry", "discard"):
        assert (await act(platform, letter, what)).status_code == 409
    await publish(platform, bad)
    assert await letters(platform, org_id=org) == []
    assert [each["status"] for each in await letters(platform, org_id=org, status="any")] == ["discarded"]


async def test_letters_are_paged_and_filtered(platform: MeteringPlatform, org: str):
    await publish(platform, *(cloudevent(org_id=org, id=f"e{n}", tokens_in=-1) for n in range(25)))
    seen: list[str] = []
    cursor = None
    while True:
        answer = await platform.get(LETTERS, key=KEYS["operator"], org_id=org, limit=10, cursor=cursor)
        page = answer.json()
        seen += [json.loads(each["payload"])["id"] for each in page["dead_letters"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == sorted(f"e{n}" for n in range(25))
    assert len(await letters(platform, org_id=org, limit=500)) == 25


async def test_what_letters_do_not_take(platform: MeteringPlatform):
    for wrong in ({"status": "lost"}, {"limit": 0}, {"limit": 501}, {"cursor": "x"}, {"org_id": "a.b"}):
        answer = await platform.get(LETTERS, key=KEYS["operator"], **wrong)
        assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, list(wrong))
    unknown = {"id": str(new_id())}
    for what in ("retry", "discard"):
        assert (await act(platform, unknown, what)).status_code == 404
        assert (await act(platform, {"id": "nonsense"}, what)).status_code == 422
