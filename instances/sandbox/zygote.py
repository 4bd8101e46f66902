"""A worker's end of one zygote: starts it, forks children through it, hears how they end."""

from __future__ import annotations

import array
import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from instances.sandbox.child.control import (
    MAX_MESSAGE,
    SERVE,
    Ended,
    Fork,
    Forked,
    Kill,
    NotForked,
    Ready,
    Refused,
    pack,
    unpack,
)
from instances.sandbox.child.frames import PAGE_BYTES
from instances.sandbox.errors import SandboxUnavailable
from instances.sandbox.options import SandboxOptions
from instances.sandbox.process import Origin, SandboxProcess

BOOT = Path(__file__).parent / "child" / "boot.py"
START_SECONDS = 60.0
"""Loading an engine takes a fraction of a second; on a machine that is starved, much longer."""
ANSWER_SECONDS = 15.0
"""A zygote that has not forked or killed within this time is stuck, and is killed with all its children."""


class Zygote:
    """One zygote process. `facts` is what it said about its lock, `forks` how many children it was asked for."""

    def __init__(self, language: str, options: SandboxOptions, *, when_over: Callable[[Zygote], None]) -> None:
        """Starts the process. `when_over` is called once, when it has ended.

        Call it on the thread of the event loop: the zygote dies with the *thread* that started it.
        """
        self.facts: dict[str, Any] = {}
        self.forks = 0
        self.alive = True
        self._retired = False
        self._ending: asyncio.Task[None] | None = None
        self._language = language
        self._options = options
        self._when_over = when_over
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._requests = itertools.count(1)
        self._children: dict[int, SandboxProcess] = {}
        self._forking: dict[int, asyncio.Future[None]] = {}
        self._outgoing: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._control, self._process = _execute(options)
        self._control.setblocking(False)
        self._loop.add_reader(self._control, self._readable)

    async def ready(self) -> None:
        """Wait until it is loaded and locked. Raises :class:`SandboxUnavailable`, after which it is dead."""
        try:
            async with asyncio.timeout(START_SECONDS):
                self.facts = await asyncio.shield(self._ready)
        except TimeoutError:
            raise SandboxUnavailable(f"the {self._language} engine did not start in {START_SECONDS:.0f} s") from None
        finally:
            if not self.facts:
                await self.close()

    async def fork(self, mode: int = SERVE) -> SandboxProcess:
        """A new child. Raises :class:`SandboxUnavailable`."""
        if not self.alive:
            raise SandboxUnavailable(f"the {self._language} zygote is dead")
        try:
            ours, theirs = socket.socketpair()
            page = _progress_page()
        except OSError as error:
            raise SandboxUnavailable(f"no sandbox can be connected: {error}") from None
        self.forks += 1
        request = next(self._requests)
        origin = Origin(self._language, self._options.limits, self._options.exhausted, lambda: self._kill(request))
        child = self._children[request] = SandboxProcess(origin, ours, page)
        forked = self._forking[request] = self._loop.create_future()
        with theirs:
            self._send(pack(Fork(request, mode, self._options.limits)), (theirs.fileno(), page))
        stuck = self._loop.call_later(ANSWER_SECONDS, self.abort)
        try:
            await forked
        except asyncio.CancelledError:
            child.kill()
            raise
        finally:
            stuck.cancel()
        return child

    def _kill(self, request: int) -> None:
        self._send(pack(Kill(request)))
        self._loop.call_later(ANSWER_SECONDS, lambda: request in self._children and self.abort())

    def abort(self) -> None:
        """Kill it, and with it all children."""
        self._process.kill()

    async def close(self) -> None:
        """End it with all its children and wait until none of them exists any more.

        It ends even when nobody waits for that any longer.
        """
        await asyncio.shield(self.end())

    def end(self) -> asyncio.Task[None]:
        """Begin to end it, if nobody has. The task is done when its process and all children are gone."""
        if self._ending is None:
            self._ending = self._loop.create_task(self._end())
        return self._ending

    async def _end(self) -> None:
        if self.alive:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_WR)  # it takes its children along, waits for them, and ends
        try:
            await asyncio.to_thread(self._process.wait, ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self.abort()
            await asyncio.to_thread(self._process.wait)
        finally:
            if self._process.returncode is None:  # the loop itself ends: there will be no other moment
                self.abort()
                self._process.wait()
            self._over()

    def retire(self) -> None:
        """Close it as soon as it has no children. Nothing forks from it any more."""
        self._retired = True
        if not self._children:
            self.end()

    def _send(self, record: bytes, descriptors: tuple[int, ...] = ()) -> None:
        """Now, or as soon as there is room. Descriptors that have to wait are duplicated."""
        if not self.alive:
            return
        if not self._outgoing:
            try:
                self._transmit(record, descriptors)
                return
            except BlockingIOError:
                self._loop.add_writer(self._control, self._writable)
            except OSError:
                return  # it is dead; reading finds out
        self._outgoing.append((record, tuple(map(os.dup, descriptors))))

    def _transmit(self, record: bytes, descriptors: tuple[int, ...]) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._control.sendmsg([record], rights)

    def _writable(self) -> None:
        while self._outgoing:
            record, descriptors = self._outgoing[0]
            try:
                self._transmit(record, descriptors)
            except BlockingIOError:
                return
            except OSError:
                break
            self._outgoing.popleft()
            _close_all(descriptors)
        self._loop.remove_writer(self._control)

    def _readable(self) -> None:
        try:
            record = self._control.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            record = b""
        if not record:
            self._over()
            return
        message = unpack(record)
        if isinstance(message, Ready):
            _settle(self._ready, message.facts)
        elif isinstance(message, Refused):
            _settle(self._ready, SandboxUnavailable(message.reason, permanent=message.permanent))
        elif isinstance(message, Forked):
            self._children[message.request].born(message.pid)
            _settle(self._forking.pop(message.request), None)
        elif isinstance(message, NotForked):
            _settle(self._forking.pop(message.request), SandboxUnavailable(message.reason))
            self._children.pop(message.request).over(None)
        elif isinstance(message, Ended):
            self._children.pop(message.request).over(message.status, message.cpu)
            if self._retired:
                self.retire()

    def _over(self) -> None:
        """It is dead or dying, and so is every child of it: PR_SET_PDEATHSIG."""
        if not self.alive:
            return
        self.alive = False
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        while self._outgoing:
            _close_all(self._outgoing.popleft()[1])
        ended = f"the {self._language} zygote ended"
        _settle(self._ready, SandboxUnavailable(ended))
        for forked in self._forking.values():
            _settle(forked, SandboxUnavailable(ended))
        for child in self._children.values():
            child.over(None)
        self._forking.clear()
        self._children.clear()
        self.abort()
        self.end()
        self._when_over(self)


def _execute(options: SandboxOptions) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    if sys.platform != "linux":
        raise SandboxUnavailable("there are sandboxes on Linux only", permanent=True)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arguments = [str(theirs.fileno()), str(os.getpid()), str(int(options.landlock)), str(options.engine)]
    try:
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and files
                [str(options.python), "-s", "-P", "-S", str(BOOT), *arguments, *map(str, options.paths)],
                env=dict(options.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if options.stderr is None else options.stderr,
                stderr=subprocess.DEVNULL if options.stderr is None else options.stderr,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                start_new_session=True,  # signals of a terminal are the worker's
            )
    except OSError as error:
        ours.close()
        raise SandboxUnavailable(f"the sandbox's interpreter could not be started: {error}") from None
    return ours, process


def _progress_page() -> int:
    import fcntl  # not everywhere, and this module is imported everywhere

    page = os.memfd_create("progress", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(page, PAGE_BYTES)
    fcntl.fcntl(page, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return page


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        future.exception()  # seen: nobody may be waiting any more
    else:
        future.set_result(outcome)


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
