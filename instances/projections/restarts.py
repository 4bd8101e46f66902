"""What restarts do to a journal: where one from a step begins, and which entries still count. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from instances.lifecycle import Kind
from instances.projections.entries import Entry, read_restart
from instances.projections.fold import fold
from instances.projections.steps import Outcome, counted_key, shown_as
from instances.runtimes.protocol import StepKey
from instances.step_entries import LATER, STARTS

RESTART_TYPES = {"do": "step", "sleep": "sleep", "waitForEvent": "waitForEvent"}
"""What a restart may name, and how step lists call it."""


def find_step_start(entries: Iterable[Entry], name: str, count: int = 1, kind: str = "do") -> int | None:
    """The seq at which the `count`-th step called `name` started, for a restart from it; None if it never did.

    `name` is uncounted, `kind` is `do`, `sleep` or `waitForEvent`.
    """
    wanted = RESTART_TYPES[kind]
    for step in fold(entries).steps.values():
        if (
            step.name == name
            and step.count == count
            and shown_as(step) == wanted
            and step.outcome is not Outcome.SKIPPED
        ):
            return step.start_seq
    return None


def living(entries: Iterable[Entry]) -> list[Entry]:
    """`entries` without those that a restart has made void: of steps that started at or after its `from_seq`, and
    whatever else happened from then on. The entries of the restarts themselves stay.
    """
    starts: dict[StepKey, int] = {}
    kept: list[tuple[int, StepKey | None, Entry]] = []
    for entry in entries:
        root, about = entry.seq, STARTS.get(entry.kind) or LATER.get(entry.kind)
        key = None if about is None else StepKey(about, entry.name or "", entry.count or 1)
        if key is not None:
            root = starts[key] = root if entry.kind in STARTS else starts.get(key, root)
        elif entry.kind == Kind.LOG and entry.name is not None:
            root = starts.get(counted_key(entry.name), root)
        elif entry.kind == Kind.RESTARTED:
            from_seq, root = read_restart(entry.payload).from_seq, 0
            dead = {
                of for of, at in starts.items() if at >= from_seq
            }  # a wait that began again dies with its first begin
            kept = [(at, of, one) for at, of, one in kept if at < from_seq and of not in dead]
            starts = {of: at for of, at in starts.items() if of not in dead}
        kept.append((root, key, entry))
    return [entry for _, _, entry in kept]
