"""Writes journals by hand, for tests of the folds."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from instances.lifecycle import Kind
from instances.projections.entries import Entry

START = datetime(2026, 10, 1, 8, 0, 0, tzinfo=UTC)
CONFIG = {"retries": {"limit": 5, "delay": 10000, "backoff": "exponential"}, "timeout": "10 minutes"}


class Journal:
    """Entries in order, one second apart unless `after` (seconds) says otherwise."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.now = START
        self.run = 1

    def add(
        self,
        kind: Kind,
        name: str | None = None,
        payload: Any = None,
        *,
        count: int | None = None,
        attempt: int | None = None,
        after: float = 1.0,
    ) -> int:
        """Append an entry; its seq. `payload` is any JSON value; a `str` is taken as JSON text."""
        self.now += timedelta(seconds=after)
        text = payload if payload is None or isinstance(payload, str) else json.dumps(payload, separators=(",", ":"))
        if name is not None and count is None and kind not in (Kind.EVENT_RECEIVED, Kind.MILESTONE, Kind.LOG):
            count = 1
        seq = len(self.entries) + 1
        if kind is Kind.RESTARTED:
            self.run += 1
        self.entries.append(Entry(seq, self.run, kind, name, count, attempt, self.now, text))
        return seq

    def begin(self) -> Journal:
        """QUEUED and STARTED."""
        self.add(Kind.QUEUED, after=0)
        self.add(Kind.STARTED, after=0.12)
        return self

    def step(self, name: str, output: Any = None, *, count: int = 1, **start: Any) -> int:
        """A step that completes at its first attempt; the seq of its start."""
        seq = self.add(Kind.STEP_STARTED, name, {"config": CONFIG, **start}, count=count, attempt=1)
        self.add(Kind.STEP_COMPLETED, name, output, count=count, attempt=1)
        return seq

    def due(self, seconds: float) -> float:
        """Epoch milliseconds of a timer that starts with the next entry (one second from now) and lasts `seconds`."""
        return (self.now + timedelta(seconds=1 + seconds)).timestamp() * 1000
