"""The world in which every route is asked: two organizations, their people, keys of every kind, and who has none."""

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from auth_platform import PASSWORD, Person, any_email
from every_route import CALLERS, UNKNOWN, Entry, filled
from httpx import Response
from one_service import ALL_SCOPES, KEYS
from people import Site

from aragora.billing.jwt_auth import create_access_token
from aragora.contracts.ids import new_id

NOBODY = "01890000-0000-7000-8000-000000000000"


@dataclass
class World:
    """Who asks, with what, and what the table's names are here."""

    site: Site
    people: dict[str, Person]
    credentials: dict[str, str | None]
    names: dict[str, str]

    async def ask(self, service: str, entry: Entry, caller: str) -> Response:
        """One request of a route, and what it takes to go on afterwards."""
        names = self.names | {"new": new_id().hex, "now": datetime.now(UTC).isoformat()}
        body, query = filled(entry.body, names), filled(entry.query, names)
        credential = self.credentials[caller]
        answer = await self.site.ask(service, entry.method, entry.address(names), credential, body, query)
        if entry.ends_session and answer.is_success:
            self.credentials[caller] = (await self.site.sign_in(self.people[caller]))["access_token"]
        return answer


async def make_world(site: Site) -> World:
    """Everybody registers, is invited, and gets keys, as people do."""
    owner, stranger, bystander, leaver = [await site.register() for _ in range(4)]
    elsewhere = (await site.read("POST", "/api/organizations", owner.access_token, {"name": "Elsewhere"}))["org_id"]
    for head, org_id in ((owner, owner.org_id), (owner, elsewhere), (stranger, stranger.org_id)):
        await site.give_plan(head, org_id)
    people = {"owner": owner, "stranger": stranger, "operator": await site.operator()}
    for role in ("member", "admin"):
        email = any_email()
        letter = await site.invite(owner, owner.org_id, email, role)
        people[role] = await site.register(email, invitation=letter)
        token = await site.invite(owner, elsewhere, email, role)
        await site.read("POST", "/api/invitations/accept", people[role].access_token, {"token": token})

    reading, _ = await site.make_key(owner, owner.org_id, "usage.read")
    writing, _ = await site.make_key(owner, owner.org_id, "usage.write")
    strangers, _ = await site.make_key(stranger, stranger.org_id, "usage.read", "usage.write")
    revoked_key, key_id = await site.make_key(owner, owner.org_id, "usage.read", "usage.write")
    revoked = (await site.sign_in(owner))["access_token"]
    for service in site.services:  # once accepted, it is remembered
        assert await site.opens(service, revoked)
        assert await site.opens(service, revoked_key)
    await site.read("POST", "/api/auth/logout", revoked)
    await site.read("DELETE", f"/api/auth/api-keys/{key_id}", owner.access_token)
    await site.refused_everywhere(revoked, revoked_key)

    yesterday = datetime.now(UTC) - timedelta(hours=25)
    credentials = {
        "nobody": None,
        "malformed": f"no.token.{secrets.token_hex(8)}",
        "expired": create_access_token(owner.user_id, owner.email, owner.org_id, "owner", issued_at=yesterday),
        "revoked": revoked,
        "revoked_key": revoked_key,
        "service": ALL_SCOPES,
        "reading_service": KEYS["usage.read"],
        "reading_key": reading,
        "writing_key": writing,
        "strangers_key": strangers,
    } | {name: person.access_token for name, person in people.items()}
    assert credentials.keys() == set(CALLERS)
    assert set(UNKNOWN) < credentials.keys()
    names = {
        "org": owner.org_id,
        "org_id": owner.org_id,
        "elsewhere": elsewhere,
        "user_id": people["member"].user_id,
        "bystander": bystander.user_id,
        "leaver": leaver.user_id,
        "nobody": NOBODY,
        "email": stranger.email,
        "password": PASSWORD,
        "key_id": key_id,
        "session_id": NOBODY,
        "invitation_id": NOBODY,
        "letter_id": NOBODY,
        "letter": "verify-email",
        "reservation_id": NOBODY,
        "plan": "professional",
        "no_plan": "no-such-plan",
    }
    return World(site, people, credentials, names)
