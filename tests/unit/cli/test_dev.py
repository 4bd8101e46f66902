"""`millrace dev` while it serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.cli import dev
from app.embedded.errors import EmbeddedError


class Service:
    log_path = Path("log")

    def __init__(self, title: str, *revived: bool | EmbeddedError) -> None:
        self.title = title
        self.revived = list(revived)

    def revive(self) -> bool:
        outcome = self.revived.pop(0)
        if isinstance(outcome, EmbeddedError):
            raise outcome
        return outcome


async def test_a_service_that_cannot_be_started_again_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    gone = EmbeddedError("Its disk is full.")
    services = [Service("A", False, False, True, False), Service("B", gone, gone, False, gone)]
    monkeypatch.setattr(dev, "CHECK_SECONDS", 0)
    monkeypatch.setattr(dev, "say", said.append)
    with pytest.raises(IndexError):  # nothing more was planned
        await dev._watch(services)  # type: ignore[arg-type]
    assert said == [
        "Its disk is full. Trying again every second.",
        "A had died and was started again (log: log).",
        "Its disk is full. Trying again every second.",
    ]
