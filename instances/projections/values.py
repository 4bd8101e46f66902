"""Values as scripts produce them, and the plain JSON that callers see.

A script may return what JSON lacks. Such a value is stored *tagged*: JSON text that begins with a space (which plain
JSON text in the journal never does), in which an object `{"$t": tag, "v": ...}` stands for

    u undefined        n a number JSON lacks ("NaN", "Infinity", "-Infinity", "-0")      i BigInt (decimal text)
    d Date (epoch ms, null when invalid)      m Map ([[key, value]...])      s Set ([value...])
    b bytes (base64; `k` the type, e.g. "Uint8Array")      x RegExp (text)      e Error ({name, message}; `c` the cause)
    o an object that itself has a key "$t"    r a byte stream (:class:`StoredStream`), at the top only

Plain text is passed through untouched; most values are plain and are never decoded here.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from instances.payloads import decode_stored
from tenants.clock import iso

PREVIEW = 1024
"""Characters of an output that lists show."""
TRUNCATED = "[truncated output]"
UNREADABLE = '"[unreadable value]"'

_ANY: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_DATE_MS = 8_640_000_000_000_000


def is_tagged(text: str) -> bool:
    return text.startswith(" ")


def plain(text: str) -> str:
    """The JSON text callers see for a stored value: dates as ISO text, maps as objects, bytes as a label."""
    if not is_tagged(text):
        return text
    try:
        return msgspec.json.encode(_untag(decode_stored(_ANY, text))).decode()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return UNREADABLE  # tags come out of a sandbox: whatever it made up must not break a view


def shorten(text: str) -> str:
    """`text` as lists show it: its first characters, and a mark when there are more."""
    return text if len(text) <= PREVIEW else text[:PREVIEW] + TRUNCATED


class StoredStream(msgspec.Struct, frozen=True):
    """A stream that a step returned: the pieces that attempt stored, `bytes` in all. `text`: the first characters (one
    more than lists show, if there are as many), None when it is not UTF-8.
    """

    name: str
    count: int
    attempt: int
    run: int
    bytes: int
    text: str | None = None

    def stored(self) -> str:
        """As the journal keeps it."""
        return f'{_STREAM},"v":{msgspec.json.encode(self).decode()}}}'


def stored_stream(text: str | None) -> StoredStream | None:
    """The stream a value is; None when it is none."""
    if text is None or not text.startswith(_STREAM):
        return None
    try:
        return decode_stored(_STREAM_DECODER, text).v
    except (ValueError, msgspec.DecodeError):
        return None


def stream_size(text: str | None) -> int:
    """Bytes a value has as a stream, 0 when it is none."""
    stream = stored_stream(text)
    return 0 if stream is None else stream.bytes


def stream_preview(text: str) -> str | None:
    """A stream as lists show it: its text, cut short, or how many bytes it had. None when the value is not one."""
    stream = stored_stream(text)
    if stream is None:
        return None
    if stream.text is None:
        return f"[ReadableStream (binary): {stream.bytes} bytes]"
    return shorten(stream.text)


_STREAM = ' {"$t":"r"'


class _Stream(msgspec.Struct):
    v: StoredStream


_STREAM_DECODER = msgspec.json.Decoder(_Stream)


def _untag(value: Any) -> Any:
    if isinstance(value, list):
        return [_untag(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = value.get("$t")
    if tag is None:
        return {key: _untag(item) for key, item in value.items()}
    return _UNTAG[tag](value)


def _number(value: dict[str, Any]) -> float | None:
    number = float(value["v"])
    return number if math.isfinite(number) else None


def _date(value: dict[str, Any]) -> str | None:
    stamp = value["v"]
    if stamp is None or abs(stamp) > _MAX_DATE_MS:
        return None
    try:
        return iso(_EPOCH + timedelta(milliseconds=stamp))
    except OverflowError:  # years JavaScript can name and Python cannot
        return None


def _map(value: dict[str, Any]) -> Any:
    pairs = value["v"]
    if all(isinstance(key, str) for key, _ in pairs):
        return {key: _untag(item) for key, item in pairs}
    return [[_untag(key), _untag(item)] for key, item in pairs]


def _bytes(value: dict[str, Any]) -> str:
    return f"[{value.get('k', 'Uint8Array')}({len(base64.b64decode(value['v']))} bytes)]"


def _error(value: dict[str, Any]) -> dict[str, str]:
    error = value["v"]
    return {"name": str(error.get("name", "Error")), "message": str(error.get("message", ""))}


_UNTAG: dict[str, Callable[[dict[str, Any]], Any]] = {
    "u": lambda value: None,
    "n": _number,
    "i": lambda value: str(value["v"]),
    "d": _date,
    "m": _map,
    "s": lambda value: [_untag(item) for item in value["v"]],
    "b": _bytes,
    "x": lambda value: str(value["v"]),
    "e": _error,
    "o": lambda value: {key: _untag(item) for key, item in value["v"].items()},
    "r": lambda value: stream_preview(f'{_STREAM},"v":{msgspec.json.encode(value["v"]).decode()}}}'),
}
