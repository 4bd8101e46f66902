"""What the facts from outside are called by which a step is answered. They share the inbox with events, whose types
callers choose, but never with a colon.
"""

from __future__ import annotations

from urllib.parse import quote

from instances.runtimes.protocol import StepKey


def completes(name: str, *, compensation: bool = False) -> str:
    """Completes the step `name`, or its compensation, with the payload as output."""
    return f"step:{name}:compensate" if compensation else f"step:{name}"


def fails(name: str, *, compensation: bool = False) -> str:
    """Fails an attempt of the step `name`, or of its compensation; the payload says what went wrong."""
    return f"step-failed:{name}:compensate" if compensation else f"step-failed:{name}"


def gives_input(name: str) -> str:
    """What the compensation of the step `name` is to get; stored before what completes it."""
    return f"step-input:{name}"


def fails_wait(key: StepKey) -> str:
    """Fails a wait for an event."""
    return f"wait-failed:{_plain(key)}"


def is_failure(type: str) -> bool:
    """Whether a fact of that type fails something."""
    return type.startswith(("step-failed:", "wait-failed:"))


def retries(key: StepKey) -> str:
    """Has a step tried again: now, if it waits for that, else once more although it failed."""
    return f"retry:{_plain(key)}"


def _plain(key: StepKey) -> str:
    """Names of steps may hold anything; lists of types are split at commas."""
    return quote(key.counted, safe="")
