"""What a sandbox says, decoded strictly: everything in it is hostile until it has passed here.

A frame's answer is one JSON object, :class:`Answer`. Messages are told apart by `op`. Unknown ones, missing fields,
wrong types and sizes beyond the limits make the whole answer invalid. Fields that do not belong are ignored.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from tenants.limits import PAYLOAD_BYTES

MAX_MESSAGES = 20_000
MAX_NUMBER = 2**53
LOG_CHARACTERS = 8192

Id = Annotated[int, Meta(ge=1, le=2**31)]
Run = Annotated[int, Meta(ge=1, le=MAX_NUMBER)]
Millis = Annotated[float, Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Name = Annotated[str, Meta(max_length=256)]
Words = Annotated[str, Meta(max_length=32 * 1024)]
Duration = Millis | Annotated[str, Meta(max_length=64)]


class Violation(Exception):
    """A sandbox said something it must not say."""


class Value(msgspec.Struct, frozen=True):
    """A value: `v` plain JSON, `x` tagged JSON (:mod:`instances.projections.values`), or neither: undefined."""

    v: Raw | UnsetType = UNSET
    x: Raw | UnsetType = UNSET

    def stored(self) -> str | None:
        """As the journal keeps it; None for undefined."""
        if not isinstance(self.x, UnsetType):
            return " " + bytes(self.x).decode()
        return None if isinstance(self.v, UnsetType) else bytes(self.v).decode()

    @property
    def size(self) -> int:
        """Bytes."""
        raw = self.x if not isinstance(self.x, UnsetType) else self.v
        return 0 if isinstance(raw, UnsetType) else len(bytes(raw))

    @property
    def fits(self) -> bool:
        return self.size <= PAYLOAD_BYTES


class Error(msgspec.Struct, frozen=True):
    """What the code threw. `permanent`: it forbids retries."""

    name: Name
    message: Words
    stack: Words | None = None
    permanent: bool = False


class Message(Value, frozen=True, tag_field="op"):
    """Anything a run's code says."""

    r: Run = 0


class Export(msgspec.Struct, frozen=True):
    """What a module exports under a name."""

    name: Name
    kind: Literal["workflow", "worker", "other"]


class Loaded(msgspec.Struct, frozen=True, tag_field="op", tag="loaded"):
    """The script is loaded."""

    exports: Annotated[list[Export], Meta(max_length=1000)]


class LoadFailed(msgspec.Struct, frozen=True, tag_field="op", tag="load_failed"):
    """The script could not be loaded, for what is wrong at that place."""

    error: Error
    module: Annotated[str, Meta(max_length=1024)] | None = None
    line: int | None = None
    column: int | None = None


class Retries(msgspec.Struct, frozen=True):
    """The retry policy of a step, as the code gave it."""

    delay: Duration
    backoff: Literal["constant", "linear", "exponential"]
    limit: Annotated[float, Meta(ge=0, le=MAX_NUMBER)] | None = None
    """None: without end."""


class StepConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The configuration of a step, defaults filled in."""

    retries: Retries
    timeout: Duration
    sensitive: Literal["output"] | None = None


class StepCalled(Message, frozen=True, tag="step", kw_only=True):
    """`step.do` was called, in an attempt of the step `inside` (0: in none). `rollback`: its handler's settings."""

    id: Id
    name: Name
    config: Raw
    """A :class:`StepConfig`, decoded where it is used: most are the same."""
    dynamic: bool = False
    rollback: Raw | UnsetType = UNSET
    inside: int = 0


class SleepCalled(Message, frozen=True, tag="sleep", kw_only=True):
    """`step.sleep` or `step.sleepUntil` was called: one of `duration` and `until` is there."""

    id: Id
    name: Name
    duration: Duration | None = None
    until: Millis | None = None
    inside: int = 0


class WaitCalled(Message, frozen=True, tag="wait", kw_only=True):
    """`step.waitForEvent` was called."""

    id: Id
    name: Name
    type: Annotated[str, Meta(max_length=100)]
    timeout: Duration | None = None
    inside: int = 0


class AttemptOk(Message, frozen=True, tag="attempt_ok", kw_only=True):
    """An attempt returned."""

    id: Id
    attempt: Id
    stream: bool = False
    """It returned a stream, which is stored."""


class AttemptFailed(Message, frozen=True, tag="attempt_failed", kw_only=True):
    """An attempt threw, or (`fatal`) returned what cannot be stored."""

    id: Id
    attempt: Id
    error: Error
    fatal: Literal["unserialisable", "stream"] | None = None


class UndoOk(Message, frozen=True, tag="undo_ok", kw_only=True):
    """A rollback handler returned."""

    id: Id
    attempt: Id


class UndoFailed(Message, frozen=True, tag="undo_failed", kw_only=True):
    """A rollback handler threw."""

    id: Id
    attempt: Id
    error: Error


class DelayOk(Message, frozen=True, tag="delay_ok", kw_only=True):
    """A delay function returned."""

    id: Id
    attempt: Id
    delay: Duration


class DelayFailed(Message, frozen=True, tag="delay_failed", kw_only=True):
    """A delay function threw."""

    id: Id
    attempt: Id
    error: Error


class Call(Message, frozen=True, tag="call", kw_only=True):
    """Something only the worker can do, asked for by number `call`."""

    call: Id
    kind: Annotated[str, Meta(max_length=32)]
    args: Raw = Raw(b"{}")
    inside: int = 0


class CancelCall(Message, frozen=True, tag="cancel", kw_only=True):
    """Nobody wants the answer to a :class:`Call` any more."""

    call: Id


class Logged(Message, frozen=True, tag="log", kw_only=True):
    """A line for the log; of the attempt of the step `inside`, if that is not 0."""

    level: Literal["debug", "info", "warn", "error"]
    message: Annotated[str, Meta(max_length=LOG_CHARACTERS)]
    inside: int = 0


class Returned(Message, frozen=True, tag="return", kw_only=True):
    """`run` returned."""


class Thrown(Message, frozen=True, tag="throw", kw_only=True):
    """`run` threw, or (`fatal`) returned what cannot be stored."""

    error: Error
    fatal: Literal["unserialisable"] | None = None


class Mismatch(Message, frozen=True, tag="mismatch", kw_only=True):
    """The next recorded outcome belongs to a step that was not called, and nothing can move any more."""

    kind: Literal["do", "sleep", "wait"]
    name: Name
    count: Id


RunMessage = (
    StepCalled
    | SleepCalled
    | WaitCalled
    | AttemptOk
    | AttemptFailed
    | UndoOk
    | UndoFailed
    | DelayOk
    | DelayFailed
    | Call
    | CancelCall
    | Logged
    | Returned
    | Thrown
    | Mismatch
)


class Answer(msgspec.Struct, frozen=True):
    """What a frame led to. `state`: by run, callbacks active and calls pending outside and inside of them."""

    state: dict[str, tuple[int, int, int]] = {}
    cpu: list[int] = []
    """Microseconds, by part of the frame."""
    out: Annotated[list[RunMessage | Loaded | LoadFailed], Meta(max_length=MAX_MESSAGES)] = []


class Stripped(msgspec.Struct, frozen=True, tag_field="op", tag="stripped"):
    """A TypeScript module without its types."""

    module: Annotated[str, Meta(max_length=1024)]
    text: str


class StripAnswer(msgspec.Struct, frozen=True):
    """What comes of asking for that, and nothing else."""

    out: list[Stripped | LoadFailed]


_decoder = msgspec.json.Decoder(Answer)
_strip_decoder = msgspec.json.Decoder(StripAnswer)


def decode_stripped(data: bytes) -> list[Stripped | LoadFailed]:
    """Raises :class:`Violation`."""
    try:
        return _strip_decoder.decode(data).out
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Violation(str(error)) from None


def decode_answer(data: bytes) -> Answer:
    """Raises :class:`Violation` naming what is wrong."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Violation(str(error)) from None
