"""What the sandbox was asked to do for one run: attempts, compensations, delays; and what came of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import msgspec

from instances.runtimes.protocol import Attempt, Raw, SessionLost, StepFailure, StepKey
from instances.runtimes.scripts import messages as said
from instances.runtimes.scripts import told
from instances.runtimes.scripts.failures import CPU, DELAY_MS, OVER, delay_failure
from instances.runtimes.scripts.line import Line
from instances.runtimes.scripts.messages import Violation
from instances.runtimes.scripts.streams import Keep, OutgoingStream, decode_keep
from versions.durations import parse_duration


class Attempts:
    """Attempts in the sandbox, by the id of the step and their number.

    The id is negative for compensations, the number for delays. `cpu_ms` bounds the CPU time of an attempt. Streams are
    stored under `run`, which is the instance's.
    """

    def __init__(self, line: Line, cpu_ms: int, run: int) -> None:
        self._line = line
        self._cpu_ms = cpu_ms
        self._run = run
        self._outcomes: dict[tuple[int, int], asyncio.Future[Raw | None]] = {}
        self._made: dict[tuple[int, int], Attempt] = {}
        self._streams: dict[tuple[int, int], OutgoingStream] = {}
        self._cpu: Counter[int] = Counter()

    def make(self, id: int, attempt: Attempt, message: dict[str, Any], *, undo: bool) -> asyncio.Future[Raw | None]:
        """Have an attempt of a step, or of its compensation, made as `message` says."""
        self._made[id, attempt.number] = attempt
        self._cpu[id] = 0
        outcome = self._ask(-id if undo else id, attempt.number, message)
        outcome.add_done_callback(partial(self._attempt_over, id, attempt))
        return outcome

    def _attempt_over(self, id: int, attempt: Attempt, outcome: asyncio.Future[Raw | None]) -> None:
        if self._made.get((id, attempt.number)) is attempt:
            del self._made[id, attempt.number]
        stream = self._streams.pop((id, attempt.number), None)
        if stream is not None and stream.pending is not None:
            stream.pending.cancel()
        if outcome.cancelled():
            self._line.tell({"op": "abandon", "r": self._line.number, "id": id, "attempt": attempt.number}, id)

    async def delay(self, id: int, name: str, attempt: int, message: dict[str, Any]) -> int:
        """Have the delay function of a step called as `message` says: milliseconds. Raises :class:`StepFailure`."""
        try:
            async with asyncio.timeout(DELAY_MS / 1000):
                answer = await self._ask(id, -attempt, message)
        except TimeoutError:
            raise StepFailure(delay_failure(name, "did not return within 5 seconds")) from None
        except StepFailure as error:
            raise StepFailure(delay_failure(name, f"threw an error: {error.failure.message}")) from None
        try:
            return parse_duration(msgspec.json.decode(answer or "null"), minimum_ms=0, maximum_ms=366 * 86_400_000)
        except (ValueError, TypeError):
            text = 'returned an invalid delay value (expected a number of ms or a duration string like "30 seconds")'
            raise StepFailure(delay_failure(name, text)) from None

    def _ask(self, id: int, number: int, message: dict[str, Any]) -> asyncio.Future[Raw | None]:
        """Send a message that is answered by name and number. The future gets that answer, or the sandbox's death."""
        outcome: asyncio.Future[Raw | None] = asyncio.get_running_loop().create_future()
        if self._line.lost is not None:
            outcome.set_exception(self._line.lost)
            return outcome
        self._outcomes[id, number] = outcome
        outcome.add_done_callback(partial(self._answered, id, number))
        self._line.tell(message, abs(id))
        return outcome

    def _answered(self, id: int, number: int, outcome: asyncio.Future[Raw | None]) -> None:
        if self._outcomes.get((id, number)) is outcome:
            del self._outcomes[id, number]
        if not outcome.cancelled():
            outcome.exception()  # somebody may have stopped waiting

    def settle(self, id: int, number: int, outcome: Raw | StepFailure | None) -> None:
        """Answer whoever waits for it; nobody does when the attempt was given up."""
        waiting = self._outcomes.get((id, number))
        if waiting is None or waiting.done():
            return
        if isinstance(outcome, StepFailure):
            waiting.set_exception(outcome)
        else:
            waiting.set_result(outcome)

    def fail_all(self, error: SessionLost) -> None:
        """Nothing will be answered any more."""
        for outcome in self._outcomes.values():
            if not outcome.done():
                outcome.set_exception(error)

    def used(self, step: int, micros: int) -> None:
        """An attempt of the step has used so much more CPU time: too much of it ends the attempt."""
        self._cpu[step] += micros
        if self._cpu[step] > self._cpu_ms * 1000:
            self._end_all_of(step, StepFailure(CPU))

    def _end_all_of(self, id: int, failure: StepFailure) -> None:
        for (step, number), waiting in self._outcomes.items():
            if abs(step) == id and not waiting.done():
                waiting.set_exception(failure)
                self._line.tell({"op": "abandon", "r": self._line.number, "id": id, "attempt": abs(number)}, id)

    def log(self, id: int, level: str, text: str) -> bool:
        """Log a line of a step's attempt under way; False when there is none."""
        for (step, _), attempt in self._made.items():
            if step == id:
                attempt.log(level, text)
                return True
        return False

    # --- streams -------------------------------------------------------------------------------------------------

    def keep(self, message: said.Call) -> None:
        """A piece of the stream an attempt returns. Raises :class:`Violation`."""
        call, piece = decode_keep(bytes(message.args))
        at = call.id, call.attempt
        attempt, waiting = self._made.get(at), self._outcomes.get(at)
        if attempt is None or waiting is None or waiting.done():
            self._line.reply(message.call, message.inside, {"error": told.error(OVER)})
            return
        stream = self._streams.setdefault(at, OutgoingStream())
        if stream.pending is not None:
            raise Violation("two pieces of a stream at once")
        stream.take(piece)
        work = self._store(message, call, attempt, stream)
        stream.pending = asyncio.get_running_loop().create_task(work)

    async def _store(self, message: said.Call, call: Keep, attempt: Attempt, stream: OutgoingStream) -> None:
        answer: dict[str, Any] = {}
        try:
            await attempt.keep(call.b64)
        except StepFailure as refused:
            self.settle(call.id, call.attempt, refused)
            answer = {"error": told.error(refused.failure)}
        stream.pending = None
        self._line.reply(message.call, message.inside, answer)

    def stream_of(self, id: int, attempt: int, key: StepKey) -> str:
        """What the journal keeps of the stream an attempt has returned to its end. Raises :class:`Violation`."""
        stream = self._streams.get((id, attempt)) or OutgoingStream()
        if stream.pending is not None:
            raise Violation("a stream that is over and is not")
        return stream.value(key, attempt, self._run)
