"""What the facts from outside are called by which a step is answered. They share the inbox with events, whose types
callers choose, but never with a colon.
"""

from __future__ import annotations

from urllib.parse import quote

from instances.runtimes.protocol import StepKey


def completes(name: str, count: int = 1, *, compensation: bool = False) -> str:
    """Completes run `count` of the step `name`, or its compensation, with the payload as output.

    Of a step that runs several times, the type without a count is the first's; any other that waits takes it, too.
    """
    return _about("step", name, count, compensation)


def fails(name: str, count: int = 1, *, compensation: bool = False) -> str:
    """Fails an attempt of run `count` of the step, or of its compensation; the payload says what went wrong."""
    return _about("step-failed", name, count, compensation)


def gives_input(completes: str) -> str:
    """What the compensation of a step is to get; stored before the fact of type `completes`, which completes it."""
    return completes.replace("step:", "step-input:", 1)


def fails_wait(key: StepKey) -> str:
    """Fails a wait for an event."""
    return f"wait-failed:{_plain(key)}"


def is_failure(type: str) -> bool:
    """Whether a fact of that type fails something."""
    return type.startswith(("step-failed:", "wait-failed:"))


def retries(key: StepKey) -> str:
    """Has a step tried again: now, if it waits for that, else once more although it failed."""
    return f"retry:{_plain(key)}"


def _about(what: str, name: str, count: int, compensation: bool) -> str:
    return ":".join([what, name, *([str(count)] if count > 1 else []), *(["compensate"] if compensation else [])])


def _plain(key: StepKey) -> str:
    """Names of steps may hold anything; lists of types are split at commas."""
    return quote(key.counted, safe="")
