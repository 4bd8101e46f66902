"""A document compiled for running: every template and condition parsed, every reference a number.

Made once per version and shared by all its runs. A *unit* is a node or a sync point; nodes come first, in document
order, sync points follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from instances.runtimes.protocol import Raw, Retry, StepKey, StepKind
from versions.document import Compensate, Document, Milestone, Node, Retries, SyncPoint
from versions.document.types import condition_of, node_type
from versions.expressions import Comparison, Condition, Template, compile_condition, compile_template


class Action(Enum):
    """How a node is carried out; several node types may share one way."""

    NOOP = "noop"
    TRIGGER = "trigger"
    SET = "set"
    FAIL = "fail"
    CONDITION = "condition"
    NOTIFICATION = "send_notification"
    TASK = "create_task"
    CALL = "call_api"
    SLEEP = "wait"
    SLEEP_UNTIL = "wait_until"
    EVENT = "wait_for_event"
    CHILD = "workflow"
    HANDLER = "handler"


_ACTIONS = {action.value: action for action in Action} | {"external": Action.NOOP}
_STEP_KINDS = {Action.SLEEP: StepKind.SLEEP, Action.SLEEP_UNTIL: StepKind.SLEEP, Action.EVENT: StepKind.WAIT}
_PURE = frozenset({Action.NOOP, Action.TRIGGER, Action.SET, Action.FAIL, Action.CONDITION})
_REPEATABLE = frozenset({Action.NOTIFICATION, Action.TASK})
"""Their rows have ids made from instance and node: a second attempt finds the row of the first."""
_KEPT = frozenset({Action.SET, Action.CONDITION})
"""The session needs the result of these when it replays."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a node, or its compensation, does."""

    action: Action
    type: str
    handler: str | None
    config: Template
    retry: Retry
    retry_when: Condition | None
    timeout: int | None
    """Of each attempt."""
    total_timeout: int | None
    external: bool
    start: Raw
    """Payload of the journal's start entry."""
    pure: bool
    """Computed in place, without I/O."""
    repeatable: bool
    """Doing it twice has the effect of once."""
    planned: bool
    """The command itself depends on the config, which is rendered in the turn."""


@dataclass(frozen=True, slots=True)
class CompensationPlan:
    body: Body
    input: Template | None
    key: StepKey


@dataclass(frozen=True, slots=True)
class GateCheck:
    """A condition node and the verdicts with which the gated node runs."""

    condition: int
    verdicts: frozenset[bool]


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node."""

    index: int
    node: Node
    body: Body
    key: StepKey
    step_kind: StepKind
    when: Condition | None
    gates: tuple[GateCheck, ...]
    outputs: Template | None
    save_output: bool
    keeps_result: bool
    """The session needs the result when it replays, and the output is something else, or not stored."""
    for_each: Template | None
    comparison: Comparison | None
    """Of a condition node that compares one field."""
    condition: Condition | None
    """Of any other condition node."""
    match: Condition | None
    on_false: str
    takes_slot: bool
    """Counts towards `max_parallel`: waiting nodes don't."""
    dependencies: tuple[int, ...]
    dependents: tuple[int, ...]
    single: int | None
    """The node it depends on when that is the only dependency."""
    stops: int
    """Nodes a condition skips when it stops the branch: all that come after it. A set of bits: there may be many."""
    jumps: int
    """Nodes left out when this one fails and skips to another, likewise."""
    milestones: tuple[int, ...]
    compensation: CompensationPlan | None

    @property
    def guarded(self) -> bool:
        return self.compensation is not None


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """One sync point; `required` are numbers of nodes."""

    index: int
    point: SyncPoint
    required: tuple[int, ...]
    dependents: tuple[int, ...]
    milestones: tuple[int, ...]
    timer: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole document."""

    document: Document
    nodes: tuple[NodePlan, ...]
    syncs: tuple[SyncPlan, ...]
    by_name: dict[str, int]
    """Node numbers by every spelling `steps.<id>` accepts."""
    milestones: tuple[Milestone, ...]
    milestone_needs: tuple[int, ...]
    """How many units each milestone waits for."""
    syncs_of: tuple[tuple[int, ...], ...]
    """For each node the sync points (units) that require it."""
    outputs: Template | None
    sinks: tuple[int, ...]


def compile_plan(document: Document) -> Plan:
    """Compile a stored document. Its expressions were checked when it was written."""
    return _Compiler(document).compile()


class _Compiler:
    def __init__(self, document: Document) -> None:
        self.document = document
        ids = [node.id for node in document.nodes] + [point.id for point in document.sync_points]
        self.number = {id: position for position, id in enumerate(ids)}
        self.milestones_of: dict[str, list[int]] = {}
        for position, milestone in enumerate(document.milestones):
            for id in milestone.after:
                self.milestones_of.setdefault(id, []).append(position)
        self.nodes = (1 << len(document.nodes)) - 1
        self.after = self._descendants() if any(map(_looks_ahead, document.nodes)) else {}

    def compile(self) -> Plan:
        document = self.document
        syncs_of: list[list[int]] = [[] for _ in document.nodes]
        for point in document.sync_points:
            for id in point.required:
                syncs_of[self.number[id]].append(self.number[point.id])
        return Plan(
            document=document,
            nodes=tuple(self._node(node) for node in document.nodes),
            syncs=tuple(self._sync(point) for point in document.sync_points),
            by_name=self._spellings(),
            milestones=document.milestones,
            milestone_needs=tuple(len(milestone.after) for milestone in document.milestones),
            syncs_of=tuple(tuple(found) for found in syncs_of),
            outputs=None if document.outputs is None else compile_template(document.outputs),
            sinks=self._numbers(document.sinks),
        )

    def _numbers(self, ids: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.number[id] for id in ids)

    def _spellings(self) -> dict[str, int]:
        """Ids, and ids with `_` for `-` where that is nobody else's."""
        spelled = {node.id: self.number[node.id] for node in self.document.nodes}
        aliases: dict[str, int | None] = {}
        for id, number in spelled.items():
            alias = id.replace("-", "_")
            if alias not in spelled:
                aliases[alias] = None if alias in aliases else number
        return spelled | {alias: number for alias, number in aliases.items() if number is not None}

    def _node(self, node: Node) -> NodePlan:
        body = self._body(node, node.retries, async_=node.async_)
        action = body.action
        step_kind = _STEP_KINDS.get(action, StepKind.DO)
        comparison, condition = _condition(node) if action is Action.CONDITION else (None, None)
        match = node.config.get("match") if action is Action.EVENT else None
        dependencies = self._numbers(node.depends_on)
        return NodePlan(
            index=self.number[node.id],
            node=node,
            body=body,
            key=StepKey(step_kind, node.id),
            step_kind=step_kind,
            when=None if node.when is None else compile_condition(node.when),
            gates=self._gates(node),
            outputs=None if node.outputs is None else compile_template(node.outputs),
            save_output=node.save_output,
            keeps_result=action in _KEPT and (node.outputs is not None or not node.save_output),
            for_each=None if node.for_each is None else compile_template(node.for_each),
            comparison=comparison,
            condition=condition,
            match=None if match is None else compile_condition(match),
            on_false=node.on_false,
            takes_slot=step_kind is StepKind.DO and not (body.external or body.pure or action is Action.CHILD),
            dependencies=dependencies,
            dependents=tuple(number for number in self._numbers(node.dependents) if number < len(self.document.nodes)),
            single=dependencies[0] if len(dependencies) == 1 and dependencies[0] < len(self.document.nodes) else None,
            stops=self.after[node.id] & self.nodes if action is Action.CONDITION else 0,
            jumps=0 if node.skip_to is None else self._between(node.id, node.skip_to),
            milestones=tuple(self.milestones_of.get(node.id, ())),
            compensation=None if node.compensate is None else self._compensation(node, node.compensate),
        )

    def _sync(self, point: SyncPoint) -> SyncPlan:
        return SyncPlan(
            index=self.number[point.id],
            point=point,
            required=self._numbers(point.required),
            dependents=self._numbers(point.dependents),
            milestones=tuple(self.milestones_of.get(point.id, ())),
            timer=f"sync:{point.id}",
        )

    def _gates(self, node: Node) -> tuple[GateCheck, ...]:
        verdicts: dict[str, set[bool]] = {}
        for gate in node.gates:
            verdicts.setdefault(gate.condition, set()).add(gate.verdict)
        return tuple(GateCheck(self.number[id], frozenset(allowed)) for id, allowed in verdicts.items())

    def _compensation(self, node: Node, compensate: Compensate) -> CompensationPlan:
        return CompensationPlan(
            body=self._body(compensate, compensate.retries, async_=compensate.async_),
            input=None if compensate.input is None else compile_template(compensate.input),
            key=StepKey(StepKind.ROLLBACK, node.id),
        )

    def _body(self, part: Node | Compensate, retries: Retries, *, async_: bool) -> Body:
        action = _ACTIONS.get(part.type, Action.HANDLER)
        repeated = isinstance(part, Node) and part.for_each is not None
        child = action is Action.CHILD
        # Nothing of ours runs while a child does: the timeout of an attempt is one more limit of the whole step.
        limits = [part.timeout if child else None, part.total_timeout if isinstance(part, Node) else None]
        return Body(
            action=action,
            type=part.type,
            handler=part.handler,
            config=compile_template(node_type(part.type).templates_of(part.config, repeated=repeated)),
            retry=_retry(retries),
            retry_when=None if retries.when is None else compile_condition(retries.when),
            timeout=None if child else part.timeout,
            total_timeout=min((limit for limit in limits if limit is not None), default=None),
            external=async_,
            start=_start_payload(part, retries),
            pure=action in _PURE,
            repeatable=action in _REPEATABLE,
            planned=action in _STEP_KINDS or child,
        )

    def _descendants(self) -> dict[str, int]:
        """All units that depend on each, directly or not, as bit sets over their numbers."""
        dependents = {unit.id: unit.dependents for unit in (*self.document.nodes, *self.document.sync_points)}
        found: dict[str, int] = {}
        for id in reversed(self.document.order):
            found[id] = 0
            for dependent in dependents[id]:
                found[id] |= found[dependent] | 1 << self.number[dependent]
        return found

    def _between(self, id: str, target: str) -> int:
        return self.after[id] & ~(self.after[target] | 1 << self.number[target]) & self.nodes


def _looks_ahead(node: Node) -> bool:
    return node.type == Action.CONDITION.value or node.skip_to is not None


def _condition(node: Node) -> tuple[Comparison | None, Condition | None]:
    condition = condition_of(node.config)
    if "field" in condition:
        return Comparison(condition["field"], condition.get("operator"), condition.get("value")), None
    return None, compile_condition(condition)


def _retry(retries: Retries) -> Retry:
    return Retry(retries.limit, retries.delay, retries.backoff, retries.multiplier, retries.max_delay, retries.jitter)


def _start_payload(part: Node | Compensate, retries: Retries) -> Raw:
    """`{type}`, and `config` with retries and timeout when the node has any."""
    payload: dict[str, Any] = {"type": part.type}
    if retries.limit or part.timeout is not None:
        shown = {"limit": retries.limit, "delay": retries.delay, "backoff": retries.backoff}
        payload["config"] = {"retries": shown} if part.timeout is None else {"retries": shown, "timeout": part.timeout}
    return msgspec.json.encode(payload).decode()
