"""Child processes that are started, watched, restarted when they die, and stopped together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM

import app
from app.cli.child import LIFELINE, NOTIFY

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
"""However often it died: with the start itself, work goes on within ten seconds."""
HEALTHY_SECONDS = 5.0
"""A child that lived this long is restarted without a growing pause: it does not die of its start."""
READY_SECONDS = 60.0
MAX_LOG_BYTES = 50 * 1024 * 1024
LOG_CHECK_SECONDS = 10.0


class ChildFailed(Exception):
    """A child did not become ready; one sentence for a person."""


class Child:
    """A `millrace` sub-command as a process of its own, with its output in a log file."""

    def __init__(
        self, title: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path, keep: Sequence[int] = ()
    ) -> None:
        """`keep`: descriptors the child inherits."""
        self.title = title
        self.log = log
        self._arguments = list(arguments)
        self._environment = dict(environment)
        self._keep = tuple(keep)
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0

    async def start(self, lifeline: int) -> None:
        """Start it and wait until it is ready. Raises :class:`ChildFailed` when it ends before."""
        listen, notify = os.pipe()
        try:
            with os.fdopen(os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as log:
                mark = log.seek(0, os.SEEK_END)
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-P",
                    "-m",
                    "app.cli.main",
                    *self._arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment | {LIFELINE: str(lifeline), NOTIFY: str(notify), "PYTHONPATH": _source()},
                    pass_fds=(lifeline, notify, *self._keep),
                    start_new_session=True,  # Ctrl-C is the supervisor's; it stops its children in order
                )
            os.close(notify)
            notify = -1
            self._started_at = asyncio.get_running_loop().time()
            if not await _readable(listen, READY_SECONDS):
                await self.kill()
                raise ChildFailed(
                    f"The {self.title} did not become ready within {READY_SECONDS:.0f} s (log: {self.log})."
                )
            if not os.read(listen, 1):
                await self._process.wait()
                raise ChildFailed(f"The {self.title} did not start: {self._last_words(mark)} (log: {self.log})")
        finally:
            os.close(listen)
            if notify >= 0:
                os.close(notify)

    @property
    def lifetime(self) -> float:
        """Seconds since the last start."""
        return asyncio.get_running_loop().time() - self._started_at

    async def wait(self) -> int:
        """Wait for its end; its exit code, negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    def terminate(self) -> None:
        self._send(SIGTERM)

    async def kill(self) -> None:
        self._send(SIGKILL)
        if self._process is not None:
            await self._process.wait()

    def trim_log(self) -> None:
        """Keep the log bounded: past its limit it moves to `.1`, in place, as the child goes on writing."""
        with contextlib.suppress(OSError):  # somebody may have removed it
            if self.log.stat().st_size > MAX_LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
                os.truncate(self.log, 0)

    def _send(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _last_words(self, mark: int) -> str:
        with self.log.open("rb") as file:
            file.seek(mark)
            lines = file.read().decode(errors="replace").strip().splitlines()
        telling = [line for line in lines if line.startswith("error: ")] or lines
        return telling[-1].removeprefix("error: ").strip() if telling else "it said nothing"


class Supervisor:
    """Keeps children running. `say` tells the user what happens to them."""

    def __init__(self, children: Sequence[Child], say: Callable[[str], None]) -> None:
        self._children = children
        self._say = say
        self._alive, self._lifeline = os.pipe()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all children at once. Raises :class:`ChildFailed` when one does not become ready."""
        starts = [asyncio.create_task(child.start(self._alive)) for child in self._children]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            raise
        self._tasks = [asyncio.create_task(self._keep(child), name=child.title) for child in self._children]
        self._tasks.append(asyncio.create_task(self._trim_logs(), name="logs"))

    async def stop(self, grace: float) -> None:
        """Ask every child to end, wait `grace` seconds at most, kill what is left. Returns when none is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for child in self._children:
            child.terminate()
        try:
            async with asyncio.timeout(grace):
                await asyncio.gather(*(_ended(child) for child in self._children))
        except TimeoutError:
            self._say("Some processes did not stop in time and were killed.")
        await asyncio.gather(*(child.kill() for child in self._children))
        os.close(self._lifeline)
        os.close(self._alive)

    async def _keep(self, child: Child) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            code = await child.wait()
            pause = FIRST_PAUSE_SECONDS if child.lifetime > HEALTHY_SECONDS else longer(pause)
            self._say(f"The {child.title} ended ({_reason(code)}) and is restarted (log: {child.log}).")
            while True:
                await asyncio.sleep(pause)
                try:
                    await child.start(self._alive)
                except (ChildFailed, OSError) as failure:
                    pause = longer(pause)
                    self._say(f"{failure} Trying again in {pause:.0f} s.")
                else:
                    self._say(f"The {child.title} is back.")
                    break

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(LOG_CHECK_SECONDS)
            for child in self._children:
                await asyncio.to_thread(child.trim_log)


def longer(pause: float) -> float:
    """Seconds to wait after yet another death or failed start."""
    return min(2 * pause, LONGEST_PAUSE_SECONDS)


async def _ended(child: Child) -> None:
    if child._process is not None:
        await child.wait()


async def _readable(descriptor: int, seconds: float) -> bool:
    """Wait until a pipe has something to read or was closed; False when neither happened in time."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(seconds):
            await ready.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
    return True


def _reason(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _source() -> str:
    """PYTHONPATH under which the child finds this very package, whatever its working directory is."""
    here = str(Path(app.__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return f"{here}{os.pathsep}{inherited}" if inherited else here
