"""A sandbox with a script in it, shared by many runs: their messages travel together, its answers are told apart.

While one frame is on its way, what other runs have to say collects, and the next frame takes it all: the cost of a
round trip is shared by everybody who waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import structlog

from instances.runtimes.protocol import SessionLost
from instances.runtimes.scripts.messages import (
    Answer,
    Loaded,
    LoadFailed,
    RunMessage,
    Violation,
    decode_answer,
)
from instances.sandbox.errors import SandboxDied
from instances.sandbox.process import SandboxProcess

log = structlog.get_logger(__name__)

FRAME_BYTES = 4 << 20
FRAME_PARTS = 500
BLAMELESS = ("gone", "closed")
"""Ends of a sandbox that no code in it brought about."""


Part = tuple[bytes, int]
"""A message, and the number of the step whose callback it is for, 0 for code outside steps."""


class Guest(Protocol):
    """One run in the sandbox."""

    def receive(self, message: RunMessage) -> None:
        """Something the run's code says. Raises :class:`Violation`."""
        ...

    def turned(self, active: int, outside: int, inside: int) -> None:
        """A frame was answered: callbacks active, host calls pending outside and inside of them."""
        ...

    def used(self, step: int, micros: int) -> None:
        """CPU time a message took; `step` is the number of the step it was for, 0 for code outside steps."""
        ...

    def die(self, step: int | None, cause: str) -> None:
        """The sandbox is gone. `step`: it died on a message for this step of the run, 0: on its code outside steps,
        None: on something else."""
        ...


@dataclass(slots=True)
class _Part:
    body: bytes
    run: int
    step: int
    answered: asyncio.Future[None] | None = None


@dataclass(slots=True)
class Load:
    """What loading a script came to. `failure` None: it is ready, and has `exports` (name, kind)."""

    exports: dict[str, str] = field(default_factory=dict)
    failure: LoadFailed | None = None
    settled: bool = False
    """False when its code waits for something at the top that will not come."""


class Isolate:
    """Owns a sandbox process. Runs :meth:`attach`, :meth:`send` and :meth:`detach`."""

    def __init__(self, process: SandboxProcess, cpu_ms: int) -> None:
        self.loaded: Load | None = None
        self.dead: str | None = None
        """Why the sandbox is gone."""
        self._process = process
        self._cpu_ms = cpu_ms
        self._numbers = itertools.count(1)
        self._guests: dict[int, Guest] = {}
        self._queue: list[_Part] = []
        self._pump: asyncio.Task[None] | None = None

    @property
    def process(self) -> SandboxProcess:
        return self._process

    @property
    def guests(self) -> int:
        return len(self._guests)

    async def load(self, parts: Sequence[bytes]) -> Load:
        """Give it the script: sources first, the `load` message last. Raises :class:`SessionLost`."""
        load = self.loaded = Load()
        await self._post([_Part(body, 0, 0) for body in parts])
        return load

    def attach(self, guest: Guest) -> int:
        """A number for a new run."""
        number = next(self._numbers)
        self._guests[number] = guest
        return number

    def detach(self, run: int) -> None:
        """Forget a run; what it still says is dropped."""
        if self._guests.pop(run, None) is not None and self.dead is None:
            self._enqueue([_Part(encode({"op": "drop", "r": run}), 0, 0)])

    async def send(self, run: int, messages: Sequence[Part]) -> None:
        """Deliver messages of a run, in order, each with the step whose callback goes on with it (0: none). Back when
        the frame with the last of them was answered and its answers were handed out. Raises :class:`SessionLost`.
        """
        await self._post([_Part(body, run, step) for body, step in messages])

    def tell(self, run: int, message: bytes, step: int = 0) -> None:
        """Deliver a message without waiting. `step`: whose callback it is for."""
        if self.dead is None:
            self._enqueue([_Part(message, run, step)])

    async def _post(self, parts: list[_Part]) -> None:
        if self.dead is not None:
            raise SessionLost(self.dead)
        answered = asyncio.get_running_loop().create_future()
        parts[-1].answered = answered
        self._enqueue(parts)
        await answered

    def _enqueue(self, parts: list[_Part]) -> None:
        self._queue += parts
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._exchange())

    async def close(self) -> None:
        """End the sandbox. Its runs are lost."""
        self._die("closed", [], None)
        if self._pump is not None:
            self._pump.cancel()
        await self._process.close()

    # --- frames --------------------------------------------------------------------------------------------------

    async def _exchange(self) -> None:
        """Send frames until nothing is queued."""
        try:
            while self._queue:
                parts = self._take()
                try:
                    raw = await self._process.exchange([part.body for part in parts], self._cpu_ms / 1000)
                    self._hand_out(decode_answer(raw), parts)
                except SandboxDied as died:
                    self._die(died.cause, parts, died.part)
                    return
                except Violation as violation:
                    log.warning("sandbox_violation", reason=str(violation)[:200])
                    self._process.kill()
                    self._die("protocol", parts, None)
                    return
                for part in parts:
                    if part.answered is not None and not part.answered.done():
                        part.answered.set_result(None)
        finally:
            self._pump = None

    def _take(self) -> list[_Part]:
        """The next frame: as much as fits, at least one part."""
        size = count = 0
        for part in self._queue:
            size += len(part.body)
            if count and (size > FRAME_BYTES or count == FRAME_PARTS):
                break
            count += 1
        parts, self._queue = self._queue[:count], self._queue[count:]
        return parts

    def _hand_out(self, answer: Answer, parts: list[_Part]) -> None:
        for message in answer.out:
            if isinstance(message, Loaded | LoadFailed):
                self._note_load(message)
                continue
            guest = self._guests.get(message.r)
            if guest is not None:
                guest.receive(message)
        for part, micros in zip(parts, answer.cpu, strict=False):
            guest = self._guests.get(part.run)
            if guest is not None:
                guest.used(part.step, micros)
        for number, state in answer.state.items():
            guest = self._guests.get(int(number)) if number.isdecimal() and len(number) < 17 else None
            if guest is not None:
                guest.turned(*state)

    def _note_load(self, message: Loaded | LoadFailed) -> None:
        if self.loaded is not None and self.loaded.failure is not None and isinstance(message, LoadFailed):
            # Whoever imports a module that is not taken misses it, too: the one that is named is the cause.
            if self.loaded.failure.module is None:
                self.loaded.failure = message
            return
        if self.loaded is None or self.loaded.settled:
            raise Violation("the script was loaded twice")
        self.loaded.settled = True
        if isinstance(message, Loaded):
            self.loaded.exports = {export.name: export.kind for export in message.exports}
        else:
            self.loaded.failure = message

    def _die(self, cause: str, parts: list[_Part], at: int | None) -> None:
        """Tell every run what it has to do with it. When nobody knows whose message it was, all in the frame answer
        for it: they are runs of one version."""
        if self.dead is not None:
            return
        self.dead = cause
        suspects = parts if cause not in BLAMELESS else []
        if at is not None and at < len(parts):
            suspects = suspects[at : at + 1]
        blamed = {part.run: part.step for part in suspects}
        guests, self._guests = self._guests, {}
        for number, guest in guests.items():
            guest.die(blamed.get(number), cause)
        lost = SessionLost(f"the sandbox is gone: {cause}")
        for part in [*parts, *self._queue]:
            if part.answered is not None and not part.answered.done():
                part.answered.set_exception(lost)
                part.answered.exception()  # somebody may have stopped waiting
        self._queue = []


_encoder = msgspec.json.Encoder()


def encode(message: object) -> bytes:
    """A message as a part of a frame."""
    return b"J" + _encoder.encode(message)
