"""Where sockets go: a socket's path has to fit into `sun_path`, which is far shorter than a path may be."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

from app.embedded.errors import EmbeddedError
from app.embedded.service_user import ServiceUser

MAX_SOCKET_PATH = 107 if sys.platform == "linux" else 103
"""Bytes of `sun_path` without its closing NUL."""

LONGEST_NAME = "/.s.PGSQL.5432"


def socket_directory(home: Path, user: ServiceUser) -> Path:
    """A private directory for the sockets of the services that live in `home`, made when missing.

    `home/run` when sockets fit there, else a directory under the temporary one, named by a hash of `home` so that
    every start finds the same one.
    """
    if _fits(home / "run"):
        return user.private_directory(home / "run")
    key = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    for parent in (Path(tempfile.gettempdir()).resolve(), Path("/tmp").resolve()):  # noqa: S108 - checked to be ours
        candidate = parent / f"millrace-{user.uid}-{key}"
        if _fits(candidate) and parent.is_dir() and user.can_enter(parent):
            return user.private_directory(candidate)
    raise EmbeddedError(f"The data folder {home} is too deep for Unix sockets; choose a shorter --data-dir.")


def _fits(directory: Path) -> bool:
    return len(os.fsencode(directory)) + len(LONGEST_NAME) <= MAX_SOCKET_PATH
