"""Names of events, and what an endpoint may ask for: names, `*`, and all names below a word (`task.execution.*`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from app.errors import InvalidRequest, Problem

DEFINITIONS = tuple(f"workflow.definition.{what}" for what in ("created", "updated", "deleted"))
EXECUTIONS = tuple(
    f"workflow.execution.{what}"
    for what in (
        "started",
        "completed",
        "failed",
        "cancelled",
        "paused",
        "resumed",
        "waiting",
        "compensating",
        "retried",
    )
)
TASKS = tuple(
    f"task.execution.{what}"
    for what in ("started", "completed", "failed", "cancelled", "waiting", "retrying", "skipped")
)
PROGRESS = "progress.updated"
BLOCKER_DETECTED, BLOCKER_RESOLVED = "blocker.detected", "blocker.resolved"
MILESTONE = "milestone.achieved"
SYNC_POINTS = tuple(f"synchronization.point.{what}" for what in ("reached", "completed", "failed"))
TEST = "webhook.test"

KNOWN = (*DEFINITIONS, *EXECUTIONS, *TASKS, PROGRESS, BLOCKER_DETECTED, BLOCKER_RESOLVED, MILESTONE, *SYNC_POINTS, TEST)
"""Every event there is."""
EVENTS_MAX = 50
"""Names one endpoint may give."""

_NEVER = re.compile(r"(?:resource|system)\.(?:\*|[a-z][a-z_-]*(?:\.[a-z][a-z_-]*)*(?:\.\*)?)")
"""Names of other platforms' catalogues: they may be asked for, and nothing is sent."""


def checked_events(names: object, pointer: str = "/events") -> list[str]:
    """The names, repeats dropped. Raises :class:`InvalidRequest` naming those that are none."""
    rule = f"events must be a list of 1 to {EVENTS_MAX} names of events"
    if not isinstance(names, list) or not 1 <= len(names) <= EVENTS_MAX:
        raise InvalidRequest(rule, pointer=pointer)
    found = list(dict.fromkeys(name if isinstance(name, str) else repr(name) for name in names))
    wrong = [place for place, name in enumerate(names) if not isinstance(name, str) or not _may_be_asked_for(name)]
    if wrong:
        known = ", ".join(KNOWN)
        raise InvalidRequest(
            f"events has names that are no events; known are {known}, and * and names that end with .*",
            pointer=pointer,
            problems=[
                Problem(f"events/{place} is not the name of an event", f"{pointer}/{place}", kind="UNKNOWN_EVENT")
                for place in wrong
            ],
        )
    return found


def checked_event(name: object, pointer: str = "/event") -> str:
    """The name of one event. Raises :class:`InvalidRequest`."""
    if not isinstance(name, str) or not (name in KNOWN or (_NEVER.fullmatch(name) and not name.endswith("*"))):
        raise InvalidRequest(f"event must be the name of an event; known are {', '.join(KNOWN)}", pointer=pointer)
    return name


def wanted(asked: Iterable[str]) -> frozenset[str]:
    """The events these names and patterns stand for.

    >>> sorted(wanted(["blocker.*", "milestone.achieved"]))
    ['blocker.detected', 'blocker.resolved', 'milestone.achieved']
    """
    patterns = tuple(asked)
    return frozenset(name for name in KNOWN if _matches(name, patterns))


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(
        pattern in ("*", name) or (pattern.endswith(".*") and name.startswith(pattern[:-1])) for pattern in patterns
    )


def _may_be_asked_for(name: str) -> bool:
    return name == "*" or bool(_NEVER.fullmatch(name)) or bool(wanted([name]))
