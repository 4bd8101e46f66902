"""What this machine's sandbox is worth, without running any language."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instances.sandbox.errors import SandboxUnavailable
from instances.sandbox.host import SandboxHost
from instances.sandbox.options import SandboxOptions

PROBE = Path(__file__).parent / "child" / "probe.py"


@dataclass(frozen=True, slots=True)
class Examination:
    """`reason` is empty when tenants' code may run here, else one sentence."""

    reason: str
    facts: dict[str, Any] = field(default_factory=dict)
    """`landlock`: its ABI version, 0 when there is none. `uid`, `gid`: whom sandboxes run as."""


async def examine() -> Examination:
    """Start a zygote without a language, release the canary, end both. For `millrace doctor`."""
    host = SandboxHost("probe", SandboxOptions(engine=PROBE))
    try:
        return Examination("", await host.start())
    except SandboxUnavailable as unavailable:
        return Examination(unavailable.reason)
    finally:
        await host.close()
