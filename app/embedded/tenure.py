"""Who is using an embedded service, across processes, by file locks that die with their holder.

Several processes may share one server: `millrace dev`, a command of the operator beside it, test sessions. Starting
and stopping are serialised; each user holds a shared lock as long as it lives, and the last one to leave stops the
server. A killed user's lock is released by the kernel, so nothing has to be cleaned up after it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


class Tenure:
    """Locks of the service called `name` in `home`."""

    def __init__(self, home: Path, name: str) -> None:
        self._turn = home / f"{name}.lock"
        self._users = home / f"{name}.users"
        self._held: int | None = None

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Exclusive right to start or stop the service; waits for whoever has it."""
        descriptor = _open(self._turn)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def enter(self) -> None:
        """Become a user. Call inside :meth:`turn`."""
        if self._held is None:
            self._held = _open(self._users)
            fcntl.flock(self._held, fcntl.LOCK_SH)

    def leave(self) -> bool:
        """Stop being a user; True when nobody else is one. Call inside :meth:`turn`."""
        if self._held is None:
            return False
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            return True
        finally:
            os.close(self._held)
            self._held = None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
