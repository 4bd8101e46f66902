"""The zygote: an interpreter with its engine loaded that locks itself and forks one child per sandbox.

It runs no tenant's code, ever. Children inherit what is loaded, close what is not theirs, lock themselves further and
serve their worker.
"""

from __future__ import annotations

from collections.abc import Set
from typing import NoReturn, Protocol

from control import Limits
from frames import Frames


class Engine(Protocol):
    """A language. The file given as `SandboxOptions.engine` defines `engine() -> Engine`.

    In the zygote: `engine()`, then `prepare()`. In each child after the fork: `open`, then the lock, then `serve`.
    """

    syscalls: Set[str]
    """System calls needed after the lock beyond `lockdown.BASE`, by name. Files, sockets, processes: never."""

    def prepare(self) -> None:
        """Once, before any fork: import everything that will ever be needed, initialise the engine.

        Files can still be read. No thread may be running when this returns (a fork would lose it).
        """
        ...

    def open(self, limits: Limits) -> None:
        """In the child, before the last lock: isolate, prelude. Threads may be started here and nowhere later.

        No tenant's code and no tenant's data is in the process yet. Nothing can be opened any more (files, sockets,
        programs). The memory limit is in force.
        """
        ...

    def serve(self, frames: Frames, limits: Limits) -> NoReturn:
        """In the child, locked: answer frames until the process is ended."""
        ...


def main(control: int, engine: Engine) -> NoReturn:
    """Prepare, lock, say so on the control socket (a descriptor), then fork, kill and report until it closes."""
    raise NotImplementedError
