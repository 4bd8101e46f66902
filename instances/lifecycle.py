"""The state machine of an instance, as data: statuses, commands, what each command does in each status, entry kinds.

The SQL functions of the engine apply the same tables under the row lock; tests hold both against each other, and
`docs/lifecycle.md` is generated from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


class TriggerSource(IntEnum):
    """What caused an instance; the number is what the database stores."""

    UNKNOWN = 0
    API = 1
    BINDING = 2
    EVENT = 3
    """Another instance, whose child it is; or an event from outside."""
    CRON = 4
    MANUAL = 5
    """A person, or somebody who acts for one."""
    WEBHOOK = 6
    RETRY = 7
    """A retry of another instance, which is its origin."""

    @property
    def wire(self) -> str:
        """Spelling in the Cloudflare face, which knows the first five only."""
        return _SOURCES.get(self, self.name.lower())


_SOURCES = {TriggerSource.MANUAL: "api", TriggerSource.RETRY: "api", TriggerSource.WEBHOOK: "event"}


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
    DELETE = "delete"
    REOPEN = "retry a failed step"


class Control(IntEnum):
    """What became of a command; the number is what the SQL functions answer."""

    DONE = 0
    NOTHING = 1
    """The instance was in that state already."""
    NOT_LIVE = 2
    """The instance is finished or unknown."""
    REFUSED = 3
    """Not in this status (rolling back), or the history is not the one the caller looked at."""
    TOO_MUCH = 4
    """The instance holds as much unread as it may."""


class Move(StrEnum):
    """What the engine does with an instance by itself; `docs/lifecycle.md` tells when."""

    CLAIM = "claim"
    PARK = "park"
    WAKE = "wake"
    SETTLE_PAUSE = "settle pause"
    ROLL_BACK = "roll back"
    RELEASE = "release"
    TAKE_OVER = "take over"
    COMPLETE = "complete"
    FAIL = "fail"
    STOP = "stop"


class Kind(IntEnum):
    """Kinds of journal entries. Numbers are stored: never reuse one. Payload in brackets (JSON text)."""

    QUEUED = 0
    STARTED = 1
    STEP_STARTED = 2
    """First attempt of a step begins [{config, type?, items?, hash?}]."""
    ATTEMPT_STARTED = 3
    """A later attempt begins."""
    ATTEMPT_FAILED = 4
    """[{name, message, code?, delay (ms until the next attempt)}]; the step goes on."""
    ATTEMPT_INTERRUPTED = 5
    """An attempt cut off by a drain, or by a sandbox that died [{died}]; does not count."""
    STEP_COMPLETED = 6
    """[output: of a document's node with `outputs`, what these made]"""
    STEP_FAILED = 7
    """[{name, message, code?, output?, timed_out?}]; no attempts left."""
    STEP_SKIPPED = 8
    """[{reason}]"""
    STEP_WAITING = 9
    """The attempt is over, completion comes from outside [{type, until? (epoch ms)}]."""
    SLEEP_STARTED = 10
    """[{due (epoch ms), absolute?}]"""
    SLEEP_COMPLETED = 11
    """[what the node's `outputs` made, after a line feed; nothing where it has none; the error of one that failed]"""
    WAIT_STARTED = 12
    """[{type, due (epoch ms)}]"""
    WAIT_COMPLETED = 13
    """[{payload, timestamp, type}; or what the node's `outputs` made, after a line feed]"""
    WAIT_TIMED_OUT = 14
    """Or failed from outside [{name, message, timed_out?}]."""
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
    REOPENED = 33
    """An errored instance goes on: the failure of this step, and what followed from it, are void, and the attempt
    follows [{from_seq}: where the failure was written]. Without an attempt it is about a wait, which begins again."""
    STEP_RETRIED = 34
    """A step that failed, without which the run went on, is tried again; its outcome is recorded, and nobody is told
    [{due}: the attempt follows, of an instance that had ended]."""
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
    STEP_RESULT = 49
    """What a step came to, where its output is something else and replays need this, too [value]; just before its
    completion."""
    NOTE = 43
    """A runtime's own record [anything]."""
    STEP_PIECE = 48
    """A piece of the stream an attempt returns (bytes in base64, not JSON). Counts once the attempt has completed; only
    readers of the stream read it."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a command or a move does to an instance."""

    status: Status | None
    """Status afterwards, the same as before when nothing changed; None: the instance is gone."""
    entry: Kind | None = None
    """Journal entry written in the same transaction, by the database."""
    followed_by: Kind | None = None
    """Entry the run itself writes, in the transaction of the move or when it heeds the command."""
    outcome: Control = Control.DONE


def _stays(outcome: Control, *statuses: Status) -> dict[Status, Effect]:
    return {status: Effect(status, outcome=outcome) for status in statuses}


_FINISHED = (Status.COMPLETE, Status.ERRORED, Status.TERMINATED)
_RESTARTED = Effect(Status.QUEUED, Kind.RESTARTED)
_TERMINATED = Effect(Status.TERMINATED, Kind.TERMINATED)
_ROLLS_BACK = Effect(Status.ROLLING_BACK, followed_by=Kind.ROLLBACK_STARTED)
_STOPS_ROLLBACK = Effect(Status.ROLLING_BACK, followed_by=Kind.ROLLBACK_STOPPED)
_AS_BEFORE = Effect(Status.ROLLING_BACK)

COMMANDS: Mapping[Command, Mapping[Status, Effect]] = {
    Command.PAUSE: {
        Status.QUEUED: Effect(Status.PAUSED, Kind.PAUSED),
        Status.RUNNING: Effect(Status.WAITING_FOR_PAUSE, Kind.PAUSE_REQUESTED),
        Status.WAITING: Effect(Status.PAUSED, Kind.PAUSED),
        **_stays(Control.NOTHING, Status.PAUSED, Status.WAITING_FOR_PAUSE),
        **_stays(Control.REFUSED, Status.ROLLING_BACK),
        **_stays(Control.NOT_LIVE, *_FINISHED),
    },
    Command.RESUME: {
        **_stays(Control.NOTHING, Status.QUEUED, Status.RUNNING, Status.WAITING),
        Status.PAUSED: Effect(Status.QUEUED, Kind.RESUMED),
        Status.WAITING_FOR_PAUSE: Effect(Status.RUNNING, Kind.RESUMED),
        **_stays(Control.REFUSED, Status.ROLLING_BACK),
        **_stays(Control.NOT_LIVE, *_FINISHED),
    },
    Command.TERMINATE: {
        **dict.fromkeys(
            (Status.QUEUED, Status.RUNNING, Status.WAITING, Status.PAUSED, Status.WAITING_FOR_PAUSE), _TERMINATED
        ),
        Status.ROLLING_BACK: _STOPS_ROLLBACK,
        **_stays(Control.NOT_LIVE, *_FINISHED),
    },
    Command.TERMINATE_WITH_ROLLBACK: {
        **dict.fromkeys(
            (Status.QUEUED, Status.RUNNING, Status.WAITING, Status.PAUSED, Status.WAITING_FOR_PAUSE), _ROLLS_BACK
        ),
        Status.ROLLING_BACK: _STOPS_ROLLBACK,
        **_stays(Control.NOT_LIVE, *_FINISHED),
    },
    Command.RESTART: {
        **dict.fromkeys(
            (Status.QUEUED, Status.RUNNING, Status.WAITING, Status.PAUSED, Status.WAITING_FOR_PAUSE), _RESTARTED
        ),
        **_stays(Control.REFUSED, Status.ROLLING_BACK),
        **dict.fromkeys(_FINISHED, _RESTARTED),
    },
    Command.DELETE: dict.fromkeys(Status, Effect(None)),
    Command.REOPEN: {
        **_stays(Control.REFUSED, *(status for status in Status if status is not Status.ERRORED)),
        Status.ERRORED: Effect(Status.QUEUED, Kind.REOPENED),
    },
}
"""What a command does in a status, of an instance that a worker has held before."""

NEVER_STARTED: Mapping[Command, Mapping[Status, Effect]] = {
    Command.TERMINATE_WITH_ROLLBACK: {Status.QUEUED: _TERMINATED, Status.PAUSED: _TERMINATED},
}
"""Where it matters that no worker ever held the instance: there is nothing to compensate."""

MOVES: Mapping[Move, Mapping[Status, Effect]] = {
    Move.CLAIM: {Status.QUEUED: Effect(Status.RUNNING), Status.ROLLING_BACK: _AS_BEFORE},
    Move.PARK: {Status.RUNNING: Effect(Status.WAITING), Status.ROLLING_BACK: _AS_BEFORE},
    Move.WAKE: {Status.WAITING: Effect(Status.QUEUED), Status.ROLLING_BACK: _AS_BEFORE},
    Move.SETTLE_PAUSE: {Status.WAITING_FOR_PAUSE: Effect(Status.PAUSED, Kind.PAUSED)},
    Move.ROLL_BACK: dict.fromkeys((Status.RUNNING, Status.WAITING_FOR_PAUSE), _ROLLS_BACK),
    Move.RELEASE: {
        Status.RUNNING: Effect(Status.QUEUED),
        Status.WAITING_FOR_PAUSE: Effect(Status.PAUSED, Kind.PAUSED),
        Status.ROLLING_BACK: _AS_BEFORE,
    },
    Move.TAKE_OVER: {
        Status.RUNNING: Effect(Status.QUEUED),
        Status.WAITING_FOR_PAUSE: Effect(Status.PAUSED, Kind.PAUSED),
        Status.ROLLING_BACK: _AS_BEFORE,
    },
    Move.COMPLETE: dict.fromkeys((Status.RUNNING, Status.WAITING_FOR_PAUSE), Effect(Status.COMPLETE, Kind.COMPLETED)),
    Move.FAIL: dict.fromkeys(
        (Status.RUNNING, Status.WAITING_FOR_PAUSE, Status.ROLLING_BACK), Effect(Status.ERRORED, Kind.ERRORED)
    ),
    Move.STOP: {Status.ROLLING_BACK: _TERMINATED},
}
"""What the engine does by itself, and in which statuses; in others the move does not happen. The first claim of a
run is followed by `STARTED`. After a terminate a rollback ends by `STOP`, otherwise by `FAIL`."""


def effect(command: Command, status: Status, *, started: bool = True) -> Effect:
    """What a command does to an instance in `status`.

    `started`: a worker has held this run, or the part of it that a restart from a step kept.
    """
    unstarted = NEVER_STARTED.get(command, {}) if not started else {}
    return unstarted.get(status) or COMMANDS[command][status]
