"""What one attempt of a node does, by action. Pure ones compute in place; the others do the run's I/O."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

from instances.egress import EgressClient
from instances.runtimes.document.call_api import call_api
from instances.runtimes.document.failures import CONDITION_FAILED, EXPRESSION_ERROR, ConfigError, fits, printable, rule
from instances.runtimes.document.handlers import ActionContext, HandlerPool
from instances.runtimes.document.plan import Action
from instances.runtimes.document.states import Work
from instances.runtimes.document.store import ActionStore
from instances.runtimes.protocol import Attempt, Failure, Raw, StepFailure, StepKind
from tenants.clock import iso
from versions.document.types import MESSAGE_LENGTH, PERSON_LENGTH, PRIORITIES, TITLE_LENGTH
from versions.expressions import Budget, ExpressionError, decode_json, encode_json

SUCCESS = '"success"'


@dataclass(frozen=True, slots=True)
class Tools:
    """What actions reach the outside with."""

    store: ActionStore
    egress: EgressClient
    handlers: HandlerPool


async def perform(work: Work, attempt: Attempt, tools: Tools) -> Raw | None:
    """One attempt; its output as JSON text. Raises :class:`StepFailure`. Never suspends for pure actions."""
    if work.failure is not None:
        raise StepFailure(work.failure)
    if work.settled:
        return work.result
    try:
        pure = _PURE.get(work.body.action)
        if pure is not None:
            return pure(work, attempt)
        if work.facts.dry_run:
            return simulate(work, attempt)
        return await _OUTSIDE[work.body.action](work, attempt, tools)
    except ExpressionError as error:
        raise StepFailure(rule(EXPRESSION_ERROR, str(error))) from error


def _render(work: Work) -> dict[str, Any]:
    return work.body.config.render(work.scope)


# --- pure actions ------------------------------------------------------------------------------------------------


def _noop(work: Work, _attempt: Attempt) -> Raw | None:
    return None if work.body.external else SUCCESS


def _trigger(work: Work, _attempt: Attempt) -> Raw | None:
    return work.facts.run.input


def _set(work: Work, _attempt: Attempt) -> Raw:
    values = _render(work).get("values")
    if not isinstance(values, dict):
        raise ConfigError("config/values must be an object")
    return encode_json(values)


def _fail(work: Work, _attempt: Attempt) -> Raw:
    config = _render(work)
    code, message = config.get("code"), config.get("message")
    name = _plain(code)[:PERSON_LENGTH] if code is not None else "Error"
    text = _plain(message)[:MESSAGE_LENGTH] if message is not None else f"node {work.plan.node.id} failed"
    raise StepFailure(Failure(name, text, None if code is None else name, permanent=True))


def _condition(work: Work, attempt: Attempt) -> Raw:
    plan = work.plan

    def warn(text: str) -> None:
        attempt.log("warn", text)

    comparison = plan.comparison
    if comparison is not None:
        met, actual, wanted = comparison.judge(work.scope, warn)
        verdict = {
            "conditionMet": met,
            "field": comparison.field,
            "operator": comparison.operator,
            "value": wanted,
            "actualValue": actual,
        }
    else:
        assert plan.condition is not None
        met = plan.condition.holds(work.scope, warn)
        verdict = {"conditionMet": met, "field": None, "operator": None, "value": None, "actualValue": None}
    if not met and plan.on_false == "fail":
        raise StepFailure(rule(CONDITION_FAILED, f"the condition of node {plan.node.id} is not met"))
    output = encode_json(verdict)
    return output if fits(output) else encode_json({**verdict, "value": None, "actualValue": None})


_PURE: dict[Action, Callable[[Work, Attempt], Raw | None]] = {
    Action.NOOP: _noop,
    Action.TRIGGER: _trigger,
    Action.SET: _set,
    Action.FAIL: _fail,
    Action.CONDITION: _condition,
}


# --- actions that reach outside ----------------------------------------------------------------------------------


async def _notify(work: Work, attempt: Attempt, tools: Tools) -> Raw:
    config, run = _render(work), work.facts.run
    message = _stored(config.get("message"), "message", MESSAGE_LENGTH)
    recipient = _person(config.get("recipient"), "recipient", run.triggered_by)
    now = attempt.now()
    await tools.store.add_notification(
        run.account_id,
        _row_id(work, "notification"),
        workspace_id=run.workspace_id,
        instance_key=run.key,
        node=work.plan.node.id,
        recipient=recipient,
        message=message,
        at=now,
    )
    return _notified(message, recipient, iso(now))


def _notified(message: str, recipient: str | None, timestamp: str) -> Raw:
    return encode_json({"notificationSent": True, "message": message, "recipient": recipient, "timestamp": timestamp})


async def _create_task(work: Work, attempt: Attempt, tools: Tools) -> Raw:
    config, run = _render(work), work.facts.run
    title, priority = _task(config)
    id = _row_id(work, "task")
    await tools.store.add_task(
        run.account_id,
        id,
        workspace_id=run.workspace_id,
        instance_key=run.key,
        node=work.plan.node.id,
        title=title,
        description=_stored(config.get("description") or "", "description", MESSAGE_LENGTH, empty=True),
        priority=priority,
        assigned_to=_person(config.get("assignedTo"), "assignedTo", run.triggered_by),
        at=attempt.now(),
    )
    return encode_json({"taskId": str(id), "title": title, "status": "TODO"})


def _task(config: dict[str, Any]) -> tuple[str, str]:
    priority = config.get("priority") or "MEDIUM"
    if priority not in PRIORITIES:
        raise ConfigError(f"config/priority must be one of {', '.join(PRIORITIES)}")
    return _stored(config.get("title"), "title", TITLE_LENGTH), priority


async def _call(work: Work, attempt: Attempt, tools: Tools) -> Raw:
    return await call_api(
        tools.egress,
        _render(work),
        attempt,
        idempotency_key=_idempotency_key(work, attempt),
        lane=work.facts.run.account_id,
    )


async def _handle(work: Work, attempt: Attempt, tools: Tools) -> Raw | None:
    node = work.plan.node
    action = {"id": node.id, "name": node.name, "type": work.body.type, "config": _copied(_render(work))}
    returned = await tools.handlers.call(work.body.handler or work.body.type, action, _context(work, attempt))
    attempt.compensate_input = returned.compensate_input
    return returned.output


def _context(work: Work, attempt: Attempt) -> ActionContext:
    scope, facts = work.scope, work.facts
    known = facts.context()
    compensating = work.compensation is not None
    return ActionContext(
        workspace_id=known["workspaceId"],
        workflow_id=known["workflowId"],
        execution_id=known["executionId"],
        user_id=known["userId"],
        attempt=attempt.number,
        idempotency_key=_idempotency_key(work, attempt),
        variables=lambda: _copied(scope.vars),
        log=attempt.log,
        cancelled=attempt.cancelled,
        trigger_data=lambda: _copied(facts.input(None)),
        previous_results=lambda: _copied(scope.results(None)),
        compensation=_copied(scope.field("compensation", Budget()).whole(None)) if compensating else None,
        error=_copied(scope.field("error", None)) if compensating else None,
    )


_OUTSIDE: dict[Action, Callable[[Work, Attempt, Tools], Awaitable[Raw | None]]] = {
    Action.NOTIFICATION: _notify,
    Action.TASK: _create_task,
    Action.CALL: _call,
    Action.HANDLER: _handle,
}


def simulate(work: Work, attempt: Attempt) -> Raw | None:
    """The shape of an action's output, without its effect (dry runs)."""
    config = _render(work)
    match work.body.action:
        case Action.NOTIFICATION:
            recipient = _person(config.get("recipient"), "recipient", work.facts.run.triggered_by)
            return _notified(_stored(config.get("message"), "message", MESSAGE_LENGTH), recipient, iso(attempt.now()))
        case Action.TASK:
            title, _ = _task(config)
            return encode_json({"taskId": str(_row_id(work, "task")), "title": title, "status": "TODO"})
        case Action.CALL:
            return '{"status":200,"statusText":"OK","data":null}'
    return None


def _copied(value: Any) -> Any:
    """A value of its own for code that may change it: what expressions gave is shared with all the run."""
    return decode_json(encode_json(value))


# --- values ------------------------------------------------------------------------------------------------------


def _row_id(work: Work, table: str) -> UUID:
    """The same for every attempt of a step in one run, so that repeats find their row."""
    run, key = work.facts.run, work.key
    return uuid5(run.key, f"{table}/{run.run}/{key.kind}/{key.name}/{key.count}")


def _idempotency_key(work: Work, attempt: Attempt) -> str:
    """`<workflow>:<instance>:<node>:<invoke|compensate>`, with the number of the item in a `for_each`."""
    run, key = work.facts.run, work.key
    phase = "compensate" if key.kind is StepKind.ROLLBACK else "invoke"
    plain = attempt.idempotency_key or f"{run.workflow}:{run.instance_id}:{key.name}:{phase}"
    return plain if work.index < 0 else f"{plain}:{key.count}"


def _plain(value: Any) -> str:
    """A value as text the database can hold."""
    return printable(value if isinstance(value, str) else encode_json(value))


def _stored(value: Any, key: str, most: int, *, empty: bool = False) -> str:
    text = "" if value is None else _plain(value)
    if not (text or empty) or len(text) > most:
        raise ConfigError(f"config/{key} must be a text of {0 if empty else 1} to {most} characters")
    return text


def _person(value: Any, key: str, default: str | None) -> str | None:
    return default if value is None else _stored(value, key, PERSON_LENGTH)
