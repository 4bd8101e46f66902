"""The zygote: an interpreter with its engine loaded that locks itself and forks one child per sandbox.

It runs no tenant's code, ever. Children inherit what is loaded, close what is not theirs, lock themselves further and
serve their worker.
"""

from __future__ import annotations

import array
import gc
import mmap
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable, Set
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, Protocol

import attempts
import lockdown
from control import CANARY, MAX_MESSAGE, Ended, Fork, Forked, Kill, Limits, NotForked, Ready, Refused, pack, unpack
from frames import EXIT_ENGINE, EXIT_LOCK, EXIT_MEMORY, EXIT_OPEN, PAGE_BYTES, READY, Frames, leave

_CONNECTION = 3
"""The one descriptor of a child besides 0, 1 and 2, which are /dev/null."""


class Engine(Protocol):
    """A language. The file given as `SandboxOptions.engine` defines `engine() -> Engine`.

    In the zygote: `engine()`, then `prepare()`. In each child after the fork: `open`, then the lock, then `serve`.
    """

    syscalls: Set[str]
    """System calls needed after the lock beyond `seccomp.BASE`: some of `seccomp.OPTIONAL`."""

    def prepare(self) -> None:
        """Once, before any fork: import everything that will ever be needed, initialise the engine.

        Files can still be read. No thread may be running when this returns (a fork would lose it).
        """
        ...

    def open(self, limits: Limits) -> None:
        """In the child, before the last lock: isolate, prelude. Threads may be started here and nowhere later.

        No tenant's code and no tenant's data is in the process yet. Nothing can be opened any more (files, sockets,
        programs). The memory limit is in force.
        """
        ...

    def serve(self, frames: Frames, limits: Limits) -> NoReturn:
        """In the child, locked: answer frames until the process is ended."""
        ...


def main(control: int, load: Callable[[], Engine], *, worker: int, landlock: bool = True) -> NoReturn:
    """Load the engine, lock, say so on the descriptor `control`, then fork, kill and report until it closes.

    `worker` is the process that started this one, and takes it along when it ends.
    """
    channel = socket.socket(fileno=control)
    try:
        lockdown.die_with(worker)
        # A mask or an ignored SIGCHLD would be inherited through exec; Ctrl-C on a terminal is the worker's business.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(ignored, signal.SIG_IGN)
        lockdown.check_platform()
        engine = load()
        engine.prepare()
        child_filter = lockdown.filter_children(engine.syscalls)
        _require_one_thread()
        gc.collect()
        gc.freeze()  # a collection in a child would write to, and so copy, every page it shares with the others
        facts = lockdown.lock_zygote(worker, landlock=landlock)
    except lockdown.CannotLock as refusal:
        _refuse(channel, str(refusal), permanent=True)
    except (OSError, MemoryError) as failure:
        _refuse(channel, f"the engine did not start: {failure!r}", permanent=False)
    except BaseException as failure:
        traceback.print_exc()
        _refuse(channel, f"the engine did not start: {failure!r}", permanent=True)
    _Zygote(channel, engine, child_filter, landlock=bool(facts["landlock"])).run(facts)


def _require_one_thread() -> None:
    with suppress(FileNotFoundError):  # no /proc here
        if len(list(Path("/proc/self/task").iterdir())) != 1:
            raise RuntimeError("prepare() left threads running")


def _refuse(channel: socket.socket, reason: str, *, permanent: bool) -> NoReturn:
    with suppress(OSError):
        channel.send(pack(Refused(reason, permanent)))
    os._exit(1)


class _Zygote:
    def __init__(self, channel: socket.socket, engine: Engine, child_filter: bytes, *, landlock: bool) -> None:
        self._channel = channel
        self._engine = engine
        self._landlock = landlock
        self._filter = child_filter
        self._children: dict[int, int] = {}
        self._requests: dict[int, int] = {}
        self._pid = os.getpid()

    def run(self, facts: dict[str, int]) -> NoReturn:
        """Serve the worker until it is gone."""
        woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        self._tell(Ready(facts))
        while True:
            readable, _, _ = select.select([self._channel, woken], [], [])
            if woken in readable:
                os.read(woken, 4096)
                self._reap()
            if self._channel in readable:
                self._listen()

    def _listen(self) -> None:
        try:
            record, ancillary, _, _ = self._channel.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(8))
        except OSError:
            record, ancillary = b"", []
        if not record:
            self._leave()
        descriptors = array.array("i", b"".join(data for _, _, data in ancillary))
        message = unpack(record)
        if isinstance(message, Fork):
            self._fork(message, *descriptors)
        elif isinstance(message, Kill) and (pid := self._requests.get(message.request)):
            os.kill(pid, signal.SIGKILL)

    def _fork(self, order: Fork, connection: int, page: int) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._tell(NotForked(order.request, f"no process could be forked: {error}"))
        else:
            if pid == 0:
                self._become_child(order, connection, page)
            self._children[pid] = order.request
            self._requests[order.request] = pid
            self._tell(Forked(order.request, pid))
        os.close(connection)
        os.close(page)

    def _become_child(self, order: Fork, connection: int, page: int) -> NoReturn:
        code = EXIT_LOCK
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            frames = Frames(_CONNECTION, _keep_only(self._channel, connection, page))
            lockdown.enter_child(self._pid, order.limits, landlock=self._landlock)
            code = EXIT_OPEN
            self._engine.open(order.limits)
            code = EXIT_LOCK
            lockdown.lock_child(self._filter)
            code = EXIT_ENGINE
            frames.send(READY)
            if order.mode == CANARY:
                attempts.serve(frames)
            self._engine.serve(frames, order.limits)
        except MemoryError:
            leave(EXIT_MEMORY)
        except BaseException:
            with suppress(BaseException):
                traceback.print_exc()
        leave(code)

    def _reap(self) -> None:
        while self._children:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            request = self._children.pop(pid)
            del self._requests[request]
            self._tell(Ended(request, os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime))

    def _tell(self, message: Ready | Forked | NotForked | Ended) -> None:
        try:
            self._channel.send(pack(message))
        except OSError:
            self._leave()

    def _leave(self) -> NoReturn:
        """The worker is gone: take everything along, and leave no zombie to whoever inherits."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)
        for pid in self._children:
            os.waitpid(pid, 0)
        os._exit(0)


def _keep_only(channel: socket.socket, connection: int, page: int) -> mmap.mmap:
    """Close every descriptor but 0 to 2 and the connection, which becomes number 3. The progress page, mapped."""
    progress = mmap.mmap(page, PAGE_BYTES)
    channel.detach()
    os.dup2(connection, _CONNECTION, inheritable=False)
    os.closerange(_CONNECTION + 1, lockdown.ZYGOTE_DESCRIPTORS)  # the one the mapping holds, too
    return progress
