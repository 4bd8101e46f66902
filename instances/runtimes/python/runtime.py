"""The Python runtime: scripts on CPython, in sandboxes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from instances.sandbox.child.control import Limits
from instances.sandbox.options import SandboxOptions

CHILD = Path(__file__).parent / "child"
DATA = (128 + 32) << 20
"""128 MiB for the script; the interpreter with its library takes about 30."""


def sandbox_options() -> SandboxOptions:
    """How Python's sandboxes are made. Hashes of texts are the same in every process, so that sets of them are walked
    in the same order when a run is replayed."""
    zones = importlib.util.find_spec("tzdata")
    paths = () if zones is None or zones.origin is None else (Path(zones.origin).parents[1],)
    return SandboxOptions(
        engine=CHILD / "main.py", paths=paths, environment={"PYTHONHASHSEED": "0"}, limits=Limits(data=DATA)
    )
