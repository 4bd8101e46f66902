"""Sandboxes for tests, with an engine that runs whatever Python it is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from instances.sandbox.options import SandboxOptions
from instances.sandbox.process import SandboxProcess

HERE = Path(__file__).parent
ENGINE = HERE / "hostile_engine.py"
CHILD = Path(__file__).parents[3] / "instances" / "sandbox" / "child"


def hostile(**more: Any) -> SandboxOptions:
    """Options of the engine that does what the test says."""
    return SandboxOptions(engine=ENGINE, **more)


async def do(child: SandboxProcess, *sources: str, deadline: float = 20.0) -> list[Any]:
    """Run each source (an expression, or statements that set `result`) as one part of a frame.

    An answer is the value, or `[name of the exception, errno or text]`.
    """
    return json.loads(await child.exchange([source.encode() for source in sources], deadline))
