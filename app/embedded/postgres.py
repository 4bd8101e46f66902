"""An embedded PostgreSQL: real, durable, on a Unix socket only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from app.embedded.binaries import find_postgres
from app.embedded.errors import EmbeddedError
from app.embedded.service import POLL_SECONDS, STOP_SECONDS, Service, bare_environment, process_exists
from app.embedded.service_user import ServiceUser
from app.embedded.sockets import socket_directory

PORT = 5432  # names the socket file; nothing listens on TCP
SUPERUSER = "postgres"

SETTINGS = {
    "shared_buffers": "256MB",
    "autovacuum_naptime": "30s",  # the table of unfinished instances turns over all the time; each look costs 25 ms
    "max_connections": "200",
    "max_wal_size": "2GB",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "log_min_messages": "warning",
    "log_line_prefix": "%m [%p] ",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
}

SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
"""Any postmaster answers this with one byte, whatever the authentication and the databases are."""

SHARED_MEMORY_SECONDS = 20.0
"""How long the backends of a killed postmaster may take to notice and go."""


class EmbeddedPostgres(Service):
    """PostgreSQL with its cluster in `home/postgres`."""

    name = "postgres"
    title = "PostgreSQL"

    def __init__(
        self,
        home: Path,
        *,
        user: ServiceUser | None = None,
        settings: dict[str, str] | None = None,
        binaries: tuple[Path, int] | None = None,
        throwaway: bool = False,
    ) -> None:
        """`settings` override :data:`SETTINGS`; `binaries` (directory, major) skips the look-up.

        A `throwaway` cluster is made without waiting for the disk and removed when its last user leaves.
        """
        super().__init__(home, user=user)
        self._settings = SETTINGS | (settings or {})
        self._binaries = binaries
        self._throwaway = throwaway
        self.data = self.home / "postgres"

    def dsn(self, database: str = "postgres") -> str:
        """libpq URL of `database` on the running server."""
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(str(self._sockets()), safe='/')}&port={PORT}"

    def running(self) -> bool:
        return self.process_id() is not None

    def process_id(self) -> int | None:
        status = self._status()
        if status is None:
            return None
        pid = int(status[0])
        self._child_lives()
        return pid if process_exists(pid) and self._is_postmaster(pid) else None

    def _launch(self) -> None:
        directory, major = self._find_binaries()
        self._clear_stale_files()
        self._create_cluster(directory)
        settings = self._settings | ({"io_method": "sync"} if major >= 18 else {})
        arguments: list[str | Path] = [directory / "postgres", "-D", self.data, "-p", str(PORT), "-h", ""]
        arguments += ["-k", socket_directory(self.home, self.user)]
        for name, value in settings.items():
            arguments += ["-c", f"{name}={value}"]
        give_up = time.monotonic() + SHARED_MEMORY_SECONDS
        while True:
            mark = self.log_path.stat().st_size if self.log_path.exists() else 0
            self._spawn(arguments)
            try:
                return self._await_ready()
            except EmbeddedError:
                if time.monotonic() > give_up or not self._said_since(mark, b"is still in use"):
                    raise
                time.sleep(10 * POLL_SECONDS)

    def _shut_down(self) -> None:
        pid = self.process_id()
        if pid is None:
            return
        self._signal(pid, signal.SIGINT)  # fast; SIGTERM would wait for clients to leave
        if not self._await_end(pid, STOP_SECONDS):
            self._signal(pid, signal.SIGQUIT)
            if not self._await_end(pid, STOP_SECONDS):
                raise EmbeddedError(f"PostgreSQL (process {pid}) does not stop; see {self.log_path}.")
        if self._throwaway:
            shutil.rmtree(self.data)

    def _ready(self) -> bool:
        status = self._status()
        if status is None or len(status) < 8 or status[7].strip() != "ready":
            return False
        if self._child is not None and self._child_lives() and int(status[0]) != self._child.pid:
            return False  # left behind by a killed predecessor
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(5)
                probe.connect(str(self._sockets() / f".s.PGSQL.{PORT}"))
                probe.sendall(SSL_REQUEST)
                return len(probe.recv(1)) == 1
        except OSError:
            return False

    def _status(self) -> list[str] | None:
        """Lines of `postmaster.pid`; None when there is none or it is not written yet."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (FileNotFoundError, PermissionError):
            return None
        return lines if lines and lines[0].strip().isdecimal() else None

    def _sockets(self) -> Path:
        status = self._status()
        if status is not None and len(status) >= 5 and status[4]:
            return Path(status[4])
        return socket_directory(self.home, self.user)

    def _is_postmaster(self, pid: int) -> bool:
        """Whether process `pid` works on our cluster: numbers are reused, above all in containers."""
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
        except FileNotFoundError:
            if Path("/proc/self").exists():
                return False
            command = subprocess.run(
                ["ps", "-o", "command=", "-p", str(pid)],  # noqa: S607 - part of every Unix
                capture_output=True,
                check=False,
            ).stdout
        return os.fsencode(self.data) in command

    def _clear_stale_files(self) -> None:
        """Remove the lock files of a killed server whose process number somebody else has now.

        PostgreSQL would take that process for a server. It deals with all other stale files itself, and needs them to
        recognise backends that outlived their server.
        """
        status = self._status()
        if status is None or not process_exists(int(status[0])):
            return
        sockets = socket_directory(self.home, self.user)
        for path in (self.data / "postmaster.pid", sockets / f".s.PGSQL.{PORT}.lock", sockets / f".s.PGSQL.{PORT}"):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _find_binaries(self) -> tuple[Path, int]:
        if self._binaries is not None:
            return self._binaries
        written_by = None
        with contextlib.suppress(FileNotFoundError):
            written_by = int((self.data / "PG_VERSION").read_text())
        return find_postgres(written_by, self.user, self.home / "dist-postgres")

    def _create_cluster(self, binaries: Path) -> None:
        if (self.data / "PG_VERSION").exists():
            return
        unfinished = self.home / "postgres.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        self.user.private_directory(unfinished)
        arguments = [binaries / "initdb", "-D", unfinished, "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"]
        arguments += ["--locale=C", "--no-instructions", *(["--no-sync"] if self._throwaway else [])]
        done = subprocess.run(
            [os.fspath(argument) for argument in arguments],
            capture_output=True,
            text=True,
            cwd="/",
            env=bare_environment(),
            check=False,
            **self.user.popen_arguments(),
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise EmbeddedError(f"PostgreSQL's initdb failed: {said[-1] if said else 'it said nothing'}")
        unfinished.rename(self.data)

    def _said_since(self, mark: int, words: bytes) -> bool:
        with self.log_path.open("rb") as log:
            log.seek(mark)
            return words in log.read()
