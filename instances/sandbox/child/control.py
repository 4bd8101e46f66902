"""What a worker and a zygote say to each other, one message per SOCK_SEQPACKET record.

    worker -> zygote    F fork (request, limits, mode; with the child's socket and progress page as SCM_RIGHTS)
                        K kill (request)
    zygote -> worker    R ready (JSON facts)   N refused, for ever (a sentence)
                        P forked (request, pid)   E not forked (request, a sentence)   X ended (request, pid, status …)

A child is named by the number of its fork request, which is never used twice: process ids are.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAX_MESSAGE = 16 << 10

FORK = b"F"
KILL = b"K"
READY = b"R"
REFUSED = b"N"
FORKED = b"P"
FAILED = b"E"
ENDED = b"X"

SERVE = 0
"""Mode of a fork: the engine serves frames."""
CANARY = 1
"""Mode of a fork: locked like any other, then tries to get out and answers its first frame with what it achieved."""


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    data: int = 256 << 20
    """Bytes of writable private memory (RLIMIT_DATA), everything included: the engine itself takes 20 to 40 MiB."""
    cpu: int = 3600
    """CPU seconds in its whole life (RLIMIT_CPU). A backstop for when the worker cannot act; deadlines are its own."""


_FORK = struct.Struct("<cQQIB")
_KILL = struct.Struct("<cQ")
_FORKED = struct.Struct("<cQi")
_FAILED = struct.Struct("<cQ")
_ENDED = struct.Struct("<cQiidQ")
