"""Undoing what a failed run did: the handlers of its steps, one after the other, the last step started first."""

from __future__ import annotations

from collections.abc import Sequence

from instances.runtimes.protocol import CommandMessage, Do, EndRollback, Fail, Failure


class Rollback:
    """The handlers still to run, and how it went. Every method returns the commands that follow.

    `undos`: what to run, in order. `failure`: why. `requested`: a terminate asked for it, and the driver knows how the
    instance ends. `broken`: why it fails before it begins.
    """

    def __init__(
        self, undos: Sequence[Do], failure: Failure, *, requested: bool, broken: Failure | None = None
    ) -> None:
        self.failure = failure
        self._undos = list(undos)
        self._began = requested or bool(undos)
        self._requested = requested
        self._broken = broken
        self._stopped = False
        self._in_flight = False
        self._over = False

    def next(self) -> list[CommandMessage]:
        """The next handler, or the end: a handler that failed for good stops the rest."""
        if self._over:
            return []
        if self._undos and self._broken is None and not self._stopped:
            self._in_flight = True
            return [self._undos.pop(0)]
        self._over = True
        end: list[CommandMessage] = []
        if self._began:
            end.append(EndRollback(self._broken is None and not self._stopped, self._broken))
        if not self._requested:
            end.append(Fail(self.failure))
        return end

    def ended(self, failure: Failure | None) -> list[CommandMessage]:
        """The handler in flight is over."""
        self._in_flight = False
        self._broken = failure
        return self.next()

    def stop(self) -> list[CommandMessage]:
        """Start no further handler."""
        self._stopped = True
        return [] if self._in_flight else self.next()
