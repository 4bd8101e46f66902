"""The steps a run calls: begun, or gone on with, their attempts side by side, ended from inside or from outside."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import msgspec

from instances.engine import faults
from instances.engine.runs import attempts
from instances.engine.runs.attempts import Failed, Outcome
from instances.engine.runs.children import child_key, create_child, outcome_of
from instances.engine.runs.clock import millis
from instances.engine.runs.control import Control
from instances.engine.runs.endings import RunFailed, RunLost
from instances.engine.runs.failures import failure_from_outside
from instances.engine.runs.host import Host
from instances.engine.runs.inbox import Fact
from instances.engine.runs.notes import Notes
from instances.engine.runs.open_steps import OpenSteps
from instances.engine.runs.outcomes import Outcomes
from instances.engine.runs.recorded import OpenStep
from instances.engine.runs.state import RunState
from instances.engine.runs.step import Step, StepState
from instances.facts import gives_input, retries
from instances.lifecycle import Kind
from instances.runtimes.protocol import (
    Attempt,
    Child,
    Do,
    Failure,
    Raw,
    SessionLost,
    StepFailure,
    StepKey,
    StepKind,
)

DIED = Failure("WorkflowInternalError", "Attempt failed due to internal workflows error")
"""An attempt whose worker died under it."""


class Steps:
    """What one run is doing."""

    def __init__(self, state: RunState, control: Control, notes: Notes, host: Host) -> None:
        self._state = state
        self._run = state.held.context
        self._clock = state.clock
        self._work = state.work
        self._usage = state.usage
        self._control = control
        self._notes = notes
        self._host = host
        self._open = OpenSteps(state)
        self._outcomes = Outcomes(state, self._open, self._retry, self._has_failed)
        self._failed: dict[StepKey, Step] = {}
        """Steps that have failed, and may be asked for another attempt."""
        self.held_back: list[Do] = []
        """Called while no new step may start."""

    @property
    def running(self) -> int:
        """Attempts in flight: while there are any, the run stays in memory."""
        return self._open.running

    # --- beginning -----------------------------------------------------------------------------------------------

    def do(self, do: Do) -> None:
        """Begin a step, or go on with one that an earlier life left open. Raises :class:`RunFailed` at the limit."""
        if do.counts and do.key.kind is StepKind.DO:
            refusal = self._usage.refuse_step()
            if refusal is not None:
                raise RunFailed(refusal)
        if do.outgoing:
            self._usage.made_requests(self._state.replay.attempts_of(do.key))
        if not self._state.replay.calls(do.key, do.fingerprint) or self._control.final is not None:
            self._remember(do)
            return
        past = self._state.past.open.pop(do.key, None)
        if past is not None:
            self._usage.made_requests(past.attempts if do.outgoing else 0)
            self._reopen(do, past)
        elif self._control.held_back:
            self.held_back.append(do)
        else:
            self._begin(do)

    async def begin_held_back(self) -> None:
        """Begin what was called while no step might start. Raises :class:`RunLost`."""
        held_back, self.held_back = self.held_back, []
        self._state.breath.begin()
        for do in held_back:
            self._begin(do)
            await self._state.breathe()

    def _begin(self, do: Do) -> None:
        step = Step(do, self._clock.now())
        self._open.add(step)
        self._limit_total(step)
        self._start(step, Kind.STEP_STARTED, _start_payload(do), step.started_at)

    def _reopen(self, do: Do, past: OpenStep, *, aside: bool = False) -> None:
        """Go on where the journal ends: with a wait, a retry, or an attempt that nobody saw ending."""
        step = Step(do, past.started_at, past.attempts, past.failures, past.deaths, reopened=True, aside=aside)
        self._open.add(step)
        self._limit_total(step, past.since)
        if past.due_now:
            self._start(step, Kind.ATTEMPT_STARTED, None)
        elif past.waiting_at is not None:
            self._await_outside(step, past.waiting_at)
        elif (do.child is not None or do.immediate or do.repeatable) and past.failed_at is None:
            self._dispatch(step)
        elif past.attempt_open:
            self._outcomes.fail(step, DIED)
        else:
            self._outcomes.wait_for_retry(step, past.delay, past.failed_at or past.started_at)

    def _limit_total(self, step: Step, since: datetime | None = None) -> None:
        if step.do.total_timeout is not None:
            since = since or step.started_at
            self._open.set_timer("total", step, step.do.total_timeout, since, self._total_timed_out)

    def _total_timed_out(self, step: Step) -> None:
        """The whole step took too long: final, whatever it is doing."""
        failure = replace(attempts.timed_out(step.do.total_timeout).failure, permanent=True)
        self._leave_child(step)
        self._outcomes.give_up(step, failure, timed_out=True)

    def _retry(self, step: Step) -> None:
        """The wait before a retry is over."""
        step.attempts += 1
        step.state = StepState.STARTING
        self._start(step, Kind.ATTEMPT_STARTED, None)

    def _start(self, step: Step, kind: Kind, payload: Raw | None, at: datetime | None = None) -> None:
        """Write the start of an attempt down and make the attempt: after the commit if it must not run uncounted."""
        if step.starts_durably:
            self._open.write(kind, step, payload, partial(self._dispatch, step), at)
        else:
            self._open.write(kind, step, payload, at=at)
            self._dispatch(step)

    # --- attempts ------------------------------------------------------------------------------------------------

    def _dispatch(self, step: Step) -> None:
        if step.state is StepState.ENDED:
            return
        do = step.do
        if do.child is not None:
            key = self._child_key(step)
            step.state, step.child = StepState.CHILD, f"child:{key}"
            self._open.run(step, self._create_child(step, do.child, key))
        elif do.immediate:
            attempt = self._attempt_of(step)
            self._ended(step, attempt, attempts.run_in_place(self._state.session, do, attempt))
        elif do.outgoing and (refusal := self._usage.refuse_request()) is not None:
            self._outcomes.give_up(step, refusal)
        else:
            step.state = StepState.RUNNING
            if self._host.certain:
                self._attempt(step)
            else:
                self._open.run(step, self._attempt_when_certain(step))

    async def _attempt_when_certain(self, step: Step) -> None:
        await self._host.trust()
        self._attempt(step)

    def _attempt(self, step: Step) -> None:
        do, attempt = step.do, self._attempt_of(step)
        work = self._state.session.execute(do, attempt)
        if not isinstance(work, asyncio.Future):
            self._open.run(step, self._perform(step, attempt, work))
            return
        self._open.wait(step, work, partial(self._answered, step, attempt, time.perf_counter()))
        limit = attempts.limit(do)
        if limit is not None:
            self._state.deadlines.set(work, limit, partial(self._timed_out, step, attempt, work))

    async def _perform(self, step: Step, attempt: Attempt, work: Coroutine[Any, Any, Raw | None]) -> None:
        """An attempt that has a task."""
        try:
            outcome = await attempts.run(work, step.do, self._state.held)
        except SessionLost as lost:
            self._state.lose_session(lost)
        else:
            self._ended(step, attempt, outcome)

    def _answered(self, step: Step, attempt: Attempt, began: float, work: asyncio.Future[Raw | None]) -> None:
        """An attempt that has none is over, or was given up."""
        self._state.deadlines.clear(work)
        attempts.count(work, self._state.held, began)
        if work.cancelled():
            return
        try:
            outcome = attempts.outcome_of(work, step.do, self._state.held)
        except SessionLost as lost:
            self._state.lose_session(lost)
        else:
            self._ended(step, attempt, outcome)

    def _timed_out(self, step: Step, attempt: Attempt, work: asyncio.Future[Raw | None]) -> None:
        """An attempt that has none took too long."""
        if work.cancel():  # else the answer is there, and on its way
            step.task = None
            self._ended(step, attempt, attempts.timed_out(step.do.timeout))

    def _attempt_of(self, step: Step) -> Attempt:
        """What the session is told about the attempt."""
        key, run = step.do.key, self._run
        phase = "compensate" if step.compensates else "invoke"
        return Attempt(
            step.attempts,
            lambda level, message: self._notes.log(level, message, key.counted),
            self._clock.now,
            lambda: self._work.fenced or step.state is StepState.ENDED,
            partial(self._keep, step, step.attempts),
            f"{run.workflow}:{run.instance_id}:{key.name}:{phase}",
        )

    async def _keep(self, step: Step, attempt: int, piece: str) -> None:
        """Store a piece of the stream an attempt returns. Raises :class:`StepFailure`; cancelled with the attempt."""
        if step.state is not StepState.RUNNING or step.attempts != attempt or self._work.fenced:
            raise StepFailure(DIED)
        size = len(piece) // 4 * 3 - piece[-2:].count("=")
        refusal = self._usage.refuse_piece(size)
        if refusal is not None:
            raise StepFailure(refusal)
        step.streamed = (step.streamed or 0) + size
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open.write(Kind.STEP_PIECE, step, piece, partial(_release, kept))
        self._state.mail.set()
        await kept
        faults.point("stream-piece-kept")

    def _ended(self, step: Step, attempt: Attempt, outcome: Outcome) -> None:
        if step.state is StepState.ENDED or self._work.fenced:
            return
        if isinstance(outcome, Failed):
            self._outcomes.fail(step, outcome.failure, timed_out=outcome.timed_out)
            return
        step.compensate_input = attempt.compensate_input
        if step.do.external:
            self._wait_outside(step)
        else:
            self._outcomes.complete(step, outcome)

    def _child_key(self, step: Step) -> UUID:
        return child_key(self._run, step.do.key, step.attempts, step.started_at)

    async def _create_child(self, step: Step, child: Child, key: UUID) -> None:
        try:
            refusal = await create_child(self._host.client, self._state.held, step.do.key, child, key)
        except RunLost:
            self._work.fenced = True
            return
        if step.state is StepState.ENDED:
            return
        if refusal is not None:
            self._outcomes.fail(step, refusal)
        elif not child.wait:
            self._outcomes.complete(step, msgspec.json.encode({"id": str(key)}).decode())

    def _leave_child(self, step: Step) -> None:
        """Nobody waits for the step's child any more. What a run gives up while it rolls back is to be undone, too."""
        if step.state is StepState.CHILD and step.do.child is not None and step.do.child.wait:
            self._work.give_up(self._child_key(step), undo=self._control.rolling_back and not step.compensates)

    # --- completion from outside ---------------------------------------------------------------------------------

    def awaited(self) -> list[str]:
        """Types of the outside facts that steps wait for."""
        return list(dict.fromkeys(type for step in self._open for type in step.awaits))

    def match(self) -> None:
        """Give unread facts to the steps that wait for them."""
        if self._failed and self._control.final is None and not self._control.rolling_back:
            self._match_failed()
        for step in self._open:
            fact = self._state.inbox.take(step.awaits[2:]) or self._state.inbox.take(step.awaits[:2])
            if fact is not None:
                self._work.consume(fact)
                self._receive(step, fact)

    def _receive(self, step: Step, fact: Fact) -> None:
        if step.state is StepState.RETRYING:
            self._open.clear_timer("retry", step)
            self._retry(step)
            return
        if step.state is StepState.CHILD:
            outcome = outcome_of(fact.payload)
        elif fact.type.startswith("step-failed:"):
            outcome = failure_from_outside(fact.payload)
        else:
            outcome = fact.payload
            given = self._state.inbox.take((gives_input(fact.type),))
            if given is not None:
                self._work.consume(given)
                step.compensate_input = given.payload
        if isinstance(outcome, Failure):
            self._outcomes.fail(step, outcome)
        else:
            self._outcomes.complete(step, outcome)

    def _wait_outside(self, step: Step) -> None:
        """The attempt is over; what it began is completed by somebody outside."""
        now = self._clock.now()
        plan: dict[str, Any] = {"type": step.outside_types[0]}
        if step.do.timeout is not None:
            plan["until"] = millis(now) + step.do.timeout
        self._open.write(Kind.STEP_WAITING, step, msgspec.json.encode(plan).decode(), at=now)
        self._await_outside(step, now)

    def _await_outside(self, step: Step, since: datetime) -> None:
        step.state = StepState.OUTSIDE
        if step.do.timeout is not None:
            self._open.set_timer("outside", step, step.do.timeout, since, self._outside_timed_out)

    def _outside_timed_out(self, step: Step) -> None:
        self._outcomes.fail(step, attempts.timed_out(step.do.timeout).failure, timed_out=True)

    # --- failed, and tried again although the run went on ---------------------------------------------------------

    @property
    def aside(self) -> bool:
        """Whether any are: the run does not end before them."""
        return any(step.aside for step in self._open)

    def retriable(self) -> list[str]:
        """Types of the facts that ask for another attempt of steps that have failed. Nothing waits for them."""
        return [retries(key) for key in self._failed]

    def _has_failed(self, step: Step) -> None:
        """Its command is kept, unless the session is a script's: that has caught the error, or ends of it."""
        if not (step.compensates or step.do.nested or self._state.session.takes_past):
            self._failed[step.do.key] = step

    def _remember(self, do: Do) -> None:
        """A step is called whose outcome is recorded: another attempt may be under way, or may be asked for."""
        past = self._state.past
        aside, failed = past.aside.pop(do.key, None), past.failed.get(do.key)
        if aside is not None:
            self._reopen(do, aside, aside=True)
        elif failed is not None:
            self._has_failed(Step(do, failed.started_at, failed.attempts, state=StepState.ENDED))

    def _match_failed(self) -> None:
        for key, failed in list(self._failed.items()):
            fact = self._state.inbox.take((retries(key),))
            if fact is not None:
                self._work.consume(fact)
                del self._failed[key]
                step = Step(failed.do, failed.started_at, failed.attempts + 1, reopened=True, aside=True)
                self._open.add(step)
                self._limit_total(step, self._clock.now())
                self._start(step, Kind.STEP_RETRIED, None)

    # --- ending --------------------------------------------------------------------------------------------------

    def cancel(self, key: StepKey, told: Raw) -> None:
        """The session gives a step up: recorded as `told`, no message. One that has not begun is forgotten."""
        step = self._open.get(key)
        if step is None:
            self.held_back = [do for do in self.held_back if do.key != key]
            return
        self._leave_child(step)
        self._open.close(step)
        self._open.write(Kind.STEP_FAILED, step, told)

    def die(self, key: StepKey, failure: Failure | None, cause: str) -> None:
        """The sandbox died on an attempt of this step; see :meth:`Outcomes.die`."""
        step = self._open.get(key)
        if step is not None:
            self._outcomes.die(step, failure, cause)

    def interrupt(self) -> None:
        """The worker leaves, or a sandbox died through no fault of theirs: attempts are closed without counting."""
        for step in self._open:
            if step.state is StepState.RUNNING:
                self._open.write(Kind.ATTEMPT_INTERRUPTED, step)
                self._open.close(step)

    def drop(self) -> None:
        """The run is over or lost: stop everything, write nothing."""
        for step in self._open:
            self._open.close(step)


def _release(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


def _start_payload(do: Do) -> Raw:
    """What a start entry says: the configuration, and what a replay must know of the step."""
    extra = f',"hash":"{do.fingerprint}"' if do.fingerprint else ""
    if do.nested:
        extra += ',"nested":true'
    if not extra:
        return do.config
    return f"{do.config[:-1]}{extra}}}" if do.config != "{}" else f"{{{extra[1:]}}}"
