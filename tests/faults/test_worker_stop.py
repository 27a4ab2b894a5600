"""A worker ends when it is told to, whatever has become of the bus."""

import asyncio
import os
import random
import signal

import pytest
from faults.storm import Storm
from servers import scratch_dir

from standalone.platform import apply_streams


@pytest.mark.parametrize("comes_back", [True, False])
async def test_sigterm_ends_a_worker_while_the_bus_is_away(private_postgres, private_nats, comes_back):
    postgres, nats = await private_postgres(), await private_nats()
    await apply_streams(nats)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    storm = Storm(postgres, nats, random.Random(seed))
    await storm.prepare()
    async with scratch_dir() as folder:
        try:
            await storm.start_workers(1, folder)
            (worker,) = storm._workers
            storm._stopping = True  # it ends by our word: nobody starts it again
            await nats.kill()
            os.kill(worker.pid, signal.SIGTERM)
            if comes_back:
                await nats.start()
            assert await asyncio.wait_for(worker.wait(), 30) == 0
        finally:
            await storm.abandon()
