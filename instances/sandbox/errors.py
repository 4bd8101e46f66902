"""What can go wrong with sandboxes, seen from the worker. None of these is a caller's mistake."""

from __future__ import annotations

from typing import Literal

DeathCause = Literal["cpu", "memory", "crash", "protocol", "gone"]
"""`cpu`: killed at the deadline, or by the kernel's CPU limit. `memory`: out of memory, by its own account or the
kernel's. `crash`: ended by another signal or exit code. `protocol`: said something that is not a frame, or nothing
although it should. `gone`: ended by us, with its zygote, or before it was ready; no code in it is to blame."""


class SandboxUnavailable(Exception):
    """No sandbox can be had here, or not now. The text is one sentence for a person that says why.

    `permanent`: trying again in this process is useless (the platform cannot lock, or the canary got out).
    """

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        self.reason = reason
        self.permanent = permanent
        super().__init__(reason)


class Escaped(SandboxUnavailable):
    """The canary could do what it must not: no sandbox of this process is used any more, however long it has held."""

    def __init__(self, ways: list[str]) -> None:
        super().__init__(f"the sandbox does not hold here: {', '.join(ways)} got through", permanent=True)


class SandboxDied(Exception):
    """The sandbox is dead; everything in it is gone.

    `part` is the index of the part of the frame it was working on (None: it died between frames, or before it began
    with the first part). The child wrote it: it may be used to blame a message of the same frame, nothing else.
    `status` is the exit code, negative for a signal, None when it could not be learnt.
    """

    def __init__(self, cause: DeathCause, part: int | None = None, status: int | None = None) -> None:
        self.cause: DeathCause = cause
        self.part = part
        self.status = status
        where = "" if part is None else f" while working on part {part}"
        super().__init__(f"the sandbox died ({cause}, status {status}){where}")
