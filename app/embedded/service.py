"""What the embedded services share: start or adopt, notice death, stop when the last user leaves, log files."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from app.embedded.errors import EmbeddedError
from app.embedded.service_user import ServiceUser
from app.embedded.tenure import Tenure

START_SECONDS = 300.0
"""Crash recovery may replay a lot before the server answers; a server that dies is noticed at once."""
STOP_SECONDS = 60.0
MAX_LOG_BYTES = 10 * 1024 * 1024
POLL_SECONDS = 0.01

PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
"""Environment the servers inherit. Not PGDATA and the like, and no secret of ours."""


class Service(ABC):
    """One server with its data in `home`. Thread-safe per instance only through its callers; processes may share it."""

    name: str
    title: str

    def __init__(self, home: Path, *, user: ServiceUser | None = None) -> None:
        """`home` must be a directory the service's user can enter (see :meth:`ServiceUser.can_enter`)."""
        self.home = home.resolve()
        self.user = user or ServiceUser.choose()
        self.started_here = False
        """False when a running server was adopted."""
        self._child: subprocess.Popen[bytes] | None = None
        self._tenure = Tenure(self.home, self.name)

    @property
    def log_path(self) -> Path:
        return self.home / f"{self.name}.log"

    def start(self) -> None:
        """Start the server, or adopt the one that runs. It answers when this returns. Raises :class:`EmbeddedError`."""
        if not self.user.can_enter(self.home):
            raise EmbeddedError(f"User {self.user.name}, who runs {self.title}, cannot enter {self.home}.")
        with self._tenure.turn():
            if not self._adopt():
                self._start_own()
            self._tenure.enter()

    def stop(self) -> bool:
        """Leave; the last user stops the server and waits for its end. True when it was stopped."""
        with self._tenure.turn():
            if not self._tenure.leave() or not self.running():
                if self._child is not None and self._child.poll() is None:
                    self._child.returncode = 0  # it goes on for others, and is no process somebody forgot
                return False
            self._shut_down()
            return True

    def revive(self) -> bool:
        """Start the server again if it died. True when it had to be."""
        with self._tenure.turn():
            if self.running():
                return False
            self._start_own()
            return True

    def _adopt(self) -> bool:
        """Take the server that runs. False when none does, or it ends before it answers: it was being killed."""
        if not self.running():
            return False
        try:
            self._await_ready()
        except EmbeddedError:
            if self.running():
                raise
            return False
        self.started_here = False
        return True

    def _start_own(self) -> None:
        try:
            self._launch()
        except BaseException:
            if self._child is not None and self._child_lives():
                self._child.kill()
                self._child.wait()
            raise
        self.started_here = True

    @abstractmethod
    def running(self) -> bool:
        """Whether a server works on this data, whoever started it."""

    @abstractmethod
    def process_id(self) -> int | None:
        """The server's process id, None when it does not run."""

    @abstractmethod
    def _launch(self) -> None:
        """Start the server on data that no other server uses, and wait until it answers."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether the running server answers."""

    @abstractmethod
    def _shut_down(self) -> None:
        """Stop the running server and wait until it is gone."""

    def _spawn(self, arguments: Sequence[str | Path], *, keep: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        """A child in its own session (Ctrl-C must not reach it), in `/`, with a bare environment, logging to a file."""
        with self._open_log() as log:
            child = subprocess.Popen(
                [os.fspath(argument) for argument in arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=bare_environment(),
                start_new_session=True,
                umask=0o077,
                pass_fds=keep,
                **self.user.popen_arguments(),
            )
        self._child = child
        return child

    def _open_log(self) -> IO[bytes]:
        with contextlib.suppress(FileNotFoundError):
            if self.log_path.stat().st_size > MAX_LOG_BYTES:
                self.log_path.replace(self.log_path.with_suffix(".log.1"))
        return os.fdopen(os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if not self._child_lives() and not self.running():
                raise EmbeddedError(f"{self.title} did not start: {self._last_words()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"{self.title} did not become ready within {START_SECONDS:.0f} s; see {self.log_path}."
                )
            time.sleep(POLL_SECONDS)

    def _await_end(self, pid: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not process_exists(pid) or not self.running():
                if self._child is not None and self._child.pid == pid:
                    self._child.wait(seconds)  # it has let go of its data and is about to end
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _child_lives(self) -> bool:
        """Whether the server is our child and alive; a dead one is reaped."""
        return self._child is not None and self._child.poll() is None

    def _signal(self, pid: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def _last_words(self) -> str:
        """The last line the server logged that says something, and where the rest is."""
        try:
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        telling = [line for line in lines if "FATAL" in line or "ERROR" in line] or lines
        words = telling[-1].strip() if telling else "it said nothing"
        return f"{words} (log: {self.log_path})"


def bare_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {"LC_ALL": "C", "TZ": "UTC"}


def process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
