"""Logs: one line per fact, JSON for machines or coloured for people, on stderr.

Lines carry what identifies the work (request, account, workflow, instance, step, attempt), never payloads or
credentials. Libraries' own `logging` records come out in the same form.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

import msgspec
import structlog

from app.settings import Settings, SettingsError

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SECRETS = frozenset(
    {"authorization", "cookie", "password", "secret", "token", "api_token", "payload", "params", "output"}
)
_encode = msgspec.json.Encoder(enc_hook=str).encode


def configure_logging(settings: Settings) -> None:
    """Set up structlog and the standard library's logging for this process. Raises :class:`SettingsError`."""
    level = LEVELS.get(settings.log_level.lower())
    if level is None:
        raise SettingsError(f"MILLRACE_LOG_LEVEL must be one of {', '.join(LEVELS)}, not {settings.log_level!r}.")
    if settings.log_format not in ("auto", "json", "console"):
        raise SettingsError(f"MILLRACE_LOG_FORMAT must be auto, json or console, not {settings.log_format!r}.")
    console = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        mask_secrets,
        leave_out_none,
    ]
    structlog.configure(
        processors=[*shared, *_last(console)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
        if console
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    _adopt_standard_logging(level, shared, console)


def mask_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Second line of defence: a field that is named like a secret or a payload is never printed."""
    for key in _SECRETS & event.keys():
        event[key] = "[redacted]"
    return event


def leave_out_none(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Leave out fields that are None: a line names what it knows."""
    for key in [key for key, value in event.items() if value is None]:
        del event[key]
    return event


def _console_renderer() -> structlog.dev.ConsoleRenderer:
    """For people. Tracebacks without the values of variables, which may be secrets and payloads."""
    colours = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    return structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)


def _last(console: bool) -> list[Any]:
    if console:
        return [_console_renderer()]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_serialise)]


def _serialise(event: Any, **_options: Any) -> bytes:
    return _encode(event)


def _adopt_standard_logging(level: int, shared: list[Any], console: bool) -> None:
    renderer: list[Any] = (
        [_console_renderer()]
        if console
        else [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: _encode(event).decode()),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # uvicorn's access log and httpx's and arq's chatter repeat what our own lines say.
    for name, least in (("uvicorn.access", logging.CRITICAL), ("httpx", 30), ("httpcore", 30), ("arq", 30)):
        logging.getLogger(name).setLevel(max(level, least))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers[:] = []
        logging.getLogger(name).propagate = True
