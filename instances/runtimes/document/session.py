"""One run of a document: a deterministic scheduler over its graph.

Messages are taken one at a time, in journal order; after each, everything that became possible is started. So the same
messages give the same commands, however they are batched.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from instances.lifecycle import Kind
from instances.runtimes.document.actions import Tools, perform, reshape
from instances.runtimes.document.barriers import Barriers
from instances.runtimes.document.commands import command_of
from instances.runtimes.document.failures import (
    CANCELLED,
    EXECUTION_TIMEOUT,
    EXPRESSION_ERROR,
    LIMIT_EXCEEDED,
    STEP_TIMEOUT,
    SYNC_POINT_TIMEOUT,
    named,
    rule,
)
from instances.runtimes.document.graph import Graph, Verdict
from instances.runtimes.document.plan import Action, NodePlan, Plan
from instances.runtimes.document.results import instance_output, result_of
from instances.runtimes.document.rollback import Rollback, undos_of, work_of
from instances.runtimes.document.scope import Finished, RunFacts, Scope, error_value
from instances.runtimes.document.states import WAITS, WORDS, Child, Loop, Mode, State, Work
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
    Log,
    Message,
    Raw,
    Record,
    RollbackRequested,
    RunContext,
    Started,
    StepKey,
    StopRollback,
    StoredVersion,
    Timer,
    TimerFired,
)
from tenants.limits import PAYLOAD_BYTES
from versions.expressions import Budget, ExpressionError, decode_json
from versions.expressions.values import MAX_NODES

DEADLINE = "timeout"
"""Timer of the instance's own time limit."""
MAX_ITEMS = 10_000
"""Items of a `for_each`."""
YIELD_AFTER = 100_000
"""Expression nodes visited in one turn after which other runs get a chance."""


class DocumentSession:
    """A run in memory. See :class:`instances.runtimes.protocol.Session`."""

    def __init__(self, plan: Plan, run: RunContext, version: StoredVersion, tools: Tools) -> None:
        self.plan = plan
        self.facts = RunFacts(plan, run, version)
        self._tools = tools
        self._limits = plan.document.limits
        self._commands: list[CommandMessage] = []
        self._mode = Mode.FORWARD
        self._now = run.created_at
        self._graph = Graph(plan)
        self._barriers = Barriers(plan, self._emit, self._settle)
        self._slots = self._limits.max_parallel
        self._ready: deque[tuple[NodePlan, int]] = deque()
        """Nodes that may start, and children of loops by their number (-1: the node itself)."""
        self._blocked: deque[tuple[NodePlan, int]] = deque()
        """Those that wait for a slot."""
        self._settled: deque[tuple[int, bool]] = deque()
        """Units that ended and whose dependents have not heard of it."""
        self._flight: dict[StepKey, Work] = {}
        self._loops: dict[int, Loop] = {}
        self._attempts = 0
        """Attempts known from messages: the limit must be reached at the same point in every replay."""
        self._retrying = 0
        """Further attempts of what is in flight, known live only."""
        self._spent = 0
        self._failure: Failure | None = None
        self._requested = False
        self._stopped = False
        self._rollback: Rollback | None = None

    # --- the session protocol ------------------------------------------------------------------------------------

    async def turn(self, messages: Sequence[Message]) -> list[CommandMessage]:
        """Take messages, in order, and answer with what to do next."""
        for message in messages:
            self._now = message.at
            _TAKE[type(message)](self, message)
            while self._advance() or self._conclude():
                if self._spent > YIELD_AFTER:
                    self._spent = 0
                    await asyncio.sleep(0)
        commands, self._commands = self._commands, []
        return commands

    async def execute(self, step: Do, attempt: Attempt) -> Raw | None:
        """Run one attempt of a step; the output as JSON text. Raises :class:`StepFailure`."""
        return await perform(step.data, attempt, self._tools)

    async def close(self) -> None:
        """Nothing is held."""

    def _emit(self, command: CommandMessage) -> None:
        self._commands.append(command)

    # --- messages ------------------------------------------------------------------------------------------------

    def _begin(self, message: Started) -> None:
        self.facts.started_at = message.at
        self._barriers.begin()
        if self._limits.timeout is not None:
            self._emit(Timer(DEADLINE, self._limits.timeout))
        for node in self.plan.nodes:
            if not node.dependencies:
                self._make_ready(node)

    def _done(self, message: Done) -> None:
        work = self._land(message.key, message.attempts)
        if work is None:
            return
        if work.compensation is not None:
            self._undone(None)
            return
        try:
            output = self._output(work, message)
        except ExpressionError as error:
            self._work_ended(work, State.FAILED, None, rule(EXPRESSION_ERROR, str(error)), message)
        else:
            self._work_ended(work, State.COMPLETE, output, None, message)

    def _broken(self, message: Broken) -> None:
        work = self._land(message.key, message.attempts)
        if work is None:
            return
        failure = named(message.failure)
        if work.compensation is not None:
            self._undone(failure)
        else:
            state = State.TIMED_OUT if message.timed_out else State.FAILED
            self._work_ended(work, state, failure.output, failure, message)

    def _timer_fired(self, message: TimerFired) -> None:
        if message.id == DEADLINE:
            self._deadline()
            return
        sync = self._barriers.timed_out(message.id)
        if sync is not None:
            if sync.point.on_timeout == "fail":
                text = f"sync point {sync.point.id} was not complete within {sync.point.timeout} ms"
                self._fail_run(rule(SYNC_POINT_TIMEOUT, text))
            return
        work = next((work for work in self._flight.values() if work.timer == message.id), None)
        if work is not None:
            work.timer = None
            failure = rule(STEP_TIMEOUT, f"not finished within {work.plan.node.total_timeout} ms")
            self._emit(Cancel(work.key, failure))
            self._land(work.key, 1)
            self._work_ended(work, State.TIMED_OUT, None, failure, message)

    def _rollback_requested(self, message: RollbackRequested) -> None:
        if self._mode in (Mode.FORWARD, Mode.DRAINING):
            self._requested = True
            self._drain(message.failure)
            self._cut(lambda work: work.body.external or work.body.action is Action.CHILD)

    def _stop_rollback(self, _message: StopRollback) -> None:
        self._stopped = True
        if self._rollback is not None:
            self._rollback.stop()

    def _land(self, key: StepKey, attempts: int) -> Work | None:
        """Take work out of flight; None when it was given up before its outcome came."""
        work = self._flight.pop(key, None)
        if work is None:
            return None
        if work.has_slot:
            self._slots += 1
        if work.timer is not None:
            self._emit(CancelTimer(work.timer))
        if work.compensation is None:
            self._attempts += max(attempts - 1, 0)
            self._retrying -= work.retries
        return work

    def _output(self, work: Work, message: Done) -> Raw | None:
        """What the others see of a node's result. Raises ExpressionError."""
        node, output = work.plan, result_of(work, message)
        if work.settled and node.for_each is not None and work.index < 0:
            return output  # A loop without items.
        if output is not None and node.body.action is Action.SET:
            self.facts.vars = {**self.facts.vars, **decode_json(output)}
        elif output is not None and node.body.action is Action.CONDITION:
            self.facts.verdicts[node.index] = decode_json(output)["conditionMet"]
        if node.outputs is not None and node.reshaped_late:
            output = reshape(work, output)
        return output if node.save_output else None

    # --- going forward -------------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """Do one thing that can be done now; False when there is none."""
        if self._settled:
            self._propagate(*self._settled.popleft())
        elif self._mode is Mode.FORWARD and self._blocked and self._slots:
            self._start_next(*self._blocked.popleft())
        elif self._mode is Mode.FORWARD and self._ready:
            self._start_next(*self._ready.popleft())
        elif self._rollback is not None and (undo := self._rollback.next()) is not None:
            assert self._failure is not None
            self._issue(work_of(undo, self.facts, self._loops.get(undo.plan.index), self._failure))
        else:
            return False
        return True

    def _make_ready(self, node: NodePlan) -> None:
        self._graph.set(node, State.READY)
        self._ready.append((node, -1))

    def _settle(self, unit: int, passes: bool) -> None:
        """A unit ended; its dependents hear of it in turn. `passes`: they may go on."""
        self._settled.append((unit, passes))

    def _propagate(self, unit: int, passes: bool) -> None:
        nodes = self.plan.nodes
        if unit < len(nodes):
            self._barriers.node_ended(unit, self._graph.state(nodes[unit]))
            dependents = nodes[unit].dependents
        else:
            dependents = self.plan.syncs[unit - len(nodes)].dependents
        if self._mode is not Mode.FORWARD:
            return
        for number in dependents:
            match self._graph.heard(nodes[number], passes):
                case Verdict.READY:
                    self._make_ready(nodes[number])
                case Verdict.DOOMED:
                    self._skip(nodes[number], State.SKIPPED_FAILURE, "failure", passes=False)

    def _skip(self, node: NodePlan, state: State, reason: str, *, passes: bool = True) -> None:
        """Leave a node out."""
        self._emit(Record(Kind.STEP_SKIPPED, node.node.id, 1, f'{{"reason":"{reason}"}}'))
        self._graph.set(node, state)
        self.facts.add(Finished(node, 0, WORDS[state], None, None, 0, self._now, self._now))
        self._settle(node.index, passes)

    def _start_next(self, node: NodePlan, index: int) -> None:
        needs_slot = node.takes_slot and (index >= 0 or node.for_each is None)
        if needs_slot and not self._slots:
            self._blocked.append((node, index))
        elif index >= 0:
            self._start_child(node, index)
        elif self._graph.state(node) is State.READY:
            self._start(node)

    def _start(self, node: NodePlan) -> None:
        """Start a node whose dependencies let it, unless its conditions don't."""
        if node.gates and any(self.facts.verdicts.get(gate.condition) not in gate.verdicts for gate in node.gates):
            self._skip(node, State.SKIPPED, "branch")
            return
        work = Work(self.facts, node, node.body, Scope(self.facts, node.single), node.key)
        if (node.when is None and node.for_each is None) or self._lets_through(node, work):
            self._issue(work)

    def _lets_through(self, node: NodePlan, work: Work) -> bool:
        """Judge `when` and spread `for_each`; whether the work itself is to be sent off."""
        budget = Budget()
        try:
            if node.when is not None and not node.when.holds(work.scope, self._warner(node), budget):
                self._skip(node, State.SKIPPED, "condition")
                return False
            return node.for_each is None or not self._start_loop(node, work, budget)
        except ExpressionError as error:
            work.failure = rule(EXPRESSION_ERROR, str(error))
            return True
        finally:
            self._spent += MAX_NODES - budget.nodes

    def _warner(self, node: NodePlan) -> Callable[[str], None]:
        return lambda text: self._emit(Log("warn", text, node.node.id))

    def _issue(self, work: Work) -> None:
        """Send work off."""
        node, forward = work.plan, work.compensation is None
        budget = Budget() if work.body.planned else None
        command = command_of(work, self._may_retry, budget)
        if budget is not None:
            self._spent += MAX_NODES - budget.nodes
        if forward:
            if type(command) is Do and command.counts:
                if self._attempts >= self._limits.max_steps:
                    self._fail_run(rule(LIMIT_EXCEEDED, f"the limit of {self._limits.max_steps} attempts is reached"))
                    return
                self._attempts += 1
            self._running(node)
            if node.takes_slot:
                work.has_slot = True
                self._slots -= 1
        self._flight[command.key] = work
        self._emit(command)
        if forward and type(command) is not Do and node.node.total_timeout is not None:
            work.timer = f"total:{command.key.counted}"
            self._emit(Timer(work.timer, node.node.total_timeout))
        if node.body.action is Action.TRIGGER:
            self._node_ended(node, State.COMPLETE, self.facts.run.input, None, 1, self._now)

    def _running(self, node: NodePlan) -> None:
        if self._graph.state(node) is not State.RUNNING:
            self._graph.set(node, State.RUNNING)
            if self.plan.syncs_of[node.index]:
                self._barriers.node_started(node.index)

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

    # --- outcomes ------------------------------------------------------------------------------------------------

    def _work_ended(self, work: Work, state: State, output: Raw | None, failure: Failure | None, message: Any) -> None:
        """An outcome of a node, or of one child of it."""
        node = work.plan
        if node.body.action is Action.TRIGGER:
            return
        attempts = getattr(message, "attempts", 1)
        given = getattr(message, "compensate_input", None) if failure is None else failure.compensate_input
        if work.index < 0:
            started_at = getattr(message, "started_at", None) or message.at
            self._node_ended(node, state, output, failure, attempts, started_at, given)
            return
        loop = self._loops[node.index]
        loop.ended(work.index, Child(state, output, given), failure, attempts)
        self._feed(node, loop)

    def _node_ended(
        self,
        node: NodePlan,
        state: State,
        output: Raw | None,
        failure: Failure | None,
        attempts: int,
        started_at: datetime,
        compensate_input: Raw | None = None,
    ) -> None:
        self._graph.set(node, state)
        self.facts.add(
            Finished(node, 0, WORDS[state], output, failure, attempts, started_at, self._now, compensate_input)
        )
        if failure is not None and self._mode is Mode.FORWARD:
            self._node_failed(node, failure)
            return
        if node.stops and node.on_false == "stop" and not self.facts.verdicts.get(node.index, True):
            self._skip_all(node.stops, State.SKIPPED, "stopped")
        self._settle(node.index, state is State.COMPLETE)

    def _node_failed(self, node: NodePlan, failure: Failure) -> None:
        policy = node.node.on_error
        if policy == "skip_to":
            # What lies between counts as passed for the node that is skipped to, and for those after it.
            self._skip_all(node.jumps, State.SKIPPED_FAILURE, "failure")
        self._settle(node.index, policy in ("continue", "skip_to"))
        if policy == "stop":
            self._fail_run(failure)

    def _skip_all(self, numbers: Sequence[int], state: State, reason: str) -> None:
        for number in numbers:
            if self._graph.not_started(self.plan.nodes[number]):
                self._skip(self.plan.nodes[number], state, reason)

    # --- for_each ------------------------------------------------------------------------------------------------

    def _start_loop(self, node: NodePlan, work: Work, budget: Budget) -> bool:
        """Start a node that runs once per item; False when it is over before it began. Raises ExpressionError."""
        assert node.for_each is not None
        items = node.for_each.render(work.scope, budget)
        if not isinstance(items, list):
            work.failure = rule(EXPRESSION_ERROR, "for_each must give an array")
        elif len(items) > MAX_ITEMS:
            work.failure = rule(LIMIT_EXCEEDED, f"for_each takes at most {MAX_ITEMS} items, not {len(items)}")
        elif not items:
            work.settled, work.result = True, "[]"
        else:
            self._running(node)
            loop = Loop(items, work.scope, self._now, node.node.parallel, node.node.on_error == "continue")
            self._loops[node.index] = loop
            self._feed(node, loop)
            return True
        return False

    def _feed(self, node: NodePlan, loop: Loop) -> None:
        """Start what a loop may start; end it when nothing of it is left."""
        if self._mode is Mode.FORWARD:
            while (index := loop.take()) is not None:
                self._ready.append((node, index))
        if not loop.active:
            output = loop.output if node.save_output and loop.state is not State.CANCELLED else None
            self._node_ended(node, loop.state, output, loop.failure, loop.attempts, loop.started_at)

    def _start_child(self, node: NodePlan, index: int) -> None:
        loop = self._loops[node.index]
        if loop.stopping:
            loop.active -= 1
            self._feed(node, loop)
            return
        scope = loop.scope.adding(item=loop.items[index], index=index)
        self._issue(Work(self.facts, node, node.body, scope, StepKey(node.step_kind, node.node.id, index + 1), index))

    # --- the end -------------------------------------------------------------------------------------------------

    def _conclude(self) -> bool:
        """Go over to the next phase when nothing is in flight any more; whether that gave something to do."""
        if self._flight:
            return False
        if self._mode is Mode.FORWARD and not self._graph.open:
            self._complete()
        elif self._mode is Mode.DRAINING:
            self._turn_back()
        elif self._mode is Mode.COMPENSATING and self._rollback is not None and self._rollback.over:
            failure = self._rollback.failure
            self._emit(EndRollback(failure is None and not self._stopped, failure))
            self._end()
        else:
            return False
        return True

    def _complete(self) -> None:
        try:
            output = instance_output(self.plan, self.facts)
        except ExpressionError as error:
            self._fail_run(rule(EXPRESSION_ERROR, str(error)))
            return
        if len(output) > PAYLOAD_BYTES // 4 and len(output.encode()) > PAYLOAD_BYTES:
            self._fail_run(rule(LIMIT_EXCEEDED, f"the output of the instance has more than {PAYLOAD_BYTES} bytes"))
            return
        self._mode = Mode.ENDED
        self._barriers.complete()
        self._emit(Finish(output))

    def _fail_run(self, failure: Failure) -> None:
        """The run failed by itself: nothing new starts."""
        if self._mode is not Mode.FORWARD:
            return
        if self.plan.document.rollback == "auto":
            self._emit(BeginRollback(failure))
        self._drain(failure)
        if self.plan.document.rollback == "never":
            self._cut(lambda work: work.body.external)

    def _drain(self, failure: Failure) -> None:
        """Start nothing new; give up what only waits."""
        self._mode = Mode.DRAINING
        self._failure = self._failure or failure
        for node, index in (*self._ready, *self._blocked):
            if index >= 0:
                self._loops[node.index].active -= 1
        self._ready.clear()
        self._blocked.clear()
        self._barriers.stop()
        self._cut(lambda work: work.key.kind in WAITS)

    def _cut(self, which: Callable[[Work], bool]) -> None:
        """Give up work in flight. What only waited has nothing to undo; anything else counts as timed out."""
        for key, work in list(self._flight.items()):
            if which(work):
                self._emit(Cancel(key, CANCELLED))
                self._land(key, 1)
                if work.plan.body.action is Action.TRIGGER:
                    continue
                state = State.CANCELLED if key.kind in WAITS else State.TIMED_OUT
                if work.index < 0:
                    self._graph.set(work.plan, state)
                else:
                    self._loops[work.plan.index].ended(work.index, Child(state), None, 1)

    def _deadline(self) -> None:
        """The instance's time is up: what runs is given up, and what was done is undone."""
        self._fail_run(rule(EXECUTION_TIMEOUT, f"the instance did not finish within {self._limits.timeout} ms"))
        if self._mode is Mode.DRAINING:
            self._cut(lambda _work: True)

    def _turn_back(self) -> None:
        """Everything that ran is over: undo what was done."""
        if self._limits.timeout is not None:
            self._emit(CancelTimer(DEADLINE))
        never = self.plan.document.rollback == "never"
        if never and not self._requested:
            self._end()
            return
        self._mode = Mode.COMPENSATING
        graph, facts = self._graph, self.facts
        undos = [
            undo
            for node in self.plan.nodes
            if node.compensation is not None and not never
            for undo in undos_of(node, graph.state(node), facts.by_node.get(node.index), self._loops.get(node.index))
        ]
        self._rollback = Rollback(undos, self._limits.max_parallel)
        if self._stopped:
            self._rollback.stop()

    def _undone(self, failure: Failure | None) -> None:
        if self._rollback is not None:
            self._rollback.ended(failure)

    def _end(self) -> None:
        """The run is over. After a terminate the driver knows how it ends."""
        self._mode = Mode.ENDED
        if not self._requested and self._failure is not None:
            self._emit(Fail(self._failure))


_TAKE: dict[type[Message], Callable[[DocumentSession, Any], None]] = {
    Started: DocumentSession._begin,
    Done: DocumentSession._done,
    Broken: DocumentSession._broken,
    TimerFired: DocumentSession._timer_fired,
    RollbackRequested: DocumentSession._rollback_requested,
    StopRollback: DocumentSession._stop_rollback,
}
