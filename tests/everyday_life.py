"""What people do on a platform in a day, and what they get wrong. Nothing is checked here but that it comes about."""

import asyncio
import secrets
import time
from typing import Any
from urllib.parse import quote

import httpx
import pyotp
from auth_platform import PASSWORD, Person, any_address, any_email
from one_service import bearer
from people import DEBATE, Site

NAME = "Zenobia Quillfeather"
WEAK = "password1234"


def any_password() -> str:
    """A good one."""
    return f"violet-ladder-{secrets.token_hex(8)}"


async def live(site: Site) -> None:
    """A day."""
    owner = await site.register(name=NAME, password=any_password())
    await site.give_plan(owner, owner.org_id)
    await asyncio.gather(
        fail_to_register(site),
        sign_in_and_out(site),
        steal_a_session(site),
        change_a_password(site),
        forget_a_password(site),
        use_a_second_factor(site),
        join_and_leave(site, owner),
    )
    key, key_id = await site.make_key(owner, owner.org_id, "usage.read", "usage.write")
    usage = DEBATE | {"org_id": owner.org_id, "user_id": owner.user_id, "occurred_at": "2026-01-15T12:00:00Z"}
    for credential in (key, f"{key}x", owner.access_token):
        await site.ask("metering", "POST", "/api/usage/events", credential, usage | {"id": secrets.token_hex(8)})
    await put_everything_everywhere(site, owner, key)
    await site.read("DELETE", f"/api/auth/api-keys/{key_id}", owner.access_token)
    await site.ask("metering", "GET", "/api/subscription/pricing", key)
    await site.read("POST", "/api/auth/logout-all", owner.access_token)


async def fail_to_register(site: Site) -> None:
    """Many at once with one address, and in every wrong way."""
    body: dict[str, Any] = {"email": any_email(), "password": any_password(), "name": NAME}
    await asyncio.gather(*(site.ask("auth", "POST", "/api/auth/register", None, body) for _ in range(8)))
    email = any_email()
    for wrong in (
        {"password": WEAK}, {"email": [email]}, {"email": f"{email}@"}, {"password": "x" * 300}, {"pin": WEAK},
        {"password": {"is": any_password()}}, {"name": f"{NAME}\x00"}, {"invitation": f"{'s' * 36}.{'s' * 43}"},
    ):  # fmt: skip
        body = {"email": email, "password": any_password()} | wrong
        await site.ask("auth", "POST", "/api/auth/register", None, body)


async def sign_in_and_out(site: Site) -> None:
    """Sessions that begin and end, and an account that is locked."""
    person = await site.register(name=NAME)
    tokens = await site.sign_in(person)
    new = await site.read("POST", "/api/auth/refresh", None, {"refresh_token": tokens["refresh_token"]})
    await site.read("PATCH", "/api/auth/me", new["access_token"], {"name": f"{NAME} the Second"})
    await site.read("GET", "/api/auth/me/export", new["access_token"])
    await site.read("POST", "/api/auth/revoke", new["access_token"], {"token": new["refresh_token"]})
    await site.ask("auth", "POST", "/api/auth/revoke", person.access_token, {"token": f"{new['access_token']}x"})
    for _ in range(6):
        wrong = {"email": person.email, "password": any_password()}
        await site.ask("auth", "POST", "/api/auth/login", None, wrong)
    await site.read("POST", "/api/auth/logout", person.access_token)


async def steal_a_session(site: Site) -> None:
    """A refresh token that is used twice."""
    person = await site.register()
    for _ in range(2):
        new = await site.ask("auth", "POST", "/api/auth/refresh", None, {"refresh_token": person.refresh_token})
    for token in (new.json().get("data", {}).get("refresh_token", ""), person.refresh_token):
        await site.ask("auth", "POST", "/api/auth/refresh", None, {"refresh_token": token})


async def change_a_password(site: Site) -> None:
    """Rightly, wrongly, and to a weak one."""
    person, path = await site.register(), "/api/auth/change-password"
    for current, new in ((any_password(), any_password()), (PASSWORD, WEAK), (PASSWORD, any_password())):
        body = {"current_password": current, "new_password": new}
        await site.ask("auth", "POST", path, person.access_token, body)


async def forget_a_password(site: Site) -> None:
    """With the letter, without, and with one that was used."""
    person = await site.register()
    for email in (person.email, person.email, any_email(), f"{person.email} "):
        await site.ask("auth", "POST", "/api/auth/forgot-password", None, {"email": email})
    letter = await site.letter("PasswordResetRequested", person.user_id)
    for token in (f"{letter}x", letter, letter):
        await site.ask("auth", "POST", "/api/auth/reset-password", None, {"token": token, "password": any_password()})
    asked = await site.letter("EmailVerificationRequested", person.user_id)
    for token in (asked[:-1], letter, asked, asked):
        await site.ask("auth", "POST", "/api/auth/verify-email", None, {"token": token})


async def use_a_second_factor(site: Site) -> None:
    """Codes that are right, wrong, missing, and used."""
    person = await site.register()
    token, sure = person.access_token, {"password": person.password}
    secret = (await site.read("POST", "/api/auth/2fa/setup", token, sure))["secret"]
    clock = pyotp.TOTP(secret)
    now = int(time.time())
    # A code is good for half a minute before its own, and after it: this one and the next are, however long it takes.
    enabled = await site.read("POST", "/api/auth/2fa/enable", token, {"code": clock.at(now)})
    given = {"email": person.email, "password": person.password}
    for code in ("000000", clock.at(now + 30), clock.at(now + 30), enabled["recovery_codes"][0], None):
        await site.ask("auth", "POST", "/api/auth/login", None, given | ({"code": code} if code else {}))
    sure |= {"code": enabled["recovery_codes"][1]}
    await site.read("POST", "/api/auth/2fa/recovery-codes", token, sure)
    await site.ask("auth", "POST", "/api/auth/2fa/disable", token, sure)


async def join_and_leave(site: Site, owner: Person) -> None:
    """Invitations to oneself, to others, and withdrawn; and erasure."""
    email, path = any_email(), f"/api/organizations/{owner.org_id}/invitations"
    letter = await site.invite(owner, owner.org_id, email)
    await site.ask("auth", "POST", path, owner.access_token, {"email": email})
    stranger = await site.register()
    for token in (letter, f"{letter}x"):
        await site.ask("auth", "POST", "/api/invitations/accept", stranger.access_token, {"token": token})
    member = await site.register(email, invitation=letter, name=NAME)
    withdrawn = await site.read("POST", path, owner.access_token, {"email": any_email()})
    await site.read("DELETE", f"{path}/{withdrawn['invitation_id']}", owner.access_token)
    await site.ask("auth", "DELETE", "/api/auth/me", member.access_token, {"password": any_password()})
    await site.read("DELETE", "/api/auth/me", member.access_token, {"password": member.password})
    body = {"email": member.email, "password": member.password}
    await site.ask("auth", "POST", "/api/auth/login", None, body)


async def put_everything_everywhere(site: Site, person: Person, key: str) -> None:
    """Secrets where they do not belong: in paths, queries, headers and bodies of every kind."""
    letter = f"{secrets.token_hex(16)}.{secrets.token_urlsafe(32)}"
    for one in (person.email, person.password, person.access_token, person.refresh_token, key, letter):
        await asyncio.gather(*(put_everywhere(site, url, one, person.access_token) for url in set(site.urls.values())))


async def put_everywhere(site: Site, url: str, secret: str, token: str) -> None:
    """One secret, in all places of a service. Whatever it answers, it may not tell."""
    body, named = {"email": secret, "password": secret}, {"user_id": secret, "cursor": secret}
    headers = bearer(token) | {"X-Forwarded-For": any_address()}
    for path in (
        "/nowhere/{}", "/api/organizations/{}", "/api/auth/users/{}/revoke", "/api/auth/sessions/{}",
        "/api/subscription/usage/{}", "/api/usage/organizations/{}/summary", "/api/subscription/plans/{}/versions",
    ):  # fmt: skip
        for method in ("GET", "POST", "DELETE"):
            await site.client.request(method, url + path.format(quote(secret, safe="")), headers=headers, json=body)
    for path in ("/api/auth/audit", "/api/usage/events", "/api/subscription/usage/x", "/nowhere"):
        await site.client.get(url + path, headers=headers, params=named | {secret: secret, "org_id": secret})
    for name in ("Authorization", "X-API-Key", "Cookie", "Idempotency-Key", "Referer", "Accept"):
        await site.client.get(url + "/api/auth/me", headers={**headers, name: secret})
    if secret.startswith(("ara_", "eyJ")) or "@" in secret:  # a name for a request that is none is not taken
        named_by = headers | {"X-Correlation-ID": secret}
        await site.client.post(url + "/api/organizations", headers=named_by, json={"name": "One More"})
    for content in (secret, f'{{"email": "{secret}', f'["{secret}"]', f"\xff{secret}"):
        for path in ("/api/auth/login", "/api/usage/events", "/api/auth/register", "/api/auth/refresh"):
            kind = {"Content-Type": "application/json"}
            answer: httpx.Response = await site.client.post(
                url + path, content=content.encode("latin1"), headers=headers | kind
            )
            assert answer.status_code < 500
