"""Compensation: what a failed run undoes, and in which order.

Every node that completed, timed out or failed for good is undone, the deepest first; nodes of one depth at the same
time. A compensation that fails does not stop the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from instances.runtimes.document.plan import NodePlan
from instances.runtimes.document.scope import Finished, Made, RunFacts, Scope, error_value
from instances.runtimes.document.states import UNDOABLE, Loop, State, Work
from instances.runtimes.protocol import Failure, Raw, StepKey, StepKind
from versions.expressions import Budget, decode_json


@dataclass(frozen=True, slots=True)
class Undo:
    """One compensation to run. `index` >= 0: of that child of a `for_each`."""

    plan: NodePlan
    input: Raw | None
    index: int = -1


class Rollback:
    """The compensations of one run, level by level."""

    def __init__(self, undos: Iterable[Undo], most: int) -> None:
        """`most` run at once."""
        self._most = most
        self._levels: deque[deque[Undo]] = deque()
        self._active = 0
        self.failure: Failure | None = None
        """Of the first compensation that failed for good."""
        by_depth: dict[int, deque[Undo]] = {}
        for undo in undos:
            by_depth.setdefault(undo.plan.node.depth, deque()).append(undo)
        for depth in sorted(by_depth, reverse=True):
            self._levels.append(by_depth[depth])

    def next(self) -> Undo | None:
        """The next compensation that may start now."""
        if not self._levels or self._active >= self._most:
            return None
        if not self._levels[0]:
            if self._active:
                return None
            self._levels.popleft()
            return self.next()
        self._active += 1
        return self._levels[0].popleft()

    def ended(self, failure: Failure | None) -> None:
        """A compensation is over."""
        self._active -= 1
        if self.failure is None:
            self.failure = failure

    def stop(self) -> None:
        """Start no further one."""
        self._levels.clear()

    @property
    def over(self) -> bool:
        return not self._active and not any(self._levels)


def undos_of(plan: NodePlan, state: State, finished: Finished | None, loop: Loop | None) -> list[Undo]:
    """What is to be undone of a node: what it made, or, of one that failed, what the failure left to undo."""
    if plan.compensation is None:
        return []
    if loop is not None:
        return [
            Undo(plan, _input(child.state, child.compensate_input, child.output), index)
            for index, child in sorted(loop.children.items())
            if child.state in UNDOABLE
        ]
    if state not in UNDOABLE:
        return []
    if finished is None:
        return [Undo(plan, None)]
    return [Undo(plan, _input(state, finished.compensate_input, finished.output))]


def _input(state: State, given: Raw | None, output: Raw | None) -> Raw | None:
    return output if given is None and state is State.COMPLETE else given


def work_of(undo: Undo, facts: RunFacts, loop: Loop | None, failure: Failure) -> Work:
    """The compensation as work, with `compensation`, `error` and, in a `for_each`, its item in scope."""
    compensation = undo.plan.compensation
    assert compensation is not None
    scope = Scope(facts, undo.plan.single, {"error": error_value(failure)})
    if loop is not None:
        scope = scope.adding(item=loop.items[undo.index], index=undo.index)

    def given(_budget: Budget | None) -> Any:
        return None if undo.input is None else decode_json(undo.input)

    def reshaped(budget: Budget | None) -> Any:
        assert compensation.input is not None
        return compensation.input.render(scope.adding(compensation=Made("input", given)), budget)

    full = scope.adding(compensation=Made("input", given if compensation.input is None else reshaped))
    key = compensation.key if undo.index <= 0 else StepKey(StepKind.ROLLBACK, undo.plan.node.id, undo.index + 1)
    return Work(facts, undo.plan, compensation.body, full, key, undo.index, compensation)
