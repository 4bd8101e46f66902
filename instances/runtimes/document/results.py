"""Outputs that are made from what happened rather than by an action."""

from __future__ import annotations

from datetime import datetime

import msgspec

from instances.payloads import decode_stored
from instances.runtimes.document.failures import EXPRESSION_ERROR, LIMIT_EXCEEDED, fits, rule
from instances.runtimes.document.plan import Action, Plan
from instances.runtimes.document.scope import RunFacts, Scope
from instances.runtimes.document.states import Work
from instances.runtimes.protocol import Done, Raw, StepFailure, StepKind
from tenants.limits import PAYLOAD_BYTES
from versions.expressions import ExpressionError, encode_json


class _Received(msgspec.Struct):
    payload: msgspec.Raw = msgspec.Raw(b"null")


_received = msgspec.json.Decoder(_Received)


def result_of(work: Work, message: Done) -> Raw | None:
    """What a node's work came to: for a sleep how long it was, for a wait the event's payload, else as reported."""
    kind = message.key.kind
    if kind is StepKind.SLEEP:
        until = work.body.action is Action.SLEEP_UNTIL
        return _slept(_passed(message.started_at, message.at) if until else work.duration)
    if kind is StepKind.WAIT:
        return "null" if message.value is None else bytes(decode_stored(_received, message.value).payload).decode()
    return message.value


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
