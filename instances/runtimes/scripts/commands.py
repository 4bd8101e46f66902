"""The engine's commands for what a script calls."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import UnsetType

from instances.runtimes.protocol import Do, Retry, Sleep, StepKey, StepKind, Wait
from instances.runtimes.scripts.messages import Duration, SleepCalled, StepCalled, StepConfig, Violation, WaitCalled
from tenants.limits import EVENT_TIMEOUT_DEFAULT_MS, EVENT_TIMEOUT_MAX_MS, EVENT_TYPE, RETRIES, SLEEP_MAX_MS, STEP_NAME
from versions.durations import parse_duration

_UNLIMITED = 2**31


def do_command(key: StepKey, called: StepCalled) -> Do:
    """`step.do`. Raises :class:`Violation`: the prelude has checked everything before."""
    _check_name(key.name)
    plan = _plan(bytes(called.config), called.dynamic)
    return Do(
        key,
        plan.retry,
        timeout=plan.timeout,
        config=plan.start,
        fingerprint=_fingerprint("do", key.name),
        guarded=handler_of(called) is not None,
        sensitive=plan.sensitive,
        nested=called.inside != 0,
        dynamic_delay=called.dynamic,
    )


def handler_of(called: StepCalled) -> bytes | None:
    """The configuration of the step's rollback handler, when it has one."""
    config = called.rollback
    return None if isinstance(config, UnsetType) or bytes(config) == b"null" else bytes(config)


def undo_command(key: StepKey, config: bytes) -> Do:
    """The rollback handler of the step `key`. Raises :class:`Violation`."""
    plan = _plan(config, False)
    return Do(
        StepKey(StepKind.ROLLBACK, key.name, key.count),
        plan.retry,
        timeout=plan.timeout,
        config=plan.start,
        counts=False,
    )


def sleep_command(key: StepKey, called: SleepCalled) -> Sleep:
    """`step.sleep` and `step.sleepUntil`. Raises :class:`Violation`."""
    _check_name(key.name)
    nested = called.inside != 0
    if called.until is not None:
        return Sleep(key, until=int(called.until), fingerprint=_fingerprint("until", key.name), nested=nested)
    if called.duration is None:
        raise Violation("a sleep without a duration")
    duration = _millis(called.duration, 0, SLEEP_MAX_MS)
    return Sleep(key, duration=duration, fingerprint=_fingerprint("sleep", key.name, duration), nested=nested)


def wait_command(key: StepKey, called: WaitCalled) -> Wait:
    """`step.waitForEvent`. Raises :class:`Violation`."""
    _check_name(key.name)
    if not EVENT_TYPE.holds(called.type):
        raise Violation(f"a wait for an event type that is not {EVENT_TYPE.rule}")
    timeout = EVENT_TIMEOUT_DEFAULT_MS
    if called.timeout is not None:
        timeout = _millis(called.timeout, 1, EVENT_TIMEOUT_MAX_MS)
    return Wait(
        key,
        called.type,
        timeout,
        fingerprint=_fingerprint("wait", key.name, called.type),
        nested=called.inside != 0,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """A step's configuration in the engine's words."""

    retry: Retry
    timeout: int
    start: str
    sensitive: bool


_decoder = msgspec.json.Decoder(StepConfig)


@lru_cache(maxsize=4096)
def _plan(text: bytes, dynamic: bool) -> _Plan:
    """A run in a loop gives the same configuration again and again. Raises :class:`Violation`."""
    try:
        config = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Violation(f"a step's configuration: {error}") from None
    timeout = _millis(config.timeout, 1, SLEEP_MAX_MS)
    return _Plan(_retry(config, dynamic=dynamic), timeout, _start(config), config.sensitive is not None)


def _retry(config: StepConfig, *, dynamic: bool) -> Retry:
    retries = config.retries
    limit = _UNLIMITED if retries.limit is None else int(retries.limit)
    if limit > RETRIES and limit != _UNLIMITED:
        raise Violation(f"a step with more than {RETRIES} retries")
    delay = 0 if dynamic else _millis(retries.delay, 0, SLEEP_MAX_MS)
    return Retry(limit, delay, retries.backoff, max_delay=SLEEP_MAX_MS)


def _start(config: StepConfig) -> str:
    """What the start entry says of the step: its configuration, as views show it."""
    start: dict[str, Any] = {"config": _whole(msgspec.to_builtins(config))}
    if config.sensitive is not None:
        start["sensitive"] = True
    return msgspec.json.encode(start).decode()


@lru_cache(maxsize=4096)
def config_of(start: str) -> msgspec.Raw:
    """The configuration in a step's start entry, as :attr:`Do.config` has it."""
    return msgspec.json.decode(start, type=_Start).config


class _Start(msgspec.Struct):
    config: msgspec.Raw


def _whole(value: Any) -> Any:
    """Numbers without a fraction as integers, as JavaScript prints them."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _millis(value: Duration, minimum: int, maximum: int) -> int:
    try:
        return parse_duration(value, minimum_ms=minimum, maximum_ms=maximum, loose=True)  # type: ignore[arg-type]
    except ValueError as error:
        raise Violation(f"a duration {error}") from None


@lru_cache(maxsize=4096)
def _check_name(name: str) -> None:
    if not STEP_NAME.holds(name):
        raise Violation(f"a step name must be {STEP_NAME.rule}")


@lru_cache(maxsize=4096)
def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
