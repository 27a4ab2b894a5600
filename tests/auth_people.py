"""Cast for tests of auth: an organization whose plan has API access, with an owner, an admin and a member."""

from dataclasses import dataclass

from auth_platform import AuthPlatform, Person, any_email


@dataclass
class Team:
    """One organization's people. `stranger` belongs to another one."""

    org_id: str
    owner: Person
    admin: Person
    member: Person
    stranger: Person


async def team(running: AuthPlatform) -> Team:
    """A new organization with its people."""
    owner, stranger = await running.register(), await running.register()
    await running.entitle(owner.org_id, seats=None, features={"api_access": True})
    admin = await join(running, owner, "admin")
    member = await join(running, owner, "member")
    return Team(owner.org_id, owner, admin, member, stranger)


async def join(running: AuthPlatform, owner: Person, role: str) -> Person:
    """Somebody new in the owner's organization."""
    email = any_email()
    invitations = f"/api/organizations/{owner.org_id}/invitations"
    await running.read("POST", invitations, {"email": email, "role": role}, token=owner.access_token)
    return await running.register(email, invitation=await running.letter(email, "invitation"))


async def operator(running: AuthPlatform) -> Person:
    """One of the platform's operators."""
    person = await running.register()
    await running.query("UPDATE users SET is_operator = true WHERE user_id = $1", person.user_id)
    person.access_token = (await running.sign_in(person))["access_token"]
    return person
