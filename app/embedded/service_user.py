"""The operating-system user the embedded services run as.

PostgreSQL refuses to run as root, and nothing should. When Millrace itself runs as root, the services are started as
an existing unprivileged user; directories are handed over to that user, and no permission of any other directory is
ever changed.
"""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from app.embedded.errors import EmbeddedError

UNPRIVILEGED = ("postgres", "_postgres", "nobody")


class PopenIdentity(TypedDict):
    user: int | None
    group: int | None
    extra_groups: list[int] | None


@dataclass(frozen=True, slots=True)
class ServiceUser:
    """Who owns the data and runs the servers. `switch`: this process is root and drops to that user."""

    uid: int
    gid: int
    name: str
    switch: bool

    @classmethod
    def choose(cls) -> ServiceUser:
        """The current user, or as root the first of :data:`UNPRIVILEGED` that exists. Raises :class:`EmbeddedError`."""
        if os.geteuid() != 0:
            try:
                entry = pwd.getpwuid(os.geteuid())
            except KeyError:
                raise EmbeddedError(
                    f"User id {os.geteuid()} has no name on this machine, which PostgreSQL needs; run as a named user, "
                    "or set MILLRACE_DATABASE_URL and MILLRACE_REDIS_URL."
                ) from None
            return cls(entry.pw_uid, os.getegid(), entry.pw_name, switch=False)
        for name in UNPRIVILEGED:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid, name, switch=True)
        raise EmbeddedError(
            f"PostgreSQL does not run as root and none of the users {', '.join(UNPRIVILEGED)} exists here; "
            "run as an ordinary user, or set MILLRACE_DATABASE_URL and MILLRACE_REDIS_URL."
        )

    def popen_arguments(self) -> PopenIdentity:
        """Arguments of `subprocess` that make the child run as this user."""
        if not self.switch:
            return {"user": None, "group": None, "extra_groups": None}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_enter(self, path: Path) -> bool:
        """Whether this user may enter the directory (or execute the program) `path`, judged by mode bits."""
        return not self.switch or all(self._has_execute(part) for part in (path, *path.parents))

    def _has_execute(self, path: Path) -> bool:
        info = path.stat()
        if info.st_uid == self.uid:
            return bool(info.st_mode & stat.S_IXUSR)
        if info.st_gid == self.gid:
            return bool(info.st_mode & stat.S_IXGRP)
        return bool(info.st_mode & stat.S_IXOTH)

    def private_directory(self, path: Path) -> Path:
        """Make `path` a directory only this user (and root) can enter; its parent must exist.

        An existing one is accepted only when it is a real directory of this user: the socket directory may lie in a
        shared temporary directory, where somebody else could have made it first.
        """
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            info = path.lstat()
            if not stat.S_ISDIR(info.st_mode) or info.st_uid not in (self.uid, os.geteuid()):
                raise EmbeddedError(
                    f"{path} belongs to somebody else and cannot be used for sockets or data."
                ) from None
        if self.switch:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        path.chmod(0o700)
        return path
