"""What of an instance's details the two engines must agree on."""

from __future__ import annotations

import re
from typing import Any

DEFAULT_DELAYS = (1_000, 10_000)
"""Of a retry: the local engine's, and the documented one."""
_FOLDED = re.compile(r"(Workflow\w+|NonRetryable\w+|Mine): (.*)", re.DOTALL)
_RULE = re.compile(r"(is in a invalid format\.) .*")


def comparable(details: dict[str, Any], id: str) -> dict[str, Any]:
    """Status, output, error, what handlers noted, and steps: all in one spelling."""
    steps = [_step(step) for step in details["steps"] if step["type"] not in ("rollback", "termination")]
    told = {name: details.get(name) for name in ("status", "output", "error", "undone")} | {"steps": steps}
    return _spelled(told, id)


def _step(step: dict[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {name: step[name] for name in ("type", "name", "success", "config") if name in step}
    if "attempts" in step:
        shown["attempts"] = [(attempt["success"], attempt["error"]) for attempt in step["attempts"]]
    return shown


def _spelled(value: Any, id: str) -> Any:
    """Cloudflare's calls between processes put the names of errors into their messages, and each engine has words of
    its own for what is wrong with a configuration."""
    match value:
        case dict():
            spelled = {name: _spelled(item, id) for name, item in value.items() if item != "[dynamic]"}
            if spelled.get("delay") in DEFAULT_DELAYS:
                del spelled["delay"]
            if {"name", "message"} == spelled.keys() and (folded := _unfolded(spelled["name"], spelled["message"])):
                spelled["name"], spelled["message"] = folded
            return spelled
        case [str(name), str(message), *rest] if folded := _unfolded(name, message):
            return [*folded, *(_spelled(item, id) for item in rest)]
        case list() | tuple():
            return [_spelled(item, id) for item in value]
        case str():
            return _RULE.sub(r"\1", value.replace(id, "<id>"))
    return value


def _unfolded(name: Any, message: Any) -> tuple[str, str] | None:
    found = _FOLDED.fullmatch(message) if name == "Error" and isinstance(message, str) else None
    return None if found is None else (found[1], _RULE.sub(r"\1", found[2]))
