"""One sandbox process as its worker sees it."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from instances.sandbox.child.control import Limits
from instances.sandbox.child.frames import (
    EXIT_MEMORY,
    EXIT_PROTOCOL,
    LENGTH,
    MAX_FRAME,
    NO_PART,
    PROGRESS,
    READY,
)
from instances.sandbox.errors import DeathCause, SandboxDied
from tenants import metrics

Part = bytes | bytearray | memoryview

PATIENCE = 4.0
"""Wall time a starved process may take, in deadlines."""
HANGING = 0.01
"""Whoever used less than this share of the time was not starved: it waits for something that will not come."""
EOF_SECONDS = 0.25
"""How long after its connection broke a process may take to be reported dead. One that lives on closed it itself."""

_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a process comes from."""

    language: str
    limits: Limits
    exhausted: frozenset[int]
    """Statuses with which this language's engine ends when it is out of memory."""
    kill: Callable[[], None]
    """SIGKILL by way of the zygote, at most once effective."""


class SandboxProcess:
    """A locked child process and the connection to it. Made by :meth:`SandboxHost.spawn`.

    One exchange at a time: a second one while the first is in flight is a bug of the caller (RuntimeError).
    """

    def __init__(self, origin: Origin, connection: socket.socket, page: int) -> None:
        """Takes over the connection and `page`, the descriptor of its progress page."""
        self.language = origin.language
        self.pid = 0
        """0 until the zygote has told it."""
        self.exchanges = 0
        """Exchanges completed."""
        self._origin = origin
        self._connection = connection
        self._page = page
        self._loop = asyncio.get_running_loop()
        self._is_ready = asyncio.Event()
        self._is_over = asyncio.Event()
        self._death: tuple[DeathCause, int | None, int | None] | None = None
        self._killed: DeathCause | None = None
        self._talked_nonsense = False
        self._answer: asyncio.Future[bytes] | None = None
        self._frames = 0
        self._parts = 0
        self._unsent: memoryview | None = None
        self._incoming = bytearray()
        self._received = 0
        """Bytes of `_incoming` that have arrived."""
        self._watch: asyncio.TimerHandle | None = None
        self._allowed = self._began = self._due = self._looked = 0.0
        self._cpu_at_begin = self._cpu_at_look = self._cpu_last = 0.0
        self._memory_when_ready: int | None = None
        self._statm = Path("/proc/0/statm")
        """Made once: it is read at every lease."""
        connection.setblocking(False)
        self._loop.add_reader(connection, self._readable)
        metrics.SANDBOXES.labels(self.language).inc()
        metrics.SANDBOX_STARTS.labels(self.language).inc()

    # --- for those who use it ----------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """False from the moment it is killed or its end has been noticed; exchanges raise :class:`SandboxDied`."""
        return self._killed is None and self._death is None

    async def ready(self) -> None:
        """Wait until its engine is open and it is locked; `exchange` does that, too. Raises :class:`SandboxDied`."""
        await self._is_ready.wait()
        if self._death is not None:
            raise SandboxDied(*self._death)

    async def exchange(self, parts: Sequence[Part], deadline: float) -> bytes:
        """Send one frame and return the body of the answer, undecoded (hostile bytes, at most 32 MiB).

        `deadline`: seconds of CPU time. At that many seconds of wall time a process that used them, or that hangs
        without using any, is killed; one that was only starved by others gets the rest, up to four times the deadline.

        Raises :class:`SandboxDied` when the process ends, is killed, or says what is not an answer; ValueError when the
        frame is over 32 MiB (nothing was sent). Cancelled: the process is killed.
        """
        if self._answer is not None:
            raise RuntimeError("an exchange is in flight")
        frame = encode_frame(parts)
        if self._killed is not None:
            await self._is_over.wait()
        if self._death is not None:
            raise SandboxDied(*self._death)
        answer = self._answer = self._loop.create_future()
        self._frames += 1
        self._parts = len(parts)
        self._begin_watch(deadline)
        self._write(memoryview(frame))
        try:
            body = await answer
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            self._answer = None
        self.exchanges += 1
        return body

    async def ended(self) -> SandboxDied:
        """Wait for its end, however it comes about; how it ended, as the exception exchanges raise from then on."""
        await self._is_over.wait()
        assert self._death is not None
        return SandboxDied(*self._death)

    def kill(self) -> None:
        """End it now (cause `gone`); an exchange in flight raises. Harmless when it is dead."""
        self._destroy("gone")

    async def close(self) -> None:
        """`kill`, then wait until the process does not exist any more."""
        self.kill()
        await self._is_over.wait()

    def memory(self) -> int | None:
        """Bytes of resident memory, what it shares with its zygote included; None when it cannot be read."""
        try:
            with self._statm.open("rb", buffering=0) as statm:
                return int(statm.read().split()[1]) * mmap.PAGESIZE
        except (OSError, IndexError):
            return None

    def grown(self) -> int | None:
        """Bytes of resident memory gained since it was ready; None when that cannot be read."""
        before, now = self._memory_when_ready, self.memory()
        return None if before is None or now is None else now - before

    def cpu(self) -> float:
        """CPU seconds used in its life. Measured from outside: nothing in the sandbox can falsify it."""
        if self.pid:
            # The clock of another process, as clock_getcpuclockid(3) makes it. OSError: it is dead.
            with contextlib.suppress(OSError):
                self._cpu_last = time.clock_gettime((~self.pid << 3) | 2)
        return self._cpu_last

    # --- for its zygote ----------------------------------------------------------------------------------------------

    def born(self, pid: int) -> None:
        """The process has been forked. (It may have been quicker to say that it is ready.)"""
        self.pid = pid
        self._statm = Path(f"/proc/{pid}/statm")
        self._note_memory()

    def _note_memory(self) -> None:
        if self.pid and self._is_ready.is_set() and self._memory_when_ready is None:
            self._memory_when_ready = self.memory()

    def over(self, status: int | None, cpu: float = 0.0) -> None:
        """The process has ended: exit code or negative signal; None: its zygote is dead, and took it along."""
        if self._death is not None:
            return
        self._cpu_last = max(self._cpu_last, cpu)
        while self._connection.fileno() >= 0 and self._readable():
            pass  # what it said before it ended counts
        cause = self._cause(status)
        self._death = cause, self._last_part(), status
        self._disconnect()
        os.close(self._page)
        if self._watch is not None:
            self._watch.cancel()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SandboxDied(*self._death))
        metrics.SANDBOXES.labels(self.language).dec()
        metrics.SANDBOX_KILLS.labels(cause).inc()
        self._is_ready.set()
        self._is_over.set()

    def _cause(self, status: int | None) -> DeathCause:
        if self._killed == "gone" or status is None or not self._is_ready.is_set():
            return "gone"  # not ready: no tenant's code was in it yet
        if self._talked_nonsense:
            return "protocol"  # it may have ended by itself when it found the connection closed
        if self._killed is not None and status == -signal.SIGKILL:
            return self._killed
        if status == -signal.SIGXCPU or (status == -signal.SIGKILL and self._cpu_last >= self._origin.limits.cpu):
            return "cpu"
        if status in (EXIT_MEMORY, -signal.SIGKILL) or status in self._origin.exhausted:
            return "memory"  # nobody but the kernel's OOM killer sends a SIGKILL we did not order
        return "protocol" if status == EXIT_PROTOCOL else "crash"

    def _last_part(self) -> int | None:
        if self._answer is None:
            return None
        number, part = PROGRESS.unpack(os.pread(self._page, PROGRESS.size, 0))
        return part if number == self._frames and part != NO_PART and part < self._parts else None

    def _destroy(self, cause: DeathCause) -> None:
        if self._killed is None and self._death is None:
            self._killed = cause
            self._origin.kill()

    # --- the deadline ------------------------------------------------------------------------------------------------

    def _begin_watch(self, deadline: float) -> None:
        """One timer per process, not one per exchange: when it fires early it is set again."""
        self._allowed = deadline
        self._began = self._looked = self._loop.time()
        self._due = self._began + deadline
        self._cpu_at_begin = self._cpu_at_look = self.cpu()
        if self._watch is not None and self._watch.when() > self._due:
            self._watch.cancel()
            self._watch = None
        if self._watch is None:
            self._watch = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        self._watch = None
        while self._connection.fileno() >= 0 and self._readable():
            pass  # after a stall the timer may come before the answer that is there
        if self._answer is None or self._answer.done() or self._killed is not None:
            return
        now = self._loop.time()
        if now >= self._due:
            cpu = self.cpu()
            left = self._allowed - (cpu - self._cpu_at_begin)
            late = now - self._due
            if (
                late > self._due - self._looked
            ):  # this loop stood still, perhaps with the whole machine: say nothing yet
                self._began += late
                self._looked, self._cpu_at_look = now, cpu
            last = self._began + PATIENCE * self._allowed
            if left <= 0 or now >= last or cpu - self._cpu_at_look < HANGING * (now - self._looked):
                self._destroy("cpu")
                return
            self._looked, self._cpu_at_look = now, cpu
            self._due = min(now + left, last)
        self._watch = self._loop.call_at(self._due, self._look)

    # --- the connection ----------------------------------------------------------------------------------------------

    def _write(self, frame: memoryview) -> None:
        try:
            sent = self._connection.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it is dead or dying; reading finds out
        if sent < len(frame):
            self._unsent = frame[sent:]
            self._loop.add_writer(self._connection, self._writable)

    def _writable(self) -> None:
        assert self._unsent is not None
        try:
            self._unsent = self._unsent[self._connection.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:
            self._unsent = None
        if not self._unsent:
            self._unsent = None
            self._loop.remove_writer(self._connection)

    def _readable(self) -> bool:
        """Take what has arrived; False when that was nothing, or nothing more can come."""
        try:
            if self._received < len(self._incoming):
                count = self._connection.recv_into(memoryview(self._incoming)[self._received :])
                self._received += count
                data = b""
            else:
                data = self._connection.recv(_CHUNK)
                count = len(data)
        except BlockingIOError:
            return False
        except OSError:
            count, data = 0, b""
        if count == 0:
            self._disconnect()
            if self._death is None:
                self._loop.call_later(EOF_SECONDS, self._destroy, "protocol")
            return False
        if data:
            return self._take(data)
        if self._received == len(self._incoming):
            body = bytes(memoryview(self._incoming)[LENGTH.size :])
            self._incoming, self._received = bytearray(), 0
            return self._deliver(body)
        return True

    def _take(self, data: bytes) -> bool:
        """The beginning of a frame, which often is all of it."""
        if self._is_ready.is_set() and (self._answer is None or self._answer.done() or self._unsent is not None):
            return self._violation()  # nobody asked, or not to the end
        if self._incoming:  # so far less than a length
            data = bytes(self._incoming) + data
            self._incoming, self._received = bytearray(), 0
        if len(data) < LENGTH.size:
            self._incoming = bytearray(data)
            self._received = len(data)
            return True
        end = LENGTH.size + LENGTH.unpack_from(data)[0]
        if end > LENGTH.size + MAX_FRAME:
            return self._violation()
        if len(data) < end:
            self._incoming = bytearray(end)
            self._incoming[: len(data)] = data
            self._received = len(data)
            return True
        body, more = data[LENGTH.size : end], data[end:]
        return self._deliver(body) and (not more or self._take(more))

    def _deliver(self, body: bytes) -> bool:
        if not self._is_ready.is_set():
            if body != READY:
                return self._violation()
            self._is_ready.set()
            self._note_memory()
        elif self._answer is not None and not self._answer.done():
            self._answer.set_result(body)
        return True

    def _violation(self) -> bool:
        self._talked_nonsense = True
        self._disconnect()
        self._destroy("protocol")
        return False

    def _disconnect(self) -> None:
        if self._connection.fileno() >= 0:
            self._loop.remove_reader(self._connection)
            self._loop.remove_writer(self._connection)
            self._connection.close()


def encode_frame(parts: Sequence[Part]) -> bytes:
    """A frame of these parts. ValueError when it is larger than a frame may be."""
    length = sum(map(len, parts)) + LENGTH.size * len(parts)
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes; {MAX_FRAME} are allowed")
    pieces: list[Part] = [LENGTH.pack(length)]
    for part in parts:
        pieces += LENGTH.pack(len(part)), part
    return b"".join(pieces)
