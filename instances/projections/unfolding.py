"""The steps of an execution, entry by entry: what an entry is about is worked out anew, everything else stays.

What comes out is what `projections.execution_tree` makes of all entries at once. That costs as much as the instance
has steps, this as much as it has news; whoever tells of every entry of a long journal could not afford the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from instances.lifecycle import Kind
from instances.projections.entries import Entry
from instances.projections.execution_steps import ExecutionStep, Situation
from instances.projections.execution_tree import Naming, document_steps, script_steps
from instances.projections.fold import advance
from instances.projections.history import History
from instances.projections.step_course import fill_step
from instances.projections.steps import StepRun
from instances.runtimes.protocol import StepKey, StepKind
from instances.step_entries import LATER, STARTS
from versions.document import Document

_ABOUT = {**STARTS, **LATER, Kind.STEP_SKIPPED: StepKind.DO}
del _ABOUT[Kind.STEP_RETRIED]  # the instance goes on with it
"""Kinds that are about one step."""
_NO_STEP = frozenset(
    {
        Kind.EVENT_RECEIVED,
        Kind.MILESTONE,
        Kind.SYNC_POINT,
        Kind.TIMER_STARTED,
        Kind.TIMER_FIRED,
        Kind.LOG,
        Kind.NOTE,
    }
)
"""Kinds that are about none. All others may change every step."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """A step as it is now, and as it was when the news before these were taken in; None: there was none."""

    before: ExecutionStep | None
    now: ExecutionStep


class Unfolding:
    """Reads a journal from its beginning, or behind what `history` knows of it. Steps are replaced, never changed: who
    keeps one keeps it as it was.
    """

    def __init__(self, document: Document | None, history: History | None = None) -> None:
        self.history = history or History()
        self.document = document
        self.situation = Situation.FORWARD
        self.steps: list[ExecutionStep] = []
        self.ended = 0
        """Steps that count and have ended."""
        self.undoing = False
        """Whether any compensation has begun."""
        self.renewed_all = False
        """Whether the last entries may have changed every step."""
        self._counting = 0 if document is None else sum(node.type != "trigger" for node in document.nodes)
        self._runs: dict[str, dict[StepKey, StepRun]] = {}
        self._undone: dict[str, dict[StepKey, StepRun]] = {}
        """Of documents: runs by node."""
        self._places: dict[str | StepKey, int] = {}
        """Positions by node, or by the key of a script's step."""
        self._keys: list[StepKey] = []
        """Of scripts: keys by position."""
        self._naming = Naming()
        self._news: dict[int, None] = {}
        """Positions of steps that have news, in order."""
        self._everything = True

    @property
    def total(self) -> int:
        """Steps that count, of a script one more than there are until its end."""
        if self.document is None:
            return len(self.steps) + (not self.situation.over)
        return self._counting

    def heed(self, entry: Entry) -> None:
        """Take the next entry."""
        advance(self.history, entry)
        family = _ABOUT.get(entry.kind)
        if family is None:
            self._everything = self._everything or entry.kind not in _NO_STEP
            return
        key = StepKey(family, entry.name or "", entry.count or 1)
        run = self.history.steps.get(key)
        if run is None:
            return
        self.undoing = self.undoing or family is StepKind.ROLLBACK
        if not self._everything:
            self._note(run, begins=entry.kind in STARTS or entry.kind == Kind.STEP_SKIPPED)

    def settle(self, situation: Situation, *, hold_items: bool = False) -> list[Renewed]:
        """Bring the steps up to date with what was heeded; which have news.

        With `hold_items`, steps that run once per item stay as they are for now, unless the instance is over.
        """
        hold_items = hold_items and not situation.over
        self.renewed_all = self._everything or situation is not self.situation
        if self.renewed_all:
            self.situation = situation
            return self._renew_all(hold_items)
        renewed: list[Renewed] = []
        held: dict[int, None] = {}
        for place in self._news:
            before = self.steps[place]
            if hold_items and _per_item(before):
                held[place] = None
                continue
            self.steps[place] = now = self._renew(before)
            self.ended += _ended(now) - _ended(before)
            renewed.append(Renewed(before, now))
        self._news = held
        return renewed

    def _file(self, run: StepRun) -> None:
        runs = self._undone if run.family is StepKind.ROLLBACK else self._runs
        runs.setdefault(run.name, {})[run.key] = run

    def _note(self, run: StepRun, *, begins: bool) -> None:
        if self.document is not None:
            self._file(run)
            place = self._places.get(run.name)
        elif run.family is StepKind.ROLLBACK:
            place = self._places.get(StepKey(StepKind.DO, run.name, run.count))
        elif begins and run.key in self._places:  # once more, and now behind others
            self._everything = True
            return
        else:
            place = self._places.setdefault(run.key, len(self.steps))
            if place == len(self.steps):
                self._keys.append(run.key)
                self.steps.append(self._naming.step(run, place))
        if place is not None:
            self._news[place] = None

    def _renew(self, before: ExecutionStep) -> ExecutionStep:
        step = ExecutionStep(
            id=before.id,
            name=before.name,
            position=before.position,
            path=before.path,
            children=before.children,
            type=before.type,
            node=before.node,
            counts=before.counts,
            no_compensation=before.no_compensation,
        )
        if before.node is not None:
            runs, undone = (list(of.get(before.id, {}).values()) for of in (self._runs, self._undone))
        else:
            key = self._keys[before.position]
            back = self.history.steps.get(StepKey(StepKind.ROLLBACK, key.name, key.count))
            runs, undone = [self.history.steps[key]], [] if back is None else [back]
        fill_step(step, runs, undone, self.history, self.situation)
        return step

    def _renew_all(self, hold_items: bool) -> list[Renewed]:
        before = {step.id: step for step in self.steps}
        self._news, self._everything = {}, False
        self.undoing = any(key.kind is StepKind.ROLLBACK for key in self.history.steps)
        if self.document is not None:
            self._runs, self._undone = {}, {}
            for run in self.history.steps.values():
                self._file(run)
            self.steps = document_steps(self.document, self.history, self.situation)
            self._places = {step.id: step.position for step in self.steps}
        else:
            self._begin_script()
        if hold_items:
            for step in filter(_per_item, list(self.steps)):
                self.steps[step.position] = before.get(step.id, step)
                self._news[step.position] = None
        self.ended = sum(map(_ended, self.steps))
        return [Renewed(before.get(step.id), step) for step in self.steps if step.position not in self._news]

    def _begin_script(self) -> None:
        self.steps = script_steps(self.history, self.situation)
        runs = sorted(self.history.steps.values(), key=lambda run: run.start_seq)
        self._naming, self._keys, self._places = Naming(), [], {}
        for run in runs:
            if run.family is not StepKind.ROLLBACK:
                self._places[run.key] = place = len(self._keys)
                self._keys.append(run.key)
                self._naming.step(run, place)


def _per_item(step: ExecutionStep) -> bool:
    return step.node is not None and step.node.for_each is not None


def _ended(step: ExecutionStep) -> bool:
    return step.counts and step.state.ended
