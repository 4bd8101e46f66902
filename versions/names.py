"""Display names and the handles made of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from tenants.limits import RESERVED_WORKFLOW_NAMES, WORKFLOW_NAME

_GAP = re.compile(r"[^a-z0-9]+")
_FALLBACK = "workflow"


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
