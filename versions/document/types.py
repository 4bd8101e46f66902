"""The node types of a definition document, and what each accepts as `config`.

A value that holds a template is known only when the node runs; checks that need the value skip it then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from tenants.limits import EVENT_TYPE
from versions.document.reading import Reader
from versions.durations import MAX_WAIT

UrlRule = Callable[[str], str | None]
"""Why a URL may not be called ("must …"), or None. Given by whoever knows the egress rules."""

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_STEP_EVENT = re.compile(r"step:[A-Za-z0-9_][A-Za-z0-9_-]{0,127}")
_LAST_MOMENT_MS = 253_402_300_799_999
_PRIORITIES = ("LOW", "MEDIUM", "HIGH", "CRITICAL")
_VERDICTS = ("stop", "continue", "fail")


def templated(value: Any) -> bool:
    """Whether `value` is a text whose meaning is only known when the node runs."""
    return isinstance(value, str) and "{{" in value


class ConfigReader(Reader):
    """A node's `config`: like :class:`Reader`, but values may be templates."""

    def __init__(self, problems: Any, value: Any, path: Any, check_url: UrlRule | None) -> None:
        super().__init__(problems, value, path, "INVALID_CONFIG")
        self.check_url = check_url

    def words(self, key: str, *, required: bool = False, most: int = 65_536) -> str | None:
        """A literal text, or None when it is absent, wrong or a template."""
        if required and not self.required(key):
            return None
        value = self.take(key)
        if value is None or templated(value):
            return None
        if not isinstance(value, str) or len(value) > most:
            self.wrong(key, f"must be a text of at most {most} characters")
            return None
        return value

    def one_of(self, key: str, choices: Collection[str]) -> None:
        if not templated(self.value.get(key)):
            self.choice(key, "", choices)
        self.take(key)

    def switch(self, key: str) -> None:
        if not templated(self.value.get(key)):
            self.flag(key, False)
        self.take(key)

    def span(self, key: str) -> None:
        if not templated(self.value.get(key)):
            self.duration(key, 1, MAX_WAIT)
        self.take(key)


@dataclass(frozen=True, slots=True)
class NodeType:
    """`check` reads the config; unknown keys are refused unless `open`.

    `waits`: nothing runs while the node is open, so its timeouts may last a year and the document's default timeout
    does not apply. `undoes`: may stand in `compensate`. `repeats`: may have `for_each`.
    """

    check: Callable[[ConfigReader], None]
    open: bool = False
    waits: bool = False
    undoes: bool = True
    repeats: bool = True


def _nothing(_config: ConfigReader) -> None:
    pass


def _send_notification(config: ConfigReader) -> None:
    config.words("message", required=True)
    config.words("recipient", most=255)


def _create_task(config: ConfigReader) -> None:
    config.words("title", required=True, most=1024)
    config.words("description")
    config.one_of("priority", _PRIORITIES)
    config.words("assignedTo", most=255)


def _call_api(config: ConfigReader) -> None:
    url = config.words("url", required=True, most=8192)
    if url is not None and (rule := _url_problem(url, config.check_url)):
        config.wrong("url", rule)
    config.one_of("method", _METHODS)
    for name, value in (config.object("headers") or {}).items() if not templated(config.take("headers")) else ():
        _check_header(config, name, value)
    if not templated(config.take("query")):
        config.object("query")
    config.take("body")
    if not templated(config.take("expect")):
        for position, status in enumerate(config.array("expect", 500)):
            if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
                config.problems.add(
                    "INVALID_CONFIG", (*config.at("expect"), position), "must be a status between 100 and 599"
                )


def _url_problem(url: str, check_url: UrlRule | None) -> str | None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return "must be a valid URL"
    if parts.scheme not in ("http", "https") or not host or any(c <= " " or c == "\x7f" for c in url):
        return "must be an absolute http or https URL"
    return check_url(url) if check_url else None


def _check_header(config: ConfigReader, name: str, value: Any) -> None:
    path = (*config.at("headers"), name)
    if not _HEADER_NAME.fullmatch(name):
        config.problems.add("INVALID_CONFIG", path, "must have a valid header name")
    elif isinstance(value, bool) or not isinstance(value, str | int | float):
        config.problems.add("INVALID_CONFIG", path, "must be a text or a number")
    elif isinstance(value, str) and any(c in value for c in "\r\n\0"):
        config.problems.add("INVALID_CONFIG", path, "must not contain line breaks or NUL characters")


def _wait(config: ConfigReader) -> None:
    if config.value.get("durationMs") is not None and config.value.get("duration") is not None:
        config.wrong("duration", "must not be given together with durationMs")
    config.span("durationMs")
    config.span("duration")


def _wait_until(config: ConfigReader) -> None:
    if not config.required("at"):
        return
    at = config.take("at")
    if not templated(at) and not is_moment(at):
        config.wrong("at", "must be an RFC 3339 timestamp, a date or epoch milliseconds")


def is_moment(value: Any) -> bool:
    """Whether `value` is a point in time: RFC 3339 text, a bare date, or epoch milliseconds."""
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value).replace(tzinfo=UTC)
        except ValueError:
            return False
        return len(value) >= 10
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LAST_MOMENT_MS


def _wait_for_event(config: ConfigReader) -> None:
    event = config.words("event", required=True)
    if event is not None and not EVENT_TYPE.holds(event) and not _STEP_EVENT.fullmatch(event):
        config.wrong("event", f"must be {EVENT_TYPE.rule}; or step:<node id>")
    config.span("timeout")
    config.take("match")


def _condition(config: ConfigReader) -> None:
    if not any(config.value.get(key) is not None for key in ("field", "all", "any", "not")):
        config.wrong("field", "is required (or one of all, any, not)")
    for key in ("field", "operator", "value", "all", "any", "not"):
        config.take(key)
    stops = config.choice("onFalse", "", _VERDICTS) == "stop"
    config.array("then")
    if config.array("else") and stops:
        config.wrong("else", "can never run: onFalse stops the workflow")


def _set(config: ConfigReader) -> None:
    if config.required("values") and not templated(config.take("values")):
        config.object("values")


def _fail(config: ConfigReader) -> None:
    config.words("message")
    config.words("code", most=255)


def _workflow(config: ConfigReader) -> None:
    config.words("workflow", required=True, most=255)
    config.take("input")
    config.switch("wait")


def _handler(config: ConfigReader) -> None:
    if config.required("handler"):
        config.text("handler", least=1)


NODE_TYPES: dict[str, NodeType] = {
    "noop": NodeType(_nothing),
    "trigger": NodeType(_nothing, open=True, undoes=False, repeats=False),
    "send_notification": NodeType(_send_notification),
    "create_task": NodeType(_create_task),
    "call_api": NodeType(_call_api),
    "wait": NodeType(_wait, waits=True, undoes=False),
    "wait_until": NodeType(_wait_until, waits=True, undoes=False),
    "wait_for_event": NodeType(_wait_for_event, waits=True, undoes=False),
    "condition": NodeType(_condition, undoes=False, repeats=False),
    "set": NodeType(_set),
    "fail": NodeType(_fail),
    "external": NodeType(_nothing, waits=True),
    "workflow": NodeType(_workflow, waits=True),
    "handler": NodeType(_handler, open=True),
}
REGISTERED = NodeType(_nothing, open=True)
"""A type that is the name of a registered handler."""
