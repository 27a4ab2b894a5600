"""A backup that is made while usage comes in is restored beside: what was acknowledged before it is there, once."""

import re
from dataclasses import replace

import httpx
import pytest
from compose.publishing import publishing
from composed import Composed
from servers import eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(1800)]


async def test_what_was_acknowledged_before_a_backup_is_in_it(containers: Composed):
    await containers.healthy()
    beside = {"TEST_NATS_PORT": "0", "TEST_POSTGRES_PORT": "0"}
    drill = replace(containers, environment={**containers.environment, **beside})
    copy = replace(drill, environment={**drill.environment, "COMPOSE_PROJECT_NAME": f"{drill.project}-drill"})
    try:
        async with publishing(containers.url) as traffic:
            await eventually(lambda: len(traffic.acknowledged) > 2000, 60)
            before = set(traffic.acknowledged)
            said = await drill.run("sh", "deploy/docker/restore-drill.sh", "--keep", timeout_seconds=600)
            print(said)
            await traffic.end()
        address = re.search(r"at 127\.0\.0\.1:(\d+)\.", said)
        assert address is not None, said
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}", timeout=20) as client:
            restored = replace(traffic, client=client)

            async def is_settled() -> bool:
                return before <= set(await restored.recorded())

            await eventually(is_settled, 60, what="what was acknowledged is recorded")
            recorded = await restored.recorded()
            assert len(recorded) == len(set(recorded)) == await restored.total()
            print(
                f"{len(before)} acknowledged before, {len(recorded)} restored, {len(traffic.acknowledged)} in the end"
            )
        await copy.compose("exec", "-T", "metering-worker", "metering", "verify")
    finally:
        await copy.compose("down", "--volumes", timeout_seconds=300)
