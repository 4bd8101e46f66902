"""Retrying an execution from a step: what its repetition takes over, so that it does not run again.

Of a document: results of nodes that neither are the first step nor come after it. Of a script, whose steps depend on
each other in ways nobody knows: everything that started before the first step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from instances.errors import InvalidFirstStep, RolledBack
from instances.lifecycle import Kind
from instances.projections.entries import Entry, read_error
from instances.projections.fold import fold
from instances.projections.history import History
from instances.projections.steps import Outcome, StepRun
from instances.runtimes.protocol import StepKind
from versions.document.model import Document, Node

_RESULTS = frozenset({Outcome.COMPLETED, Outcome.SKIPPED})
_FAILURES = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Takeover:
    """What a retry begins with. `first`: the step it runs from, None: all over; `kept`: seqs of entries taken over."""

    first: str | None
    kept: list[int]


def takeover(entries: Sequence[Entry], document: Document | None, first: str | None, error: str | None) -> Takeover:
    """What a retry of an instance takes over from its journal. `first` None: from the step that failed it, if one did.

    `document` None: it ran a script. `error` is what it ended with. Raises :class:`InvalidFirstStep` and
    :class:`RolledBack`.
    """
    history = fold(entries)
    chosen = _Documents(history, document) if document is not None else _Scripts(history, error)
    wanted = chosen.check(first) if first is not None else chosen.failed()
    if any(step.family is StepKind.ROLLBACK for step in history.steps.values()):
        if first is not None and not chosen.begins(wanted):
            raise RolledBack("the execution was compensated: it can only be retried from the start")
        wanted = None
    if wanted is None:
        return Takeover(None, [])
    kept = {(step.name, step.count): step for step in chosen.kept(wanted)}
    seqs = {seq for step in kept.values() for seq in (step.start_seq, step.end_seq) if seq is not None}
    for entry in entries:
        if entry.kind in (Kind.COMPENSATE_INPUT, Kind.STEP_RESULT):
            step = kept.get((entry.name or "", entry.count or 1))
            if step is not None and step.start_seq < entry.seq < (step.end_seq or 0):
                seqs.add(entry.seq)
    return Takeover(wanted, sorted(seqs))


class _Documents:
    """Which nodes keep their results."""

    def __init__(self, history: History, document: Document) -> None:
        self._document = document
        self._nodes = {node.id: node for node in document.nodes}
        self._required = {point.id: point.required for point in document.sync_points}
        self._steps: dict[str, list[StepRun]] = {}
        for step in history.steps.values():
            if step.family is not StepKind.ROLLBACK:
                self._steps.setdefault(step.name, []).append(step)

    def failed(self) -> str | None:
        for node in self._document.nodes:
            if node.on_error == "stop" and any(step.outcome in _FAILURES for step in self._steps.get(node.id, ())):
                return node.id
        return None

    def begins(self, first: str | None) -> bool:
        return first is None or not self._before(first)

    def check(self, first: str) -> str:
        if first not in self._nodes:
            raise InvalidFirstStep(f'the workflow has no step "{first}"')
        ancestors, waiting = set[str](), [first]
        while waiting:
            for id in self._before(waiting.pop()):
                if id not in ancestors:
                    ancestors.add(id)
                    waiting.append(id)
        for node in self._document.nodes:
            if node.id in ancestors and not self._settled(node):
                raise InvalidFirstStep(f'the step "{node.id}", on which "{first}" depends, has no result')
        return first

    def kept(self, first: str) -> Iterator[StepRun]:
        keeps: set[str] = set()
        for id in self._document.order:
            if id == first or not all(before in keeps for before in self._before(id)):
                continue
            node = self._nodes.get(id)
            if node is None or self._settled(node):
                keeps.add(id)
            if node is not None and (id in keeps or node.for_each is not None):
                yield from (step for step in self._steps.get(id, ()) if _holds(node, step))

    def _before(self, id: str) -> Iterable[str]:
        node = self._nodes.get(id)
        if node is None:
            return self._required[id]
        return {*node.depends_on, *(gate.condition for gate in node.gates)}

    def _settled(self, node: Node) -> bool:
        steps = self._steps.get(node.id, ())
        return bool(steps) and all(_holds(node, step) for step in steps)


def _holds(node: Node, step: StepRun) -> bool:
    """Whether the run went on with what came of this step."""
    failed = step.outcome in _FAILURES and not step.given_up
    return step.outcome in _RESULTS or (failed and node.on_error != "stop")


class _Scripts:
    """Which steps keep their results."""

    def __init__(self, history: History, error: str | None) -> None:
        self._steps = [step for step in history.steps.values() if step.family is not StepKind.ROLLBACK]
        self._error = None if error is None else read_error(error)

    def failed(self) -> str | None:
        """The step whose error the script ended with, else the last one that failed."""
        failed = [step for step in self._steps if step.outcome in _FAILURES]
        decisive = [step for step in failed if step.error == self._error]
        last = max(failed, key=lambda step: step.end_seq or 0, default=None)
        return decisive[0].counted if decisive else None if last is None else last.counted

    def begins(self, first: str | None) -> bool:
        return first is None or not any(True for _ in self.kept(first))

    def check(self, first: str) -> str:
        """A step may be named with its count, or without: the first of that name."""
        for spelled in (first, f"{first}-1"):
            if any(step.counted == spelled for step in self._steps):
                return spelled
        raise InvalidFirstStep(f'the execution has no step "{first}"')

    def kept(self, first: str) -> Iterator[StepRun]:
        start = next(step.start_seq for step in self._steps if step.counted == first)
        ended = _RESULTS | _FAILURES
        return (step for step in self._steps if step.start_seq < start and step.outcome in ended)
