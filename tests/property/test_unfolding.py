"""Steps that are kept up to date entry by entry are those that all entries make at once; events told of them, too."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import example, given, settings
from hypothesis import strategies as st

from instances.lifecycle import Kind, Status
from instances.projections.entries import Entry
from instances.projections.execution import BlockedBy, Blocker
from instances.projections.execution_steps import ExecutionStep, Situation
from instances.projections.execution_tree import document_steps, script_steps
from instances.projections.fold import fold
from instances.projections.history import History
from instances.projections.instance_view import InstanceFacts
from instances.projections.unfolding import Unfolding
from instances.runtimes.protocol import StepKey, StepKind
from instances.search.query import Facet
from instances.search.store import Row
from jobs.webhooks.catalogue import wanted
from jobs.webhooks.changes import Changes
from tests.property.test_folds_agree import ERROR, Writer
from tests.support.journal import CONFIG
from versions.document import Document, parse_document

NODES = [
    {"id": "a", "type": "noop", "for_each": "{{ input.items }}", "compensate": {"type": "noop"}},
    {"id": "b", "type": "external", "compensate": {"type": "noop"}},
    {"id": "c", "type": "noop", "depends_on": ["b"]},
]
DOCUMENT = parse_document(
    {"spec": "workflow/1", "name": "d", "nodes": NODES, "milestones": [{"id": "m", "name": "M", "after": ["b"]}]}
)
KEY = UUID(int=7)
WHEN = datetime(2026, 10, 1, tzinfo=UTC)
ROW = Row(
    InstanceFacts(
        key=KEY,
        instance_id="i",
        workflow_key=KEY,
        handle="w",
        version_key=KEY,
        no=1,
        run=1,
        status=Status.RUNNING,
        created_at=WHEN,
        modified_at=WHEN,
    ),
    Facet.RUNNING,
    "w",
    None,
    1,
    last_seq=1,
)


class Life(Writer):
    """A journal of an instance that may also roll back, end, and begin again."""

    def write(self, moves: int) -> Any:
        choices = [
            self.start,
            self.end,
            self.retry,
            self.pause,
            self.skip,
            self.milestone,
            self.restart,
            self.reopen,
            self.finish,
        ]
        for _ in range(moves):
            self.dice.choices(choices, weights=(8, 7, 3, 1, 1, 1, 1, 1, 1))[0]()
        return self.journal

    def skip(self) -> None:
        key = StepKey(StepKind.DO, "c", 1)
        if not self.paused and key not in self.open and key not in self.ended:
            self.ended[key] = self.add(Kind.STEP_SKIPPED, "c", {"reason": "condition"})

    def milestone(self) -> None:
        self.add(Kind.MILESTONE, "m")

    def finish(self) -> None:
        """It ends, perhaps after it has undone something; then it is restarted."""
        if self.dice.random() < 0.5:
            self.add(Kind.ROLLBACK_STARTED, payload=ERROR)
            for key in [key for key in self.ended if key.kind is StepKind.DO and key.name != "c"][:2]:
                self.add(Kind.ROLLBACK_STEP_STARTED, key.name, {"config": CONFIG}, count=key.count, attempt=1)
                self.add(Kind.ROLLBACK_STEP_COMPLETED, key.name, 1, count=key.count, attempt=1)
            self.add(Kind.ROLLBACK_ENDED, payload={"outcome": "complete"})
        self.add(self.dice.choice((Kind.COMPLETED, Kind.ERRORED, Kind.TERMINATED)), payload=ERROR)
        self.restart()


def situation(history: History) -> Situation:
    if history.end is not None:
        return Situation.TERMINATED if history.end.kind is Kind.TERMINATED else Situation.ERRORED
    return Situation.FORWARD if history.rollback is None else Situation.COMPENSATING


def at_once(document: Document | None, entries: list[Entry]) -> list[ExecutionStep]:
    history = fold(entries)
    if document is None:
        return script_steps(history, situation(history))
    return document_steps(document, history, situation(history))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 50), st.sampled_from([DOCUMENT, None]))
def test_steps_are_those_of_all_entries_at_once(seed: int, moves: int, document: Document | None) -> None:
    entries, dice, unfolding = Life(seed).write(moves).entries, random.Random(seed), Unfolding(document)
    before: dict[str, ExecutionStep] = {}
    for place, entry in enumerate(entries, 1):
        unfolding.heed(entry)
        if dice.random() < 0.5 and place < len(entries):
            continue
        renewed = unfolding.settle(situation(unfolding.history))
        expected = at_once(document, entries[:place])
        assert unfolding.steps == expected
        assert unfolding.ended == sum(step.counts and step.state.ended for step in expected)
        assert unfolding.undoing == any(key.kind is StepKind.ROLLBACK for key in unfolding.history.steps)
        assert {step.id for step in expected if before.get(step.id) != step} <= {one.now.id for one in renewed}
        before = {step.id: step for step in expected}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 50), st.sampled_from([DOCUMENT, None]))
@example(164810, 23, DOCUMENT)  # ends what waits outside and what failed later, at once
def test_what_is_remembered_changes_no_event(seed: int, moves: int, document: Document | None) -> None:
    """Commit after commit by somebody who remembers, and by somebody who reads everything again each time."""
    entries, dice = Life(seed).write(moves).entries, random.Random(seed)
    remembered, asked = Changes(ROW, document), wanted(["*"]).__contains__
    first = 1
    while first <= len(entries):
        last = min(len(entries), first + dice.randrange(4))
        told = range(first, last + 1).__contains__
        heard = dice.random() < 0.8  # else by another process
        fresh = _events(Changes(ROW, document), entries, asked, told, last)
        if heard:
            assert _events(remembered, entries[remembered.read :], asked, told, last) == fresh
        first = last + 1


def _events(changes: Changes, entries: list[Entry], asked: Any, told: Any, last: int) -> list[Any]:
    return [
        (one.event, one.seq, one.mark, _placeless(one.subject), one.shown.row.facts, list(one.shown.execution.steps))
        for one in changes.of(ROW, entries, asked, told, last)
    ]


def _placeless(subject: Any) -> Any:
    """A pause concerns the step that would begin next, which changes."""
    pause = isinstance(subject, Blocker) and subject.kind is BlockedBy.PAUSE
    return replace(subject, position=None) if pause else subject


def test_a_long_journal_is_told_of_step_by_step(monkeypatch: Any) -> None:
    """What telling of a step costs does not depend on how many there are."""
    from instances.projections import unfolding

    filled: list[str] = []
    real = unfolding.fill_step

    def counting(step: ExecutionStep, *rest: Any) -> None:
        filled.append(step.id)
        real(step, *rest)

    monkeypatch.setattr(unfolding, "fill_step", counting)
    life = Life(1)
    for number in range(500):
        life.journal.step(f"s{number}", 1)
    nodes = [{"id": f"s{number}", "type": "noop"} for number in range(500)]
    for document in (None, parse_document({"spec": "workflow/1", "name": "d", "nodes": nodes})):
        filled.clear()
        changes, entries = Changes(ROW, document), life.journal.entries
        told = [*changes.of(ROW, entries, wanted(["*"]).__contains__, lambda _seq: True, len(entries))]
        assert [one.event for one in told].count("task.execution.completed") == 500
        assert len(filled) == 1000
