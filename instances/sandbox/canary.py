"""Before any tenant's code: a child, locked like all others, tries to get out. Nothing it tries may succeed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from instances.sandbox.process import SandboxProcess


@dataclass(frozen=True, slots=True)
class Examination:
    """What this machine's sandbox is worth. `reason` is empty when scripts may run, else one sentence."""

    reason: str
    facts: dict[str, Any] = field(default_factory=dict)


async def release_canary(child: SandboxProcess) -> list[str]:
    """Let a child forked in canary mode try; what it could do although it must not (empty: the walls stand)."""
    raise NotImplementedError


async def examine() -> Examination:
    """Start a zygote without a language on this machine, release the canary, end both. For `millrace doctor`."""
    raise NotImplementedError
