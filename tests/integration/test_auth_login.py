"""Signing in, and failing to: the same for an account that is there and one that is not."""

import asyncio
import statistics
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from auth_platform import SEALING_KEYS, AuthPlatform, any_address, any_email

from aragora.billing.passwords import hash_password, needs_rehash
from aragora.chassis.problems import Problem
from aragora.chassis.sealing import Sealer
from aragora.contracts.events import AccountLocked
from auth import attempts

WRONG = "not-the-password-at-all"


async def test_signing_in_begins_a_session(running_auth: AuthPlatform):
    person = await running_auth.register()
    again = await running_auth.sign_in(person)
    assert again["user"]["user_id"] == person.user_id
    assert again["organization"]["org_id"] == person.org_id
    sessions = await running_auth.read("GET", "/api/auth/sessions", token=again["access_token"])
    assert [one["current"] for one in sessions] == [True, False]


async def test_the_address_may_be_spelled_otherwise(running_auth: AuthPlatform):
    person = await running_auth.register()
    body = {"email": person.email.upper(), "password": person.password}
    assert (await running_auth.ask("POST", "/api/auth/login", body)).status_code == 200


async def test_five_failures_lock_whether_there_is_an_account_or_not(running_auth: AuthPlatform):
    person = await running_auth.register()
    seen = []
    for email in (person.email, any_email()):
        answers = [
            await running_auth.ask("POST", "/api/auth/login", {"email": email, "password": WRONG}) for _ in range(7)
        ]
        seen.append([(one.status_code, one.json()["detail"][:20]) for one in answers])
        assert 50 <= int(answers[-1].headers["Retry-After"]) <= 60
    assert seen[0] == seen[1]
    assert [status for status, _ in seen[0]] == [401] * 5 + [429] * 2
    good = await running_auth.ask("POST", "/api/auth/login", {"email": person.email, "password": person.password})
    assert good.status_code == 429
    locked = await running_auth.hears(AccountLocked, user_id=person.user_id)
    assert locked.failures == 5
    assert locked.until > datetime.now(UTC)


async def test_five_failures_of_one_network_address_lock_it_for_everybody(running_auth: AuthPlatform):
    person, address = await running_auth.register(), any_address()
    for _ in range(5):
        body = {"email": any_email(), "password": WRONG}
        assert (await running_auth.ask("POST", "/api/auth/login", body, address=address)).status_code == 401
    body = {"email": person.email, "password": person.password}
    assert (await running_auth.ask("POST", "/api/auth/login", body, address=address)).status_code == 429
    assert (await running_auth.ask("POST", "/api/auth/login", body)).status_code == 200


async def test_many_guesses_at_once_get_no_further_than_there_are_threads(running_auth: AuthPlatform):
    person = await running_auth.register()
    body = {"email": person.email, "password": WRONG}
    answers = await asyncio.gather(*(running_auth.ask("POST", "/api/auth/login", body) for _ in range(100)))
    guessed = [answer.status_code for answer in answers].count(401)
    assert 5 <= guessed <= 5 + 64  # as many more as hash at once: one per core


async def test_signing_in_forgets_the_account_failures(running_auth: AuthPlatform):
    person = await running_auth.register()
    for _ in range(3):
        for _ in range(4):
            await running_auth.ask("POST", "/api/auth/login", {"email": person.email, "password": WRONG})
        await running_auth.sign_in(person)


async def test_an_operator_unlocks(running_auth: AuthPlatform):
    person = await running_auth.register()
    for _ in range(5):
        await running_auth.ask("POST", "/api/auth/login", {"email": person.email, "password": WRONG})
    path = f"/api/auth/users/{person.user_id}/unlock"
    assert (await running_auth.ask("POST", path, token=person.access_token)).status_code == 403
    await running_auth.read("POST", path, token=running_auth.operator_key)
    await running_auth.sign_in(person)


async def test_a_hash_of_old_parameters_is_renewed_by_signing_in(running_auth: AuthPlatform):
    person = await running_auth.register()
    old = hash_password(person.password, memory_kib=8192, time_cost=1)
    await running_auth.query("UPDATE users SET password_hash = $2 WHERE user_id = $1", person.user_id, old)
    await running_auth.sign_in(person)
    (row,) = await running_auth.query("SELECT password_hash FROM users WHERE user_id = $1", person.user_id)
    assert row["password_hash"] != old
    assert not needs_rehash(row["password_hash"], memory_kib=7168, time_cost=1)
    await running_auth.sign_in(person)


async def test_a_wrong_address_takes_as_long_as_a_wrong_password(running_auth: AuthPlatform):
    people = [await running_auth.register() for _ in range(12)]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for person in people:
        for known, email in ((True, person.email), (False, any_email())):
            began = time.perf_counter()
            answer = await running_auth.ask("POST", "/api/auth/login", {"email": email, "password": WRONG})
            seconds[known].append(time.perf_counter() - began)
            assert answer.status_code == 401
    ratio = statistics.median(seconds[True]) / statistics.median(seconds[False])
    assert 0.5 < ratio < 2  # without a hash for nobody it would be ten times


def test_the_ladder():
    steps = {failures: attempts.lock_after(failures) for failures in range(1, 20)}
    minutes = {failures: pause.total_seconds() / 60 for failures, pause in steps.items() if pause}
    assert minutes == {5: 1, 10: 15, 15: 60, 16: 60, 17: 60, 18: 60, 19: 60}


async def test_the_ladder_is_climbed_and_forgotten(auth_database_url: str):
    connection = await asyncpg.connect(auth_database_url)
    try:
        keys = attempts.keys_of(Sealer(SEALING_KEYS, "auth"), "person@example.com", "10.0.0.1")
        now = datetime(2026, 5, 1, tzinfo=UTC)

        async def wait_after(failures: int) -> timedelta:
            nonlocal now
            locked = None
            for _ in range(failures):
                locked = await attempts.count_failure(connection, keys, now)
            assert locked is not None
            with pytest.raises(Problem) as refused:
                await attempts.demand_unlocked(connection, keys, now)
            assert refused.value.status_code == 429
            now = locked[1]
            await attempts.demand_unlocked(connection, keys, now)
            return now - before

        for pause in (timedelta(minutes=1), timedelta(minutes=15), timedelta(hours=1)):
            before = now
            assert await wait_after(5) == pause
        before = now
        assert await wait_after(1) == timedelta(hours=1)
        now += timedelta(hours=24, seconds=1)
        assert await attempts.count_failure(connection, keys, now) is None
        stored = await connection.fetch("SELECT kind, digest FROM login_failures")
        assert b"person" not in b"".join(row["digest"] for row in stored)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"email": "a@example.com"}, 422),
        ({"email": "a@example.com", "password": 5}, 422),
        ({"email": "a@example.com", "password": "x" * 1_000_000}, 422),
        ({"email": "a@example.com", "password": "\x00\ud7ff"}, 401),
        ([], 422),
        (None, 422),
    ],
)
async def test_bad_input_is_told_apart(running_auth: AuthPlatform, body, status):
    assert (await running_auth.ask("POST", "/api/auth/login", body)).status_code == status
