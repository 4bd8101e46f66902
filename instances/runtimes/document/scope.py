"""What expressions of a run can see. Nothing is decoded before an expression asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from instances.runtimes.document.failures import LIMIT_EXCEEDED, rule
from instances.runtimes.protocol import Failure, Raw, StepFailure
from tenants.clock import iso
from tenants.limits import OUTPUTS_CHARACTERS, VARIABLES_CHARACTERS
from versions.expressions import Budget, Lazy, decode_json

if TYPE_CHECKING:
    from instances.runtimes.document.plan import NodePlan, Plan
    from instances.runtimes.protocol import RunContext, StoredVersion

CACHE_CHARACTERS = 8 << 20
"""Decoded values kept per run, by the length of their text."""

_RESULTS = {"complete": "success", "skipped": "skipped", "skipped_failure": "skipped"}
_UNREAD: Any = object()


@dataclass(slots=True)
class Finished:
    """A node that ended, in whatever way. `order` is its place among the finished; -1 for a trigger."""

    plan: NodePlan
    order: int
    status: str
    output: Raw | None
    failure: Failure | None
    attempts: int
    started_at: datetime
    completed_at: datetime
    compensate_input: Raw | None = None
    value: Any = _UNREAD
    result: dict[str, Any] | None = None

    def error(self, budget: Budget | None) -> dict[str, Any] | None:
        return None if self.failure is None else error_value(self.failure, budget)


def error_value(failure: Failure, budget: Budget | None = None) -> dict[str, Any]:
    """A failure as expressions see it. `output` is what a failed action still produced."""
    value: dict[str, Any] = {"name": failure.name, "message": failure.message, "code": failure.code}
    if failure.output is not None:
        if budget is not None:
            budget.decode(failure, len(failure.output))
        value["output"] = decode_json(failure.output)
    return value


class RunFacts:
    """What a run has come to know: its input, its variables, its finished nodes. Grows, is never changed back."""

    def __init__(self, plan: Plan, run: RunContext, version: StoredVersion) -> None:
        self.plan = plan
        self.run = run
        self.version = version
        self.started_at: datetime = run.created_at
        self.finished: list[Finished] = []
        self.by_node: dict[int, Finished] = {}
        self.verdicts: dict[int, bool] = {}
        """What condition nodes came to, by node."""
        overrides = run.trigger.get("variables")
        self.vars: dict[str, Any] = {**plan.document.vars, **(overrides if isinstance(overrides, dict) else {})}
        self.dry_run = run.trigger.get("dryRun") is True
        self._held = self._set = 0
        self._input: Any = _UNREAD
        self._cached = 0
        self._decoded: list[Finished] = []

    def add(self, finished: Finished) -> None:
        """A node ended. Triggers have no place among the finished."""
        if finished.plan.body.action.value == "trigger":
            finished.order = -1
        else:
            finished.order = len(self.finished)
            self.finished.append(finished)
        self.by_node[finished.plan.index] = finished

    def set_vars(self, text: Raw) -> None:
        """A `set` node made these values. Raises StepFailure beyond what all of them may make together."""
        self._set += len(text)
        if self._set > VARIABLES_CHARACTERS:
            message = f"the set nodes of the instance make more than {VARIABLES_CHARACTERS} characters"
            raise StepFailure(rule(LIMIT_EXCEEDED, message))
        self.vars = {**self.vars, **decode_json(text)}

    def hold(self, text: Raw) -> None:
        """An output will be kept in memory. Raises StepFailure when there are too many."""
        self._held += len(text)
        if self._held > OUTPUTS_CHARACTERS:
            self._held -= len(text)
            message = f"the outputs of the instance have more than {OUTPUTS_CHARACTERS} characters"
            raise StepFailure(rule(LIMIT_EXCEEDED, message))

    def input(self, budget: Budget | None) -> Any:
        text = self.run.input
        if text is None:
            return None
        if budget is not None:
            budget.decode("input", len(text))
        if self._input is _UNREAD:
            self._input = decode_json(text)
        return self._input

    def output(self, finished: Finished, budget: Budget | None) -> Any:
        """The decoded output of a node; kept while there is room."""
        text = finished.output
        if text is None:
            return None
        if budget is not None:
            budget.decode(finished.plan.index, len(text))
        if finished.value is _UNREAD:
            value = decode_json(text)
            self._cached += len(text)
            if self._cached > CACHE_CHARACTERS:
                for other in self._decoded:
                    other.value, other.result = _UNREAD, None
                self._decoded.clear()
                self._cached = len(text)
            finished.value = value
            self._decoded.append(finished)
        return finished.value

    def result(self, finished: Finished, budget: Budget | None) -> dict[str, Any]:
        """A finished node as an entry of `previousStepResults`."""
        if finished.result is None:
            milliseconds = (finished.completed_at - finished.started_at).total_seconds() * 1000
            output = self.output(finished, budget)
            finished.result = {
                "actionId": finished.plan.node.id,
                "actionType": finished.plan.node.type,
                "status": _RESULTS.get(finished.status, "failed"),
                "output": output,
                "error": None if finished.failure is None else finished.failure.message,
                "startedAt": iso(finished.started_at),
                "completedAt": iso(finished.completed_at),
                "durationMs": round(milliseconds),
                "attempts": finished.attempts,
            }
        return finished.result

    def workflow(self) -> dict[str, Any]:
        # The document's own name: that of the workflow may have changed since, and a replay must see what was seen.
        return {"id": str(self.version.workflow_key), "name": self.plan.document.name, "version": self.version.no}

    def execution(self) -> dict[str, Any]:
        run = self.run
        at = run.trigger.get("scheduledTime")
        return {
            "id": run.instance_id,
            "startedAt": iso(self.started_at),
            "triggeredBy": run.triggered_by,
            "schedule": None if at is None else {"cron": run.trigger.get("cron"), "scheduledTime": at},
        }

    def context(self) -> dict[str, Any]:
        run = self.run
        return {
            "workspaceId": str(run.workspace_id),
            "workflowId": str(self.version.workflow_key),
            "executionId": run.instance_id,
            "userId": run.triggered_by,
        }


class Scope(Lazy):
    """The root object of one node's expressions, as the run stood when the node started.

    `extras` are the names only this evaluation has: item and index, result, error, compensation, payload.
    """

    __slots__ = ("extras", "facts", "limit", "single", "vars")

    def __init__(self, facts: RunFacts, single: int | None = None, extras: dict[str, Any] | None = None) -> None:
        self.facts = facts
        self.limit = len(facts.finished)
        self.single = single
        self.vars = facts.vars
        self.extras: dict[str, Any] = extras or {}

    def adding(self, **extras: Any) -> Scope:
        """The same moment with more names."""
        scope = Scope.__new__(Scope)
        scope.facts, scope.limit, scope.single, scope.vars = self.facts, self.limit, self.single, self.vars
        scope.extras = {**self.extras, **extras}
        return scope

    def field(self, name: str, budget: Budget | None) -> Any:
        if name in self.extras:
            return self.extras[name]
        member = _MEMBERS.get(name)
        if member is not None:
            return member(self, budget)
        if self.facts.plan.document.flat_input:
            given = self.facts.input(budget)
            return given.get(name) if type(given) is dict else None
        return None

    def whole(self, budget: Budget | None) -> dict[str, Any]:
        given = self.facts.input(budget) if self.facts.plan.document.flat_input else None
        names = {**(given if type(given) is dict else {}), **dict.fromkeys(_SHOWN), **self.extras}
        return {name: _solid(self.field(name, budget), budget) for name in names}

    def seen(self, node: int) -> Finished | None:
        """The node, if it had finished by then."""
        finished = self.facts.by_node.get(node)
        return finished if finished is not None and finished.order < self.limit else None

    def results(self, budget: Budget | None) -> list[dict[str, Any]]:
        """`previousStepResults`."""
        if budget is not None:
            budget.make(self.limit)
        return [self.facts.result(finished, budget) for finished in self.facts.finished[: self.limit]]

    def previous(self, budget: Budget | None) -> Any:
        """Output of the only dependency, or of the node that finished last."""
        finished = None if self.single is None else self.seen(self.single)
        if finished is None and self.limit:
            finished = self.facts.finished[self.limit - 1]
        return None if finished is None else self.facts.output(finished, budget)


class _Steps(Lazy):
    """`steps`: finished nodes by id."""

    __slots__ = ("scope",)

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def field(self, name: str, budget: Budget | None) -> Any:
        number = self.scope.facts.plan.by_name.get(name)
        finished = None if number is None else self.scope.seen(number)
        return None if finished is None else _Step(self.scope.facts, finished)

    def whole(self, budget: Budget | None) -> dict[str, Any]:
        facts = self.scope.facts
        seen = [finished for number in range(len(facts.plan.nodes)) if (finished := self.scope.seen(number))]
        if budget is not None:
            budget.make(len(seen))
        return {finished.plan.node.id: _Step(facts, finished).whole(budget) for finished in seen}


class _Step(Lazy):
    """`steps.<id>`."""

    __slots__ = ("facts", "finished")

    def __init__(self, facts: RunFacts, finished: Finished) -> None:
        self.facts = facts
        self.finished = finished

    def field(self, name: str, budget: Budget | None) -> Any:
        finished = self.finished
        match name:
            case "output":
                return self.facts.output(finished, budget)
            case "status":
                return finished.status
            case "error":
                return finished.error(budget)
            case "attempts":
                return finished.attempts
            case "startedAt":
                return iso(finished.started_at)
            case "completedAt":
                return iso(finished.completed_at)
        return None

    def whole(self, budget: Budget | None) -> dict[str, Any]:
        names = ("output", "status", "error", "attempts", "startedAt", "completedAt")
        return {name: self.field(name, budget) for name in names}


class _StepByNumber(Lazy):
    """`step.<index>`: output of the index-th finished node, from 0."""

    __slots__ = ("scope",)

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def field(self, name: str, budget: Budget | None) -> Any:
        if not (name.isascii() and name.isdigit()) or len(name) > 9 or int(name) >= self.scope.limit:
            return None
        return self.scope.facts.output(self.scope.facts.finished[int(name)], budget)

    def whole(self, budget: Budget | None) -> dict[str, Any]:
        return {str(number): self.field(str(number), budget) for number in range(self.scope.limit)}


class Made(Lazy):
    """An object of one member that is made on demand (`compensation.input`)."""

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[[Budget | None], Any]) -> None:
        self.name = name
        self.make = make

    def field(self, name: str, budget: Budget | None) -> Any:
        return self.make(budget) if name == self.name else None

    def whole(self, budget: Budget | None) -> dict[str, Any]:
        return {self.name: self.make(budget)}


def _solid(value: Any, budget: Budget | None) -> Any:
    return value.whole(budget) if isinstance(value, Lazy) else value


_MEMBERS: dict[str, Callable[[Scope, Budget | None], Any]] = {
    "trigger": lambda scope, budget: scope.facts.input(budget),
    "input": lambda scope, budget: scope.facts.input(budget),
    "steps": lambda scope, _budget: _Steps(scope),
    "step": lambda scope, _budget: _StepByNumber(scope),
    "previous": lambda scope, budget: scope.previous(budget),
    "previousStepResults": lambda scope, budget: scope.results(budget),
    "vars": lambda scope, _budget: scope.vars,
    "workflow": lambda scope, _budget: scope.facts.workflow(),
    "execution": lambda scope, _budget: scope.facts.execution(),
    "context": lambda scope, _budget: scope.facts.context(),
}
_SHOWN = tuple(name for name in _MEMBERS if name not in ("input", "step"))


class PayloadScope(Lazy):
    """What a `match` condition sees: `payload` (and its members, where no other name hides them) and the run."""

    __slots__ = ("payload", "scope")

    def __init__(self, scope: Scope, payload: Raw | None) -> None:
        self.scope = scope
        self.payload = None if payload is None else decode_json(payload)

    def field(self, name: str, budget: Budget | None) -> Any:
        if name == "payload":
            return self.payload
        if name in _MEMBERS or name in self.scope.extras:
            return self.scope.field(name, budget)
        if type(self.payload) is dict and name in self.payload:
            return self.payload[name]
        return self.scope.field(name, budget)

    def whole(self, budget: Budget | None) -> dict[str, Any]:
        members = self.payload if type(self.payload) is dict else {}
        return {**members, **self.scope.whole(budget), "payload": self.payload}
