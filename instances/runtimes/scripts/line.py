"""The line from one run to its sandbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from instances.runtimes.protocol import SessionLost
from instances.runtimes.scripts import told
from instances.runtimes.scripts.isolate import Isolate, Part, encode


class Line:
    """Tells the sandbox of `isolate` what concerns its run `number`, until it is gone: that is `lost`."""

    def __init__(self, isolate: Isolate, number: int, now: Callable[[], datetime]) -> None:
        self.isolate = isolate
        self.number = number
        self.now = now
        self.lost: SessionLost | None = None

    def tell(self, message: dict[str, Any], step: int = 0) -> None:
        """Deliver a message without waiting. `step`: whose callback it is for."""
        if self.lost is None:
            self.isolate.tell(self.number, encode(message), step)

    def reply(self, call: int, inside: int, answer: dict[str, Any]) -> None:
        """What a host call came to, told in the context that made it."""
        message = {"op": "reply", "r": self.number, "call": call, "now": told.millis(self.now()), **answer}
        self.tell(message, inside)

    async def send(self, parts: Sequence[Part]) -> None:
        """Deliver messages and wait for what the code does because of them. Raises :class:`SessionLost`."""
        if self.lost is not None:
            raise self.lost
        if not parts:
            return
        try:
            await self.isolate.send(self.number, parts)
        except SessionLost as lost:
            raise self.lost or lost from None  # ours knows what this run has to do with it
