"""What is revoked is refused by every service within a second, and stays refused, whoever starts again."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from auth_platform import PASSWORD, Person, any_email
from composed import Composed
from people import ANYBODYS, Site, separate_site
from separate_services import PROCESSES, SeparateServices

from standalone.credentials import SERVICES

EACH = 12
"""Revocations of each kind."""
ENOUGH_SECONDS = 1.0


@dataclass
class Town:
    """Everybody there is: who may revoke, and what was revoked already."""

    site: Site
    owner: Person
    operator: Person
    good: list[str]
    revoked: list[str] = field(default_factory=list)


async def found(site: Site) -> Town:
    """An organization in which there is room for everybody."""
    owner = await site.register()
    await site.give_plan(owner, owner.org_id, "enterprise")
    key, _ = await site.make_key(owner, owner.org_id, "usage.read")
    return Town(site, owner, await site.operator(), [owner.access_token, key])


@pytest.fixture(scope="module")
async def apart() -> AsyncIterator[tuple[Site, SeparateServices]]:
    """Every service in processes of its own."""
    async with separate_site() as running:
        yield running


@pytest.fixture(scope="module")
def parts(apart: tuple[Site, SeparateServices]) -> SeparateServices:
    return apart[1]


@pytest.fixture(scope="module")
async def town(apart: tuple[Site, SeparateServices]) -> Town:
    return await found(apart[0])


@pytest.fixture(scope="module")
async def contained(containers: Composed) -> AsyncIterator[Town]:
    """Every service in containers."""
    async with containers.site() as site:
        yield await found(site)


def test_no_service_is_left_out():
    assert ANYBODYS.keys() == set(SERVICES), "say in tests/people.py what anybody may ask of it"


Revoke = Callable[[], Awaitable[object]]
Prepared = tuple[list[str], Revoke]
"""Credentials that are good, and what ends all of them."""


async def signed_out(town: Town) -> Prepared:
    person = await town.site.register()
    return [person.access_token], lambda: town.site.read("POST", "/api/auth/logout", person.access_token)


async def revoked(town: Town) -> Prepared:
    person = await town.site.register()
    body = {"token": person.access_token}
    return [person.access_token], lambda: town.site.read("POST", "/api/auth/revoke", person.access_token, body)


async def signed_out_everywhere(town: Town) -> Prepared:
    person = await town.site.register()
    other = (await town.site.sign_in(person))["access_token"]
    return [person.access_token, other], lambda: town.site.read("POST", "/api/auth/logout-all", other)


async def signed_out_elsewhere(town: Town) -> Prepared:
    person = await town.site.register()
    other = (await town.site.sign_in(person))["access_token"]
    sessions = await town.site.read("GET", "/api/auth/sessions", other)
    (elsewhere,) = (one["session_id"] for one in sessions if not one["current"])
    return [person.access_token], lambda: town.site.read("DELETE", f"/api/auth/sessions/{elsewhere}", other)


async def password_changed(town: Town) -> Prepared:
    person = await town.site.register()
    body = {"current_password": PASSWORD, "new_password": f"another {secrets.token_hex(8)}"}
    return [person.access_token], lambda: town.site.read("POST", "/api/auth/change-password", person.access_token, body)


async def revoked_by_the_operator(town: Town) -> Prepared:
    person = await town.site.register()
    path = f"/api/auth/users/{person.user_id}/revoke"
    return [person.access_token], lambda: town.site.read("POST", path, town.operator.access_token, {})


async def erased(town: Town) -> Prepared:
    person = await town.site.register()
    body = {"password": PASSWORD}
    return [person.access_token], lambda: town.site.read("DELETE", "/api/auth/me", person.access_token, body)


async def member_removed(town: Town) -> Prepared:
    email, org_id = any_email(), town.owner.org_id
    letter = await town.site.invite(town.owner, org_id, email, "admin")
    person = await town.site.register(email, invitation=letter)
    key, _ = await town.site.make_key(person, org_id, "usage.read")
    path = f"/api/organizations/{org_id}/members/{person.user_id}"
    return [person.access_token, key], lambda: town.site.read("DELETE", path, town.owner.access_token)


async def key_revoked(town: Town) -> Prepared:
    key, key_id = await town.site.make_key(town.owner, town.owner.org_id, "usage.read")
    return [key], lambda: town.site.read("DELETE", f"/api/auth/api-keys/{key_id}", town.owner.access_token)


WAYS = (
    signed_out, revoked, signed_out_everywhere, signed_out_elsewhere, password_changed, revoked_by_the_operator, erased,
    member_removed, key_revoked,
)  # fmt: skip


async def seconds_until_refused(site: Site, credentials: list[str]) -> float:
    """How long the last service goes on taking one of these. All are asked again and again, side by side."""
    begun = time.monotonic()

    async def refused(service: str, credential: str) -> float:
        while await site.opens(service, credential):
            assert time.monotonic() - begun < 20, f"{service} still takes what was revoked"
        return time.monotonic() - begun

    return max(await asyncio.gather(*(refused(service, one) for service in site.services for one in credentials)))


async def test_a_revocation_is_known_to_all_services_within_a_second(town: Town):
    await every_way_is_known_within_a_second(town)


@pytest.mark.compose
async def test_in_containers_it_is_the_same(contained: Town):
    await every_way_is_known_within_a_second(contained)


async def every_way_is_known_within_a_second(town: Town) -> None:
    prepared = [(way.__name__, await way(town)) for way in WAYS for _ in range(EACH)]
    assert len(prepared) >= 100
    waited = []
    for name, (credentials, revoke) in prepared:
        for service in town.site.services:  # known to it before, and remembered
            for one in credentials:
                assert await town.site.opens(service, one), f"{name}: {service} does not take what is good"
        await revoke()
        waited.append((await seconds_until_refused(town.site, credentials), name))
        town.revoked += credentials
    waited.sort()
    p50, p99 = waited[len(waited) // 2][0], waited[len(waited) * 99 // 100][0]
    print(f"{len(waited)} revocations: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, slowest {waited[-1]}")
    assert p99 < ENOUGH_SECONDS
    await everything_is_as_it_was(town)


async def everything_is_as_it_was(town: Town, services: tuple[str, ...] = SERVICES) -> None:
    """What was revoked is refused, what is good is not."""
    paths = [(service, one) for service in services for one in town.revoked]
    assert not any(await asyncio.gather(*(town.site.opens(*each) for each in paths)))
    assert all(await asyncio.gather(*(town.site.opens(service, one) for service in services for one in town.good)))


async def start_in_any_order(parts: SeparateServices, names: list[str]) -> None:
    seed = random.randrange(2**32)
    random.Random(seed).shuffle(names)
    print(f"seed {seed}: {names}")
    await asyncio.gather(*map(parts.step, names))
    await parts.ready(names)


async def test_what_was_revoked_stays_so_when_everything_starts_again_and_auth_last(
    town: Town, parts: SeparateServices
):
    assert town.revoked, "run the whole module"
    for name in PROCESSES:
        await parts.kill(name)
    await parts._supervisors.pop("nats").stop()
    await parts.step("nats")
    of_auth = [name for name in PROCESSES if name.startswith("auth-")]
    await start_in_any_order(parts, [name for name in PROCESSES if name not in of_auth])
    others = tuple(service for service in SERVICES if service != "auth")
    tokens = [one for one in town.revoked if not one.startswith("ara_")]
    without = Town(town.site, town.owner, town.operator, [town.owner.access_token], tokens)
    await everything_is_as_it_was(without, others)  # of keys nobody can say now whose they are
    await start_in_any_order(parts, of_auth)
    await everything_is_as_it_was(town)


async def test_what_is_revoked_while_the_bus_is_away_is_known_soon_after(town: Town, parts: SeparateServices):
    credentials, sign_out = await signed_out(town)
    assert all([await town.site.opens(service, credentials[0]) for service in SERVICES])
    await parts._supervisors.pop("nats").stop()
    await sign_out()
    assert not await town.site.opens("auth", credentials[0]), "who revokes it knows without being told"
    await parts.step("nats")
    await town.site.refused_everywhere(*credentials)
