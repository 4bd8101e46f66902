"""The sandboxes of one language in this process: starts zygotes, forks children through them, replaces them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instances.sandbox.child.control import Limits
from instances.sandbox.process import SandboxProcess


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """How the sandboxes of one language are made."""

    engine: Path
    """Python file, run on the other side of the wall, that defines `engine()`: see `child/zygote.py`. Its folder is on
    the sandbox's `sys.path`, after this package's `child` folder and before `paths`."""
    paths: tuple[Path, ...] = ()
    """More folders for the sandbox's `sys.path` (site-packages, for engines that come as wheels)."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """For the interpreter's start only (PYTHONHASHSEED); nothing of it is left when children run."""
    limits: Limits = field(default_factory=Limits)
    forks: int = 1000
    """After so many forks a fresh zygote takes over: children of one share its address layout and hash seeds."""
    python: Path = Path(sys.executable)
    landlock: bool = True
    """False: do without Landlock although the kernel has it (tests of seccomp alone)."""
    stderr: int | None = None
    """Descriptor zygotes and children complain to; None: nowhere. For development: tenants' code can write to it."""


class SandboxHost:
    """Sandboxes of one language. Starts nothing until the first is asked for. All calls come from one event loop."""

    def __init__(self, language: str, options: SandboxOptions) -> None:
        self.language = language
        self.options = options

    async def start(self) -> dict[str, Any]:
        """Start a zygote unless one runs, and let the canary try to get out of a child of it.

        Returns facts for people: `{landlock: ABI or 0, uid…}`. Raises :class:`SandboxUnavailable`; once that was
        permanent, always.
        """
        raise NotImplementedError

    async def spawn(self) -> SandboxProcess:
        """A fresh process (see :meth:`SandboxProcess.ready`). Raises :class:`SandboxUnavailable`."""
        raise NotImplementedError

    async def close(self) -> None:
        """Kill all children, end the zygotes, wait for both. The host can not be used again."""
        raise NotImplementedError
