"""What starts when, while a run goes forward: dependencies, conditions, parallel slots, loops, skipping.

The scheduler decides; the session sends the work off and hands outcomes back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from instances.lifecycle import Kind
from instances.runtimes.document.barriers import Barriers
from instances.runtimes.document.failures import EXPRESSION_ERROR, LIMIT_EXCEEDED, rule
from instances.runtimes.document.graph import Graph, Verdict
from instances.runtimes.document.plan import NodePlan, Plan
from instances.runtimes.document.scope import Finished, RunFacts, Scope
from instances.runtimes.document.states import WORDS, Child, Loop, State, Work
from instances.runtimes.protocol import CommandMessage, Failure, Log, Raw, Record, StepKey, StepKind
from tenants.limits import FOR_EACH_ITEMS
from versions.expressions import Budget, ExpressionError


class Sender(Protocol):
    """The session, as the scheduler sees it."""

    now: datetime
    """Time of the message being taken."""
    spent: int
    """Expression nodes visited in this turn."""

    def emit(self, command: CommandMessage) -> None: ...

    def send(self, work: Work) -> None: ...

    def fail(self, failure: Failure) -> None: ...


class Scheduler:
    """The forward part of one run."""

    def __init__(self, plan: Plan, facts: RunFacts, sender: Sender) -> None:
        self.plan = plan
        self.facts = facts
        self.graph = Graph(plan)
        self.barriers = Barriers(plan, sender.emit, self.settle)
        self.loops: dict[int, Loop] = {}
        self.stopped = False
        """The run failed: nothing new starts."""
        self._sender = sender
        self._slots = plan.document.limits.max_parallel
        self._ready: deque[tuple[NodePlan, int]] = deque()
        """Nodes that may start, and children of loops by their number (-1: the node itself)."""
        self._blocked: deque[tuple[NodePlan, int]] = deque()
        """Those that wait for a slot."""
        self._settled: deque[tuple[int, bool]] = deque()
        """Units that ended and whose dependents have not heard of it."""

    def begin(self) -> None:
        """The instance started."""
        self.barriers.begin()
        for node in self.plan.nodes:
            if not node.dependencies:
                self._make_ready(node)

    def advance(self) -> bool:
        """Do one thing that can be done now; False when there is none."""
        if self._settled:
            self._propagate(*self._settled.popleft())
        elif self._blocked and self._slots:
            self._start_next(*self._blocked.popleft())
        elif self._ready:
            self._start_next(*self._ready.popleft())
        else:
            return False
        return True

    def stop(self) -> None:
        """Start nothing new."""
        self.stopped = True
        for node, index in (*self._ready, *self._blocked):
            if index >= 0:
                self.loops[node.index].active -= 1
        self._ready.clear()
        self._blocked.clear()
        self.barriers.stop()

    def sent(self, work: Work) -> None:
        """The session sent work off: the node runs, and takes a slot if it is of that kind."""
        node = work.plan
        self._running(node)
        if node.takes_slot:
            work.has_slot = True
            self._slots -= 1

    def landed(self, work: Work) -> None:
        """Work is out of flight."""
        if work.has_slot:
            self._slots += 1

    # --- dependencies --------------------------------------------------------------------------------------------

    def _make_ready(self, node: NodePlan) -> None:
        self.graph.set(node, State.READY)
        self._ready.append((node, -1))

    def settle(self, unit: int, passes: bool) -> None:
        """A unit ended; its dependents hear of it in turn. `passes`: they may go on."""
        self._settled.append((unit, passes))

    def _propagate(self, unit: int, passes: bool) -> None:
        nodes = self.plan.nodes
        if unit < len(nodes):
            self.barriers.node_ended(unit, self.graph.state(nodes[unit]))
            dependents = nodes[unit].dependents
        else:
            dependents = self.plan.syncs[unit - len(nodes)].dependents
        if self.stopped:
            return
        for number in dependents:
            match self.graph.heard(nodes[number], passes):
                case Verdict.READY:
                    self._make_ready(nodes[number])
                case Verdict.DOOMED:
                    self._skip(nodes[number], State.SKIPPED_FAILURE, "failure", passes=False)

    def _skip(self, node: NodePlan, state: State, reason: str, *, passes: bool = True) -> None:
        """Leave a node out."""
        now = self._sender.now
        self._sender.emit(Record(Kind.STEP_SKIPPED, node.node.id, 1, f'{{"reason":"{reason}"}}'))
        self.graph.set(node, state)
        self.facts.add(Finished(node, 0, WORDS[state], None, None, 0, now, now))
        self.settle(node.index, passes)

    def _skip_all(self, nodes: int, state: State, reason: str) -> None:
        """Leave out what has not started of a set of nodes, in document order."""
        while nodes:
            node = self.plan.nodes[(nodes & -nodes).bit_length() - 1]
            nodes &= nodes - 1
            if self.graph.not_started(node):
                self._skip(node, state, reason)

    # --- starting ------------------------------------------------------------------------------------------------

    def _start_next(self, node: NodePlan, index: int) -> None:
        needs_slot = node.takes_slot and (index >= 0 or node.for_each is None)
        if needs_slot and not self._slots:
            self._blocked.append((node, index))
        elif index >= 0:
            self._start_child(node, index)
        elif self.graph.state(node) is State.READY:
            self._start(node)

    def _start(self, node: NodePlan) -> None:
        """Start a node whose dependencies let it, unless its conditions don't."""
        if node.gates and any(self.facts.verdicts.get(gate.condition) not in gate.verdicts for gate in node.gates):
            self._skip(node, State.SKIPPED, "branch")
            return
        work = Work(self.facts, node, node.body, Scope(self.facts, node.single), node.key)
        if (node.when is None and node.for_each is None) or self._lets_through(node, work):
            self._sender.send(work)

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
            self._sender.spent += budget.cost

    def _warner(self, node: NodePlan) -> Callable[[str], None]:
        return lambda text: self._sender.emit(Log("warn", text, node.node.id))

    def _running(self, node: NodePlan) -> None:
        if self.graph.state(node) is not State.RUNNING:
            self.graph.set(node, State.RUNNING)
            if self.plan.syncs_of[node.index]:
                self.barriers.node_started(node.index)

    # --- outcomes ------------------------------------------------------------------------------------------------

    def node_ended(
        self,
        node: NodePlan,
        state: State,
        output: Raw | None,
        failure: Failure | None,
        attempts: int,
        started_at: datetime,
        compensate_input: Raw | None = None,
    ) -> None:
        """A node came to its end."""
        self.graph.set(node, state)
        now = self._sender.now
        self.facts.add(Finished(node, 0, WORDS[state], output, failure, attempts, started_at, now, compensate_input))
        if failure is not None and not self.stopped:
            self._node_failed(node, failure)
            return
        if node.stops and node.on_false == "stop" and not self.facts.verdicts.get(node.index, True):
            self._skip_all(node.stops, State.SKIPPED, "stopped")
        self.settle(node.index, state is State.COMPLETE)

    def _node_failed(self, node: NodePlan, failure: Failure) -> None:
        policy = node.node.on_error
        if policy == "skip_to":
            # What lies between counts as passed for the node that is skipped to, and for those after it.
            self._skip_all(node.jumps, State.SKIPPED_FAILURE, "failure")
        self.settle(node.index, policy in ("continue", "skip_to"))
        if policy == "stop":
            self._sender.fail(failure)

    # --- for_each ------------------------------------------------------------------------------------------------

    def _start_loop(self, node: NodePlan, work: Work, budget: Budget) -> bool:
        """Start a node that runs once per item; False when it is over before it began. Raises ExpressionError."""
        assert node.for_each is not None
        items = node.for_each.render(work.scope, budget)
        if not isinstance(items, list):
            work.failure = rule(EXPRESSION_ERROR, "for_each must give an array")
        elif len(items) > FOR_EACH_ITEMS:
            work.failure = rule(LIMIT_EXCEEDED, f"for_each takes at most {FOR_EACH_ITEMS} items, not {len(items)}")
        elif not items:
            work.settled, work.result = True, "[]"
        else:
            self._running(node)
            persists = node.node.on_error == "continue"
            loop = Loop(items, work.scope, self._sender.now, node.node.parallel, persists)
            self.loops[node.index] = loop
            self._feed(node, loop)
            return True
        return False

    def _feed(self, node: NodePlan, loop: Loop) -> None:
        """Start what a loop may start; end it when nothing of it is left."""
        if not self.stopped:
            while (index := loop.take()) is not None:
                self._ready.append((node, index))
        if not loop.active:
            output = loop.output if node.save_output and loop.state is not State.CANCELLED else None
            self.node_ended(node, loop.state, output, loop.failure, loop.attempts, loop.started_at)
            if node.compensation is None:
                loop.children.clear()  # Each is only needed again to be undone.

    def _start_child(self, node: NodePlan, index: int) -> None:
        loop = self.loops[node.index]
        if loop.stopping:
            loop.active -= 1
            self._feed(node, loop)
            return
        scope = loop.scope.adding(item=loop.items[index], index=index)
        key = StepKey(node.step_kind, node.node.id, index + 1)
        self._sender.send(Work(self.facts, node, node.body, scope, key, index, items=len(loop.items)))

    def child_ended(self, work: Work, child: Child, failure: Failure | None, attempts: int) -> None:
        """One child of a loop came to its end."""
        loop = self.loops[work.plan.index]
        loop.ended(work.index, child, failure, attempts)
        self._feed(work.plan, loop)

    def given_up(self, work: Work) -> None:
        """The session cancelled work because the run failed. What only waited has nothing to undo."""
        waited = work.key.kind in (StepKind.SLEEP, StepKind.WAIT)
        state = State.CANCELLED if waited else State.TIMED_OUT
        if work.index < 0:
            self.graph.set(work.plan, state)
        else:
            self.loops[work.plan.index].ended(work.index, Child(state), None, 1)
