"""Invitations over HTTP: whom a letter admits, how often, and how many find a seat."""

import asyncio

from auth_orgs import found, invite, newcomer, roles
from auth_platform import AuthPlatform, any_email

from aragora.contracts.events import InvitationWithdrawn, MemberInvited, MemberJoined

ACCEPT = "/api/invitations/accept"


async def test_whoever_has_the_address_joins_once(running_auth: AuthPlatform):
    owner, guest, other = [await running_auth.register() for _ in range(3)]
    path = await found(running_auth, owner, seats=2)
    org_id = path.rpartition("/")[2]
    secret = await invite(running_auth, owner, path, guest.email.upper(), "admin")
    (listed,) = await running_auth.read("GET", f"{path}/invitations", token=owner.access_token)
    assert (listed["email"], listed["role"], listed["invited_by"]) == (guest.email, "admin", owner.user_id)
    invited = await running_auth.hears(MemberInvited, invitation_id=listed["invitation_id"])
    assert invited.role == "admin"

    refused = await running_auth.ask("POST", ACCEPT, {"token": secret}, token=other.access_token)
    assert (refused.status_code, guest.email in refused.text) == (403, False)
    joined = await running_auth.read("POST", ACCEPT, {"token": secret}, token=guest.access_token)
    assert (joined["org_id"], joined["role"], joined["members"]) == (org_id, "admin", 2)
    assert (await running_auth.hears(MemberJoined, user_id=guest.user_id)).role == "admin"
    again = await running_auth.ask("POST", ACCEPT, {"token": secret}, token=guest.access_token)
    assert (again.status_code, again.json()["errors"][0]["field"]) == (422, "token")
    assert await running_auth.read("GET", f"{path}/invitations", token=owner.access_token) == []
    switched = await running_auth.read(
        "POST", "/api/auth/switch-organization", {"org_id": org_id}, token=guest.access_token
    )
    assert (await roles(running_auth, guest, path))[guest.user_id] == "admin"
    assert switched["access_token"]


async def test_who_registers_with_an_invitation_belongs_there_only(running_auth: AuthPlatform):
    owner = await running_auth.register()
    path = await found(running_auth, owner)
    email = any_email()
    secret = await invite(running_auth, owner, path, email)
    body = {"email": any_email(), "password": owner.password, "invitation": secret}
    assert (await running_auth.ask("POST", "/api/auth/register", body)).status_code == 403
    person = await running_auth.register(email, invitation=secret)
    assert person.org_id == path.rpartition("/")[2]
    mine = await running_auth.read("GET", "/api/organizations", token=person.access_token)
    assert [(one["org_id"], one["role"]) for one in mine] == [(person.org_id, "member")]
    body = {"email": any_email(), "password": owner.password, "invitation": secret}
    used = await running_auth.ask("POST", "/api/auth/register", body)
    assert (used.status_code, used.json()["errors"][0]["field"]) == (422, "invitation")


async def test_secrets_that_are_none_are_refused_alike(running_auth: AuthPlatform):
    owner, guest = await running_auth.register(), await running_auth.register()
    path = await found(running_auth, owner)
    secret = await invite(running_auth, owner, path, guest.email)
    message_id, _, signature = secret.partition(".")
    changed = signature[:-2] + ("AA" if signature[-2:] != "AA" else "EE")  # one in a thousand ends so by itself
    forged = [f"{message_id}.{changed}", message_id, f"{message_id}\x00.{signature}", signature, "x", "é.é"]
    answers = [await running_auth.ask("POST", ACCEPT, {"token": one}, token=guest.access_token) for one in forged]
    assert {answer.status_code for answer in answers} == {422}
    assert len({answer.text for answer in answers}) == 1
    assert (await running_auth.ask("POST", ACCEPT, {"token": ""}, token=guest.access_token)).status_code == 422
    assert (await running_auth.ask("POST", ACCEPT, {"token": secret})).status_code == 401
    assert (await running_auth.ask("POST", ACCEPT, {"token": secret}, token=guest.access_token)).status_code == 200


async def test_an_address_is_invited_once_at_a_time(running_auth: AuthPlatform):
    owner = await running_auth.register()
    path = await found(running_auth, owner)
    url, email = f"{path}/invitations", any_email()
    answers = await asyncio.gather(
        *(running_auth.ask("POST", url, {"email": email}, token=owner.access_token) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    member = await newcomer(running_auth, owner, path)
    mixed = {"email": member.email.title()}
    assert (await running_auth.ask("POST", url, mixed, token=owner.access_token)).status_code == 409

    (listed,) = await running_auth.read("GET", url, token=owner.access_token)
    secret = await running_auth.letter(email, "invitation")
    one = f"{url}/{listed['invitation_id']}"
    assert (await running_auth.ask("GET", url, token=member.access_token)).status_code == 403
    assert (await running_auth.ask("DELETE", one, token=member.access_token)).status_code == 403
    assert (await running_auth.ask("DELETE", one, token=owner.access_token)).status_code == 200
    assert (await running_auth.ask("DELETE", one, token=owner.access_token)).status_code == 404
    await running_auth.hears(InvitationWithdrawn, invitation_id=listed["invitation_id"])
    body = {"email": email, "password": owner.password, "invitation": secret}
    assert (await running_auth.ask("POST", "/api/auth/register", body)).status_code == 422
    assert await invite(running_auth, owner, path, email) != secret


async def test_invitations_of_whoever_is_removed_fall(running_auth: AuthPlatform):
    owner, guest = await running_auth.register(), await running_auth.register()
    path = await found(running_auth, owner)
    admin = await newcomer(running_auth, owner, path, "admin")
    secret = await invite(running_auth, admin, path, guest.email)
    assert (
        await running_auth.ask("DELETE", f"{path}/members/{admin.user_id}", token=owner.access_token)
    ).status_code == 200
    assert (await running_auth.ask("POST", ACCEPT, {"token": secret}, token=guest.access_token)).status_code == 422


async def test_seats_are_asked_of_billing(running_auth: AuthPlatform):
    owner = await running_auth.register()
    made = await running_auth.read("POST", "/api/organizations", {"name": "Seats"}, token=owner.access_token)
    url, bearer = f"/api/organizations/{made['org_id']}/invitations", {"Authorization": f"Bearer {owner.access_token}"}
    unknown = await running_auth.client.post(url, json={"email": any_email()}, headers=bearer)
    assert (unknown.status_code, unknown.headers["Retry-After"]) == (503, "1")
    for seats, status in ((0, 409), (1, 409), (2, 201), (None, 201)):
        await running_auth.entitle(made["org_id"], seats)
        answer = await running_auth.ask("POST", url, {"email": any_email()}, token=owner.access_token)
        assert answer.status_code == status, seats
    guest = await running_auth.register()
    secret = await invite(running_auth, owner, url.removesuffix("/invitations"), guest.email)
    await running_auth.entitle(made["org_id"], 1)
    refused = await running_auth.ask("POST", ACCEPT, {"token": secret}, token=guest.access_token)
    assert (refused.status_code, "No seat is left" in refused.json()["detail"]) == (409, True)
    await running_auth.entitle(made["org_id"], 2)
    assert (await running_auth.ask("POST", ACCEPT, {"token": secret}, token=guest.access_token)).status_code == 200


async def test_fifty_accept_at_once_and_one_seat_is_left(running_auth: AuthPlatform):
    owner = await running_auth.register()
    path = await found(running_auth, owner, seats=2)
    guests = [await running_auth.register() for _ in range(50)]
    secrets = [await invite(running_auth, owner, path, guest.email) for guest in guests]
    answers = await asyncio.gather(
        *(
            running_auth.ask("POST", ACCEPT, {"token": secret}, token=guest.access_token)
            for guest, secret in zip(guests, secrets, strict=True)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 49
    assert {answer.json()["detail"][:15] for answer in answers if answer.status_code == 409} == {"No seat is left"}
    members = await roles(running_auth, owner, path)
    assert len(members) == 2
    # Those who found none may still join, once there is one.
    loser = next(number for number, answer in enumerate(answers) if answer.status_code == 409)
    await running_auth.entitle(path.rpartition("/")[2], 3)
    late = await running_auth.ask("POST", ACCEPT, {"token": secrets[loser]}, token=guests[loser].access_token)
    assert late.status_code == 200
