"""Names: of nodes, of the events that complete them, display names and the handles made of these."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import TypeGuard

from tenants.limits import EVENT_TYPE, RESERVED_WORKFLOW_NAMES, WORKFLOW_NAME, TextRule

NODE_ID = TextRule(
    re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*"), 1, 128, "letters, digits, '_' and '-', not beginning with '-'"
)
_STEP_EVENT = "step:"
_COMPENSATION = ":compensate"
EVENT_RULE = f"{EVENT_TYPE.rule}; or step:<node id>"
_GAP = re.compile(r"[^a-z0-9]+")
_FALLBACK = "workflow"
_SEMVER = re.compile(r"1\.0\.(0|[1-9][0-9]{0,8})")


def may_be_awaited(event_type: object) -> TypeGuard[str]:
    """Whether a node may wait for events of this type: an ordinary one, or one that completes a node from outside."""
    return EVENT_TYPE.holds(event_type) or (
        isinstance(event_type, str)
        and event_type.startswith(_STEP_EVENT)
        and NODE_ID.holds(event_type.removeprefix(_STEP_EVENT))
    )


def may_be_sent(event_type: str) -> bool:
    """Whether an event of this type may be sent: besides, `step:<node id>:compensate` completes a compensation."""
    completes = event_type.startswith(_STEP_EVENT) and event_type.endswith(_COMPENSATION)
    return may_be_awaited(event_type.removesuffix(_COMPENSATION) if completes else event_type)


def slug(name: str) -> str:
    """`name` in lower-case ASCII letters and digits joined by dashes; may be empty.

    >>> slug("Task 1: Prüfen")
    'task-1-prufen'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return _GAP.sub("-", plain).strip("-")


def handle_for(display_name: str, taken: Callable[[str], bool]) -> str:
    """The handle of a workflow called `display_name`: its slug, with `-2`, `-3` … as long as that is taken or reserved.

    The result keeps the rule for workflow names.
    """
    stem = slug(display_name)[: WORKFLOW_NAME.maximum].strip("-") or _FALLBACK
    number = 1
    while True:
        suffix = "" if number == 1 else f"-{number}"
        handle = stem[: WORKFLOW_NAME.maximum - len(suffix)].rstrip("-") + suffix
        if handle not in RESERVED_WORKFLOW_NAMES and not taken(handle):
            return handle
        number += 1


def semver(no: int) -> str:
    """How faces that show semantic versions show the `no`-th version of a workflow.

    >>> semver(1), semver(3)
    ('1.0.0', '1.0.2')
    """
    return f"1.0.{no - 1}"


def parse_semver(text: str) -> int | None:
    """The number of the version shown as `text`; None when none is shown so."""
    found = _SEMVER.fullmatch(text)
    return int(found[1]) + 1 if found else None
