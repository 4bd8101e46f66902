"""How the sandboxes of one language are made."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instances.sandbox.child.control import Limits


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
    exhausted: frozenset[int] = frozenset()
    """Exit codes, negative signals, with which the engine ends when it is out of memory, besides `EXIT_MEMORY`."""
    forks: int = 1000
    """After so many forks a fresh zygote takes over: children of one share its address layout and hash seeds."""
    python: Path = Path(sys.executable)
    landlock: bool = True
    """False: do without Landlock although the kernel has it (tests of seccomp alone)."""
    stderr: int | None = None
    """Descriptor zygotes and children complain to; None: nowhere. For development: tenants' code can write to it. Not a
    file: they may write to none, not even to an open one."""
