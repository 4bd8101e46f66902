"""From a piece of work to the command the driver carries out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instances.runtimes.document.failures import EXPRESSION_ERROR, ConfigError, rule
from instances.runtimes.document.plan import Action
from instances.runtimes.document.results import shaper, sleep_shaper
from instances.runtimes.document.scope import PayloadScope
from instances.runtimes.document.states import Work
from instances.runtimes.protocol import Child, Do, Failure, Raw, Retry, Sleep, StepFailure, StepKey, StepKind, Wait
from tenants.limits import EVENT_TIMEOUT_DEFAULT_MS
from versions.document.model import NO_INPUT
from versions.durations import MAX_WAIT, parse_duration, parse_moment
from versions.expressions import Budget, ExpressionError, encode_json
from versions.names import EVENT_RULE, may_be_awaited

DEFAULT_WAIT_MS = 1_000

Config = dict[str, Any]
Allow = Callable[[Work, Failure, int], bool]
"""Whether work that failed may be tried again."""


def command_of(work: Work, allow: Allow, budget: Budget | None) -> Do | Sleep | Wait:
    """The command of `work`, its config rendered within `budget` where the command itself depends on it.

    What cannot be rendered becomes a step that only reports why.
    """
    if work.failure is not None or work.settled:
        return _report(work, allow)
    try:
        if not work.body.planned:
            return _do(work, allow)
        return _PLANNED[work.body.action](work, allow, work.body.config.render(work.scope, budget))
    except ExpressionError as error:
        work.failure = rule(EXPRESSION_ERROR, str(error))
    except StepFailure as error:
        work.failure = error.failure
    return _report(work, allow)


def _report(work: Work, allow: Allow) -> Do:
    """A step that only says what is known already."""
    if work.key.kind is not StepKind.ROLLBACK:
        work.key = StepKey(StepKind.DO, work.key.name, work.key.count)
    return _do(work, allow)


def _do(work: Work, allow: Allow, child: Child | None = None) -> Do:
    plan, body = work.plan, work.body
    forward = work.compensation is None
    reports = work.failure is not None or work.settled
    return Do(
        key=work.key,
        retry=body.retry if not body.retry.limit else _retry(work, allow),
        timeout=body.timeout,
        total_timeout=body.total_timeout,
        config=_start(work),
        external=body.external and not reports and not work.facts.dry_run,
        guarded=plan.guarded and forward,
        save_output=plan.save_output or not forward,
        shape=shaper(work) if forward and plan.outputs is not None else None,
        keep_result=plan.keeps_result and forward,
        counts=forward and body.action is not Action.TRIGGER,
        immediate=body.pure or reports,
        repeatable=body.repeatable,
        outgoing=body.action is Action.CALL and not reports and not work.facts.dry_run,
        child=child,
        data=work,
    )


def _start(work: Work) -> Raw:
    """Payload of the journal's start entry."""
    items = 0 if work.loops_over_nothing else work.items if work.compensation is None else None
    return work.body.start if items is None else f'{work.body.start[:-1]},"items":{items}}}'


def _retry(work: Work, allow: Allow) -> Retry:
    retry = work.body.retry
    return Retry(
        retry.limit,
        retry.delay,
        retry.backoff,
        retry.multiplier,
        retry.max_delay,
        retry.jitter,
        lambda failure, attempt: allow(work, failure, attempt),
    )


def _sleep(work: Work, _allow: Allow, config: Config) -> Sleep:
    duration = config.get("durationMs")
    duration = config.get("duration") if duration is None else duration
    work.duration = _duration(DEFAULT_WAIT_MS if duration is None else duration, "duration")
    return Sleep(
        work.key,
        duration=0 if work.facts.dry_run else work.duration,
        shape=sleep_shaper(work),
        items=work.items,
    )


def _sleep_until(work: Work, _allow: Allow, config: Config) -> Sleep:
    until = _moment(config.get("at"))
    if work.facts.dry_run:
        return Sleep(work.key, duration=0, shape=sleep_shaper(work), items=work.items)
    return Sleep(work.key, until=until, shape=sleep_shaper(work), items=work.items)


def _wait(work: Work, allow: Allow, config: Config) -> Wait | Do:
    event = config.get("event")
    if not may_be_awaited(event):
        raise ConfigError(f"config/event must be {EVENT_RULE}")
    timeout = config.get("timeout")
    milliseconds = EVENT_TIMEOUT_DEFAULT_MS if timeout is None else _duration(timeout, "timeout", minimum=1)
    if work.facts.dry_run:
        work.settled = True
        return _report(work, allow)
    accepts = None if work.plan.match is None else _accepts(work)
    shape = None if work.plan.outputs is None else shaper(work)
    return Wait(work.key, event, milliseconds, accepts, shape=shape, items=work.items)


def _accepts(work: Work) -> Callable[[Raw | None], bool]:
    match = work.plan.match
    assert match is not None

    def accepts(payload: Raw | None) -> bool:
        try:
            return match.holds(PayloadScope(work.scope, payload))
        except ExpressionError:
            return False

    return accepts


def _child(work: Work, allow: Allow, config: Config) -> Do:
    workflow, wait = config.get("workflow"), config.get("wait")
    if not isinstance(workflow, str) or not workflow:
        raise ConfigError("config/workflow must be the name of a workflow")
    if wait is not None and not isinstance(wait, bool):
        raise ConfigError("config/wait must be true or false")
    if work.facts.dry_run:
        work.settled = True
        return _report(work, allow)
    given = encode_json(config.get("input", NO_INPUT))
    return _do(work, allow, Child(workflow, given, wait is not False))


_PLANNED: dict[Action, Callable[[Work, Allow, Config], Do | Sleep | Wait]] = {
    Action.SLEEP: _sleep,
    Action.SLEEP_UNTIL: _sleep_until,
    Action.EVENT: _wait,
    Action.CHILD: _child,
}


def _duration(value: Any, key: str, *, minimum: int = 0) -> int:
    try:
        return parse_duration(value, minimum_ms=minimum, maximum_ms=MAX_WAIT, loose=True)
    except ValueError as error:
        raise ConfigError(f"config/{key} {error}") from None


def _moment(value: Any) -> int:
    try:
        return parse_moment(value)
    except ValueError as error:
        raise ConfigError(f"config/at {error}") from None
