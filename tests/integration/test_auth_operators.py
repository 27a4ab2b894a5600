"""The platform's operators are made, and unmade, on the server."""

import os
import subprocess
import sys
from collections.abc import Callable

import asyncpg
import pytest
from auth_platform import CHEAP_HASHES, SEALING_KEYS, any_email

from auth.operators import UnusableOperator, open_operator
from auth.settings import Settings
from auth.worker import now_utc

PASSWORD = "an-operators-good-password-5"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(auth_database_url: str) -> Run:
    """Runs a command of auth's on a database of its own."""

    def command(*words: str, password: str = PASSWORD, **more: str) -> "subprocess.CompletedProcess[str]":
        settings = {
            "DATABASE_URL": auth_database_url, "ARAGORA_SEALING_KEYS": SEALING_KEYS,
            "ARAGORA_JWT_SECRET": "s" * 40, "ARAGORA_OPERATOR_PASSWORD": password, **CHEAP_HASHES,
        }  # fmt: skip
        argv = [sys.executable, "-m", "auth", *words]
        return subprocess.run(argv, env=os.environ | settings | more, capture_output=True, text=True, check=False)

    return command


async def rows(url: str, text: str, *arguments: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(text, *arguments)
    finally:
        await connection.close()


IS_OPERATOR = "SELECT user_id, is_operator, email_verified_at IS NOT NULL AS verified FROM users WHERE email = $1"


async def test_an_operator_is_opened_once_and_withdrawn(run: Run, auth_database_url: str):
    email = any_email()
    for _ in range(2):
        done = run("migrate", ARAGORA_OPERATOR_EMAIL=email.upper())
        assert done.returncode == 0, done.stderr
    (account,) = await rows(auth_database_url, IS_OPERATOR, email)
    assert account["is_operator"]
    assert account["verified"]
    assert PASSWORD not in done.stdout + done.stderr
    done = run("operator", email, "--withdraw")
    assert done.returncode == 0, done.stderr
    (account,) = await rows(auth_database_url, IS_OPERATOR, email)
    assert not account["is_operator"]
    noted = await rows(
        auth_database_url, "SELECT action FROM security_events WHERE user_id = $1 ORDER BY event_id", account["user_id"]
    )
    assert [row["action"] for row in noted][-1] == "operator_withdrawn"
    revoked = await rows(auth_database_url, "SELECT data::text FROM events WHERE type LIKE '%UserTokensRevoked%'")
    assert len(revoked) == 1


async def test_whoever_was_faster_with_the_address_is_not_made_an_operator(run: Run, auth_database_url: str):
    email = any_email()
    squatter = "INSERT INTO users (user_id, email, password_hash, created_at) VALUES ('someone', $1, 'x', now())"
    await rows(auth_database_url, squatter, email)
    refused = run("operator", email)
    assert refused.returncode == 1
    assert "address verified" in refused.stderr
    assert "Traceback" not in refused.stderr
    await rows(auth_database_url, "UPDATE users SET email_verified_at = now()")
    assert run("migrate", ARAGORA_OPERATOR_EMAIL=email).returncode == 1
    assert run("operator", email).returncode == 0
    (account,) = await rows(auth_database_url, IS_OPERATOR, email)
    assert account["is_operator"]


@pytest.mark.parametrize(
    ("email", "password", "said"),
    [("nobody", PASSWORD, "address"), ("ann@example.com", "password1", "ARAGORA_OPERATOR_PASSWORD")],
)
async def test_a_bad_operator_is_refused_with_a_sentence(auth_database_url: str, email: str, password: str, said: str):
    settings = Settings.model_validate(
        {
            "DATABASE_URL": auth_database_url, "ARAGORA_SEALING_KEYS": SEALING_KEYS,
            "ARAGORA_OPERATOR_EMAIL": email, "ARAGORA_OPERATOR_PASSWORD": password,
        }
    )  # fmt: skip
    async with asyncpg.create_pool(auth_database_url, min_size=1, max_size=1) as pool:
        with pytest.raises(UnusableOperator, match=said):
            await open_operator(pool, settings, now_utc)
        assert await pool.fetchval("SELECT count(*) FROM users") == 0
