"""The engine's commands for what a script calls."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from instances.runtimes.protocol import Do, Retry, Sleep, StepKey, StepKind, Wait
from instances.runtimes.scripts.messages import Duration, SleepCalled, StepCalled, StepConfig, Violation, WaitCalled
from tenants.limits import EVENT_TIMEOUT_DEFAULT_MS, EVENT_TIMEOUT_MAX_MS, EVENT_TYPE, RETRIES, SLEEP_MAX_MS, STEP_NAME
from versions.durations import parse_duration

DYNAMIC = "[dynamic]"
_UNLIMITED = 2**31


def do_command(key: StepKey, called: StepCalled) -> Do:
    """`step.do`. Raises :class:`Violation`: the prelude has checked everything before."""
    _check_name(key.name)
    config = called.config
    retry = _retry(config, dynamic=called.dynamic)
    return Do(
        key,
        retry,
        timeout=_millis(config.timeout, 1, SLEEP_MAX_MS),
        config=_start(config),
        fingerprint=_fingerprint("do", key.name),
        guarded=called.rollback is not None,
        sensitive=config.sensitive is not None,
        nested=called.inside != 0,
        dynamic_delay=called.dynamic,
    )


def undo_command(key: StepKey, config: StepConfig | None) -> Do:
    """The rollback handler of the step `key`."""
    assert config is not None
    return Do(
        StepKey(StepKind.ROLLBACK, key.name, key.count),
        _retry(config, dynamic=False),
        timeout=_millis(config.timeout, 1, SLEEP_MAX_MS),
        config=_start(config),
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


def config_of(step: Do) -> msgspec.Raw:
    """The configuration in a step's start entry."""
    return msgspec.json.decode(step.config, type=_Start).config


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


def _check_name(name: str) -> None:
    if not STEP_NAME.holds(name):
        raise Violation(f"a step name must be {STEP_NAME.rule}")


def _fingerprint(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
