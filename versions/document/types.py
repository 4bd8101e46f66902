"""The node types of a definition document, and what each accepts as `config`.

A value that holds a template is known only when the node runs; checks that need the value skip it then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from versions.document.reading import Reader
from versions.durations import MAX_WAIT, parse_moment
from versions.names import EVENT_RULE, may_be_awaited

UrlRule = Callable[[str], str | None]
"""Why a URL may not be called ("must …"), or None. Given by whoever knows the egress rules."""

MESSAGE_LENGTH = 65_536
TITLE_LENGTH = 1_024
PERSON_LENGTH = 255
PRIORITIES = ("LOW", "MEDIUM", "HIGH", "CRITICAL")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VERDICTS = ("stop", "continue", "fail")


def templated(value: Any) -> bool:
    """Whether `value` is a text whose meaning is only known when the node runs."""
    return isinstance(value, str) and "{{" in value


class ConfigReader(Reader):
    """A node's `config`: like :class:`Reader`, but values may be templates."""

    def __init__(self, problems: Any, value: Any, path: Any, check_url: UrlRule | None) -> None:
        super().__init__(problems, value, path, "INVALID_CONFIG")
        self.check_url = check_url

    def words(self, key: str, *, required: bool = False, least: int = 1, most: int = MESSAGE_LENGTH) -> str | None:
        """A literal text, or None when it is absent, wrong or a template."""
        if required and not self.required(key):
            return None
        value = self.take(key)
        if value is None or templated(value):
            return None
        if not isinstance(value, str) or not least <= len(value) <= most:
            self.wrong(key, f"must be a text of {least} to {most} characters")
            return None
        return value

    def unless_templated(self, key: str, read: Callable[[str], Any]) -> Any:
        """What `read` makes of the value; None when that is a template."""
        return None if templated(self.take(key)) else read(key)

    def one_of(self, key: str, choices: Collection[str]) -> None:
        self.unless_templated(key, lambda key: self.choice(key, "", choices))

    def switch(self, key: str) -> None:
        self.unless_templated(key, lambda key: self.flag(key, False))

    def span(self, key: str) -> None:
        self.unless_templated(key, lambda key: self.duration(key, 1, MAX_WAIT))


@dataclass(frozen=True, slots=True)
class NodeType:
    """`check` reads the config; unknown keys are refused unless `open`.

    `waits`: nothing runs while the node is open, so its timeouts may last a year and the document's default timeout
    does not apply. `undoes`: may stand in `compensate`. `repeats`: may have `for_each`. `answered`: may be completed
    from outside. `literal`: keys whose values are taken as they are, or hold conditions; None: no value is templated.
    """

    check: Callable[[ConfigReader], None]
    open: bool = False
    waits: bool = False
    undoes: bool = True
    repeats: bool = True
    answered: bool = True
    literal: frozenset[str] | None = frozenset()

    def templates_of(self, config: dict[str, Any], *, repeated: bool) -> dict[str, Any]:
        """The part of a config that is filled in when the node runs; `repeated`: it has `for_each`."""
        if self.literal is None:
            return {}
        left_out = self.literal | {"parallel"} if repeated else self.literal
        return {key: value for key, value in config.items() if key not in left_out}


def _nothing(_config: ConfigReader) -> None:
    pass


def _send_notification(config: ConfigReader) -> None:
    config.words("message", required=True)
    config.words("recipient", most=PERSON_LENGTH)


def _create_task(config: ConfigReader) -> None:
    config.words("title", required=True, most=TITLE_LENGTH)
    config.words("description", least=0)
    config.one_of("priority", PRIORITIES)
    config.words("assignedTo", most=PERSON_LENGTH)


def _call_api(config: ConfigReader) -> None:
    url = config.words("url", required=True, most=8192)
    if url is not None and (rule := _url_problem(url, config.check_url)):
        config.wrong("url", rule)
    config.one_of("method", _METHODS)
    for name, value in (config.unless_templated("headers", config.object) or {}).items():
        _check_header(config, name, value)
    config.unless_templated("query", config.object)
    config.take("body")
    for position, status in enumerate(config.unless_templated("expect", config.array) or ()):
        if isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 599:
            path = (*config.at("expect"), position)
            config.problems.add("INVALID_CONFIG", path, "must be a status between 100 and 599")


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
    if not templated(at):
        try:
            parse_moment(at)
        except ValueError as error:
            config.wrong("at", str(error))


def _wait_for_event(config: ConfigReader) -> None:
    event = config.words("event", required=True)
    if event is not None and not may_be_awaited(event):
        config.wrong("event", f"must be {EVENT_RULE}")
    config.span("timeout")
    config.take("match")


def _condition(config: ConfigReader) -> None:
    if not any(config.value.get(key) is not None for key in ("field", "all", "any", "not")):
        config.wrong("field", "is required (or one of all, any, not)")
    for key in ("field", "operator", "value", "all", "any", "not"):
        config.take(key)
    on_false = config.choice("onFalse", "", _VERDICTS)
    config.array("then")
    if config.array("else") and on_false == "stop":
        config.wrong("else", "can never run: onFalse stops the workflow")


_COMPARED = ("field", "operator", "value")
_COMBINED = ("all", "any", "not")


def condition_of(config: dict[str, Any]) -> dict[str, Any]:
    """The condition in the config of a condition node, without its consequences."""
    compared = {key: config[key] for key in _COMPARED if key in config} if config.get("field") is not None else {}
    return {**compared, **{key: config[key] for key in _COMBINED if config.get(key) is not None}}


def _set(config: ConfigReader) -> None:
    if config.required("values"):
        config.unless_templated("values", config.object)


def _fail(config: ConfigReader) -> None:
    config.words("message", least=0)
    config.words("code", least=0, most=255)


def _workflow(config: ConfigReader) -> None:
    config.words("workflow", required=True, most=255)
    config.take("input")
    config.switch("wait")


def _handler(config: ConfigReader) -> None:
    if config.required("handler"):
        config.text("handler", least=1)


NODE_TYPES: dict[str, NodeType] = {
    "noop": NodeType(_nothing),
    "trigger": NodeType(_nothing, open=True, undoes=False, repeats=False, answered=False, literal=None),
    "send_notification": NodeType(_send_notification),
    "create_task": NodeType(_create_task),
    "call_api": NodeType(_call_api),
    "wait": NodeType(_wait, waits=True, undoes=False, answered=False),
    "wait_until": NodeType(_wait_until, waits=True, undoes=False, answered=False),
    "wait_for_event": NodeType(_wait_for_event, waits=True, undoes=False, answered=False, literal=frozenset({"match"})),
    "condition": NodeType(_condition, undoes=False, repeats=False, answered=False, literal=None),
    "set": NodeType(_set, answered=False),
    "fail": NodeType(_fail, answered=False),
    "external": NodeType(_nothing, waits=True),
    "workflow": NodeType(_workflow, waits=True, answered=False),
    "handler": NodeType(_handler, open=True, literal=frozenset({"handler"})),
}
REGISTERED = NodeType(_nothing, open=True)
"""A type that is the name of a registered handler."""


def node_type(name: str) -> NodeType:
    """The type called `name`, a built-in one or a handler's."""
    return NODE_TYPES.get(name, REGISTERED)
