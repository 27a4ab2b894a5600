"""`aragora up` for a test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aragora_up import StartUp, starter
from servers import scratch_dir


@pytest.fixture
async def data_dir() -> AsyncIterator[Path]:
    """A data directory that does not exist yet."""
    async with scratch_dir() as folder:
        yield folder / "data"


@pytest.fixture
async def up(data_dir: Path) -> AsyncIterator[StartUp]:
    """Starts `aragora up`."""
    async with starter(data_dir) as start:
        yield start
