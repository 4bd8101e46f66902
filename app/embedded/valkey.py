"""An embedded Valkey (or Redis): append-only file, on a Unix socket only."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from app.embedded.binaries import find_redis
from app.embedded.errors import EmbeddedError
from app.embedded.service import POLL_SECONDS, STOP_SECONDS, Service
from app.embedded.service_user import ServiceUser
from app.embedded.sockets import socket_directory

SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
    "loglevel": "warning",
    "daemonize": "no",
}


class EmbeddedValkey(Service):
    """Valkey with its data in `home/redis`.

    The server inherits the open descriptor of `redis.alive`, on which a lock was taken: the lock lives exactly as long
    as the server, whatever becomes of its process id.
    """

    name = "redis"
    title = "Valkey"

    def __init__(
        self,
        home: Path,
        *,
        user: ServiceUser | None = None,
        settings: dict[str, str] | None = None,
        program: Path | None = None,
    ) -> None:
        """`settings` override :data:`SETTINGS`; `program` skips the look-up."""
        super().__init__(home, user=user)
        self._settings = SETTINGS | (settings or {})
        self._program = program
        self.data = self.home / "redis"
        self._alive = self.home / "redis.alive"

    def url(self, database: int = 0) -> str:
        """`unix://` URL of the running server."""
        return f"unix://{quote(str(self._socket()), safe='/')}?db={database}"

    def running(self) -> bool:
        self._child_lives()
        with self._alive_file() as descriptor:
            return not _lock(descriptor, fcntl.LOCK_SH)

    def process_id(self) -> int | None:
        if not self.running():
            return None
        for line in self._ask(b"INFO server\r\n").splitlines():
            if line.startswith(b"process_id:"):
                return int(line.partition(b":")[2])
        return None

    def _launch(self) -> None:
        program = self._program or find_redis(self.user, self.home / "dist-redis")
        self.user.private_directory(self.data)
        place = socket_directory(self.home, self.user) / "redis.sock"
        with self._alive_file() as descriptor:
            if not _lock(descriptor, fcntl.LOCK_EX, patience=1.0):
                raise EmbeddedError(f"Another Valkey uses {self.data}.")
            os.ftruncate(descriptor, 0)
            os.write(descriptor, os.fsencode(place))
            arguments: list[str | Path] = [program, "--port", "0", "--unixsocket", place, "--unixsocketperm", "700"]
            arguments += ["--dir", self.data]
            for name, value in self._settings.items():
                arguments += [f"--{name}", value]
            self._spawn(arguments, keep=(descriptor,))
        self._await_ready()

    def _shut_down(self) -> None:
        pid = self.process_id()
        if pid is None:
            raise EmbeddedError(f"Valkey holds {self.data} but does not answer; see {self.log_path}.")
        for number in (signal.SIGTERM, signal.SIGKILL):
            self._signal(pid, number)
            if self._await_end(pid, STOP_SECONDS):
                return
        raise EmbeddedError(f"Valkey (process {pid}) does not stop; see {self.log_path}.")

    def _ready(self) -> bool:
        return self._ask(b"PING\r\n").startswith(b"+PONG")

    def _socket(self) -> Path:
        with contextlib.suppress(FileNotFoundError):
            if written := self._alive.read_bytes():
                return Path(os.fsdecode(written))
        return socket_directory(self.home, self.user) / "redis.sock"

    def _ask(self, command: bytes) -> bytes:
        """The answer to an inline command, or nothing when the server does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(self._socket()))
                connection.sendall(command)
                return connection.recv(65536)
        except OSError:
            return b""

    @contextlib.contextmanager
    def _alive_file(self) -> Iterator[int]:
        descriptor = os.open(self._alive, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _lock(descriptor: int, kind: int, patience: float = 0.0) -> bool:
    """Take a lock without waiting; with `patience`, for as long as somebody may just be looking."""
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True
