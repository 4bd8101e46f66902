"""What starts a workflow, as dialects "001" and "004" write it: `{type, name?, config?}`, or the type alone.

`config` of a schedule has `cron` or `interval` (milliseconds), `timezone`, `concurrency`, `maxRuns` and `input`, that
of an event its name as `event`, and, like that of a webhook, a `condition`; all may also stand beside `type`. What else
is in a `config` is kept as it is.
"""

from __future__ import annotations

from typing import Any

from versions.document.model import Trigger
from versions.document.reading import Path, Reader
from versions.forms.form import Draft

_TYPES = {"manual": "manual", "webhook": "webhook", "schedule": "schedule", "scheduled": "schedule", "event": "event"}
_SETTINGS = {
    "schedule": {
        "cron": "cron",
        "interval": "interval",
        "timezone": "timezone",
        "concurrency": "concurrency",
        "maxRuns": "max_runs",
        "input": "input",
    },
    "event": {"event": "event", "condition": "condition"},
    "webhook": {"condition": "condition"},
}
"""What the document knows by its own name, for each type."""


def read_trigger(draft: Draft, value: Any, path: Path, position: int) -> dict[str, Any] | None:
    """The trigger at `position` of the document; None when its type is none, which is noted."""
    reader = Reader(draft.problems, {"type": value} if isinstance(value, str) else value, path)
    if not reader.required("type"):
        return None
    said = reader.take("type")
    kind = _TYPES.get(said.lower()) if isinstance(said, str) else None
    if kind is None:
        reader.wrong("type", f"must be one of {', '.join(_TYPES)}")
        return None
    inside = ("triggers", position)
    draft.place(inside, path)
    config = dict(reader.object("config") or {})
    trigger: dict[str, Any] = {"type": kind, "name": reader.text("name"), "condition": reader.take("condition")}
    for outside, key in _SETTINGS.get(kind, {}).items():
        beside = reader.take(outside)
        draft.place((*inside, key), reader.at(outside))
        if beside is None and outside in config:
            draft.place((*inside, key), (*reader.at("config"), outside))
            beside = config.pop(outside)
        trigger[key] = beside
    trigger["config"] = config
    reader.done()
    return {key: value for key, value in trigger.items() if value is not None}


def show_trigger(trigger: Trigger) -> dict[str, Any]:
    """`trigger` as it could have been written."""
    config: dict[str, Any] = {}
    if trigger.type == "schedule":
        config = {"cron": trigger.cron, "interval": trigger.interval, "timezone": trigger.timezone}
        config |= {"concurrency": trigger.concurrency, "maxRuns": trigger.max_runs, "input": trigger.input}
    elif trigger.type == "event":
        config = {"event": trigger.event}
    shown: dict[str, Any] = {"type": trigger.type}
    if trigger.name:
        shown["name"] = trigger.name
    if trigger.condition is not None:
        shown["condition"] = trigger.condition
    return {**shown, "config": {key: value for key, value in config.items() if value is not None} | trigger.config}
