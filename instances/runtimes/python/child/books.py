"""What the rest stands on: the runs in this sandbox, whose code is running, and what is to be said to the worker."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MAX_OUTBOX = 20_000
OVER = "the run is not in this process any more"
GLOBAL_SCOPE = "Disallowed operation called within global scope"


class Chance:
    """A source of chance: 32 bytes, and what has been made of them so far."""

    __slots__ = ("blocks", "entropy", "generator", "rest")

    def __init__(self, entropy: bytes) -> None:
        self.entropy = entropy
        self.generator: Any = None
        self.blocks = 0
        self.rest = b""


@dataclass(slots=True, eq=False)
class Step:
    """A step that was called. `outcome` None: it is settled."""

    kind: str
    name: str
    count: int
    inside: int
    outcome: asyncio.Future[Any] | None
    context: contextvars.Context
    callback: Callable[..., Any] | None = None
    delay: Callable[..., Any] | None = None
    ctx: dict[str, Any] = field(default_factory=dict)


class Life:
    """One run in this sandbox. Times are milliseconds since 1970."""

    def __init__(self, number: int, seed: str, now: float) -> None:
        self.number = number
        self.clock = self.started = now
        self.ahead = 0.0
        """What the worker's clock is ahead of this process's."""
        self.chance = Chance(bytes.fromhex(seed)[:32])
        self.attempts: dict[int, Chance] = {}
        """Chance of the attempts under way, by step."""
        self.steps: list[Step] = []
        self.ids: dict[tuple[str, str, int], int] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.past: deque[dict[str, Any]] = deque()
        self.complete = True
        """No more of the past will come."""
        self.active = self.outside = self.inside = 0
        self.lines = 0
        self.unfinished: dict[tuple[int, str], str] = {}
        """Text written without a line's end, by step and level."""
        self.rolling_back = False
        self.dropped = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self.running: dict[tuple[int, int], asyncio.Task[Any]] = {}
        """Tasks of attempts, by step and attempt."""


class Place:
    """Where code runs: of which run, in the callback of which step (0: outside of steps)."""

    __slots__ = ("life", "step")

    def __init__(self, life: Life | None, step: int) -> None:
        self.life = life
        self.step = step


NOWHERE = Place(None, 0)
"""While the script is loaded."""
current: contextvars.ContextVar[Place] = contextvars.ContextVar("place", default=NOWHERE)
lives: dict[int, Life] = {}
flags: set[str] = set()
"""Compatibility flags in force."""

# --- the outbox -------------------------------------------------------------------------------------------------------

outbox: list[dict[str, Any]] = []


def post(message: dict[str, Any]) -> None:
    """Say something to the worker. RuntimeError for code that says too much at once: nobody would listen."""
    if len(outbox) >= MAX_OUTBOX - 100:
        raise RuntimeError("too many calls at once")
    outbox.append(message)


# --- what only the worker can do --------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Call:
    life: Life
    step: int
    answered: Callable[[dict[str, Any]], None]


calls: dict[int, Call] = {}
_numbers = 0


def place_call(kind: str, args: dict[str, Any], place: Place, answered: Callable[[dict[str, Any]], None]) -> int:
    """Ask the worker for something; `answered` gets its reply. The call's number."""
    global _numbers
    life, step = place.life, place.step
    if life is None:
        raise RuntimeError(GLOBAL_SCOPE)
    if life.dropped:
        raise RuntimeError(OVER)
    _numbers += 1
    post({"op": "call", "r": life.number, "call": _numbers, "kind": kind, "args": args, "inside": step})
    calls[_numbers] = Call(life, step, answered)
    if step:
        life.inside += 1
    else:
        life.outside += 1
    return _numbers


def forget_call(number: int) -> Call | None:
    call = calls.pop(number, None)
    if call is not None:
        if call.step:
            call.life.inside -= 1
        else:
            call.life.outside -= 1
    return call


def cancel_call(number: int) -> None:
    """Give a call up."""
    call = forget_call(number)
    if call is not None and not call.life.dropped:
        post({"op": "cancel", "r": call.life.number, "call": number})


def on_reply(message: dict[str, Any]) -> None:
    call = calls.get(message["call"]) if message.get("more") else forget_call(message["call"])
    if call is not None:
        call.answered(message)
