"""How far an execution was at any moment of its journal: what its progress was when each step ended."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from instances.projections.execution import Execution
from instances.projections.execution_steps import ExecutionStep, Forward
from instances.projections.progress import Progress
from instances.runtimes.protocol import StepKind

_FAILED = frozenset({Forward.FAILED, Forward.TIMED_OUT})


class Moments:
    """Of one execution as it was read. A moment is a number of its journal."""

    def __init__(self, told: Execution) -> None:
        self._told = told
        counted = [step for step in told.steps if step.counts]
        ended = [step for step in counted if step.invoke.end_seq is not None]
        self._total = len(counted)
        starts = _start_seqs(told)
        begun = [step for step in counted if step.invoke.started_at is not None]
        self._starts = sorted(starts[step.key if told.document is None else step.id] for step in begun)
        self._ends = _seqs(step for step in ended if step.invoke.started_at is not None)
        self._successes = _seqs(step for step in ended if step.state is Forward.COMPLETE)
        self._failures = _seqs(step for step in ended if step.state in _FAILED)
        self._all = _seqs(ended)
        self._best = self._highest() if told.document is None else []

    def progress(self, seq: int) -> Progress:
        """The numbers right after entry `seq`."""
        told = self._told
        end = told.history.end
        if seq >= told.history.last_seq or (end is not None and told.situation.over and seq >= end.seq):
            return told.progress
        completed, successful = bisect_right(self._all, seq), bisect_right(self._successes, seq)
        failed = bisect_right(self._failures, seq)
        begun = bisect_right(self._starts, seq)
        script = told.document is None
        total = begun + 1 if script else self._total
        percentage = _percent(completed, total)
        if script:
            place = bisect_right(self._best, (seq, 101))
            percentage = self._best[place - 1][1] if place else 0
        return Progress(
            total,
            completed,
            successful,
            failed,
            begun - bisect_right(self._ends, seq),
            completed - successful - failed,
            percentage,
            script,
        )

    def _highest(self) -> list[tuple[int, int]]:
        """Of a script, whose total grows: the highest percentage so far, from each moment on."""
        found: list[tuple[int, int]] = []
        done = seen = best = 0
        for seq, ended in sorted([(seq, 0) for seq in self._starts] + [(seq, 1) for seq in self._all]):
            seen, done = (seen, done + 1) if ended else (seen + 1, done)
            best = min(99, max(best, _percent(done, seen + 1)))
            found.append((seq, best))
        return found


def _start_seqs(told: Execution) -> dict[object, int]:
    """Entries with which steps began, by a script's step keys and a document's node ids: the first of a node's runs."""
    found: dict[object, int] = {}
    for key, run in told.history.steps.items():
        if run.family is not StepKind.ROLLBACK:
            name = key if told.document is None else run.name
            found[name] = min(run.start_seq, found.get(name, run.start_seq))
    return found


def _seqs(steps: Iterable[ExecutionStep]) -> list[int]:
    return sorted(step.invoke.end_seq for step in steps if step.invoke.end_seq is not None)


def _percent(part: int, whole: int) -> int:
    """Halves rounded up; of nothing none."""
    return (200 * part + whole) // (2 * whole) if whole else 0
