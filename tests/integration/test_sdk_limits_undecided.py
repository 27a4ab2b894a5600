"""When the platform does not say what is allowed: refused, unless the program has chosen otherwise."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import limits
import pytest
from metering_platform import MeteringPlatform
from one_service import ALL_SCOPES

from aragora.billing.limits import (
    LimitsClient,
    LimitsUndecided,
    Operation,
    PlatformUnavailable,
    UsageLimitExceededException,
)
from standalone import machine

DEBATE = Operation(event_type="debate")
Answer = tuple[int, bytes] | None
"""Status and body; None: the connection is cut."""
HELD = b'{"reservation_id": "r1", "org_id": "org_a", "expires_at": null, "limits": []}'


@contextmanager
def answering(reply: Callable[[str, bytes], Answer]) -> Iterator[str]:
    """Something at an address that answers so to a path and a body."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            answer = reply(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            if answer is None:
                self.close_connection = True
                self.request.shutdown(socket.SHUT_RDWR)
                return
            status, body = answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the interface's name
            """Tests are quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def undecided(url: str) -> None:
    """Assert that this is what every question comes to at this address."""
    with LimitsClient("org_a", base_url=url, api_key="svc_x") as closed:
        for ask in (closed.check, closed.reserve):
            with pytest.raises(LimitsUndecided, match="treat it as refused"):
                ask(DEBATE)
        with pytest.raises(LimitsUndecided):
            await closed.enforce_usage_limits("ann", "gemini", 1000)
        with pytest.raises(PlatformUnavailable):
            closed.release("r1")
    with LimitsClient("org_a", base_url=url, api_key="svc_x", fail_open=True) as opened:
        check = opened.check(DEBATE)
        assert (check.allowed, check.undecided) == (True, True)
        with opened.reserve(DEBATE) as held:
            assert (held.reservation_id, held.undecided, held.limits) == (None, True, ())
            held.extend(10)
            held.release()
        assert (await opened.enforce_usage_limits("ann", "gemini", 1000))[0]


async def test_nobody_is_there():
    await undecided(f"http://127.0.0.1:{machine.free_port()}")


@pytest.mark.parametrize(
    "answer",
    [
        None, (200, b""), (200, b"<html>"), (200, b"{}"), (200, b'{"allowed": "yes", "reservation_id": 7}'),
        (200, b"[" * 100_000), (302, b""), (404, b"<h1>no such page</h1>"), (429, b'{"error": "slow down"}'),
        (429, b'{"meter": "debates"}'), (500, b"{}"), (502, b"bad gateway"), (503, b'{"status": 503, "detail": "x"}'),
    ],
    ids=lambda answer: answer and f"{answer[0]} {answer[1][:16].decode()}",
)  # fmt: skip
async def test_what_answers_does_not_say(answer: Answer):
    with answering(lambda *_: answer) as url:
        await undecided(url)


def test_one_lost_connection_is_not_noticed():
    answers = iter([None, (201, HELD), None, (200, b'{"state": "released"}')])
    asked: list[tuple[str, bytes]] = []

    def reply(path: str, body: bytes) -> Answer:
        asked.append((path, body))
        return next(answers)

    with answering(reply) as url, LimitsClient("org_a", base_url=url) as client:
        client.reserve(DEBATE).release()
    assert asked[0] == asked[1]
    assert b'"idempotency_key"' in asked[0][1]
    assert [path for path, _ in asked[2:]] == ["/api/usage/reservations/r1/release?org_id=org_a"] * 2


def test_a_release_that_fails_does_not_hide_the_error(caplog: pytest.LogCaptureFixture):
    answers = iter([(201, HELD), None, None])
    with (
        answering(lambda *_: next(answers)) as url,
        caplog.at_level(logging.WARNING, "aragora.billing"),
        LimitsClient("org_a", base_url=url) as client,
        pytest.raises(ZeroDivisionError),
        client.reserve(DEBATE),
    ):
        _ = 1 // 0
    assert "r1 was not released" in caplog.text


@pytest.fixture
async def limited(platform: MeteringPlatform, org: str) -> str:
    """An organization with one debate."""
    given = limits.entitlements(limits.limit("debates", 1))
    await limits.entitle(platform.database_url, {org: given}, datetime.now(UTC))
    return org


def test_a_lost_answer_holds_nothing_twice(platform: MeteringPlatform, limited: str):
    lost: list[bytes] = []

    def reply(path: str, body: bytes) -> Answer:
        answer = httpx.post(f"{platform.url}{path}", content=body, headers={"Authorization": f"Bearer {ALL_SCOPES}"})
        if lost:
            return answer.status_code, answer.content
        lost.append(answer.content)
        return None

    with answering(reply) as url, LimitsClient(limited, base_url=url) as client:
        held = client.reserve(DEBATE)
        assert f'"reservation_id":"{held.reservation_id}"'.encode() in lost[0]
        with pytest.raises(UsageLimitExceededException):
            client.reserve(DEBATE)
