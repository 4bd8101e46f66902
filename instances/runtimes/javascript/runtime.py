"""The JavaScript runtime: scripts on V8, in sandboxes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from instances.sandbox.options import SandboxOptions

CHILD = Path(__file__).parent / "child"
ABORTED = -5
"""V8 ends its process with SIGTRAP when the heap is full."""


def sandbox_options() -> SandboxOptions:
    """How JavaScript's sandboxes are made."""
    found = importlib.util.find_spec("py_mini_racer")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("mini-racer is not installed")
    return SandboxOptions(
        engine=CHILD / "main.py", paths=(Path(found.origin).parents[1],), exhausted=frozenset({ABORTED})
    )
