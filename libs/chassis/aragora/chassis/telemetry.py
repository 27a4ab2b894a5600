"""Logging: one JSON object per line, with the correlation id, and with nothing secret or personal in it."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

REDACTED = "[redacted]"

_SECRET_NAME = re.compile(
    r"authorization|cookie|passw(or)?d|secret|e-?mail|(^|[_-])(token|jwt|api[_-]?key|credentials?)$", re.IGNORECASE
)
# None of these can swallow a quote or a backslash, so a rendered JSON line stays JSON.
_SECRET_TEXT = re.compile(
    r"\b(?:svc|ara|sk|whsec)_[A-Za-z0-9_-]{8,}"
    r"|\bBearer\s+[A-Za-z0-9._~+/=-]+"
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # a JWT
    r"|(?<=://)[^\s/:@\"'\\]*:[^\s/@\"'\\]+(?=@)"  # user:password in a URL
    r"|\b[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+\.[A-Za-z0-9.-]+",  # an e-mail address
    re.IGNORECASE,
)


def redact_names(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replaces the values of fields whose name says that they are secret or personal, at any depth."""
    return {name: _without_secrets(name, value) for name, value in event.items()}


def _without_secrets(name: str, value: Any) -> Any:
    if isinstance(value, MutableMapping):
        return {inner: _without_secrets(str(inner), kept) for inner, kept in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(name, one) for one in value]
    return REDACTED if value is not None and _SECRET_NAME.search(name) else value


def redact_text(text: str) -> str:
    """Replaces everything that looks like a credential or an e-mail address."""
    return _SECRET_TEXT.sub(REDACTED, text)


def _for_people(stream: TextIO) -> structlog.dev.ConsoleRenderer:
    # The default shows the values of variables with a traceback: a credential may be among them.
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)


def configure(service: str, *, level: str = "info", format: str = "json", stream: TextIO | None = None) -> None:  # noqa: A002
    """Sends structlog's and the standard library's records (uvicorn's, FastStream's) to `stream` (stderr by default).

    Args:
        service: who is speaking; stands in every line.
        level: debug, info, warning, error.
        format: `json`, or `console` for a person's eyes.
        stream: where to write.

    Raises:
        ValueError: no such level or format.
    """
    if format not in {"json", "console"}:
        raise ValueError(f"the log format is json or console, not {format!r}")

    def named(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.pop("color_message", None)  # uvicorn says everything twice
        return {"service": service, **event}

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        named,
    ]
    render: list[Processor] = (
        [structlog.processors.format_exc_info, redact_names, structlog.processors.JSONRenderer(sort_keys=False)]
        if format == "json"
        else [redact_names, _for_people(stream or sys.stderr)]
    )

    def redact(_: WrappedLogger, __: str, rendered: Any) -> str:
        return redact_text(str(rendered))

    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render, redact],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", "faststream"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
