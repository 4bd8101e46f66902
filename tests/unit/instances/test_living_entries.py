"""Entries that restarts have made void."""

from __future__ import annotations

from instances.lifecycle import Kind
from instances.projections.restarts import living
from tests.support.journal import CONFIG, Journal


def seqs(journal: Journal) -> list[int]:
    return [entry.seq for entry in living(journal.entries)]


def test_without_restarts_everything_lives():
    journal = Journal().begin()
    journal.step("a")
    assert seqs(journal) == [1, 2, 3, 4]


def test_full_restart():
    journal = Journal().begin()
    journal.step("a")
    journal.add(Kind.LOG, "a-1", {"message": "x"})
    restarted = journal.add(Kind.RESTARTED, payload={"from_seq": 2})
    started = journal.add(Kind.STARTED)
    assert seqs(journal) == [1, restarted, started]


def test_restart_from_a_step_keeps_entries_of_earlier_steps_only():
    journal = Journal().begin()
    early = journal.add(Kind.STEP_STARTED, "early", {"config": CONFIG}, attempt=1)
    late = journal.add(Kind.STEP_STARTED, "late", {"config": CONFIG}, attempt=1)
    journal.add(Kind.WAIT_STARTED, "early", {"due": 0, "type": "go"})  # another family: a step of its own
    kept = journal.add(Kind.LOG, "early-1", {"message": "kept"})
    journal.add(Kind.LOG, "late-1", {"message": "void"})
    journal.add(Kind.EVENT_RECEIVED, "go", "dedupe")
    done = journal.add(Kind.STEP_COMPLETED, "early", 1)
    journal.add(Kind.WAIT_TIMED_OUT, "early")
    first = journal.add(Kind.RESTARTED, payload={"from_seq": late})
    again = journal.add(Kind.STEP_STARTED, "late", {"config": CONFIG}, attempt=1)
    assert seqs(journal) == [1, 2, early, kept, done, first, again]
    second = journal.add(Kind.RESTARTED, payload={"from_seq": again})
    assert seqs(journal) == [1, 2, early, kept, done, first, second]
