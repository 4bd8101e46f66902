"""Request bodies into typed values, with messages that name the field and the rule."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import accumulate
from typing import TypeVar

import msgspec

from app.errors import InvalidRequest, PayloadTooLarge
from tenants.limits import BODY_BYTES, JSON_DEPTH

T = TypeVar("T")

_WHERE = re.compile(r"(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `([^`]*)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # the last quote is optional: no rescans, so linear
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")

TOO_DEEP = f"JSON must not nest deeper than {JSON_DEPTH} levels"


def decode_body(body: bytes, kind: type[T], *, limit: int = BODY_BYTES) -> T:
    """`body`, JSON, as `kind`. An empty body is an empty object.

    Raises :class:`PayloadTooLarge` beyond `limit` bytes and :class:`InvalidRequest`, with a JSON pointer to the field,
    for anything that is not JSON or not a `kind`.
    """
    if len(body) > limit:
        raise PayloadTooLarge(f"the request body is larger than {limit} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def invalid_field(error: msgspec.ValidationError) -> InvalidRequest:
    """msgspec's complaint as an :class:`InvalidRequest` whose message begins with the field."""
    match = _WHERE.fullmatch(str(error))
    what, path = (match["what"], match["path"] or "$") if match else (str(error), "$")
    if missing := _MISSING.fullmatch(what):
        path, what = f"{path}.{missing[1]}", "is required"
    elif what:
        what = what[0].lower() + what[1:]
    field = path.removeprefix("$").lstrip(".") or "the body"
    # `[...]` is an element or a member it does not name: point to what holds it.
    steps = _STEP.findall(path.removeprefix("$").partition("[...]")[0])
    pointer = "".join(f"/{name or number}" for name, number in steps)
    return InvalidRequest(f"{field}: {what}", pointer=pointer or None)


def check_depth(body: bytes) -> None:
    """Raise :class:`InvalidRequest` when the JSON text `body` nests deeper than `JSON_DEPTH`.

    Linear and without recursion, whatever the text is: strings are cut out, what is left is reduced to brackets, and
    those to +1 and -1, whose running sum is the depth. Text that is not JSON is the decoder's to refuse.
    """
    if body.count(b"[") + body.count(b"{") <= JSON_DEPTH:
        return
    steps = _STRING.sub(b"", body).translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > JSON_DEPTH:
        raise InvalidRequest(TOO_DEEP)


def utc(moment: datetime | None, field: str) -> datetime | None:
    """`moment` in UTC; one without an offset is taken as UTC. Raises :class:`InvalidRequest` at the calendar's ends."""
    if moment is None:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (OverflowError, ValueError):
        raise InvalidRequest(f"{field}: this time is out of range", pointer=f"/{field}") from None
