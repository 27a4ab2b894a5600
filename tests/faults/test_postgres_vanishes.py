"""The host of the primary is lost without a word, in turn: no answer, no refusal, not even a closed connection.

The standby is promoted. Every service goes on by itself, by the other connection that `DATABASE_URL` names, and nothing
that was acknowledged is lost or doubled.
"""

import os
import random
import sys
import time
from pathlib import Path

import pytest
from auth_platform import CHEAP_HASHES
from postgres_cluster import PostgresPair
from promises import judge
from separate_services import SERVICES, separate_services
from servers import scratch_dir
from traffic import Traffic
from vanishing import Vanishing

from aragora.chassis.database import vanished_after_seconds
from standalone import machine

RECOVERY_SECONDS = 30
"""At most, from when the connections have ended until everything was done anew."""


class FarPair(PostgresPair):
    """A primary and its standby, each on a host of its own that can vanish from its clients."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        nodes = (self.primary, self.standby)
        self._lines = {node.port: Vanishing(node.port, machine.free_port()) for node in nodes}
        self._hosts = ",".join(f"127.0.0.1:{line.port}" for line in self._lines.values())

    async def start(self) -> None:
        await super().start()
        for line in self._lines.values():
            await line.start()

    async def stop(self, timeout_seconds: float = 10) -> None:
        await super().stop(timeout_seconds)
        for line in self._lines.values():
            await line.stop()

    async def vanish(self) -> None:
        """The primary's host is lost, and the standby promoted."""
        self._lines[self.primary.port].vanish()
        await self.fail_over(waiting=False)

    async def come_back(self) -> None:
        """The lost host is there again, with the standby on it."""
        await self.rejoin(rewinding=True)
        await self._lines[self.standby.port].start()


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="Only on Linux a host vanishes without privileges.")
async def test_primaries_that_vanish_in_turn_lose_nothing():
    seed = int(os.environ.get("ARAGORA_FAULT_SEED") or random.randrange(2**32))
    print(f"seed {seed} (replay: ARAGORA_FAULT_SEED={seed})")
    async with scratch_dir() as folder:
        pair = FarPair(folder)
        async with separate_services(pair, CHEAP_HASHES) as parts:
            await parts.start()
            traffic = Traffic({service: [parts.url(f"{service}-api")] for service in SERVICES}, random.Random(seed))
            traffic.start()
            try:
                for _ in range(4):
                    print("undisturbed", await traffic.goes_on())
                    began = time.monotonic()
                    await pair.vanish()
                    promoted = time.monotonic() - began
                    seconds = await traffic.goes_on()
                    print(f"promoted after {promoted:.1f} s, then everything anew after {seconds}")
                    assert max(seconds.values()) < vanished_after_seconds() + RECOVERY_SECONDS
                    await pair.come_back()
                    await parts.ready()
            finally:
                await traffic.stop()
            await judge(parts, traffic, list(SERVICES))
            print(f"{len(traffic.used):,} events, {len(traffic.reserved)} limits, {len(traffic.people)} people")
            assert [line for line in parts.said if "ended" in line] == [], "no process had to be started again"
