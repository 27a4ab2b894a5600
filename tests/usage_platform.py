"""A small platform on a real socket, to deliver usage to: it takes batches, counts an id once, and fails as told."""

import json
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

KEY = "svc_a-key-for-tests"

Event = dict[str, Any]


@dataclass
class Failure:
    """What to answer instead of the truth, once."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


LOST_ANSWER = Failure(0)
"""The batch is taken, and the connection cut before the answer."""


def not_at_all(_: Event) -> bool:
    return False


def problem(status: int, *errors: tuple[int, str, str], detail: str = "as the test wishes") -> Failure:
    listed = [{"index": index, "field": name, "message": message} for index, name, message in errors]
    return Failure(status, {"type": "about:blank", "title": "x", "status": status, "detail": detail, "errors": listed})


class UsagePlatform:
    """Starts at once. `batches` are the ids of every batch that came, `events` what was taken, by id."""

    def __init__(self, port: int = 0) -> None:
        self.batches: list[list[str]] = []
        self.arrivals: list[float] = []
        self.events: dict[str, Event] = {}
        self.summaries: list[dict[str, Any]] = []
        self.failures: deque[Failure] = deque()
        self.key = KEY
        self.max_batch = 10_000
        self.refuses: Callable[[Event], bool] = not_at_all
        self.names_refused = True
        self.changed = threading.Condition()
        self._connections: list[socket.socket] = []
        self._kept: socket.socket | None = None
        self.port = port
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._let_go()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler_of(self))
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Go down, with every open connection. Nobody else gets the port meanwhile."""
        self._server.shutdown()
        self._thread.join()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it was closed already
        self._server.server_close()
        self._connections.clear()
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(("127.0.0.1", self.port))

    def _let_go(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self.stop()
        self._let_go()

    def await_batches(self, count: int, timeout_seconds: float = 10) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.batches) >= count, timeout_seconds), self.batches

    def await_events(self, count: int, timeout_seconds: float = 10) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.events) >= count, timeout_seconds), len(self.events)

    def opened(self, connection: socket.socket) -> None:
        self._connections.append(connection)

    def take(self, events: list[Event]) -> Failure:
        """The answer to a batch, 202 among them."""
        with self.changed:
            ids = [event["id"] for event in events]
            self.batches.append(ids)
            self.arrivals.append(time.monotonic())
            self.changed.notify_all()
            failure = self.failures.popleft() if self.failures else None
            if failure is not None and failure is not LOST_ANSWER:
                return failure
            if len(events) > self.max_batch:
                return Failure(413)
            wrong = [(index, "model", "is out of fashion") for index, each in enumerate(events) if self.refuses(each)]
            if wrong:
                return problem(422, *(wrong if self.names_refused else ()))
            for event in events:
                self.events.setdefault(event["id"], event)
            return failure or Failure(202, {"accepted": len(ids), "ids": ids})

    def summary(self, query: dict[str, Any]) -> Failure:
        with self.changed:
            self.summaries.append(query)
            if self.failures:
                return self.failures.popleft()
            debates = [event for event in self.events.values() if event["event_type"] == "debate"]
            tokens = sum(event.get("tokens_in", 0) + event.get("tokens_out", 0) for event in self.events.values())
            totals = {
                "total_debates": len(debates),
                "total_tokens": tokens,
                "total_cost": "0.0165",
                "total_events": len(self.events),
                "by_provider": {"anthropic": {"events": 1, "cost_usd": "0.0165"}},
            }
            return Failure(200, {"success": True, "data": totals})


def _handler_of(platform: UsagePlatform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            platform.opened(self.request)
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/api/usage/events"
            assert self.headers["Content-Type"] == "application/json"
            self.reply(platform.take(json.loads(body)) if self.authorized() else problem(401))

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query: dict[str, Any] = {"path": parts.path, **{k: v[0] for k, v in parse_qs(parts.query).items()}}
            self.reply(platform.summary(query) if self.authorized() else problem(401))

        def authorized(self) -> bool:
            return bool(self.headers["Authorization"] == f"Bearer {platform.key}")

        def reply(self, answer: Failure) -> None:
            if answer is LOST_ANSWER:
                self.close_connection = True
                self.request.shutdown(socket.SHUT_RDWR)
                return
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(content)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            with platform.changed:
                platform.changed.notify_all()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the interface's name
            """Tests are quiet."""

    return Handler
