"""Which nodes may start: the state of every node, and what each still waits for.

No event walks the graph; a node that ended tells its dependents, and each counts down.
"""

from __future__ import annotations

from enum import Enum

from instances.runtimes.document.plan import NodePlan, Plan
from instances.runtimes.document.states import State

_WAITING = (State.PENDING, State.READY)


class Verdict(Enum):
    """What the end of a dependency means for a node."""

    NOTHING = "nothing"
    READY = "ready"
    DOOMED = "doomed"
    """Its dependencies can no longer be met."""


class Graph:
    """States of one run's nodes."""

    def __init__(self, plan: Plan) -> None:
        self._nodes = plan.nodes
        self._states = [State.PENDING] * len(plan.nodes)
        self._unmet = [len(node.dependencies) for node in plan.nodes]
        self.open = len(plan.nodes)
        """Nodes that have not ended."""

    def state(self, node: NodePlan) -> State:
        return self._states[node.index]

    def set(self, node: NodePlan, state: State) -> None:
        """Note a new state; every one from COMPLETE on is an end."""
        if state >= State.COMPLETE > self._states[node.index]:
            self.open -= 1
        self._states[node.index] = state

    def not_started(self, node: NodePlan) -> bool:
        return self._states[node.index] in _WAITING

    def heard(self, node: NodePlan, passes: bool) -> Verdict:
        """A dependency of `node` ended; `passes`: dependents may go on after it."""
        index = node.index
        if self._states[index] is not State.PENDING:
            return Verdict.NOTHING
        join = node.node.join
        if join == "any" and passes:
            return Verdict.READY
        if join == "all" and not passes:
            return Verdict.DOOMED
        self._unmet[index] -= 1
        if self._unmet[index]:
            return Verdict.NOTHING
        return Verdict.DOOMED if join == "any" else Verdict.READY
