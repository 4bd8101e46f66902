"""Which steps an execution has, and their places: documents list all their nodes from the beginning, scripts the steps
seen so far, in the order of their first start.
"""

from __future__ import annotations

from msgspec.structs import replace

from instances.projections.execution_steps import ExecutionStep, Situation
from instances.projections.history import History
from instances.projections.step_course import fill_step
from instances.projections.steps import StepRun, shown_as
from instances.runtimes.protocol import StepKey, StepKind
from versions.document import Document, Node
from versions.document.remembered import PerDocument


def document_steps(document: Document, history: History, situation: Situation) -> list[ExecutionStep]:
    """A step for every node, in document order."""
    runs: dict[str, list[StepRun]] = {}
    undone: dict[str, list[StepRun]] = {}
    for run in history.steps.values():
        (undone if run.family is StepKind.ROLLBACK else runs).setdefault(run.name, []).append(run)
    steps = [replace(step) for step in _unbegun(document)]
    for step in steps:
        fill_step(step, runs.get(step.id, ()), undone.get(step.id, ()), history, situation)
    return steps


@PerDocument
def _unbegun(document: Document) -> list[ExecutionStep]:
    """The steps before anything happened: what is the same in all instances."""
    by_id = {node.id: node for node in document.nodes}
    children: dict[str | None, list[int]] = {}
    for place, node in enumerate(document.nodes):
        children.setdefault(node.parent, []).append(place)
    return [
        ExecutionStep(
            id=node.id,
            name=node.name,
            position=place,
            path=_path(node, by_id),
            children=tuple(children.get(node.id, ())),
            type=node.type,
            node=node,
            counts=node.type != "trigger",
            no_compensation=node.compensate is None,
        )
        for place, node in enumerate(document.nodes)
    ]


def script_steps(history: History, situation: Situation) -> list[ExecutionStep]:
    """A step for everything a script has begun. All hang from the root."""
    steps: list[ExecutionStep] = []
    naming = Naming()
    for run in sorted(history.steps.values(), key=lambda run: run.start_seq):
        if run.family is StepKind.ROLLBACK:
            continue
        step = naming.step(run, len(steps))
        undone = history.steps.get(StepKey(StepKind.ROLLBACK, run.name, run.count))
        fill_step(step, [run], [undone] if undone else [], history, situation)
        steps.append(step)
    return steps


class Naming:
    """Gives the steps of a script, in their order, ids and names in the tree of which there is one each."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._names: set[str] = set()

    def step(self, run: StepRun, position: int) -> ExecutionStep:
        """The step of a run; it knows only its place."""
        id, names = _unused(f"{run.name}-{{}}", run.count, self._ids), self._names
        plain = run.name.replace(".", "_").replace(":", "_")
        name = plain if run.count == 1 and plain not in names else _unused(f"{plain}-{{}}", max(run.count, 2), names)
        names.add(name)
        return ExecutionStep(id=id, name=run.name, position=position, path=(name,), type=shown_as(run))


def _unused(form: str, number: int, used: set[str]) -> str:
    while form.format(number) in used:
        number += 1
    used.add(form.format(number))
    return form.format(number)


def _path(node: Node, by_id: dict[str, Node]) -> tuple[str, ...]:
    if node.parent is None:
        return (node.id,)
    names = [node.id]
    while node.parent is not None:
        node = by_id[node.parent]
        names.append(node.id)
    return tuple(reversed(names))
