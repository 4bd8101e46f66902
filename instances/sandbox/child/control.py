"""What a worker and a zygote say to each other, one message per SOCK_SEQPACKET record.

    worker -> zygote    fork (request, limits, mode; with the child's socket and progress page as SCM_RIGHTS), kill
    zygote -> worker    first `Ready` or `Refused`, then `Forked` or `NotForked` per fork and `Ended` per child

A child is named by the number of its fork request, which is never used twice: process ids are.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE = 16 << 10
_MAX_TEXT = 2000

SERVE = 0
"""Mode of a fork: the engine serves frames."""
CANARY = 1
"""Mode of a fork: locked like any other, then tries to get out, and answers its first frame with what it achieved."""


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    data: int = 256 << 20
    """Bytes of writable private memory (RLIMIT_DATA), everything included: the engine itself takes 20 to 40 MiB."""
    cpu: int = 3600
    """CPU seconds in its whole life (RLIMIT_CPU). A backstop for when the worker cannot act; deadlines are its own."""


@dataclass(frozen=True)
class Fork:
    request: int
    mode: int
    limits: Limits


@dataclass(frozen=True)
class Kill:
    request: int


@dataclass(frozen=True)
class Ready:
    """The zygote is loaded and locked."""

    facts: dict[str, Any]
    """For people."""


@dataclass(frozen=True)
class Refused:
    """The zygote ends. `permanent`: so would every other."""

    reason: str
    permanent: bool


@dataclass(frozen=True)
class Forked:
    request: int
    pid: int


@dataclass(frozen=True)
class NotForked:
    request: int
    reason: str


@dataclass(frozen=True)
class Ended:
    request: int
    status: int
    """Exit code; negative: the signal."""
    cpu: float
    """Seconds."""


_FORK = struct.Struct("<cQBQQ")
_KILL = struct.Struct("<cQ")
_FORKED = struct.Struct("<cQi")
_TEXT = struct.Struct("<cQ")
_ENDED = struct.Struct("<cQid")


def pack(message: Fork | Kill | Ready | Refused | Forked | NotForked | Ended) -> bytes:
    """One record."""
    if isinstance(message, Fork):
        return _FORK.pack(b"F", message.request, message.mode, message.limits.data, message.limits.cpu)
    if isinstance(message, Kill):
        return _KILL.pack(b"K", message.request)
    if isinstance(message, Forked):
        return _FORKED.pack(b"P", message.request, message.pid)
    if isinstance(message, Ended):
        return _ENDED.pack(b"X", message.request, message.status, message.cpu)
    if isinstance(message, Ready):
        return b"R" + json.dumps(message.facts).encode()
    number, text = (message.request, b"E") if isinstance(message, NotForked) else (int(message.permanent), b"N")
    return _TEXT.pack(text, number) + message.reason[:_MAX_TEXT].encode(errors="replace")


def unpack(record: bytes) -> Fork | Kill | Ready | Refused | Forked | NotForked | Ended:
    """The message of a record. ValueError when it is none."""
    kind = record[:1]
    try:
        if kind == b"F":
            _, request, mode, data, cpu = _FORK.unpack(record)
            return Fork(request, mode, Limits(data, cpu))
        if kind == b"K":
            return Kill(_KILL.unpack(record)[1])
        if kind == b"P":
            return Forked(*_FORKED.unpack(record)[1:])
        if kind == b"X":
            return Ended(*_ENDED.unpack(record)[1:])
        if kind == b"R":
            return Ready(json.loads(record[1:]))
        if kind in (b"E", b"N"):
            number = _TEXT.unpack_from(record)[1]
            text = record[_TEXT.size :].decode()
            return NotForked(number, text) if kind == b"E" else Refused(text, bool(number))
    except struct.error:
        pass
    raise ValueError(f"not a control message: {record[:40]!r}")
