"""Before any tenant's code: a child, locked like all others, tries to get out. Nothing it tries may succeed."""

from __future__ import annotations

import msgspec

from instances.sandbox.child.control import CANARY
from instances.sandbox.errors import Escaped, SandboxDied, SandboxUnavailable
from instances.sandbox.zygote import Zygote

DEADLINE = 10.0


async def release_canary(zygote: Zygote) -> None:
    """Let a child try to get out (`child/attempts.py`). Raises :class:`Escaped` unless all of it failed."""
    child = await zygote.fork(CANARY)
    try:
        escapes = msgspec.json.decode(await child.exchange([], DEADLINE), type=list[str])
    except SandboxDied as death:
        raise SandboxUnavailable(f"the sandbox could not be tested: its canary died (status {death.status})") from None
    finally:
        await child.close()
    if escapes:
        raise Escaped(escapes)
