import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest
from servers import eventually

from standalone import supervisor
from standalone.problems import StartFailed
from standalone.supervisor import Supervisor, describe_exit


class Peer:
    """A service that runs until it is told to end."""

    def __init__(self, name: str, journal: list[str], failing_starts: int = 0) -> None:
        self.name = name
        self.journal = journal
        self.failing_starts = failing_starts
        self.pid = 0
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def start(self) -> None:
        if self.failing_starts:
            self.failing_starts -= 1
            raise StartFailed(f"{self.name} does not start")
        self.pid += 1
        self.journal.append(f"start {self.name}")
        self.ended = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self.ended)

    async def stop(self) -> None:
        self.journal.append(f"stop {self.name}")
        self.crash(0)

    def hurry(self) -> None:
        self.journal.append(f"hurry {self.name}")

    def crash(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FIRST_DELAY_SECONDS", 0.001)


@pytest.fixture
async def said() -> list[str]:
    return []


@pytest.fixture
async def watched(said: list[str]) -> AsyncIterator[Supervisor]:
    watching = Supervisor(said.append)
    yield watching
    await watching.stop()


async def test_it_stops_in_reverse_order_of_the_start(watched: Supervisor) -> None:
    journal: list[str] = []
    for name in "abc":
        await watched.start(Peer(name, journal))
    await watched.stop()
    await watched.stop()
    assert journal == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


async def test_a_crashed_one_starts_again_and_the_operator_is_told(watched: Supervisor, said: list[str]) -> None:
    journal: list[str] = []
    peer, other = Peer("peer", journal), Peer("other", journal)
    await watched.start(other, peer)
    peer.crash(-9)
    await eventually(lambda: journal.count("start peer") == 2 and "peer runs again." in said)
    assert "peer ended with SIGKILL; it starts again in 0.001 s." in said
    assert journal.count("start other") == 1


async def test_a_restart_is_told_with_the_new_process_ids() -> None:
    pids: list[dict[str, int]] = []
    watching = Supervisor(lambda _: None, lambda: pids.append(watching.pids()))
    peer, other = Peer("peer", []), Peer("other", [])
    await watching.start(peer, other)
    peer.crash(1)
    await eventually(lambda: pids)
    await watching.stop()
    assert pids == [{"peer": 2, "other": 1}]


async def test_it_keeps_trying_ever_more_slowly(watched: Supervisor, said: list[str]) -> None:
    journal: list[str] = []
    peer = Peer("peer", journal)
    await watched.start(peer)
    peer.failing_starts = 3
    peer.crash(1)
    await eventually(lambda: "peer runs again." in said)
    tries = [line.rsplit(" ", 2)[-2] for line in said if "The next try" in line]
    assert tries == ["0.002", "0.004", "0.008"]
    peer.crash(1)
    await eventually(lambda: said.count("peer runs again.") == 2)
    assert "peer ended with exit code 1; it starts again in 0.016 s." in said


async def test_the_wait_has_a_bound_and_ends_with_steady_work(
    watched: Supervisor, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LONGEST_DELAY_SECONDS", 0.002)
    journal: list[str] = []
    peer = Peer("peer", journal)
    await watched.start(peer)
    for crash in range(1, 5):
        peer.crash(1)
        await eventually(lambda crash=crash: said.count("peer runs again.") == crash)  # type: ignore[misc]
    assert "in 0.002 s." in [line for line in said if "ended" in line][-1]
    monkeypatch.setattr(supervisor, "STEADY_SECONDS", -1)
    peer.crash(1)
    await eventually(lambda: said.count("peer runs again.") == 5)
    assert "in 0.001 s." in [line for line in said if "ended" in line][-1]


async def test_a_first_start_that_fails_is_the_callers_and_the_rest_can_be_stopped(watched: Supervisor) -> None:
    journal: list[str] = []
    await watched.start(Peer("a", journal))
    with pytest.raises(StartFailed, match="b does not start"):
        await watched.start(Peer("b", journal, failing_starts=1), Peer("c", journal))
    await watched.stop()
    assert journal[-1] == "stop a"
    assert "stop c" in journal


async def test_nothing_is_started_again_once_it_stops(watched: Supervisor, said: list[str]) -> None:
    journal: list[str] = []
    await watched.start(*(Peer(name, journal) for name in "abc"))
    await watched.stop()
    assert not [line for line in said if "again" in line]
    assert [entry for entry, _ in itertools.groupby(sorted(journal))] == sorted(journal)


async def test_hurry_reaches_everyone_who_still_runs(watched: Supervisor) -> None:
    journal: list[str] = []
    await watched.start(Peer("a", journal))
    await watched.start(Peer("b", journal))
    watched.hurry()
    assert journal[-2:] == ["hurry b", "hurry a"]


@pytest.mark.parametrize(
    ("code", "words"), [(0, "exit code 0"), (1, "exit code 1"), (-15, "SIGTERM"), (-99, "signal 99")]
)
def test_exit_codes_in_words(code: int, words: str) -> None:
    assert describe_exit(code) == words
