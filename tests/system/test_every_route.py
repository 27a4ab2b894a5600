"""Every route of every service, asked by everybody: whoever may is let in, whoever may not is told which it is.

The routes are read from the applications. What is expected of each follows from its kind, in the table.
"""

import asyncio
from collections.abc import AsyncIterator, Collection

import pytest
from composed import Composed
from every_route import CALLERS, applications, routes_of
from every_route_table import OPERATIONS, TABLE
from every_route_world import World, make_world
from httpx import Response
from people import gateway_site, separate_site

ROUTES = {application: routes_of(app) for application, app in applications().items()}
SEPARATE = [application for application in ROUTES if application != "gateway"]


@pytest.fixture(scope="module")
async def apart() -> AsyncIterator[World]:
    """Each service in processes of its own."""
    async with separate_site() as (site, _):
        yield await make_world(site)


@pytest.fixture(scope="module")
async def together() -> AsyncIterator[World]:
    """All services behind one port."""
    async with gateway_site() as (site, _):
        yield await make_world(site)


@pytest.fixture(scope="module")
async def contained(containers: Composed) -> AsyncIterator[World]:
    """All services behind the gateway, in containers."""
    async with containers.site() as site:
        yield await make_world(site)


def test_every_route_has_an_entry():
    new = {
        f"{application}: {route}" for application, routes in ROUTES.items() for route in routes if route not in TABLE
    }
    assert new == set(), "say in tests/every_route_table.py for whom it is"


def test_every_entry_has_a_route():
    assert TABLE.keys() - {route for routes in ROUTES.values() for route in routes} == set(), "there is no such route"


def test_the_applications_have_what_they_are_thought_to_have():
    assert min(len(routes) for routes in ROUTES.values()) > 15
    assert set(ROUTES["gateway"]) - {("GET", "/")} == {route for name in SEPARATE for route in ROUTES[name]}


def shape_of_401(answer: Response) -> bool:
    return answer.headers.get("WWW-Authenticate", "").startswith('Bearer realm="aragora"')


async def walk(world: World, service: str, routes: Collection[tuple[str, str]]) -> list[str]:
    """Ask all of these routes. What was answered otherwise than expected."""
    wrong = []
    for route, entry in TABLE.items():
        if route not in routes:
            continue
        for caller, answer in await ask_everybody(world, service, route):
            if answer.status_code not in entry.expected(caller):
                wrong.append(
                    f"{' '.join(route)} ({entry.kind.name}): {caller} is told {answer.status_code} instead of "
                    f"{entry.expected(caller)}: {answer.text[:300]}"
                )
            elif answer.status_code == 401 and not shape_of_401(answer):
                wrong.append(f"{' '.join(route)}: {caller} is not told how to authenticate")
    return wrong


async def ask_everybody(world: World, service: str, route: tuple[str, str]) -> list[tuple[str, Response]]:
    """First those who must be refused, all at once; then those who may, one after the other."""
    entry = TABLE[route]
    refused = [] if entry.kind.open else [each for each in CALLERS if each not in entry.kind.admits]
    answers = await asyncio.gather(*(world.ask(service, entry, each) for each in refused))
    found = list(zip(refused, answers, strict=True))
    return found + [(each, await world.ask(service, entry, each)) for each in CALLERS if each not in refused]


@pytest.mark.parametrize("service", SEPARATE)
async def test_whoever_may_is_let_in_and_nobody_else(apart: World, service: str):
    assert await walk(apart, service, ROUTES[service]) == []


@pytest.mark.long
async def test_behind_one_port_it_is_the_same(together: World):
    assert await walk(together, "auth", ROUTES["gateway"]) == []


@pytest.mark.compose
async def test_in_containers_it_is_the_same(contained: World):
    """But for what is the gateway's own: documents, and probes that nobody outside has any business with."""
    own = {entry.route for entry in OPERATIONS} | {("POST", "/api/billing/stripe/reconcile")}  # there is a Stripe here
    assert await walk(contained, "auth", set(ROUTES["gateway"]) - own) == []
    for path, status in (("/", 302), ("/docs", 200), ("/healthz", 200), ("/readyz", 404), ("/metrics", 404)):
        answer = await contained.site.client.get(contained.site.urls["auth"] + path)
        assert answer.status_code == status, path
    for service in SEPARATE:
        document = await contained.site.client.get(f"{contained.site.urls[service]}/openapi/{service}.json")
        assert {path for _, path in ROUTES[service]} > document.json()["paths"].keys() > {"/healthz"}
