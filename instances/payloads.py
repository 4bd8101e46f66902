"""Payloads at the door: JSON text that is checked, measured and passed on as the client wrote it.

Nothing here builds a value. A payload keeps its exact text: number forms, escapes (also those of NUL and of lone
surrogates, which neither PostgreSQL's text nor UTF-8 could hold decoded), the order of keys.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from app.errors import InvalidRequest
from app.errors import PayloadTooLarge as TooLarge
from tenants.bodies import invalid_field
from tenants.limits import JSON_DEPTH

T = TypeVar("T")

EMPTY = "{}"
"""Parameters and events that were left out."""

_WHITESPACE = " \t\n\r"
_ESCAPES = re.compile(
    r"\\(?:(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|u([dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s"]+', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})(?:\\u([dD][c-fC-F][0-9a-fA-F]{2}))?|(.))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Decoded(Generic[T]):
    """A decoded body. `text` gives back the JSON text of one of its raw fields, exactly as it was sent."""

    value: T
    _mark: str = ""

    def text(self, raw: msgspec.Raw) -> str:
        text = bytes(raw).decode()
        return _restore(text, self._mark) if self._mark else text

    def params(self, raw: msgspec.Raw | msgspec.UnsetType) -> str:
        """The parameters in field `raw`: text that is JSON stands for its value, any other text for itself."""
        if isinstance(raw, msgspec.UnsetType):
            return EMPTY
        encoded = bytes(raw)
        if encoded.startswith(b'"'):
            inner = msgspec.json.decode(encoded, type=str).strip(_WHITESPACE)
            if _is_json(inner):
                _check_depth(inner)
                return _restore(inner, self._mark) if self._mark else inner
        return self.text(raw)


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> Decoded[T]:
    """Decode a body that may hold payloads. An empty body is an empty object.

    Raises :class:`InvalidRequest` naming the field and the rule, with a JSON pointer.
    """
    if not body.strip():
        body = b"{}"
    text = utf8(body)
    try:
        return Decoded(decoder.decode(body))
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None
    except msgspec.DecodeError as error:
        mark = _mark_for(body)
        hidden = _hide(text, mark)
        if hidden == text:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from None
    try:
        return Decoded(decoder.decode(hidden), mark)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from None


def json_value(body: bytes) -> str:
    """A body that is one JSON value, as its text. An empty body is an empty object. Raises :class:`InvalidRequest`."""
    text = utf8(body).strip(_WHITESPACE)
    if not text:
        return EMPTY
    if not _is_json(text):
        raise InvalidRequest("the body is not valid JSON")
    return text


def loads(text: str | None) -> Any:
    """The value of JSON `text`; None of none. Only for what the platform itself must look into."""
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:  # a lone surrogate, which the standard library reads
        return json.loads(text)


def decode_stored(decoder: msgspec.json.Decoder[T], text: str) -> T:
    """Decode JSON of our own that a payload was spliced into. A lone surrogate in there, which msgspec refuses, is read
    as U+FFFD.
    """
    try:
        return decoder.decode(text)
    except msgspec.DecodeError:
        return decoder.decode(_ESCAPES.sub(lambda match: r"\ufffd" if match[2] else match[0], text))


def check_size(text: str, limit: int, field: str, pointer: str | None = None) -> None:
    """Raise :class:`app.errors.PayloadTooLarge` when the compact UTF-8 JSON of `text` has more than `limit` bytes."""
    if len(text) * 4 <= limit or len(text.encode()) <= limit:
        return  # the compact form is never longer
    if compact_size(text) > limit:
        raise TooLarge(f"{field} is larger than the {limit} bytes a payload may have", pointer=pointer)


def compact_size(text: str) -> int:
    """Bytes of JSON `text` without insignificant whitespace and with as few escapes as JSON allows."""
    size = 0
    for token in _TOKEN.findall(text):
        if "\\" in token:
            token = _ESCAPE.sub(_unescaped, token)
        size += len(token.encode())
    return size


def utf8(body: bytes) -> str:
    """`body` as text. Raises :class:`InvalidRequest` when it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the body must be UTF-8") from None


def _is_json(text: str) -> bool:
    return _reads(text) or ("\\u" in text and _reads(_hide(text, "")))


def _reads(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    except RecursionError:
        raise InvalidRequest(_TOO_DEEP) from None
    return True


_TOO_DEEP = f"JSON must not nest deeper than {JSON_DEPTH} levels"


def _check_depth(text: str) -> None:
    """JSON inside a JSON text is as deep as its own brackets."""
    if text.count("[") + text.count("{") <= JSON_DEPTH:
        return
    depth = 0
    for char in _STRING.sub("", text):
        if char in "[{":
            depth += 1
            if depth > JSON_DEPTH:
                raise InvalidRequest(_TOO_DEEP)
        elif char in "]}":
            depth -= 1


# msgspec refuses the escapes of lone surrogates, which JSON allows. They are hidden from it behind a mark that the
# text cannot hold by chance, nor by intent (it depends on all of the text), and that no identifier may contain.


def _mark_for(body: bytes) -> str:
    return f"\x7f{hashlib.sha256(body).hexdigest()[:24]}\x7f"


def _hide(text: str, mark: str) -> str:
    return _ESCAPES.sub(lambda match: mark + match[2] if match[2] else match[0], text)


def _restore(text: str, mark: str) -> str:
    return re.sub(f"{mark}([0-9a-fA-F]{{4}})", r"\\u\1", text)


_KEEP_ESCAPED = {0x08: r"\b", 0x09: r"\t", 0x0A: r"\n", 0x0C: r"\f", 0x0D: r"\r", 0x22: r"\"", 0x5C: r"\\"}


def _unescaped(match: re.Match[str]) -> str:
    """What a compact encoder writes for one escape, or for one pair of surrogates."""
    code, low, single = match.groups()
    if single is not None:
        return "/" if single == "/" else match[0]
    point = int(code, 16)
    if 0xD800 <= point < 0xDC00 and low is not None:
        return chr(0x10000 + ((point - 0xD800) << 10) + (int(low, 16) - 0xDC00))
    if 0xD800 <= point < 0xE000:
        return match[0]
    plain = _KEEP_ESCAPED.get(point) or (rf"\u{point:04x}" if point < 0x20 else chr(point))
    return plain if low is None else plain + rf"\u{low}"
