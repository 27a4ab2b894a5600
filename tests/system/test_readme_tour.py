"""The README's tour, followed literally: every command is run, and every answer is the one that is printed there."""

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import servers
from servers import eventually

from standalone import credentials, machine
from standalone.datadir import current_run
from standalone.platform import answers

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_BLOCK = re.compile(r"^```(bash|json|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
async def environment() -> AsyncIterator[dict[str, str]]:
    """`aragora up` on a port and a directory of its own: the environment in which its tour is followed."""
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
            yield variables


async def end(up: asyncio.subprocess.Process) -> None:
    """Ctrl-C."""
    if up.returncode is None:
        up.send_signal(signal.SIGINT)
        await asyncio.wait_for(up.wait(), 60)


def blocks() -> list[tuple[str, str]]:
    """The tour's code, as (language, text)."""
    tour = (ROOT / "README.md").read_text().partition("## A tour")[2].partition("\n## ")[0]
    return [(match[1], match[2]) for match in _BLOCK.finditer(tour)]


async def settings(environment: dict[str, str]) -> str:
    """What the tour's first block sets, as a script that sets it without asking again."""
    return await what_it_sets(next(text for language, text in blocks() if language == "bash"), environment)


async def what_it_sets(block: str, environment: dict[str, str], known: str = "") -> str:
    """The variables and functions of a block, as a script that sets them without asking again."""
    variables = re.findall(r"^(?:export )?(\w+)=", block, re.MULTILINE)
    functions = re.findall(r"^(\w+)\(\) ", block, re.MULTILINE)
    told = "".join(f"declare -p {name}\n" for name in variables) + "".join(f"declare -f {name}\n" for name in functions)
    printed = await shell(known + block + told, environment)
    return printed if told else ""


async def shell(script: str, environment: dict[str, str]) -> str:
    """What the script prints. It may neither fail nor take long."""
    here = script.replace("http://127.0.0.1:8000", environment["ARAGORA_URL"])
    here = re.sub(r"(?<![\w/])\.venv/bin/", f"{BIN}/", here)  # unless a function that is carried along has it
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-euc",
        here,
        cwd=ROOT,
        env=environment,
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


async def test_the_tour_works_as_it_is_written(environment: dict[str, str]):
    found = blocks()
    assert [language for language, _ in found].count("json") >= 10
    setting = await settings(environment)
    for (language, text), (following, answer) in zip(found, [*found[1:], ("", "")], strict=True):
        if language == "bash" and following == "json":
            printed = json.loads(answer)

            async def as_printed(text: str = text, printed: Any = printed, setting: str = setting) -> bool:
                # The totals follow within a moment, and every command of the tour may be repeated.
                return shows(json.loads(await shell(setting + text, environment)), printed)

            await eventually(as_printed, 20, what=f"{text}\n{answer}")
        elif language == "bash":
            setting += await what_it_sets(text, environment, setting)


async def test_the_python_of_the_tour_works(environment: dict[str, str]):
    script = next(text for language, text in blocks() if language == "python")
    (Path(environment["ARAGORA_DATA_DIR"]) / "tour.py").write_text(script)
    printed = await shell(await settings(environment) + ".venv/bin/python $ARAGORA_DATA_DIR/tour.py", environment)
    cost, totals = printed.splitlines()
    assert cost == "0.0165"
    assert re.fullmatch(r"\d+ \d+ [\d.]+", totals)


async def test_the_python_of_the_guide_for_the_bus_works(environment: dict[str, str]):
    folder = Path(environment["ARAGORA_DATA_DIR"])
    (script,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "docs/publishing-on-the-bus.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (folder / "guide.py").write_text(script)
    plan = (
        'curl -sf -X PUT $url/api/subscription/organizations/org_123/subscription -H "$auth" '
        "-H 'Content-Type: application/json' -d '{\"plan\": \"starter\"}' >/dev/null\n"
    )
    bus = {
        "NATS_URL": f"nats://127.0.0.1:{current_run(folder).nats_port}",
        "NATS_PASSWORD": credentials.read(folder).bus["publisher"],
    }
    await shell(await settings(environment) + plan, environment)

    async def goes_ahead() -> bool:
        printed = await shell(".venv/bin/python $ARAGORA_DATA_DIR/guide.py", environment | bus)
        return printed.startswith("go ahead, and name ")

    await eventually(goes_ahead, 20)
