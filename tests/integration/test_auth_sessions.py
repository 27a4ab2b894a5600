"""Sessions: refreshing, losing a race, theft, signing out."""

import asyncio

import pytest
from auth_platform import AuthPlatform, Person
from servers import eventually

from aragora.billing.jwt_auth import create_access_token, create_refresh_token
from aragora.contracts.events import TokenRevoked, UserTokensRevoked


async def works(auth: AuthPlatform, token: str) -> bool:
    return (await auth.ask("GET", "/api/auth/me", token=token)).status_code == 200


async def refresh(auth: AuthPlatform, token: str):
    return await auth.ask("POST", "/api/auth/refresh", {"refresh_token": token})


async def an_hour_ago(auth: AuthPlatform, person: Person) -> None:
    """Whatever was refreshed, was an hour ago."""
    text = "UPDATE sessions SET rotated_at = rotated_at - interval '1 hour' WHERE user_id = $1"
    await auth.query(text, person.user_id)


async def test_refreshing_gives_the_next_pair(running_auth: AuthPlatform):
    person = await running_auth.register()
    first = (await refresh(running_auth, person.refresh_token)).json()["data"]
    assert first["refresh_token"] != person.refresh_token
    assert await works(running_auth, first["access_token"])
    second = await refresh(running_auth, first["refresh_token"])
    assert second.status_code == 200


async def test_of_many_refreshes_at_once_one_wins_and_the_session_lives(running_auth: AuthPlatform):
    person = await running_auth.register()
    answers = await asyncio.gather(*(refresh(running_auth, person.refresh_token) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    (winner,) = (answer.json()["data"] for answer in answers if answer.status_code == 200)
    assert await works(running_auth, winner["access_token"])
    assert (await refresh(running_auth, winner["refresh_token"])).status_code == 200


async def test_an_old_refresh_token_kills_the_session(running_auth: AuthPlatform):
    person = await running_auth.register()
    current = (await refresh(running_auth, person.refresh_token)).json()["data"]
    await an_hour_ago(running_auth, person)
    stolen = await refresh(running_auth, person.refresh_token)
    assert stolen.status_code == 401
    assert "session has ended" in stolen.json()["detail"]
    assert (await refresh(running_auth, current["refresh_token"])).status_code == 401
    for token in (current["access_token"], person.access_token):
        assert not await works(running_auth, token)
    revoked = await running_auth.hears(TokenRevoked, user_id=person.user_id)
    assert (revoked.reason, revoked.token_jti) == ("refresh_token_reused", None)
    await running_auth.sign_in(person)


async def test_the_one_before_the_last_is_theft_also_within_the_grace(running_auth: AuthPlatform):
    person = await running_auth.register()
    second = (await refresh(running_auth, person.refresh_token)).json()["data"]
    await refresh(running_auth, second["refresh_token"])
    assert (await refresh(running_auth, person.refresh_token)).status_code == 401
    assert not await works(running_auth, second["access_token"])


async def test_signing_out_ends_the_session_and_no_other(running_auth: AuthPlatform):
    person = await running_auth.register()
    other = await running_auth.sign_in(person)
    answer = await running_auth.ask("POST", "/api/auth/logout", token=person.access_token)
    assert answer.json() == {"success": True, "message": "Logged out successfully"}
    assert not await works(running_auth, person.access_token)
    assert (await refresh(running_auth, person.refresh_token)).status_code == 401
    assert await works(running_auth, other["access_token"])
    assert (await refresh(running_auth, other["refresh_token"])).status_code == 200


async def test_signing_out_everywhere_ends_all(running_auth: AuthPlatform):
    person = await running_auth.register()
    other = await running_auth.sign_in(person)
    await running_auth.ask("POST", "/api/auth/logout-all", token=person.access_token)
    for tokens in ((person.access_token, person.refresh_token), (other["access_token"], other["refresh_token"])):
        assert not await works(running_auth, tokens[0])
        assert (await refresh(running_auth, tokens[1])).status_code == 401
    await running_auth.hears(UserTokensRevoked, user_id=person.user_id, org_id=None)
    assert await works(running_auth, (await running_auth.sign_in(person))["access_token"])


async def test_the_documented_revocation(running_auth: AuthPlatform):
    person = await running_auth.register()
    other = await running_auth.sign_in(person)
    body = {"token": other["access_token"], "reason": "manual_revocation"}
    answer = await running_auth.ask("POST", "/api/auth/revoke", body, token=person.access_token)
    assert answer.status_code == 200
    assert answer.json() == {"success": True, "message": "Token revoked successfully"}
    assert not await works(running_auth, other["access_token"])
    assert (await refresh(running_auth, other["refresh_token"])).status_code == 200
    said = {"token": person.refresh_token, "reason": "Ann has left"}
    sentence = await running_auth.ask("POST", "/api/auth/revoke", said, token=person.access_token)
    assert (sentence.status_code, sentence.json()["errors"][0]["field"]) == (422, "reason")
    again = await running_auth.ask("POST", "/api/auth/revoke", body, token=person.access_token)
    assert again.status_code == 422
    assert again.json()["errors"][0]["field"] == "token"


async def test_revoking_a_refresh_token_ends_its_session(running_auth: AuthPlatform):
    person = await running_auth.register()
    other = await running_auth.sign_in(person)
    body = {"token": other["refresh_token"]}
    assert (await running_auth.ask("POST", "/api/auth/revoke", body, token=person.access_token)).status_code == 200
    assert not await works(running_auth, other["access_token"])
    assert (await refresh(running_auth, other["refresh_token"])).status_code == 401


async def test_nobody_revokes_a_strangers_token_but_an_operator(running_auth: AuthPlatform):
    person, stranger = await running_auth.register(), await running_auth.register()
    body = {"token": person.access_token}
    assert (await running_auth.ask("POST", "/api/auth/revoke", body, token=stranger.access_token)).status_code == 403
    path = f"/api/auth/users/{person.user_id}/revoke"
    assert (await running_auth.ask("POST", path, {}, token=stranger.access_token)).status_code == 403
    assert await works(running_auth, person.access_token)
    await running_auth.read("POST", path, {"reason": "left"}, token=running_auth.operator_key)
    assert not await works(running_auth, person.access_token)
    nobody = "/api/auth/users/nobody/revoke"
    assert (await running_auth.ask("POST", nobody, {}, token=running_auth.operator_key)).status_code == 404


async def test_a_session_elsewhere_is_ended(running_auth: AuthPlatform):
    person, stranger = await running_auth.register(), await running_auth.register()
    other = await running_auth.sign_in(person)
    sessions = await running_auth.read("GET", "/api/auth/sessions", token=person.access_token)
    (elsewhere,) = (one["session_id"] for one in sessions if not one["current"])
    path = f"/api/auth/sessions/{elsewhere}"
    assert (await running_auth.ask("DELETE", path, token=stranger.access_token)).status_code == 404
    await running_auth.read("DELETE", path, token=person.access_token)
    assert not await works(running_auth, other["access_token"])
    assert (await running_auth.ask("DELETE", path, token=person.access_token)).status_code == 404


async def test_switching_organization(running_auth: AuthPlatform):
    person, stranger = await running_auth.register(), await running_auth.register()
    second = await running_auth.read("POST", "/api/organizations", {"name": "Second"}, token=person.access_token)
    path, body = "/api/auth/switch-organization", {"org_id": second["slug"]}
    assert (await running_auth.ask("POST", path, body, token=stranger.access_token)).status_code == 403
    switched = await running_auth.read("POST", path, body, token=person.access_token)
    me = await running_auth.read("GET", "/api/auth/me", token=switched["access_token"])
    assert me["organization"]["org_id"] == second["org_id"]
    fresh = (await refresh(running_auth, person.refresh_token)).json()["data"]
    me = await running_auth.read("GET", "/api/auth/me", token=fresh["access_token"])
    assert me["organization"]["org_id"] == second["org_id"]


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "\x00", "x" * 9000, 5, None])
async def test_a_malformed_refresh_token_is_refused(running_auth: AuthPlatform, token):
    assert (await refresh(running_auth, token)).status_code in (401, 422)


async def test_an_access_token_refreshes_nothing_and_a_refresh_token_opens_nothing(running_auth: AuthPlatform):
    person = await running_auth.register()
    assert (await refresh(running_auth, person.access_token)).status_code == 401
    assert not await works(running_auth, person.refresh_token)


async def test_a_token_without_a_session_or_an_account_is_no_refresh_token(running_auth: AuthPlatform):
    person = await running_auth.register()
    for user_id in (person.user_id, "user_nobody"):
        assert (await refresh(running_auth, create_refresh_token(user_id, person.email))).status_code == 401
    foreign = create_refresh_token("user_nobody", person.email, session_id="no-such-session")
    assert (await refresh(running_auth, foreign)).status_code == 401
    nobodys = create_access_token("user_nobody", "nobody@example.com")
    assert (await running_auth.ask("GET", "/api/auth/me", token=nobodys)).status_code == 401
    assert (await running_auth.ask("POST", "/api/auth/logout", token=nobodys)).status_code in (200, 401)


async def test_what_was_revoked_stays_so_when_the_service_starts_again(running_auth: AuthPlatform):
    person = await running_auth.register()
    await running_auth.ask("POST", "/api/auth/logout", token=person.access_token)
    await running_auth.hears(TokenRevoked, user_id=person.user_id)
    await running_auth.api.stop(20)
    await running_auth.api.start()
    assert not await works(running_auth, person.access_token)

    async def signs_in() -> bool:
        return (
            await running_auth.ask("POST", "/api/auth/login", {"email": person.email, "password": person.password})
        ).is_success

    await eventually(signs_in, 10, what="signing in again")
