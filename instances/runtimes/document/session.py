"""One run of a document, as the driver sees it: messages in, commands out.

Messages are taken one at a time, in journal order; after each, everything that became possible is started. So the same
messages give the same commands, however they are batched.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from instances.runtimes.document.actions import Tools, perform
from instances.runtimes.document.commands import command_of
from instances.runtimes.document.failures import (
    CANCELLED,
    CONDITION_FAILED,
    EXECUTION_TIMEOUT,
    LIMIT_EXCEEDED,
    OVER_TIME,
    STEP_TIMEOUT,
    SYNC_POINT_TIMEOUT,
    named,
    rule,
)
from instances.runtimes.document.plan import Action, NodePlan, Plan
from instances.runtimes.document.results import instance_output, output_of, reshape
from instances.runtimes.document.rollback import Rollback, Undo, undos_of, work_of
from instances.runtimes.document.scheduler import Scheduler
from instances.runtimes.document.scope import RunFacts, error_value
from instances.runtimes.document.states import WAITS, Child, Mode, State, Work
from instances.runtimes.protocol import (
    Attempt,
    BeginRollback,
    Broken,
    Cancel,
    CancelTimer,
    CommandMessage,
    Do,
    Done,
    EndRollback,
    Fail,
    Failure,
    Finish,
    Message,
    Raw,
    RollbackRequested,
    RunContext,
    Started,
    StepFailure,
    StepKey,
    StopRollback,
    StoredVersion,
    Timer,
    TimerFired,
)
from versions.expressions import Budget, ExpressionError, decode_json
from versions.expressions.values import READ

DEADLINE = "timeout"
"""Timer of the instance's own time limit."""
YIELD_AFTER = 100_000
"""Expression nodes visited in one turn after which other runs get a chance."""


class DocumentSession:
    """A run in memory. See :class:`instances.runtimes.protocol.Session`."""

    takes_past = False
    busy = False

    def __init__(
        self, plan: Plan, run: RunContext, version: StoredVersion, tools: Tools, refusal: Failure | None = None
    ) -> None:
        """`refusal`: why the run may not even begin."""
        self.plan = plan
        self.facts = RunFacts(plan, run, version)
        self.now = run.created_at
        self.spent = 0
        self._tools = tools
        self._refusal = refusal
        self._limits = plan.document.limits
        self._timeout = self._limits.timeout if run.timeout is None else run.timeout
        self._commands: list[CommandMessage] = []
        self._mode = Mode.FORWARD
        self._scheduler = Scheduler(plan, self.facts, self)
        self._flight: dict[StepKey, Work] = {}
        self._attempts = 0
        """Attempts known from messages: the limit must be reached at the same point in every replay."""
        self._retrying = 0
        """Further attempts of what is in flight, known live only."""
        self._failure: Failure | None = None
        self._requested = False
        self._stopped = False
        self._rollback: Rollback | None = None

    # --- the session protocol ------------------------------------------------------------------------------------

    async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
        """Take messages, in order, and answer with what to do next."""
        for message in messages:
            self.now = message.at
            _TAKE[type(message)](self, message)
            while self._scheduler.advance() or self._undo_next() or self._conclude():
                if self.spent > YIELD_AFTER:
                    self.spent = 0
                    await asyncio.sleep(0)
        commands, self._commands = self._commands, []
        return commands

    async def execute(self, step: Do, attempt: Attempt) -> Raw | None:
        """Run one attempt of a step; the output as JSON text. Raises :class:`StepFailure`."""
        return await perform(step.data, attempt, self._tools)

    async def delay(self, step: Do, attempt: int, failure: Failure) -> int:
        """Delays of documents are in the document."""
        return step.retry.delay

    async def close(self) -> None:
        """Nothing is held."""

    # --- messages ------------------------------------------------------------------------------------------------

    def _begin(self, message: Started) -> None:
        self.facts.started_at = message.at
        if self._refusal is not None:
            self.fail(self._refusal)
            return
        if self._timeout is not None:
            self.emit(Timer(DEADLINE, self._timeout))
        self._scheduler.begin()

    def _done(self, message: Done) -> None:
        work = self._land(message.key, message.attempts)
        if work is None:
            return
        if work.compensation is not None:
            self._undone(None)
            return
        try:
            output = self._output(work, message)
        except StepFailure as error:
            self._ended(work, State.FAILED, None, error.failure, message)
        else:
            self._ended(work, State.COMPLETE, output, None, message)

    def _broken(self, message: Broken) -> None:
        work = self._land(message.key, message.attempts)
        if work is None:
            return
        failure = named(message.failure)
        if work.compensation is not None:
            self._undone(failure)
            return
        if failure.code == CONDITION_FAILED:
            self.facts.verdicts[work.plan.index] = False
        if failure.output is not None:
            try:
                self.facts.hold(failure.output)
            except StepFailure:
                failure = dataclasses.replace(failure, output=None)
        state = State.TIMED_OUT if message.timed_out else State.FAILED
        self._ended(work, state, failure.output, failure, message)

    def _timer_fired(self, message: TimerFired) -> None:
        if message.id == DEADLINE:
            self._deadline()
            return
        sync = self._scheduler.barriers.timed_out(message.id)
        if sync is not None:
            if sync.point.on_timeout == "fail":
                text = f"sync point {sync.point.id} was not complete within {sync.point.timeout} ms"
                self.fail(rule(SYNC_POINT_TIMEOUT, text))
            return
        work = next((work for work in self._flight.values() if work.timer == message.id), None)
        if work is not None:
            work.timer = None
            failure = rule(STEP_TIMEOUT, f"not finished within {work.body.total_timeout} ms")
            self.emit(Cancel(work.key, failure, timed_out=True))
            self._land(work.key, 1)
            self._ended(work, State.TIMED_OUT, None, failure, message)

    def _rollback_requested(self, message: RollbackRequested) -> None:
        if self._mode in (Mode.FORWARD, Mode.DRAINING):
            self._requested = True
            self._drain(message.failure)
            self._cut(_waits_outside)

    def _stop_rollback(self, _message: StopRollback) -> None:
        self._stopped = True
        if self._rollback is not None:
            self._rollback.stop()
        self._cut(_waits_outside)

    def _deadline(self) -> None:
        """The instance's time is up: what runs is given up, and what was done is undone."""
        self.fail(rule(EXECUTION_TIMEOUT, f"the instance did not finish within {self._timeout} ms"))
        if self._mode is Mode.DRAINING:
            self._cut(lambda _work: True, OVER_TIME)

    # --- work ----------------------------------------------------------------------------------------------------

    def emit(self, command: CommandMessage) -> None:
        self._commands.append(command)

    def send(self, work: Work) -> None:
        """Send work off."""
        node, forward = work.plan, work.compensation is None
        budget = Budget() if work.body.planned else None
        command = command_of(work, self._may_retry, budget)
        if budget is not None:
            self.spent += budget.cost
        if forward:
            if type(command) is Do and command.counts:
                if self._attempts >= self._limits.max_steps:
                    self.fail(rule(LIMIT_EXCEEDED, f"the limit of {self._limits.max_steps} attempts is reached"))
                    return
                self._attempts += 1
            self._scheduler.sent(work)
        self._flight[command.key] = work
        self.emit(command)
        if type(command) is not Do and work.body.total_timeout is not None:
            work.timer = f"total:{command.key.counted}"
            self.emit(Timer(work.timer, work.body.total_timeout))
        if node.body.action is Action.TRIGGER and forward:
            self._told(work)

    def _told(self, work: Work) -> None:
        """A trigger ended: its step is only a record, for the input is known, and nobody waits for it."""
        node, output, failure = work.plan, self.facts.run.input, work.failure
        try:
            output = output if node.outputs is None or failure else reshape(work, output)
        except StepFailure as error:
            failure = error.failure
        if failure is not None:
            self._scheduler.node_ended(node, State.FAILED, None, failure, 1, self.now)
        else:
            self._scheduler.node_ended(node, State.COMPLETE, output if node.save_output else None, None, 1, self.now)

    def _may_retry(self, work: Work, failure: Failure, attempt: int) -> bool:
        """Asked live, once per failed attempt that has retries left; what was decided is in the journal."""
        forward = work.compensation is None
        used_up = self._attempts + self._retrying >= self._limits.max_steps
        if forward and (self._mode is not Mode.FORWARD or used_up):
            return False
        condition = work.body.retry_when
        if condition is not None:
            try:
                if not condition.holds(work.scope.adding(error=error_value(failure))):
                    return False
            except ExpressionError:
                return False
        if forward:
            self._retrying += attempt - work.retries
            work.retries = attempt
        return True

    def _land(self, key: StepKey, attempts: int) -> Work | None:
        """Take work out of flight; None when it was given up before its outcome came."""
        work = self._flight.pop(key, None)
        if work is None:
            return None
        self._scheduler.landed(work)
        if work.timer is not None:
            self.emit(CancelTimer(work.timer))
        if work.compensation is None:
            self._attempts += max(attempts - 1, 0)
            self._retrying -= work.retries
        return work

    def _output(self, work: Work, message: Done) -> Raw | None:
        """What the others see of a node's result. Raises StepFailure."""
        node, output = work.plan, output_of(work, message)
        result = output if message.result is None else message.result
        if result is not None and not work.loops_over_nothing:
            if node.body.action is Action.SET:
                self.spent += len(result) // READ
                self.facts.set_vars(result)
            elif node.body.action is Action.CONDITION:
                self.facts.verdicts[node.index] = decode_json(result)["conditionMet"]
        if output is None or not node.save_output:
            return None
        self.facts.hold(output)
        return output

    def _ended(self, work: Work, state: State, output: Raw | None, failure: Failure | None, message: Any) -> None:
        """An outcome of a node, or of one child of it; `message` brought it."""
        if work.plan.body.action is Action.TRIGGER:
            return
        attempts = getattr(message, "attempts", 1)
        given = getattr(message, "compensate_input", None) if failure is None else failure.compensate_input
        if work.index < 0:
            started_at = getattr(message, "started_at", None) or message.at
            self._scheduler.node_ended(work.plan, state, output, failure, attempts, started_at, given)
        else:
            self._scheduler.child_ended(work, Child(state, output, given), failure, attempts)

    # --- the end -------------------------------------------------------------------------------------------------

    def _conclude(self) -> bool:
        """Go over to the next phase when nothing is in flight any more; whether that gave something to do."""
        if self._flight:
            return False
        if self._mode is Mode.FORWARD and not self._scheduler.graph.open:
            self._complete()
        elif self._mode is Mode.DRAINING:
            self._turn_back()
        elif self._mode is Mode.COMPENSATING and self._rollback is not None and self._rollback.over:
            failure = self._rollback.failure
            self.emit(EndRollback(failure is None and not self._stopped, failure))
            self._end()
        else:
            return False
        return True

    def _complete(self) -> None:
        try:
            output = instance_output(self.plan, self.facts)
        except StepFailure as error:
            self.fail(error.failure)
            return
        self._mode = Mode.ENDED
        self._scheduler.barriers.complete()
        self.emit(Finish(output))

    def fail(self, failure: Failure) -> None:
        """The run failed by itself: nothing new starts."""
        if self._mode is not Mode.FORWARD:
            return
        never = self.plan.document.rollback == "never"
        if not never:
            self.emit(BeginRollback(failure))
        self._drain(failure)
        if never:
            self._cut(lambda work: work.body.external)

    def _drain(self, failure: Failure) -> None:
        """Start nothing new; give up what only waits."""
        self._mode = Mode.DRAINING
        self._failure = self._failure or failure
        self._scheduler.stop()
        self._cut(lambda work: work.key.kind in WAITS)

    def _cut(self, which: Callable[[Work], bool], why: Failure = CANCELLED) -> None:
        """Give up work in flight."""
        for key, work in list(self._flight.items()):
            if which(work):
                self.emit(Cancel(key, why, timed_out=why is OVER_TIME))
                self._land(key, 1)
                if work.compensation is not None:
                    self._undone(CANCELLED)
                elif work.plan.body.action is not Action.TRIGGER:
                    self._scheduler.given_up(work)

    # --- compensation --------------------------------------------------------------------------------------------

    def _turn_back(self) -> None:
        """Everything that ran is over: undo what was done."""
        if self._timeout is not None:
            self.emit(CancelTimer(DEADLINE))
        never = self.plan.document.rollback == "never"
        if never and not self._requested:
            self._end()
            return
        self._mode = Mode.COMPENSATING
        undos = [] if never else [undo for node in self.plan.nodes for undo in self._undos(node)]
        self._rollback = Rollback(undos, self._limits.max_parallel)
        if self._stopped:
            self._rollback.stop()

    def _undos(self, node: NodePlan) -> list[Undo]:
        state, loop = self._scheduler.graph.state(node), self._scheduler.loops.get(node.index)
        return undos_of(node, state, self.facts.by_node.get(node.index), loop)

    def _undo_next(self) -> bool:
        """Start the next compensation that may start; False when there is none."""
        undo = None if self._rollback is None else self._rollback.next()
        if undo is None:
            return False
        assert self._failure is not None
        self.send(work_of(undo, self.facts, self._scheduler.loops.get(undo.plan.index), self._failure))
        return True

    def _undone(self, failure: Failure | None) -> None:
        if self._rollback is not None:
            self._rollback.ended(failure)

    def _end(self) -> None:
        """The run is over. After a terminate the driver knows how it ends."""
        self._mode = Mode.ENDED
        if not self._requested and self._failure is not None:
            self.emit(Fail(self._failure))


def _waits_outside(work: Work) -> bool:
    """Whether somebody else decides when the work is over, perhaps never."""
    return work.body.external or work.body.action is Action.CHILD


_TAKE: dict[type[Message], Callable[[DocumentSession, Any], None]] = {
    Started: DocumentSession._begin,
    Done: DocumentSession._done,
    Broken: DocumentSession._broken,
    TimerFired: DocumentSession._timer_fired,
    RollbackRequested: DocumentSession._rollback_requested,
    StopRollback: DocumentSession._stop_rollback,
}
