"""Which entries of a journal still count. A pure fold, for readers that want entries rather than a history."""

from __future__ import annotations

from collections.abc import Iterable

from instances.lifecycle import Kind
from instances.projections.entries import Entry, read_restart
from instances.projections.steps import counted_key
from instances.runtimes.protocol import StepKey
from instances.step_entries import LATER, STARTS


def living(entries: Iterable[Entry]) -> list[Entry]:
    """`entries` without those that a restart has made void: of steps that started at or after its `from_seq`, and
    whatever else happened from then on. The entries of the restarts themselves stay.
    """
    starts: dict[StepKey, int] = {}
    kept: list[tuple[int, Entry]] = []
    for entry in entries:
        root = entry.seq
        if entry.kind in STARTS:
            starts[StepKey(STARTS[entry.kind], entry.name or "", entry.count or 1)] = root
        elif entry.kind in LATER:
            root = starts.get(StepKey(LATER[entry.kind], entry.name or "", entry.count or 1), root)
        elif entry.kind == Kind.LOG and entry.name is not None:
            root = starts.get(counted_key(entry.name), root)
        elif entry.kind == Kind.RESTARTED:
            from_seq, root = read_restart(entry.payload).from_seq, 0
            kept = [(at, one) for at, one in kept if at < from_seq]
            starts = {key: at for key, at in starts.items() if at < from_seq}
        kept.append((root, entry))
    return [entry for _, entry in kept]
