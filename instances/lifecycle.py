"""The state machine of an instance, as data: statuses, commands, what each command does in each status, entry kinds.

The SQL functions of the engine apply the same table under the row lock; `tests/property` holds both against each
other, and the diagram in `docs/lifecycle.md` is generated from here.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Status(IntEnum):
    """Status of an instance as shown to callers; the number is what the database stores."""

    QUEUED = 0
    """Created or woken, no slot yet."""
    RUNNING = 1
    """Holds a slot."""
    WAITING = 2
    """Waits for a timer, an event, a child or a retry; holds no slot."""
    PAUSED = 3
    """Stopped by command; resumes on command."""
    WAITING_FOR_PAUSE = 4
    """Pause asked for; steps in flight are finishing."""
    ROLLING_BACK = 5
    """Compensations are running."""
    COMPLETE = 6
    ERRORED = 7
    TERMINATED = 8

    @property
    def wire(self) -> str:
        """Spelling in the Cloudflare face."""
        return _WIRE[self]

    @property
    def finished(self) -> bool:
        return self >= Status.COMPLETE


_WIRE = {
    Status.QUEUED: "queued",
    Status.RUNNING: "running",
    Status.WAITING: "waiting",
    Status.PAUSED: "paused",
    Status.WAITING_FOR_PAUSE: "waitingForPause",
    Status.ROLLING_BACK: "rollingBack",
    Status.COMPLETE: "complete",
    Status.ERRORED: "errored",
    Status.TERMINATED: "terminated",
}
BY_WIRE = {wire: status for status, wire in _WIRE.items()}


class Phase(IntEnum):
    """Who may act on an unfinished instance. Readiness is not status: a rolling-back instance parks, too."""

    READY = 0
    HELD = 1
    PARKED = 2
    STOPPED = 3


class Want(IntEnum):
    """What a command asked of the holder of a running instance."""

    NOTHING = 0
    PAUSE = 1
    ROLL_BACK = 2
    """Roll back, then end as terminated."""
    STOP_ROLLBACK = 3
    """Finish the compensation in flight, then end as terminated with the rollback failed."""


class Command(StrEnum):
    PAUSE = "pause"
    RESUME = "resume"
    TERMINATE = "terminate"
    TERMINATE_WITH_ROLLBACK = "terminate with rollback"
    RESTART = "restart"


class Kind(IntEnum):
    """Kinds of journal entries. Numbers are stored: never reuse one. Payload in brackets (JSON text)."""

    QUEUED = 0
    STARTED = 1
    STEP_STARTED = 2
    """First attempt of a step begins [{config, type?, hash?}]."""
    ATTEMPT_STARTED = 3
    """A later attempt begins."""
    ATTEMPT_FAILED = 4
    """[{name, message, code?, delay (ms until the next attempt)}]; the step goes on."""
    ATTEMPT_INTERRUPTED = 5
    """An attempt cut off by a drain; does not count."""
    STEP_COMPLETED = 6
    """[output]"""
    STEP_FAILED = 7
    """[{name, message, code?, output?, timed_out?}]; no attempts left."""
    STEP_SKIPPED = 8
    """[{reason}]"""
    STEP_WAITING = 9
    """The attempt is over, completion comes from outside [{type, until? (epoch ms)}]."""
    SLEEP_STARTED = 10
    """[{due (epoch ms), absolute?}]"""
    SLEEP_COMPLETED = 11
    WAIT_STARTED = 12
    """[{type, due (epoch ms)}]"""
    WAIT_COMPLETED = 13
    """[{payload, timestamp, type}]"""
    WAIT_TIMED_OUT = 14
    """[{name, message}]"""
    EVENT_RECEIVED = 15
    """An event was stored; its type is the name, the payload its dedupe key (plain text, not JSON)."""
    PAUSE_REQUESTED = 16
    PAUSED = 17
    RESUMED = 18
    RESTARTED = 19
    """[{from_seq}]: entries of steps started at or after it are dead."""
    ROLLBACK_STARTED = 20
    """[{name, message, requested}]: what triggered it; requested: by a terminate, not by the run itself."""
    ROLLBACK_STEP_STARTED = 21
    ROLLBACK_ATTEMPT_STARTED = 22
    ROLLBACK_ATTEMPT_FAILED = 23
    ROLLBACK_ATTEMPT_INTERRUPTED = 24
    ROLLBACK_STEP_COMPLETED = 25
    ROLLBACK_STEP_FAILED = 26
    ROLLBACK_STEP_WAITING = 27
    ROLLBACK_ENDED = 28
    """[{outcome, error}]"""
    COMPLETED = 30
    """[output]"""
    ERRORED = 31
    """[{name, message}]"""
    TERMINATED = 32
    LOG = 40
    """[{level, message, data?}]; the name is the step, if any."""
    MILESTONE = 41
    SYNC_POINT = 42
    """[{state}]"""
    TIMER_STARTED = 44
    """A timer without a step; its id is the name [{due (epoch ms)}]."""
    TIMER_FIRED = 45
    ROLLBACK_STOPPED = 46
    """No further compensation is started."""
    COMPENSATE_INPUT = 47
    """What a step left for its own compensation [value]; just before its completion."""
    NOTE = 43
    """A runtime's own record [anything]."""
