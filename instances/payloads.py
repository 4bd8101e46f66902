"""Payloads at the door: JSON text that is checked, measured and passed on as the client wrote it.

Nothing here builds a value. A payload keeps its exact text: number forms, escapes (also those of NUL and of lone
surrogates, which neither PostgreSQL's text nor UTF-8 could hold decoded), the order of keys.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from app.errors import InvalidRequest
from app.errors import PayloadTooLarge as TooLarge
from tenants.bodies import TOO_DEEP, check_depth, invalid_field

T = TypeVar("T")

EMPTY = "{}"
"""Parameters and events that were left out."""

_WHITESPACE = " \t\n\r"
_SHORTEST = (r"\"", r"\b", r"\f", r"\n", r"\r", r"\t")
"""Escapes that a compact encoder writes, too."""
_ESCAPED_IN_TWO = '\b\f\n\r\t"\\'
_CONTROL = bytes(code for code in range(0x20) if chr(code) not in _ESCAPED_IN_TWO)


@dataclass(frozen=True, slots=True)
class Decoded(Generic[T]):
    """A decoded body. `text` gives back the JSON text of one of its raw fields, exactly as it was sent."""

    value: T
    _mark: str = ""

    def text(self, raw: msgspec.Raw) -> str:
        text = bytes(raw).decode()
        return _restore(text, self._mark)

    def as_sent(self, text: str) -> bool:
        """Whether a text of the value is what was sent: one with a lone surrogate in it is not."""
        return not self._mark or self._mark not in text

    def params(self, raw: msgspec.Raw | msgspec.UnsetType) -> str:
        """The parameters in field `raw`: text that is JSON stands for its value, any other text for itself."""
        if isinstance(raw, msgspec.UnsetType):
            return EMPTY
        encoded = bytes(raw)
        if encoded.startswith(b'"'):
            inner = msgspec.json.decode(encoded, type=str).strip(_WHITESPACE)
            if _is_json(inner):
                check_depth(inner.encode())
                return _restore(inner, self._mark)
        return self.text(raw)


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> Decoded[T]:
    """Decode a body that may hold payloads. An empty body is an empty object.

    Raises :class:`InvalidRequest` naming the field and the rule, with a JSON pointer.
    """
    text = utf8(body) if body.strip() else "{}"
    mark = ""
    try:
        try:
            return Decoded(decoder.decode(text))
        except msgspec.DecodeError as error:
            if isinstance(error, msgspec.ValidationError) or not _is_json(text):
                raise
        mark = _mark_for(text)
        return Decoded(decoder.decode(_hide(text, mark)), mark)
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
    except msgspec.DecodeError:  # a lone surrogate or a number beyond all bounds, which the standard library reads
        return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int | float:
    """Beyond the digits Python converts, what JavaScript makes of it: an infinity."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def decode_stored(decoder: msgspec.json.Decoder[T], text: str) -> T:
    """Decode JSON of our own that a payload was spliced into. A lone surrogate in there, which msgspec refuses, is read
    as U+FFFD.
    """
    try:
        return decoder.decode(text)
    except msgspec.DecodeError:
        return decoder.decode(_unmask_backslashes(_LONE.sub(r"\\ufffd", _mask_backslashes(text))))


def check_size(text: str, limit: int, field: str, pointer: str | None = None) -> None:
    """Raise :class:`app.errors.PayloadTooLarge` when the compact UTF-8 JSON of `text` has more than `limit` bytes."""
    if len(text) * 4 <= limit or len(text.encode()) <= limit:
        return  # the compact form is never longer
    if compact_size(text) > limit:
        raise TooLarge(f"{field} is larger than the {limit} bytes a payload may have", pointer=pointer)


def compact_size(text: str) -> int:
    """Bytes of JSON `text` without insignificant whitespace and with as few escapes as JSON allows.

    Every step goes over the whole text at once: a body full of escapes must not hold up everybody else's requests.
    """
    for gap in "\t\n\r":  # as they are, they cannot be part of a string
        text = text.replace(gap, "")
    text = text.replace(r"\\", "__")  # from here on a backslash begins an escape
    spaced = text.replace(r"\u", "_u").encode()
    spaces = len(spaced) - len(msgspec.json.format(spaced, indent=-1))
    if "\\" not in text:
        return len(spaced) - spaces
    for escape in _SHORTEST:
        text = text.replace(escape, "__")
    # With its quotes masked, the whole text is what one string holds.
    value = json.loads('"' + text.replace('"', "_") + '"')
    encoded = value.encode("utf-8", "backslashreplace")  # lone surrogates stay escapes
    control = len(encoded) - len(encoded.translate(None, _CONTROL))
    return len(encoded) + 5 * control + sum(value.count(char) for char in _ESCAPED_IN_TWO) - spaces


def utf8(body: bytes) -> str:
    """`body` as text. Raises :class:`InvalidRequest` when it is not UTF-8."""
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("the body must be UTF-8") from None


def _is_json(text: str) -> bool:
    if _reads(text):
        return True
    if r"\u" not in text or "\0" in text:
        return False
    return _reads(_each_surrogate(text, lambda _: r"\u00"))


def _reads(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return False
    except RecursionError:
        raise InvalidRequest(TOO_DEEP) from None
    return True


# msgspec refuses the escapes of lone surrogates, which JSON allows. They are hidden from it, with those of pairs,
# behind a mark that the text cannot hold by chance, nor by intent (unless it is short, it depends on all of the
# text), and that no identifier may contain. A body may be full of them, so nothing here goes escape by escape.

_SURROGATES = [d + digit for d in "dD" for digit in "89abcdefABCDEF"]
"""The first two digits of a surrogate's escape."""
_HIGH, _LOW = "[dD][89abAB][0-9a-fA-F]{2}", "[dD][c-fC-F][0-9a-fA-F]{2}"
_LONE = re.compile(rf"\\u(?:{_HIGH}(?!\\u{_LOW})|(?<!\\u{_HIGH}\\u){_LOW})")


def _mark_for(text: str) -> str:
    if "\x7f" not in text and "007f" not in text.lower():
        return "\x7f"
    return f"\x7f{hashlib.sha256(text.encode()).hexdigest()[:24]}\x7f"


def _hide(text: str, mark: str) -> str:
    return _each_surrogate(text, lambda digits: mark + digits)


def _restore(text: str, mark: str) -> str:
    if mark and mark in text:
        for digits in _SURROGATES:
            text = text.replace(mark + digits, rf"\u{digits}")
    return text


def _each_surrogate(text: str, instead: Callable[[str], str]) -> str:
    r"""JSON `text` with `instead("d8")` for each `\ud8`, and so on: the last two digits stay behind it."""
    text = _mask_backslashes(text)
    for digits in _SURROGATES:
        text = text.replace(rf"\u{digits}", instead(digits))
    return _unmask_backslashes(text)


def _mask_backslashes(text: str) -> str:
    """Put escaped backslashes out of the way, so that each one left begins an escape. JSON holds no NUL."""
    return text.replace(r"\\", "\0\0")


def _unmask_backslashes(text: str) -> str:
    return text.replace("\0\0", r"\\")
