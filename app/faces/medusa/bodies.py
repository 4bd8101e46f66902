"""Request bodies of this face: no unknown fields, payloads as they were sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from app.errors import InvalidRequest
from app.faces.medusa.errors import Refused
from app.faces.medusa.query_strings import problem
from instances.executions.answers import Phase
from instances.payloads import EMPTY, Decoded, decode, loads
from tenants.limits import RESERVED_TRANSACTION_IDS, TRANSACTION_ID

_TYPES = {b"{": "object", b"[": "array", b'"': "string", b"t": "boolean", b"f": "boolean", b"n": "null"}
_FIELDS: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(frozen=True, slots=True)
class RunBody:
    """Of `run`; `input` is JSON text."""

    input: str
    transaction_id: str | None


@dataclass(frozen=True, slots=True)
class AnswerBody:
    """Of `steps/success` and `steps/failure`; `response` and `compensate_input` are JSON text."""

    transaction_id: str
    step_id: str
    response: str | None
    compensate_input: str | None
    phase: Phase


class _Body:
    """A body whose fields are read one by one; :meth:`check` raises what was wrong with them."""

    def __init__(self, body: bytes, *known: str) -> None:
        try:
            self._decoded: Decoded[dict[str, msgspec.Raw]] = decode(body, _FIELDS)
        except InvalidRequest as error:
            if error.message.startswith("the body: expected"):
                raise problem("Expected type: 'object' for the body") from None
            raise
        self._known = known
        self._problems: list[str] = []

    def check(self) -> None:
        """Raises :class:`InvalidRequest`."""
        unknown = [name for name in self._decoded.value if name not in self._known]
        if unknown:
            self.refuse("Unrecognized fields: " + ", ".join(f"'{name[:100]}'" for name in unknown[:20]))
        if self._problems:
            raise problem(*self._problems)

    def refuse(self, message: str) -> None:
        """What is wrong with a field, or with what it says."""
        self._problems.append(message)

    def payload(self, name: str) -> str | None:
        raw = self._decoded.value.get(name)
        return None if raw is None else self._decoded.text(raw)

    def text(self, name: str) -> str | None:
        raw = self._decoded.value.get(name)
        if raw is None:
            return None
        if not bytes(raw).startswith(b'"'):
            self.refuse(f"Expected type: 'string' for field '{name}', got: '{_type_of(raw)}'")
            return None
        text = msgspec.json.decode(raw, type=str)
        if not self._decoded.as_sent(text):
            self.refuse(f"Field '{name}' must not hold half a surrogate pair")
        return text

    def required(self, name: str) -> str:
        if name not in self._decoded.value:
            self.refuse(f"Field '{name}' is required")
        return self.text(name) or ""


def run_body(body: bytes) -> RunBody:
    """Raises :class:`InvalidRequest`; :class:`Refused` for a reserved transaction id."""
    given = _Body(body, "input", "transaction_id")
    transaction_id = given.text("transaction_id")
    if transaction_id is not None and not TRANSACTION_ID.holds(transaction_id):
        given.refuse(f"Field 'transaction_id' must be {TRANSACTION_ID.rule}")
    given.check()
    if transaction_id in RESERVED_TRANSACTION_IDS:
        raise Refused(f"transaction_id '{transaction_id}' is reserved.")
    wanted = given.payload("input")
    return RunBody(EMPTY if wanted is None else wanted, transaction_id)


def answer_body(body: bytes) -> AnswerBody:
    """Raises :class:`InvalidRequest`."""
    given = _Body(body, "transaction_id", "step_id", "response", "compensate_input", "action")
    transaction_id, step_id = given.required("transaction_id"), given.required("step_id")
    action, phases = given.text("action"), {phase.value: phase for phase in Phase}
    phase = Phase.INVOKE if action is None else phases.get(action.lower())
    if phase is None:
        given.refuse(f"Expected: '{', '.join(phases)}' for field 'action', but got: '{(action or '')[:100]}'")
    given.check()
    return AnswerBody(
        transaction_id=transaction_id,
        step_id=step_id,
        response=given.payload("response"),
        compensate_input=given.payload("compensate_input"),
        phase=phase or Phase.INVOKE,
    )


def text_fields(body: bytes, *names: str) -> dict[str, Any]:
    """Fields of a body that has these, whatever their types."""
    given = _Body(body, *names)
    given.check()
    return {name: loads(text) for name in names if (text := given.payload(name)) is not None}


def _type_of(raw: msgspec.Raw) -> str:
    """By how it begins: a number may be larger than any that can be read."""
    return _TYPES.get(bytes(raw)[:1], "number")
