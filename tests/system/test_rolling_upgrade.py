"""The version before this one, and this one, side by side on one platform under load, forth and back: nothing is lost
or counted twice, limits hold, and what one version says or revokes the other understands.

The seed is printed; ARAGORA_FAULT_SEED replays it.
"""

import asyncio
import os
import random
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from functools import partial

import httpx
import paying_customers
import pytest
from auth_platform import CHEAP_HASHES, PASSWORD, any_email
from one_service import bearer
from paying_customers import PayingCustomers
from people import ANYBODYS
from previous_version import PreviousVersion, find_previous
from promises import complaints, judge
from separate_services import PROCESSES, SERVICES, SeparateServices, separate_services
from servers import eventually, scratch_dir
from traffic import Traffic

from aragora_nats.configuration import STREAM_MAX_BYTES
from standalone import nats
from standalone.stripe_simulator.simulator import running_simulator

NEXT = "-next"


@pytest.fixture
async def previous() -> AsyncIterator[PreviousVersion]:
    commit = find_previous()
    if commit is None:
        pytest.skip(
            "git knows of no version before a change of a schema or of an event: no repository, or a shallow one."
        )
    async with scratch_dir() as folder:
        found = PreviousVersion.unpacked(commit, folder)
        print(f"the version before is {commit}, with {', '.join(found.services)}")
        found.prove()
        yield found


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_versions_run_side_by_side(previous: PreviousVersion, monkeypatch: pytest.MonkeyPatch):
    seed = int(os.environ.get("ARAGORA_FAULT_SEED") or random.randrange(2**32))
    print(f"seed {seed} (replay: ARAGORA_FAULT_SEED={seed})")
    async with AsyncExitStack() as stack:
        simulator = await stack.enter_async_context(running_simulator())
        told = CHEAP_HASHES | dict(paying_customers.settings(simulator))
        parts = await stack.enter_async_context(separate_services(environment=told | dict(previous.environment)))
        for name in PROCESSES:
            parts.add(f"{name}{NEXT}", told)
        with monkeypatch.context() as patch:
            await start_previous(previous, parts, patch)
        traffic = Traffic(urls_of(parts, processes_of(previous.services)), random.Random(seed))
        customers = PayingCustomers(simulator, traffic)
        customers.tell(parts.url("billing-api"))
        traffic.start()
        try:
            print("before", await traffic.goes_on())
            await prepare_next(parts, traffic)
            await run_both(previous, parts, traffic)
            customers.tell(parts.url(f"billing-api{NEXT}"))
            await replace_previous(previous, parts, traffic)
            await roll_back(previous, parts, traffic, customers)
            await roll_forward(previous, parts, traffic, customers)
        finally:
            await traffic.stop()
            print(traffic.happened, *(line for line in parts.said if "ended" in line), sep="\n")
        await judge(parts, traffic, list(SERVICES))
        await customers.judge(parts)
        assert previous.verify(parts.database_url("metering")) == (True, len(traffic.used))
        ran = [*processes_of(previous.services), *processes_of(SERVICES, NEXT)]
        assert {name: found for name in ran if (found := complaints(parts.log(name)))} == {}
        assert [line for line in parts.said if "ended" in line and not line.startswith("nats ")] == []


def processes_of(services: Iterable[str], suffix: str = "") -> list[str]:
    return [f"{name}{suffix}" for name in PROCESSES if name.partition("-")[0] in services]


def urls_of(parts: SeparateServices, processes: Iterable[str]) -> dict[str, list[str]]:
    """Where the APIs among these processes answer, by service."""
    found: dict[str, list[str]] = {}
    for name in processes:
        if "-api" in name:
            found.setdefault(name.partition("-")[0], []).append(parts.url(name))
    return found


async def start_previous(previous: PreviousVersion, parts: SeparateServices, patch: pytest.MonkeyPatch) -> None:
    """A platform as it was: schema, streams, users of the bus, processes."""
    patch.setattr(nats, "configuration", lambda *given, **_: previous.bus_configuration(*given))
    await parts.step("postgres")
    await parts.step("nats")
    await asyncio.to_thread(previous.apply_topology, parts.operator_url, STREAM_MAX_BYTES)
    await asyncio.gather(*(parts.step(f"{service}-migrate") for service in previous.services))
    old = processes_of(previous.services)
    await asyncio.gather(*map(parts.step, old))
    await parts.ready(old)


async def prepare_next(parts: SeparateServices, traffic: Traffic) -> None:
    """What an upgrade begins with, while only the previous version runs: the bus' users, its streams, the schemas."""
    await parts.restart_bus()
    print("new users of the bus", await traffic.goes_on())
    await parts.step("topology")
    print("new streams", await traffic.goes_on())
    assert all(await asyncio.gather(*(parts.migrated(service, {}) for service in SERVICES)))
    print("new schemas", await traffic.goes_on())


async def run_both(previous: PreviousVersion, parts: SeparateServices, traffic: Traffic) -> None:
    """Every process twice, once in each version; both are asked, and both take from the bus."""
    await asyncio.gather(*(parts.step(name) for name in processes_of(SERVICES, NEXT)))
    await parts.ready(processes_of(SERVICES, NEXT))
    both = [*processes_of(previous.services), *processes_of(SERVICES, NEXT)]
    traffic.urls |= urls_of(parts, both)
    for _ in range(3):
        print("both", await traffic.goes_on())
    taken = {name: await recorded_by(parts, name) for name in ("metering-worker", f"metering-worker{NEXT}")}
    print("usage recorded by", taken)
    assert all(taken.values())
    old, new = urls_of(parts, processes_of(previous.services)), urls_of(parts, processes_of(SERVICES, NEXT))
    everywhere = [(service, url) for urls in (old, new) for service, each in urls.items() for url in each]
    for issuer, revoker in ((old, new), (new, old)):
        await revoked_everywhere(issuer["auth"][0], revoker["auth"][0], everywhere)


async def recorded_by(parts: SeparateServices, worker: str) -> int:
    """How many usage events a worker has recorded."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{parts.url(worker)}/metrics")).text
    found = re.search(r'^metering_events_total\{outcome="recorded"\} (\d+)', text, re.MULTILINE)
    return int(found[1]) if found else 0


async def revoked_everywhere(issuer: str, revoker: str, everywhere: list[tuple[str, str]]) -> None:
    """A token that one auth issued and another one revoked is known everywhere, and refused everywhere after that."""
    account = {"email": any_email(), "password": PASSWORD}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{issuer}/api/auth/register", json=account)
        assert answer.status_code == 201, answer.text
        token = bearer(answer.json()["data"]["access_token"])

        async def answered(service: str, url: str, status: int) -> bool:
            return (await client.get(url + ANYBODYS[service], headers=token)).status_code == status

        for service, url in everywhere:
            assert await answered(service, url, 200), f"{service} at {url}"
        assert (await client.post(f"{revoker}/api/auth/logout-all", headers=token)).is_success
        for service, url in everywhere:
            await eventually(partial(answered, service, url, 401), 5, what=f"{service} at {url} refuses")


async def replace_previous(previous: PreviousVersion, parts: SeparateServices, traffic: Traffic) -> None:
    """The previous version's processes end in good order; this one is alone."""
    await hand_over(parts, traffic, processes_of(previous.services), to=processes_of(SERVICES, NEXT))
    print("this version alone", await traffic.goes_on())


async def roll_back(
    previous: PreviousVersion, parts: SeparateServices, traffic: Traffic, customers: PayingCustomers
) -> None:
    """The previous version is alone again, on the schema, the streams and the users of this one."""
    old = processes_of(previous.services)
    await asyncio.gather(*map(parts.step, old))
    await parts.ready(old)
    customers.tell(parts.url("billing-api"))
    await hand_over(parts, traffic, processes_of(SERVICES, NEXT), to=old)
    for _ in range(2):
        print("rolled back", await traffic.goes_on())


async def roll_forward(
    previous: PreviousVersion, parts: SeparateServices, traffic: Traffic, customers: PayingCustomers
) -> None:
    """And this version once more, which takes up what waited for it."""
    new = processes_of(SERVICES, NEXT)
    await asyncio.gather(*map(parts.step, new))
    await parts.ready(new)
    customers.tell(parts.url(f"billing-api{NEXT}"))
    await hand_over(parts, traffic, processes_of(previous.services), to=new)
    print("this version again", await traffic.goes_on())


async def hand_over(parts: SeparateServices, traffic: Traffic, processes: list[str], *, to: list[str]) -> None:
    """Nobody asks these processes any more, then they end; what was asked is answered."""
    urls = urls_of(parts, to)
    if urls.keys() != traffic.urls.keys():
        await traffic.stop()  # a service is there in one version only
        traffic.urls = urls
        traffic.start()
    traffic.urls = urls
    await asyncio.gather(*map(parts.retire, processes))
