"""Entries nobody waits for: log lines of the instance, and records that are written once per run."""

from __future__ import annotations

import msgspec

from instances.engine.runs.recorded import Recorded
from instances.engine.runs.unit_of_work import UnitOfWork
from instances.lifecycle import Kind
from instances.runtimes.protocol import Log, Raw, Record

MAX_LOG_LINES = 10_000
"""Of a run, each time it is in a worker."""
MAX_LOG_BYTES = 1 << 20
LIMIT_REACHED = "log limit reached: further lines of this run are dropped"


class Notes:
    """Writes them for one run."""

    def __init__(self, past: Recorded, work: UnitOfWork) -> None:
        self._recorded = past.notes
        self._known = len(past.lines)
        """Lines of the session that are in the journal already, and still to come again."""
        self._work = work
        self._lines = 0
        self._bytes = 0

    def record(self, record: Record) -> None:
        """Journal a record, unless an earlier life of the run has."""
        note = (record.kind, record.name, record.count)
        if note not in self._recorded:
            self._recorded.add(note)
            self._work.write(Kind(record.kind), record.name, record.count, None, record.payload)

    def count(self, kind: Kind, name: str) -> int:
        """Records of that name."""
        return sum(1 for recorded in self._recorded if recorded[:2] == (kind, name))

    def say(self, line: Log) -> None:
        """A line of the session; the first ones of a later life are those of the earlier lives."""
        if self._known > 0:
            self._known -= 1
        else:
            self.log(line.level, line.message, line.step, line.data)

    def log(self, level: str, message: str, step: str | None = None, data: Raw | None = None) -> None:
        """A log line of the instance, within the caps of a run; lines beyond them are dropped after a last word."""
        if self._full:
            return
        message = message.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        self._lines += 1
        self._bytes += len(message) + len(data or "")
        if self._full:
            level, message, data = "warn", LIMIT_REACHED, None
        line: dict[str, object] = {"level": level, "message": message}
        if data is not None:
            line["data"] = msgspec.Raw(data.encode())
        self._work.write(Kind.LOG, step, payload=msgspec.json.encode(line).decode())

    @property
    def _full(self) -> bool:
        return self._lines > MAX_LOG_LINES or self._bytes > MAX_LOG_BYTES
