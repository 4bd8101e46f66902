"""What the parts of one run share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from instances.engine.runs.breath import Breath
from instances.engine.runs.clock import RunClock
from instances.engine.runs.deadlines import Deadlines
from instances.engine.runs.endings import RunLost
from instances.engine.runs.held import Held
from instances.engine.runs.inbox import Inbox
from instances.engine.runs.recorded import Recorded
from instances.engine.runs.replay import Replay
from instances.engine.runs.timetable import Timetable
from instances.engine.runs.unit_of_work import UnitOfWork
from instances.engine.runs.usage import Usage
from instances.runtimes.protocol import Session, SessionLost


@dataclass(slots=True)
class RunState:
    """A run in memory, save for what only one part of it knows."""

    held: Held
    past: Recorded
    """What the journal said when the run was opened. What it left open is taken out as the session calls it again."""
    replay: Replay
    clock: RunClock
    usage: Usage
    work: UnitOfWork
    inbox: Inbox
    timetable: Timetable = field(default_factory=Timetable)
    deadlines: Deadlines = field(default_factory=Deadlines)
    mail: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something happened that a run at rest must look at."""
    session: Session = field(init=False)
    """Once the program has started it."""
    breath: Breath = field(init=False)
    session_lost: SessionLost | None = None
    """What it ran in is gone."""

    def __post_init__(self) -> None:
        self.breath = Breath(self.held)

    async def breathe(self) -> None:
        """Let other runs have the loop, if this one has had it for long. Raises :class:`RunLost`."""
        await self.breath.pause()
        if self.work.fenced:
            raise RunLost

    def close(self) -> None:
        """The run leaves memory. What still refers to its parts would keep them, and all that they hold."""
        self.deadlines.close()
        self.timetable.close()

    def lose_session(self, lost: SessionLost) -> None:
        self.session_lost = self.session_lost or lost
        self.mail.set()
