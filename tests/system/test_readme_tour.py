"""The README's tour, followed literally: every command is run, and every answer is the one that is printed there."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import servers
from composed import Composed
from servers import eventually

from standalone import credentials, machine
from standalone.datadir import current_run
from standalone.platform import answers

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_BLOCK = re.compile(r"^```(bash|json|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Tour:
    """Where the tour is followed: its variables, a folder for files, what is in the place of `.venv/bin`, the bus."""

    environment: dict[str, str]
    folder: Path
    bin: Path
    nats_url: str
    publisher_password: str


@pytest.fixture(scope="module")
async def standalone() -> AsyncIterator[Tour]:
    """`aragora up` on a port and a directory of its own."""
    async with servers.scratch_dir() as folder:
        port = machine.free_port()
        address = f"http://127.0.0.1:{port}"
        variables = {**os.environ, "ARAGORA_DATA_DIR": str(folder), "ARAGORA_URL": address}
        async with AsyncExitStack() as stack:
            log = stack.enter_context((folder / "up.log").open("w+"))
            async with servers.starting_alone():
                up = await asyncio.create_subprocess_exec(
                    *(BIN / "aragora", "up", "--simulate-stripe", "--port", str(port), "--workers", "1"),
                    env=variables,
                    stdout=log,
                    stderr=log,
                )
                stack.push_async_callback(end, up)

                async def ready() -> bool:
                    assert up.returncode is None, (folder / "up.log").read_text()
                    return await answers(f"{address}/readyz")

                await eventually(ready, 60)
            bus = f"nats://127.0.0.1:{current_run(folder).nats_port}"
            yield Tour(variables, folder, BIN, bus, credentials.read(folder).bus["publisher"])


@pytest.fixture(scope="module")
def contained(containers: Composed) -> Tour:
    """The platform in containers."""
    variables = {**containers.environment, "ARAGORA_URL": containers.url, "ARAGORA_DATA_DIR": str(containers.folder)}
    variables["MAKEFLAGS"] = f"-- BIN={containers.folder / 'bin'}"
    password = containers.made["NATS_PASSWORD_PUBLISHER"]
    return Tour(variables, containers.folder, containers.folder / "bin", containers.nats_url, password)


@pytest.fixture(params=["standalone", pytest.param("contained", marks=pytest.mark.compose)])
def tour(request: pytest.FixtureRequest) -> Tour:
    """Either."""
    found: Tour = request.getfixturevalue(request.param)
    return found


async def end(up: asyncio.subprocess.Process) -> None:
    """Ctrl-C."""
    if up.returncode is None:
        up.send_signal(signal.SIGINT)
        await asyncio.wait_for(up.wait(), 60)


def blocks() -> list[tuple[str, str]]:
    """The tour's code, as (language, text)."""
    tour = (ROOT / "README.md").read_text().partition("## A tour")[2].partition("\n## ")[0]
    return [(match[1], match[2]) for match in _BLOCK.finditer(tour)]


async def settings(tour: Tour) -> str:
    """What the tour's first block sets, as a script that sets it without asking again."""
    return await what_it_sets(next(text for language, text in blocks() if language == "bash"), tour)


async def what_it_sets(block: str, tour: Tour, known: str = "") -> str:
    """The variables and functions of a block, as a script that sets them without asking again."""
    variables = re.findall(r"^(?:export )?(\w+)=", block, re.MULTILINE)
    functions = re.findall(r"^(\w+)\(\) ", block, re.MULTILINE)
    told = "".join(f"declare -p {name}\n" for name in variables) + "".join(f"declare -f {name}\n" for name in functions)
    printed = await shell(known + block + told, tour)
    return printed if told else ""


async def shell(script: str, tour: Tour, **more: str) -> str:
    """What the script prints. It may neither fail nor take long."""
    here = script.replace("http://127.0.0.1:8000", tour.environment["ARAGORA_URL"])
    here = re.sub(r"(?<![\w/])\.venv/bin/", f"{tour.bin}/", here)  # unless a function that is carried along has it
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        here,
        cwd=ROOT,
        env=tour.environment | more,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, output.decode()
    return output.decode()


def shows(answer: Any, printed: Any) -> bool:
    """Whether the answer is the printed one, which may leave fields out."""
    if isinstance(printed, dict):
        return isinstance(answer, dict) and all(
            name in answer and shows(answer[name], value) for name, value in printed.items()
        )
    if isinstance(printed, list):
        return isinstance(answer, list) and len(answer) == len(printed) and all(map(shows, answer, printed))
    return bool(answer == printed)


async def test_the_tour_works_as_it_is_written(tour: Tour):
    found = blocks()
    assert [language for language, _ in found].count("json") >= 10
    setting = await settings(tour)
    for (language, text), (following, answer) in zip(found, [*found[1:], ("", "")], strict=True):
        if language == "bash" and following == "json":
            printed = json.loads(answer)

            async def as_printed(text: str = text, printed: Any = printed, setting: str = setting) -> bool:
                # The totals follow within a moment, and every command of the tour may be repeated.
                return shows(json.loads(await shell(setting + text, tour)), printed)

            await eventually(as_printed, 20, what=f"{text}\n{answer}")
        elif language == "bash":
            setting += await what_it_sets(text, tour, setting)


async def test_the_python_of_the_tour_works(tour: Tour):
    script = next(text for language, text in blocks() if language == "python")
    (tour.folder / "tour.py").write_text(script)
    printed = await shell(await settings(tour) + ".venv/bin/python $ARAGORA_DATA_DIR/tour.py", tour)
    cost, totals = printed.splitlines()
    assert cost == "0.0165"
    assert re.fullmatch(r"\d+ \d+ [\d.]+", totals)


async def test_the_python_of_the_guide_for_the_bus_works(tour: Tour):
    (script,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs/publishing-on-the-bus.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tour.folder / "guide.py").write_text(script)
    plan = (
        'curl -sf -X PUT $url/api/subscription/organizations/org_123/subscription -H "$auth" '
        "-H 'Content-Type: application/json' -d '{\"plan\": \"starter\"}' >/dev/null\n"
    )
    await shell(await settings(tour) + plan, tour)

    async def goes_ahead() -> bool:
        bus = {"NATS_URL": tour.nats_url, "NATS_PASSWORD": tour.publisher_password}
        printed = await shell(".venv/bin/python $ARAGORA_DATA_DIR/guide.py", tour, **bus)
        return printed.startswith("go ahead, and name ")

    await eventually(goes_ahead, 20)
