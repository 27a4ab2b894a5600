"""Each container is killed in turn while usage is published: what was acknowledged is recorded, once."""

import os
import signal

import pytest
from compose.publishing import Publishing, publishing
from composed import CONTAINERS, Composed
from servers import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]


async def by_hand(containers: Composed, name: str) -> None:
    """`docker kill` is taken for somebody's wish: the container stays dead until it is started."""
    await containers.run("docker", "kill", await containers.container(name))
    assert await containers.inspect(name, "{{.State.Status}}") == "exited"
    await containers.compose("up", "--detach", "--no-build", "--no-recreate", timeout_seconds=300)


async def from_outside(containers: Composed, name: str) -> None:
    """SIGKILL, as the kernel does it to whoever takes too much memory: Docker starts the container again."""
    starts = int(await containers.inspect(name, "{{.RestartCount}}"))
    os.kill(int(await containers.inspect(name, "{{.State.Pid}}")), signal.SIGKILL)

    async def is_started_again() -> bool:
        return int(await containers.inspect(name, "{{.RestartCount}}")) > starts

    await eventually(is_started_again, 60, what=f"{name} is started again")


async def nothing_is_lost_or_doubled(containers: Composed, traffic: Publishing) -> None:
    """The log has every acknowledged event, each once; and the totals are those of the log."""
    sent = len(traffic.acknowledged)

    async def are_counted() -> bool:
        return await traffic.total() == sent

    await eventually(are_counted, 120, what=f"{sent} events are counted")
    recorded = await traffic.recorded()
    assert len(recorded) == len(set(recorded)), "an event was recorded twice"
    assert set(recorded) == traffic.acknowledged
    print(f"{sent} events acknowledged, all of them recorded once; on the way: {dict(traffic.failures)}")
    await containers.compose("exec", "-T", "metering-worker", "metering", "verify")


@pytest.mark.parametrize("kill", [by_hand, from_outside])
async def test_nothing_is_lost_when_any_of_them_is_killed(containers: Composed, kill):
    if kill is from_outside and os.geteuid() != 0:
        pytest.skip("Only root may kill a container's process from outside.")
    await containers.healthy()
    async with publishing(containers.url) as traffic:
        for name in CONTAINERS:
            await kill(containers, name)
            await containers.healthy([name])
            await traffic.goes_on()
        await containers.healthy()
        await traffic.end()
        await nothing_is_lost_or_doubled(containers, traffic)
