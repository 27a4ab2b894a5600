import io
import json
import logging
from datetime import datetime, timedelta

import pytest
import structlog

from aragora.chassis import telemetry


@pytest.fixture
def stream():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def raised(text: str) -> RuntimeError:
    """An error that has a traceback."""
    with pytest.raises(RuntimeError) as caught:
        raise RuntimeError(text)
    return caught.value


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_time_level_service_and_correlation(stream):
    telemetry.configure("metering", stream=stream)
    structlog.contextvars.bind_contextvars(correlation_id="c-1")
    structlog.get_logger("x").info("recorded", events=3, tokens_in=5)
    (line,) = lines(stream)
    assert datetime.fromisoformat(str(line.pop("timestamp"))).utcoffset() == timedelta(0)
    assert line == {
        "service": "metering",
        "level": "info",
        "event": "recorded",
        "events": 3,
        "tokens_in": 5,
        "correlation_id": "c-1",
        "logger": "x",
    }


def test_other_peoples_loggers_come_out_the_same_way(stream):
    telemetry.configure("metering", stream=stream)
    logging.getLogger("uvicorn.error").warning("about %s", "svc_0123456789abcdef")
    logging.getLogger("faststream").info("hello")
    logging.getLogger("httpx").info("too chatty")
    assert [(line["level"], line["event"]) for line in lines(stream)] == [
        ("warning", "about [redacted]"),
        ("info", "hello"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "Cookie",
        "password",
        "jwt_secret",
        "access_token",
        "api_key",
        "X-Api-Key",
        "email",
        "user_email",
    ],
)
def test_fields_with_a_secret_name_are_redacted_at_any_depth(stream, name):
    telemetry.configure("metering", stream=stream)
    structlog.get_logger().info("x", **{name: "hunter2"}, headers=[{name: "hunter2", "accept": "*/*"}])
    assert "hunter2" not in stream.getvalue()
    assert lines(stream)[0]["headers"] == [{name: "[redacted]", "accept": "*/*"}]


@pytest.mark.parametrize(
    "secret",
    [
        "svc_Ab0-_defghijklmnop",
        "ara_0123456789",
        "whsec_c2VjcmV0c2VjcmV0",
        "Bearer abc.def-ghi",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "somebody@example.com",
        "metering:hunter2",
    ],
)
def test_text_that_looks_secret_is_redacted_wherever_it_stands(stream, secret):
    telemetry.configure("metering", stream=stream)
    text = f"postgresql://{secret}@db:5432/x" if ":" in secret else secret
    log = structlog.get_logger()
    log.info("said", what=f"{text}!", inner={"deep": [text]}, raw=text.encode())
    log.error("failed", exc_info=raised(text))
    assert secret not in stream.getvalue()
    assert len(lines(stream)) == 2
    assert lines(stream)[1]["level"] == "error"


def test_figures_and_ids_stay_readable(stream):
    telemetry.configure("metering", stream=stream)
    structlog.get_logger().info(
        "x", tokens_out=7, token_count=1, org_id="org_1", key="a/b", url="http://127.0.0.1:8000/a"
    )
    line = lines(stream)[0]
    assert "[redacted]" not in line.values()


def test_the_console_is_for_people_and_redacts_too(stream):
    telemetry.configure("metering", format="console", stream=stream)
    structlog.get_logger().info("hello", password="hunter2", note="svc_0123456789abcdef")
    assert "hello" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()
    assert "svc_0123456789abcdef" not in stream.getvalue()


def test_the_level_is_kept_and_unknown_choices_are_refused(stream):
    telemetry.configure("metering", level="warning", stream=stream)
    structlog.get_logger().info("quiet")
    assert not stream.getvalue()
    with pytest.raises(ValueError, match="json or console"):
        telemetry.configure("metering", format="xml", stream=stream)
    with pytest.raises(ValueError, match="LOUD"):
        telemetry.configure("metering", level="loud", stream=stream)
