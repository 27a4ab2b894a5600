"""People in organizations, for the tests of auth."""

from auth_platform import AuthPlatform, Person, any_email

from aragora.billing.jwt_auth import create_access_token


def operator_token(person: Person) -> str:
    """An access token of this person as an operator of the platform."""
    return create_access_token(person.user_id, person.email, None, "member", operator=True)


async def found(auth: AuthPlatform, owner: Person, name: str = "Acme", seats: int | None = None) -> str:
    """A new organization of this person, whose plan is known. Returns its path."""
    made = await auth.read("POST", "/api/organizations", {"name": name}, token=owner.access_token)
    await auth.entitle(made["org_id"], seats)
    return f"/api/organizations/{made['org_id']}"


async def invite(auth: AuthPlatform, by: Person, path: str, email: str, role: str = "member") -> str:
    """Invite this address. Returns the secret of the letter."""
    await auth.read("POST", f"{path}/invitations", {"email": email, "role": role}, token=by.access_token)
    return await auth.letter(email.lower(), "invitation")


async def newcomer(auth: AuthPlatform, by: Person, path: str, role: str = "member") -> Person:
    """Somebody who registers with an invitation, and so belongs to this organization only."""
    email = any_email()
    return await auth.register(email, invitation=await invite(auth, by, path, email, role))


async def roles(auth: AuthPlatform, by: Person, path: str) -> dict[str, str]:
    """Everybody's role, by user id, as this person sees it."""
    members = await auth.read("GET", f"{path}/members", token=by.access_token)
    return {member["user_id"]: member["role"] for member in members}
