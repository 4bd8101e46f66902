"""Outputs that are made from what happened rather than by an action."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from instances.payloads import decode_stored
from instances.runtimes.document.failures import EXPRESSION_ERROR, LIMIT_EXCEEDED, fits, rule
from instances.runtimes.document.plan import Action, Plan
from instances.runtimes.document.scope import RunFacts, Scope
from instances.runtimes.document.states import Work
from instances.runtimes.protocol import Done, Raw, StepFailure, StepKind
from instances.step_entries import made_of
from tenants.limits import PAYLOAD_BYTES
from versions.expressions import Budget, ExpressionError, decode_json, encode_json


class _Received(msgspec.Struct):
    payload: msgspec.Raw = msgspec.Raw(b"null")


_received = msgspec.json.Decoder(_Received)


def output_of(work: Work, message: Done) -> Raw | None:
    """A node's output: what its `outputs` made; without these, of a sleep how long it was, of a wait its payload."""
    kind = message.key.kind
    if kind is StepKind.DO:
        return message.value
    made = made_of(message.value)
    if made is not None:
        return made
    if kind is StepKind.SLEEP:
        return _sleep(work, message.started_at, message.at)
    return "null" if message.value is None else bytes(decode_stored(_received, message.value).payload).decode()


def reshape(work: Work, output: Raw | None) -> Raw:
    """The node's `outputs`, with its result in scope. Raises StepFailure."""
    assert work.plan.outputs is not None
    budget = Budget()
    try:
        budget.decode("result", len(output or ""))
        result = None if output is None else decode_json(output)
        reshaped = encode_json(work.plan.outputs.render(work.scope.adding(result=result), budget))
    except ExpressionError as error:
        raise StepFailure(rule(EXPRESSION_ERROR, str(error))) from error
    if not fits(reshaped):
        raise StepFailure(rule(EXPRESSION_ERROR, f"outputs make more than {PAYLOAD_BYTES} bytes"))
    return reshaped


def shaper(work: Work) -> Callable[[Raw | None], Raw]:
    """Makes the output of a node that has `outputs`, when its result is there. A loop without items is as it is."""

    def shape(result: Raw | None) -> Raw:
        return result if work.loops_over_nothing and result is not None else reshape(work, result)

    return shape


def sleep_shaper(work: Work) -> Callable[[datetime, datetime], Raw] | None:
    """The same for a sleep; and for any in a dry run, where it does not last as long as it says."""
    if work.plan.outputs is not None:
        return lambda began, ended: reshape(work, _sleep(work, began, ended))
    return (lambda began, ended: _sleep(work, began, ended)) if work.facts.dry_run else None


def _sleep(work: Work, began: datetime | None, ended: datetime) -> Raw:
    until = work.body.action is Action.SLEEP_UNTIL
    return _slept(_passed(began, ended) if until else work.duration)


def _passed(start: datetime | None, end: datetime) -> int:
    return 0 if start is None else max(0, round((end - start).total_seconds() * 1000))


def _slept(milliseconds: int) -> Raw:
    return f'{{"waited":true,"durationMs":{milliseconds}}}'


def instance_output(plan: Plan, facts: RunFacts) -> Raw:
    """The document's `outputs`; without them the output of the one node nothing follows, or of all such by id.

    Raises StepFailure.
    """
    output = _made(plan, facts) if plan.outputs is not None else _collected(plan, facts)
    if output is None or not fits(output):
        raise StepFailure(rule(LIMIT_EXCEEDED, f"the output of the instance has more than {PAYLOAD_BYTES} bytes"))
    return output


def _made(plan: Plan, facts: RunFacts) -> Raw:
    assert plan.outputs is not None
    try:
        return encode_json(plan.outputs.render(Scope(facts)))
    except ExpressionError as error:
        raise StepFailure(rule(EXPRESSION_ERROR, str(error))) from error


def _collected(plan: Plan, facts: RunFacts) -> Raw | None:
    """None when it would be far too large to put together."""
    outputs = [(plan.nodes[number].node.id, facts.by_node[number].output or "null") for number in plan.sinks]
    if len(outputs) == 1:
        return outputs[0][1]
    if sum(len(text) for _, text in outputs) > PAYLOAD_BYTES:
        return None
    return "{" + ",".join(f'"{id}":{text}' for id, text in outputs) + "}"
