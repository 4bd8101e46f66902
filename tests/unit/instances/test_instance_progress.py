"""Progress in steps, of documents and of scripts."""

from __future__ import annotations

import pytest

from instances.lifecycle import Kind, Status
from instances.projections.fold import fold
from instances.projections.progress import Progress, progress
from tests.support.journal import CONFIG, Journal


def started(journal: Journal, name: str, count: int = 1) -> None:
    journal.add(Kind.STEP_STARTED, name, {"config": CONFIG}, count=count, attempt=1)


def test_document():
    journal = Journal().begin()
    journal.step("a")
    journal.add(Kind.STEP_SKIPPED, "b", {"reason": "condition"})
    started(journal, "c")
    journal.add(Kind.STEP_FAILED, "c", {"name": "E", "message": "m"})
    started(journal, "d")
    journal.step("not a node")
    nodes = ("a", "b", "c", "d", "e")
    assert progress(fold(journal.entries), Status.RUNNING, nodes) == Progress(
        total=5, completed=3, successful=1, failed=1, running=1, skipped=1, percentage=60
    )
    assert progress(fold(journal.entries), Status.ERRORED, nodes).running == 0
    assert progress(fold(journal.entries), Status.COMPLETE, nodes).percentage == 100


def test_loops_count_once():
    journal = Journal().begin()
    journal.step("each")
    started(journal, "each", 2)
    assert progress(fold(journal.entries), Status.RUNNING, ["each"]).running == 1
    journal.add(Kind.STEP_COMPLETED, "each", count=2)
    assert progress(fold(journal.entries), Status.RUNNING, ["each"]).successful == 1


@pytest.mark.parametrize(("status", "percentage"), [(Status.RUNNING, 0), (Status.COMPLETE, 100)])
def test_document_without_nodes(status: Status, percentage: int):
    assert progress(fold([]), status, []).percentage == percentage


def test_halves_are_rounded_up():
    journal = Journal().begin()
    journal.step("a")
    assert progress(fold(journal.entries), Status.RUNNING, list("abcdefgh")).percentage == 13


def test_script_percentage_never_falls_and_stays_below_100():
    journal = Journal().begin()
    seen = []
    for name in "abc":
        started(journal, name)
        seen.append(progress(fold(journal.entries), Status.RUNNING).percentage)
        journal.add(Kind.STEP_COMPLETED, name)
        seen.append(progress(fold(journal.entries), Status.RUNNING).percentage)
    assert seen == [0, 50, 50, 67, 67, 75]
    for number in range(20):
        started(journal, f"p{number}")
    now = progress(fold(journal.entries), Status.RUNNING)
    assert (now.percentage, now.total, now.estimated) == (75, 24, True)


def test_script_at_its_end():
    journal = Journal().begin()
    journal.step("a")
    history = fold(journal.entries)
    done = progress(history, Status.COMPLETE)
    assert (done.total, done.percentage, done.estimated) == (1, 100, False)
    assert progress(history, Status.ERRORED).percentage == 50


def test_compensations_are_no_progress():
    journal = Journal().begin()
    journal.step("a")
    journal.add(Kind.ROLLBACK_STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
    assert progress(fold(journal.entries), Status.ROLLING_BACK).total == 2
