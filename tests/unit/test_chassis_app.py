import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Body, FastAPI, Query
from pydantic import BaseModel
from servers import eventually
from structlog.testing import capture_logs

from aragora.chassis import probes
from aragora.chassis.app import create_app
from aragora.chassis.problems import Problem, responses

routes = APIRouter(prefix="/api")


class Thing(BaseModel):
    count: int


@routes.get("/things/{number}", responses=responses(404))
async def read_thing(number: int, limit: Annotated[int, Query(le=10)] = 1) -> int:
    if number == 0:
        raise Problem(404, "There is no thing 0; try 1.")
    return number * limit


@routes.post("/things")
async def write_things(things: Annotated[list[Thing], Body()]) -> int:
    return len(things)


@routes.get("/fails")
async def fails() -> None:
    raise RuntimeError("secret plans")


@routes.get("/away")
async def away() -> None:
    raise ConnectionRefusedError("5432")


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with client(create_app(title="T", version="1", routers=[routes], max_body_bytes=1000)) as one:
        with capture_logs():  # structlog's default rendering of a traceback takes seconds
            yield one


def assert_problem(answer: httpx.Response, status: int, *errors: tuple[int | None, str]) -> None:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body.keys() == {"type", "title", "status", "detail", "errors"}
    assert body["status"] == status
    assert [(error["index"], error["field"]) for error in body["errors"]] == list(errors)


async def test_every_error_has_the_one_shape(http):
    assert_problem(await http.get("/api/things/0"), 404)
    assert_problem(await http.get("/nowhere"), 404)
    answer = await http.delete("/api/things/1")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "GET"
    assert_problem(await http.get("/api/things/x?limit=11"), 422, (None, "number"), (None, "limit"))
    assert_problem(
        await http.post("/api/things", json=[{"count": 1}, {"count": "x"}, {}]), 422, (1, "count"), (2, "count")
    )
    assert_problem(await http.post("/api/things"), 422, (None, "body"))
    json_type = {"content-type": "application/json"}
    assert_problem(await http.post("/api/things", content="[{", headers=json_type), 400)
    assert_problem(await http.post("/api/things", content=b"\xff\xfe\xff", headers=json_type), 400)
    assert_problem(await http.get("/api/fails"), 500)
    answer = await http.get("/api/away")
    assert_problem(answer, 503)
    assert answer.headers["retry-after"] == "1"


async def test_an_unexpected_failure_is_logged_and_tells_nothing(http):
    with capture_logs() as logs:
        answer = await http.get("/api/fails")
    assert "secret" not in answer.text
    assert [entry["log_level"] for entry in logs if entry["event"] == "unexpected failure"] == ["error"]
    assert "secret plans" in str(logs[0]["exc_info"])


async def test_a_body_over_the_limit_is_refused_announced_or_not(http):
    async def chunks():
        for _ in range(11):
            yield b" " * 100

    assert_problem(await http.post("/api/things", content=b" " * 1001), 413)
    assert_problem(await http.post("/api/things", content=chunks()), 413)
    assert (await http.post("/api/things", json=[{"count": 1}] * 50)).json() == 50


async def test_the_correlation_id_is_kept_made_and_logged(http):
    answer = await http.get("/api/things/1", headers={"X-Correlation-ID": "order:7.a-b_c"})
    assert answer.headers["x-correlation-id"] == "order:7.a-b_c"
    for wrong in ("", "with space", "x" * 129, "<script>"):
        answer = await http.get("/api/fails", headers={"X-Correlation-ID": wrong})
        made = answer.headers["x-correlation-id"]
        assert made != wrong
        assert len(made) == 36


async def test_the_access_log_and_the_metrics_know_the_route_but_not_the_query(http, caplog):
    caplog.set_level("DEBUG", logger="aragora.chassis.app")  # what went well is told at this level only
    with capture_logs() as logs:
        await http.get("/api/things/77?limit=3")
        await http.request("BREW", "/nowhere")
    assert [(entry["route"], entry["status"]) for entry in logs] == [("/api/things/{number}", 200), ("unmatched", 404)]
    assert "limit" not in str(logs)
    exposed = (await http.get("/metrics")).text
    assert 'http_request_seconds_count{method="GET",route="/api/things/{number}",status="200"}' in exposed
    assert 'method="other",route="unmatched",status="404"' in exposed
    assert "77" not in [line for line in exposed.splitlines() if "things" in line]


async def test_the_document_tells_of_problems_in_their_one_shape(http):
    document = (await http.get("/openapi.json")).json()
    assert "HTTPValidationError" not in str(document)
    operation = document["paths"]["/api/things/{number}"]["get"]
    for status in ("404", "422"):
        schema = operation["responses"][status]["content"]["application/problem+json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Problem"}
    assert document["components"]["schemas"]["Problem"]["title"] == "Problem"
    assert (await http.get("/openapi.json")).json() == document


async def test_ready_names_what_is_missing_and_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(probes, "READINESS_SECONDS", 0.01)
    state = {"postgres": True}

    async def postgres():
        if not state["postgres"]:
            raise ConnectionRefusedError("at password@host")

    async def bus():
        if not state["postgres"]:
            await asyncio.Event().wait()

    app = create_app(title="T", version="1", routers=[], readiness={"postgres": postgres, "bus": bus})
    async with client(app) as http:
        assert (await http.get("/readyz")).json() == {"status": "ready"}
        state["postgres"] = False
        answer = await http.get("/readyz")
        assert_problem(answer, 503, (None, "postgres"), (None, "bus"))
        assert "password" not in answer.text
        assert (await http.get("/healthz")).status_code == 200
        state["postgres"] = True
        app.state.draining = True
        assert_problem(await http.get("/readyz"), 503)


async def test_a_service_is_ready_without_what_it_can_do_without_and_says_so():
    async def postgres():
        raise ConnectionRefusedError

    async def bus():
        return None

    app = create_app(title="T", version="1", routers=[], readiness={"postgres": postgres, "bus": bus})
    app.state.dispensable.add("postgres")
    async with client(app) as http:
        assert (await http.get("/readyz")).json() == {"status": "ready", "missing": ["postgres"]}
        app.state.readiness["bus"] = postgres
        assert_problem(await http.get("/readyz"), 503, (None, "postgres"), (None, "bus"))


async def test_a_check_that_does_not_end_holds_up_nobody_and_is_not_asked_again(monkeypatch):
    monkeypatch.setattr(probes, "READINESS_SECONDS", 0.01)
    thawed, begun = asyncio.Event(), []

    async def frozen():
        begun.append("frozen")
        try:
            await thawed.wait()
        finally:
            await thawed.wait()

    app = create_app(title="T", version="1", routers=[], readiness={"postgres": frozen})
    async with asyncio.timeout(5), client(app) as http:
        for _ in range(3):
            assert_problem(await http.get("/readyz"), 503, (None, "postgres"))
        assert begun == ["frozen"]
        thawed.set()
        await eventually(lambda: not app.state.asked)
        assert (await http.get("/readyz")).json() == {"status": "ready"}


async def test_who_asks_at_the_same_time_gets_the_same_answer():
    begun, answered = [], asyncio.Event()

    async def postgres():
        begun.append("postgres")
        await answered.wait()

    app = create_app(title="T", version="1", routers=[], readiness={"postgres": postgres})
    async with client(app) as http, asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(http.get("/readyz")) for _ in range(5)]
        for _ in range(100):
            await asyncio.sleep(0)
        answered.set()
        answers = [(await each).json() for each in asking]
    assert answers == [{"status": "ready"}] * 5
    assert begun == ["postgres"]


async def test_lifespans_are_entered_in_order_and_left_in_reverse():
    seen = []

    def named(name):
        @asynccontextmanager
        async def lifespan(_):
            seen.append(f"{name} begins")
            yield
            seen.append(f"{name} ends")

        return lifespan

    app = create_app(title="T", version="1", routers=[], lifespans=[named("one"), named("two")])
    async with app.router.lifespan_context(app):
        seen.append("serving")
    assert seen == ["one begins", "two begins", "serving", "two ends", "one ends"]
