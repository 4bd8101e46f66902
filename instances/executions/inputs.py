"""What the nodes of an execution were given: their `config` as its templates came out when they started.

None of that is stored. It is found again as the run found it: from what had finished before, by the journal.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from instances.lifecycle import TriggerSource
from instances.projections.execution import Execution
from instances.projections.execution_steps import ExecutionStep
from instances.projections.steps import StepRun
from instances.runtimes.document.call_api import redact_headers
from instances.runtimes.document.plan import Action, NodePlan, Plan, compile_plan
from instances.runtimes.document.scope import Finished, RunFacts, Scope
from instances.runtimes.protocol import Failure, Raw, RunContext, StepFailure, StepKind, StoredVersion
from versions.document import Document
from versions.expressions import Budget, ExpressionError, encode_json
from versions.schemas import VersionRow

COST_MAX = 300_000
"""Expression nodes that all inputs of one answer may visit, which takes a moment; the others are not told."""
CHARACTERS_MAX = 16_384
"""Of one input; a longer one is not told."""


def inputs_of(execution: Execution, document: Document, version: VersionRow, wanted: Collection[int]) -> dict[int, Raw]:
    """What the runs of nodes that began with the entries `wanted` were given, as JSON text, by these entries.

    Nodes that need nothing are left out. CPU-bound, though bounded: for a thread.
    """
    return _Replay(execution, compile_plan(document), _stored(version), wanted).told()


class _Replay:
    """Goes through an execution from its begin, as far as expressions can see it."""

    def __init__(self, execution: Execution, plan: Plan, version: StoredVersion, wanted: Collection[int]) -> None:
        self._execution = execution
        self._plan = plan
        self._wanted = wanted
        self._facts = RunFacts(plan, _context(execution, version), version)
        self._facts.started_at = execution.facts.started_at or self._facts.started_at
        self._scopes: dict[int, Scope] = {}
        """Of nodes that run once per item: as it was before the first."""
        self._items: dict[int, Any] = {}
        self._cost = 0
        self._told: dict[int, Raw] = {}

    def told(self) -> dict[int, Raw]:
        moments: list[tuple[int, Callable[[], None]]] = []
        for run in self._execution.history.steps.values():
            if run.family is not StepKind.ROLLBACK and run.name in self._plan.by_name:
                moments.append((run.start_seq, lambda run=run: self._began(run)))
        for step in self._execution.finished:
            moments.append((step.invoke.end_seq or 0, lambda step=step: self._ended(step)))
        for step in self._execution.steps:
            if not step.counts and step.invoke.end_seq is not None:
                moments.append((step.invoke.end_seq, lambda step=step: self._ended(step)))
        for _, act in sorted(moments, key=lambda moment: moment[0]):
            if self._cost > COST_MAX:
                break
            try:
                act()
            except (ExpressionError, StepFailure):
                continue  # so it came out in the run, too
        return self._told

    def _began(self, run: StepRun) -> None:
        node = self._plan.nodes[self._plan.by_name[run.name]]
        if node.for_each is None and run.start_seq not in self._wanted:
            return
        scope = self._scope(node, run)
        if run.start_seq in self._wanted and run.items != 0:
            config = self._paying(lambda budget: node.body.config.render(scope, budget))
            if node.body.action is Action.CALL and isinstance(config.get("headers"), dict):
                config = {**config, "headers": redact_headers(config["headers"])}
            text = encode_json(config) if config else ""
            if 0 < len(text) <= CHARACTERS_MAX:
                self._told[run.start_seq] = text

    def _scope(self, node: NodePlan, run: StepRun) -> Scope:
        if node.for_each is None or run.items == 0:
            return Scope(self._facts, node.single)
        if node.index not in self._scopes:
            scope = self._scopes[node.index] = Scope(self._facts, node.single)
            each = node.for_each
            self._items[node.index] = self._paying(lambda budget: each.render(scope, budget))
        index, items = run.count - 1, self._items.get(node.index)
        item = items[index] if isinstance(items, list) and index < len(items) else None
        return self._scopes[node.index].adding(item=item, index=index)

    def _paying(self, render: Callable[[Budget], Any]) -> Any:
        budget = Budget()
        try:
            return render(budget)
        finally:
            self._cost += budget.cost

    def _ended(self, step: ExecutionStep) -> None:
        node, phase = self._plan.nodes[step.position], step.invoke
        assert phase.ended_at is not None
        if node.body.action is Action.SET and phase.output is not None and node.for_each is None:
            self._set(node, phase.output)
        error = phase.error
        failure = None if error is None else Failure(error.name, error.message, phase.error_code)
        began = phase.started_at or phase.ended_at
        self._facts.add(
            Finished(node, 0, step.state.value, phase.output, failure, phase.attempts, began, phase.ended_at)
        )

    def _set(self, node: NodePlan, output: Raw) -> None:
        """The variables a node made: its output, unless that is something its `outputs` made of them."""
        if node.outputs is None:
            self._facts.set_vars(output)
            return
        values = self._paying(lambda budget: node.body.config.render(Scope(self._facts, node.single), budget))
        self._facts.set_vars(encode_json(values.get("values") or {}))


def _stored(row: VersionRow) -> StoredVersion:
    names = (field.name for field in dataclasses.fields(StoredVersion))
    return StoredVersion(**{name: getattr(row, name) for name in names})


def _context(execution: Execution, version: StoredVersion) -> RunContext:
    facts = execution.facts
    trigger: dict[str, Any] = {"source": TriggerSource(facts.trigger_source).wire}
    if facts.trigger_detail:
        trigger.update(msgspec.json.decode(facts.trigger_detail))
    return RunContext(
        account_id=version.account_id,
        key=facts.key,
        instance_id=facts.instance_id,
        run=facts.run,
        workflow_key=facts.workflow_key,
        workflow=facts.handle,
        version_key=facts.version_key,
        input=facts.input,
        created_at=facts.created_at,
        trigger=trigger,
        triggered_by=facts.triggered_by,
        workspace_id=version.workspace_id,
    )
