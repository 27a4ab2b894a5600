"""Registering, signing in, being somebody."""

import asyncio

import pytest
from auth_platform import PASSWORD, AuthPlatform, any_address, any_email

from aragora.billing.jwt_auth import validate_access_token, validate_refresh_token
from aragora.contracts.events import (
    EmailVerificationRequested,
    EmailVerified,
    OrganizationCreated,
    UserRegistered,
)


async def test_whoever_registers_is_signed_in_and_owns_an_organization(running_auth: AuthPlatform):
    email = any_email()
    body = {"email": email, "password": PASSWORD, "name": "Ada", "organization": "Acme Corp"}
    answer = await running_auth.ask("POST", "/api/auth/register", body)
    assert answer.status_code == 201
    found = answer.json()["data"]
    assert (found["user"]["email"], found["user"]["name"], found["user"]["email_verified"]) == (email, "Ada", False)
    assert (found["organization"]["name"], found["organization"]["role"]) == ("Acme Corp", "owner")
    payload = validate_access_token(found["access_token"])
    assert payload is not None
    assert (payload.user_id, payload.org_id) == (found["user"]["user_id"], found["organization"]["org_id"])
    assert (payload.email, payload.role, payload.operator) == (email, "owner", False)
    refresh = validate_refresh_token(found["refresh_token"])
    assert refresh is not None
    assert refresh.session_id == payload.session_id is not None
    assert found["expires_in"] == 24 * 3600
    await running_auth.hears(UserRegistered, user_id=payload.user_id)
    created = await running_auth.hears(OrganizationCreated, owner_id=payload.user_id)
    assert created.name == "Acme Corp"


async def test_nothing_personal_is_in_an_event(running_auth: AuthPlatform):
    person = await running_auth.register(name="Grace Hopper")
    await running_auth.hears(EmailVerificationRequested, user_id=person.user_id)
    said = "".join(outer.to_json().decode() for outer, _ in running_auth.heard)
    rows = await running_auth.query("SELECT data::text FROM events")
    for text in (said, "".join(row["data"] for row in rows)):
        for secret in (person.email, "Grace", "Hopper", person.password, person.access_token, person.refresh_token):
            assert secret not in text


async def test_200_registrations_of_one_address_at_once_make_one_account(running_auth: AuthPlatform):
    email, address = any_email(), [any_address() for _ in range(200)]
    spelled = [email, email.upper(), email.title(), f" {email} "]
    answers = await asyncio.gather(
        *(
            running_auth.ask(
                "POST", "/api/auth/register", {"email": spelled[number % 4], "password": PASSWORD}, address=one
            )
            for number, one in enumerate(address)
        )
    )
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 409, 503}
    rows = await running_auth.query("SELECT user_id FROM users WHERE email = $1", email)
    assert len(rows) == 1
    organizations = "SELECT org_id FROM members WHERE user_id = $1"
    assert len(await running_auth.query(organizations, rows[0]["user_id"])) == 1


@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("email", {"email": "nobody"}),
        ("email", {"email": "a b@example.com"}),
        ("email", {"email": "pаypal@example.com"}),  # noqa: RUF001  a Cyrillic letter, and that is the point
        ("email", {"email": "x" * 250 + "@example.com"}),
        ("email", {"email": "a\x00b@example.com"}),
        ("email", {"email": 5}),
        ("password", {"password": "short"}),
        ("password", {"password": "password1234"}),
        ("password", {"password": "x" * 1_000_000}),
        ("password", {"password": ""}),
        ("name", {"name": "line\nbreak"}),
        ("name", {"name": "x" * 101}),
        ("surprise", {"surprise": 1}),
    ],
)
async def test_a_bad_registration_names_the_field(running_auth: AuthPlatform, field, body):
    answer = await running_auth.ask("POST", "/api/auth/register", {"email": any_email(), "password": PASSWORD} | body)
    assert answer.status_code == 422
    assert field in {one["field"] for one in answer.json()["errors"]}


async def test_a_password_made_of_the_address_is_refused(running_auth: AuthPlatform):
    body = {"email": "bartholomew.fitzgerald@example.com", "password": "bartholomew.fitzgerald"}
    answer = await running_auth.ask("POST", "/api/auth/register", body)
    assert answer.status_code == 422
    assert "fitzgerald" not in answer.text


async def test_who_am_i(running_auth: AuthPlatform):
    person = await running_auth.register(name="Ada")
    me = await running_auth.read("GET", "/api/auth/me", token=person.access_token)
    assert me["user"]["user_id"] == person.user_id
    assert me["organization"]["org_id"] == person.org_id
    assert [one["role"] for one in me["organizations"]] == ["owner"]
    renamed = await running_auth.read("PATCH", "/api/auth/me", {"name": "Ada Lovelace"}, token=person.access_token)
    assert renamed["user"]["name"] == "Ada Lovelace"
    assert "hash" not in str(me)


async def test_an_address_is_verified_with_the_letter_once(running_auth: AuthPlatform):
    person = await running_auth.register()
    letter = await running_auth.letter(person.email, "verify_email")
    for wrong in (letter[:-1], letter + "x", "x.y", "", "\x00", letter.upper()):
        answer = await running_auth.ask("POST", "/api/auth/verify-email", {"token": wrong})
        assert answer.status_code == 422
    await running_auth.read("POST", "/api/auth/verify-email", {"token": letter})
    await running_auth.hears(EmailVerified, user_id=person.user_id)
    assert (await running_auth.read("GET", "/api/auth/me", token=person.access_token))["user"]["email_verified"]
    assert (await running_auth.ask("POST", "/api/auth/verify-email", {"token": letter})).status_code == 422


async def test_a_letter_is_good_for_its_own_purpose_only(running_auth: AuthPlatform):
    person = await running_auth.register()
    letter = await running_auth.letter(person.email, "verify_email")
    body = {"token": letter, "password": "another-good-password-1"}
    assert (await running_auth.ask("POST", "/api/auth/reset-password", body)).status_code == 422


async def test_a_letter_is_sent_again_but_not_at_once(running_auth: AuthPlatform):
    person = await running_auth.register()
    answer = await running_auth.ask("POST", "/api/auth/verify-email/resend", token=person.access_token)
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "60"
    old = "UPDATE messages SET created_at = created_at - interval '2 minutes' WHERE email = $1"
    await running_auth.query(old, person.email)
    answer = await running_auth.ask("POST", "/api/auth/verify-email/resend", token=person.access_token)
    assert answer.status_code == 202
    assert len(await running_auth.query("SELECT 1 AS one FROM messages WHERE email = $1", person.email)) == 2


async def test_the_public_keys_are_public_and_none_with_a_shared_secret(running_auth: AuthPlatform):
    answer = await running_auth.ask("GET", "/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.json() == {"keys": []}


async def test_both_probes_answer(running_auth: AuthPlatform):
    assert (await running_auth.ask("GET", "/healthz")).status_code == 200
    assert (await running_auth.ask("GET", "/readyz")).status_code == 200
