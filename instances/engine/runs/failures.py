"""Failures as text: in the journal, where what is written is what a replay reads, and as told from outside."""

from __future__ import annotations

import json

import msgspec

from instances.payloads import decode_stored, loads
from instances.runtimes.protocol import Failure


class FailureRecord(msgspec.Struct, omit_defaults=True):
    """A failure as journal payload."""

    name: str
    message: str
    code: str | None = None
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # msgspec reads `Raw | None` as None
    compensate_input: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    timed_out: bool = False
    delay: int | None = None
    """Milliseconds to the retry that follows."""
    requested: bool = False
    """A rollback that a command asked for."""
    cancelled: bool = False
    """The session gave the step up: no message follows."""

    def failure(self) -> Failure:
        return Failure(
            self.name, self.message, self.code, output=_text(self.output), compensate_input=_text(self.compensate_input)
        )


_decoder = msgspec.json.Decoder(FailureRecord)
_encode = msgspec.json.Encoder().encode


def decode_failure(payload: str) -> FailureRecord:
    """What :func:`encode_failure` wrote."""
    return decode_stored(_decoder, payload)


def encode_failure(
    failure: Failure,
    *,
    timed_out: bool = False,
    delay: int | None = None,
    requested: bool = False,
    cancelled: bool = False,
) -> str:
    """A failure as journal payload (JSON text); the options are fields of :class:`FailureRecord`."""
    return _encode(
        FailureRecord(
            failure.name,
            failure.message,
            failure.code,
            _raw(failure.output),
            _raw(failure.compensate_input),
            timed_out,
            delay,
            requested,
            cancelled,
        )
    ).decode("utf-8", "surrogatepass")


def _text(raw: msgspec.Raw | msgspec.UnsetType) -> str | None:
    return None if isinstance(raw, msgspec.UnsetType) else bytes(raw).decode()


def _raw(text: str | None) -> msgspec.Raw | msgspec.UnsetType:
    return msgspec.UNSET if text is None else msgspec.Raw(text.encode("utf-8", "surrogatepass"))


def failure_from_outside(payload: str | None) -> Failure:
    """What somebody outside says went wrong, or anything as the message.

    `{name?, message?, code?, permanent?, compensate_input?}`
    """
    value = loads(payload)
    if not isinstance(value, dict):
        return Failure("Error", value if isinstance(value, str) else (payload or "failed from outside"))
    given = value.get("compensate_input")
    return Failure(
        str(value.get("name") or "Error"),
        str(value.get("message") or "failed from outside"),
        code=str(value["code"]) if value.get("code") else None,
        permanent=value.get("permanent") is True,
        compensate_input=None if given is None else json.dumps(given, separators=(",", ":")),
    )
