"""The steps of a run that have begun and not ended, with their timers and their tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from datetime import datetime
from typing import Any

from instances.engine.runs.clock import millis
from instances.engine.runs.pieces import Pieces
from instances.engine.runs.state import RunState
from instances.engine.runs.step import Step, StepState
from instances.engine.runs.unit_of_work import Then
from instances.lifecycle import Kind
from instances.runtimes.protocol import Raw, StepKey
from instances.step_entries import COMPENSATION

_TIMERS = ("retry", "total", "outside")
"""Of a step: the wait before a retry, the limit of the whole step, that of a completion from outside."""


class OpenSteps:
    """Iterating gives the steps that are open at that moment, in the order they began in."""

    def __init__(self, state: RunState) -> None:
        self._past = state.past
        self._run = state.held.context.run
        self._work = state.work
        self._usage = state.usage
        self._timetable = state.timetable
        self._mail = state.mail
        self._steps: dict[StepKey, Step] = {}
        self.running = 0
        """Attempts in flight, and others things a step does: while there are any, the run stays in memory."""

    def __iter__(self) -> Iterator[Step]:
        return iter(list(self._steps.values()))

    def get(self, key: StepKey) -> Step | None:
        return self._steps.get(key)

    def add(self, step: Step) -> None:
        self._steps[step.do.key] = step

    def close(self, step: Step) -> None:
        """It has ended: nothing of it is due or running any more."""
        step.state = StepState.ENDED
        self._steps.pop(step.do.key, None)
        self.drop_stream(step)
        for name in _TIMERS:
            self.clear_timer(name, step)
        if step.task is None or step.task is asyncio.current_task():
            return
        if step.do.child is None or self._work.fenced:
            step.task.cancel()
        else:
            # The child may be committed already. When the end of the step is, it exists or never will.
            self._work.wait_for(step.task)

    def drop_stream(self, step: Step) -> None:
        """The attempt has not completed: the stream it began to store is nobody's."""
        if step.streamed is not None:
            self._usage.return_pieces(step.streamed)
            key = step.do.key
            self._work.sweep(Pieces(self._run, key.name, key.count, step.attempts))
            step.streamed = None

    def write(
        self, kind: Kind, step: Step, payload: Raw | None = None, then: Then | None = None, at: datetime | None = None
    ) -> None:
        """Add an entry about the step to the next commit; compensations have kinds of their own."""
        key = step.do.key
        kind = COMPENSATION[kind] if step.compensates else kind
        self._work.write(kind, key.name, key.count, step.attempts, payload, then, at)

    def set_timer(self, name: str, step: Step, after: int, since: datetime, fire: Callable[[Step], None]) -> None:
        """Call `fire` `after` ms from `since` (pauses that began in between not counted), if the step is open then."""
        due = self._past.shifted(millis(since) + after, since)
        self._timetable.set(
            (name, step.do.key),
            due,
            lambda: fire(step) if step.state is not StepState.ENDED else None,
            ends_a_wait=name != "retry",
        )

    def clear_timer(self, name: str, step: Step) -> None:
        self._timetable.clear((name, step.do.key))

    def run(self, step: Step, work: Coroutine[Any, Any, None]) -> None:
        """Do something for the step in a task of its own."""
        self.running += 1
        step.task = asyncio.get_running_loop().create_task(work)
        step.task.add_done_callback(lambda task: self._left(step, task))

    def wait(self, step: Step, work: asyncio.Future[Any], answered: Callable[[asyncio.Future[Any]], None]) -> None:
        """The step waits for `work`, which needs no task; `answered` is called when that is over."""
        self.running += 1
        step.task = work

        def over(work: asyncio.Future[Any]) -> None:
            self._left(step, work)
            answered(work)

        work.add_done_callback(over)

    def _left(self, step: Step, task: asyncio.Future[Any]) -> None:
        self.running -= 1
        if step.task is task:
            step.task = None
        self._mail.set()
