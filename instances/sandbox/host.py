"""The sandboxes of one language in this process: starts zygotes, forks children through them, replaces them."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from instances.sandbox.canary import release_canary
from instances.sandbox.errors import Escaped, SandboxUnavailable
from instances.sandbox.options import SandboxOptions
from instances.sandbox.process import SandboxProcess
from instances.sandbox.zygote import Zygote

log = structlog.get_logger(__name__)


class SandboxHost:
    """Sandboxes of one language. Starts nothing until the first is asked for. All calls come from one event loop."""

    def __init__(self, language: str, options: SandboxOptions) -> None:
        self.language = language
        self.options = options
        self._zygote: Zygote | None = None
        self._zygotes: set[Zygote] = set()
        self._starting: asyncio.Task[Zygote] | None = None
        self._refused: SandboxUnavailable | None = None
        self._closed = False

    async def start(self) -> dict[str, Any]:
        """Start a zygote unless one runs, and let the canary try to get out of a child of it.

        Returns facts for people: `{landlock: ABI or 0, uid, gid}`. Raises :class:`SandboxUnavailable`; once that was
        permanent, always.
        """
        return (await self._current()).facts

    async def spawn(self) -> SandboxProcess:
        """A fresh process (see :meth:`SandboxProcess.ready`). Raises :class:`SandboxUnavailable`."""
        zygote = await self._current()
        try:
            return await zygote.fork()
        except SandboxUnavailable:
            if zygote.alive or self._closed:
                raise
        return await (await self._current()).fork()  # it died this very moment, which is nobody's fault

    async def close(self) -> None:
        """Kill all children, end the zygotes, wait for both. The host can not be used again."""
        self._closed = True
        endings: list[asyncio.Task[Any]] = [zygote.end() for zygote in self._zygotes]
        if self._starting is not None:
            self._starting.cancel()  # the zygote it is starting is among them, if it has come that far
            endings.append(self._starting)
        if endings:
            await asyncio.wait(endings)

    async def _current(self) -> Zygote:
        """A zygote to fork from, tested. Many may ask at once; one is started."""
        if self._closed:
            raise SandboxUnavailable("the sandbox host is closed", permanent=True)
        if self._refused is not None:
            raise SandboxUnavailable(self._refused.reason, permanent=True)
        zygote = self._zygote
        if zygote is not None and zygote.alive:
            if zygote.forks >= self.options.forks:
                self._start()  # and go on with this one until the new one is ready
            return zygote
        starting = self._start()
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            if was_cancelled():
                raise
            raise SandboxUnavailable("the sandbox host is closed", permanent=True) from None

    def _start(self) -> asyncio.Task[Zygote]:
        if self._starting is None:
            self._starting = asyncio.create_task(self._replace(), name=f"{self.language} zygote")
            self._starting.add_done_callback(self._started)
        return self._starting

    def _started(self, task: asyncio.Task[Zygote]) -> None:
        self._starting = None
        failure = None if task.cancelled() else task.exception()
        if failure is None:
            return
        if self._zygote is not None:  # which goes on; nobody waits to be told
            self._zygote.forks = 0
            log.warning("a fresh sandbox zygote could not be started", language=self.language, reason=str(failure))
        elif isinstance(failure, SandboxUnavailable) and failure.permanent:
            self._refused = failure

    async def _replace(self) -> Zygote:
        zygote = Zygote(self.language, self.options, when_over=self._over)
        self._zygotes.add(zygote)
        try:
            await zygote.ready()
            await release_canary(zygote)
        except BaseException as failure:
            if isinstance(failure, Escaped):
                self._refused = failure
            await zygote.close()
            raise
        previous, self._zygote = self._zygote, zygote
        if previous is not None:
            previous.retire()
        return zygote

    def _over(self, zygote: Zygote) -> None:
        zygote.end().add_done_callback(lambda _: self._zygotes.discard(zygote))
        if self._zygote is zygote:
            self._zygote = None
            if not self._closed:
                log.warning("a sandbox zygote ended", language=self.language)


def was_cancelled() -> bool:
    """In `except CancelledError`: whether it is this task that was cancelled, not one it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
