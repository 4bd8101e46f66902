"""What callers are shown and what a run is replayed from are two folds over one journal: they must not disagree."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from instances.engine.runs import recorded
from instances.lifecycle import Kind
from instances.projections.fold import fold
from instances.projections.history import History
from instances.projections.restarts import living
from instances.projections.steps import State
from instances.runtimes.protocol import Broken, Done, StepKey, StepKind
from tests.support.journal import CONFIG, Journal

STARTS = {StepKind.DO: Kind.STEP_STARTED, StepKind.SLEEP: Kind.SLEEP_STARTED, StepKind.WAIT: Kind.WAIT_STARTED}
ERROR = {"name": "Error", "message": "no"}


class Writer:
    """Writes a journal as the engine may: random, but never out of order."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.journal = Journal().begin()
        self.open: dict[StepKey, int] = {}
        self.ended: dict[StepKey, int] = {}
        self.paused = False

    def write(self, moves: int) -> Journal:
        for _ in range(moves):
            choices = (self.start, self.end, self.retry, self.pause, self.restart, self.reopen)
            self.dice.choices(choices, weights=(5, 4, 3, 2, 1, 2))[0]()
        return self.journal

    def add(self, kind: Kind, *args, **options) -> int:
        return self.journal.add(kind, *args, after=self.dice.random() * 10, **options)

    def start(self) -> None:
        if self.paused:
            return
        family, name = self.dice.choice(list(STARTS)), self.dice.choice("ab")
        used = [key.count for key in (*self.open, *self.ended) if (key.kind, key.name) == (family, name)]
        key = StepKey(family, name, max(used, default=0) + 1)
        timer = {"due": self.journal.due(self.dice.randrange(100)), "type": "go"}
        payload = {"config": CONFIG} if family is StepKind.DO else timer
        self.open[key] = self.add(STARTS[family], name, payload, count=key.count, attempt=1)

    def end(self) -> None:
        if not self.open or self.paused:
            return
        key = self.dice.choice(list(self.open))
        good = self.dice.random() < 0.7
        if key.kind is StepKind.DO:
            self.add(Kind.STEP_COMPLETED if good else Kind.STEP_FAILED, key.name, 1 if good else ERROR, count=key.count)
        elif key.kind is StepKind.SLEEP:
            self.add(Kind.SLEEP_COMPLETED, key.name, count=key.count)
        else:
            kind = Kind.WAIT_COMPLETED if good else Kind.WAIT_TIMED_OUT
            self.add(kind, key.name, {"payload": 1} if good else ERROR, count=key.count)
        self.ended[key] = self.open.pop(key)

    def retry(self) -> None:
        doing = [key for key in self.open if key.kind is StepKind.DO]
        if doing and not self.paused:
            key = self.dice.choice(doing)
            self.add(Kind.ATTEMPT_FAILED, key.name, ERROR | {"delay": 5}, count=key.count)
            self.add(Kind.ATTEMPT_STARTED, key.name, count=key.count, attempt=2)

    def pause(self) -> None:
        self.add(Kind.RESUMED if self.paused else Kind.PAUSED)
        self.paused = not self.paused

    def reopen(self) -> None:
        """A wait fails the instance, and is retried."""
        if self.paused or len(self.open) != 1:
            return
        [key] = self.open
        if key.kind is StepKind.WAIT:
            failed = self.add(Kind.WAIT_TIMED_OUT, key.name, ERROR, count=key.count)
            self.add(Kind.ROLLBACK_STARTED, payload=ERROR)
            self.add(Kind.ROLLBACK_ENDED, payload={"outcome": "complete"})
            self.add(Kind.ERRORED, payload=ERROR)
            self.add(Kind.REOPENED, key.name, {"from_seq": failed}, count=key.count)
            plan = {"due": self.journal.due(self.dice.randrange(100)), "type": "go"}
            self.open[key] = self.add(Kind.WAIT_STARTED, key.name, plan, count=key.count)

    def restart(self) -> None:
        seqs = sorted({2, *self.open.values(), *self.ended.values()})
        from_seq = self.dice.choice(seqs)
        self.add(Kind.RESTARTED, payload={"from_seq": from_seq})
        self.open = {key: seq for key, seq in self.open.items() if seq < from_seq}
        self.ended = {key: seq for key, seq in self.ended.items() if seq < from_seq}
        self.paused = False
        self.add(Kind.STARTED)


def replayed(journal: Journal) -> recorded.Recorded:
    names = ("seq", "run", "kind", "name", "count", "attempt", "at", "payload")
    return recorded.fold([{name: getattr(entry, name) for name in names} for entry in journal.entries])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 60))
def test_both_folds_see_the_same_steps(seed: int, moves: int):
    writer = Writer(seed)
    journal = writer.write(moves)
    history, past = fold(journal.entries), replayed(journal)
    assert {step.key for step in history.steps.values() if step.open} == set(past.open) == set(writer.open)
    ended = {step.key: step for step in history.steps.values() if not step.open}
    assert set(ended) == {resolution.id for resolution in past.resolutions} == set(writer.ended)
    for resolution in past.resolutions:
        step = ended[resolution.id]  # type: ignore[index]
        assert resolution.seq == step.end_seq
        assert isinstance(resolution.message, Done if step.state is State.COMPLETE else Broken)
    check_timers(history, past)


def check_timers(history: History, past: recorded.Recorded) -> None:
    """Whoever looks sees the moment at which the run will really go on."""
    for key, step in past.open.items():
        if step.due is not None and not history.paused:
            shown = history.planned_end(history.steps[key])
            assert shown is not None
            assert abs(shown.timestamp() * 1000 - past.shifted(step.due, step.started_at)) <= 2


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 60))
def test_what_lives_tells_the_same_history(seed: int, moves: int):
    entries = Writer(seed).write(moves).entries
    kept = living(entries)
    history = fold(entries)
    assert {key: (step.start_seq, step.outcome) for key, step in fold(kept).steps.items()} == {
        key: (step.start_seq, step.outcome) for key, step in history.steps.items()
    }
    starts = {(entry.kind, entry.name, entry.count): entry.seq for entry in kept if entry.kind in STARTS.values()}
    assert set(starts.values()) == {step.start_seq for step in history.steps.values()}
