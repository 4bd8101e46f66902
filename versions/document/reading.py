"""Reading a document somebody else wrote: every problem is noted where it is, and reading goes on.

A :class:`Reader` stands on one JSON object; each of its methods takes one key out, notes what is wrong with it and
answers a value the rest of the parser can work with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import msgspec

from app.errors import Problem
from tenants.limits import DOCUMENT_BYTES, DOCUMENT_EXPRESSIONS, DOCUMENT_PROBLEMS, JSON_DEPTH
from versions.durations import parse_duration
from versions.names import NODE_ID

Path = tuple[str | int, ...]
"""Where a value is: object keys and array positions from the document's root."""

MESSAGE_LENGTH = 4_096
POINTER_LENGTH = 2_048
"""Characters of a pointer; a longer one ends at the last ancestor that fits. Keys may be long, and problems many."""

_KINDS = {dict: "an object", list: "an array", str: "a text", bool: "true or false"}


class Problems:
    """What is wrong with a document: the first 50 errors, and the warnings.

    `locate` turns a path inside the document into the path inside what the user sent, for documents that were
    compiled from another form; `base` is where in the request body that form stands.
    """

    def __init__(self, locate: Callable[[Path], Path] | None = None, base: str = "") -> None:
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []
        self._expressions = DOCUMENT_EXPRESSIONS
        self._locate = locate
        self._base = base

    def __bool__(self) -> bool:
        return bool(self.errors)

    def add(self, kind: str, path: Path, rule: str) -> None:
        """Note that the value at `path` breaks `rule` ("must be …")."""
        self.say(kind, path, f"{self.shown(path)} {rule}")

    def say(self, kind: str, path: Path, message: str) -> None:
        """Note a problem in words of its own."""
        if len(self.errors) < DOCUMENT_PROBLEMS:
            self.errors.append(Problem(_cut(message, MESSAGE_LENGTH), pointer=self.pointer(path), kind=kind))

    def warn(self, kind: str, path: Path, message: str) -> None:
        if len(self.warnings) < DOCUMENT_PROBLEMS:
            self.warnings.append(Problem(_cut(message, MESSAGE_LENGTH), pointer=self.pointer(path), kind=kind))

    def spend_expressions(self, count: int, path: Path) -> bool:
        """Whether `count` more expressions may be compiled; the first that may not are a problem at `path`."""
        if self._expressions >= 0:
            self._expressions -= count
            if self._expressions < 0:
                self.add("LIMIT_EXCEEDED", path, f"is beyond the {DOCUMENT_EXPRESSIONS} expressions of a document")
        return self._expressions >= 0

    def pointer(self, path: Path) -> str:
        """The JSON pointer to `path` in what the user sent. A required key that is missing has one, too."""
        return json_pointer(self._base, self._located(path))

    def shown(self, path: Path) -> str:
        """The path as messages name it: `nodes/2/timeout`."""
        return "/".join(_cut(str(part)) for part in self._located(path)) or "the document"

    def _located(self, path: Path) -> Path:
        return self._locate(path) if self._locate else path


def json_pointer(base: str, path: Iterable[str | int]) -> str:
    """The JSON pointer (RFC 6901) to `path` below what `base` points to, or to the last ancestor it has room for."""
    pointer = base
    for part in path:
        step = str(part).replace("~", "~0").replace("/", "~1")
        if len(pointer) + len(step) >= POINTER_LENGTH:
            break
        pointer += f"/{step}"
    return pointer


def _cut(text: str, length: int = 64) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


class Reader:
    """One object of the document. Keys nobody asked for are reported by :meth:`done`."""

    def __init__(self, problems: Problems, value: Any, path: Path, kind: str = "INVALID_FIELD") -> None:
        self.problems = problems
        self.path = path
        self._kind = kind
        self._seen: set[str] = set()
        self.readable = isinstance(value, dict)
        """False: there is nothing to read, which was said once and needs no further words."""
        if not self.readable:
            problems.add(kind, path, "must be an object")
        self.value: dict[str, Any] = value if self.readable else {}

    def __contains__(self, key: str) -> bool:
        return key in self.value

    def at(self, key: str | int) -> Path:
        return (*self.path, key)

    def wrong(self, key: str, rule: str, kind: str | None = None) -> None:
        self.problems.add(kind or self._kind, self.at(key), rule)

    def take(self, key: str) -> Any:
        """The value as it is; None when absent."""
        self._seen.add(key)
        return self.value.get(key)

    def done(self) -> None:
        """Report the keys that mean nothing here: a misspelt key must not pass silently."""
        for key in self.value:
            if key not in self._seen:
                known = ", ".join(sorted(self._seen)) or "none"
                self.wrong(key, f"is not a known key; known are: {known}")

    def required(self, key: str) -> bool:
        """Note a problem when `key` is absent or null; whether it is there."""
        if self.value.get(key) is not None:
            return True
        self._seen.add(key)
        if self.readable:
            self.wrong(key, "is required")
        return False

    def text(self, key: str, default: str = "", *, least: int = 0, most: int = 255) -> str:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.wrong(key, "must be a text")
        elif not least <= len(value) <= most:
            self.wrong(key, f"must have {least} to {most} characters")
        elif "\0" in value:
            self.wrong(key, "must not contain NUL characters")
        else:
            return value
        return default

    def integer(self, key: str, default: int, low: int, high: int) -> int:
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.wrong(key, f"must be an integer between {low} and {high}")
            return default
        return value

    def number(self, key: str, default: float, low: float, high: float) -> float:
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.wrong(key, f"must be a number between {low:g} and {high:g}")
            return default
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.wrong(key, "must be true or false")
            return default
        return value

    def choice(self, key: str, default: str, choices: Collection[str]) -> Any:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in choices:
            self.wrong(key, f"must be one of {', '.join(choices)}")
            return default
        return value

    def object(self, key: str) -> dict[str, Any] | None:
        return self._shaped(key, dict)

    def array(self, key: str, most: int | None = None) -> list[Any]:
        """The array, cut to `most` elements (more are a LIMIT_EXCEEDED); empty when absent."""
        found = self._shaped(key, list) or []
        if most is not None and len(found) > most:
            self.wrong(key, f"must have at most {most} elements, not {len(found)}", "LIMIT_EXCEEDED")
            return found[:most]
        return found

    def _shaped(self, key: str, shape: type) -> Any:
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, shape):
            self.wrong(key, f"must be {_KINDS[shape]}")
            return None
        return value

    def duration(self, key: str, low: int, high: int) -> int | None:
        """Milliseconds; None when absent or null."""
        value = self.take(key)
        if value is None:
            return None
        try:
            return parse_duration(value, minimum_ms=low, maximum_ms=high)
        except ValueError as error:
            self.wrong(key, str(error))
            return None

    def identifier(self, key: str = "id") -> str | None:
        """A node-like id; None (and a problem) when it is missing or malformed."""
        if not self.required(key):
            return None
        value = self.take(key)
        if not NODE_ID.holds(value):
            self.wrong(key, f"must be {NODE_ID.rule}")
        elif value == "_root":
            self.wrong(key, 'must not be "_root", which is reserved')
        else:
            return value
        return None


def json_size(value: Any) -> int:
    """Bytes of the compact JSON text of `value`."""
    return len(msgspec.json.encode(value))


def check_json(definition: Any, problems: Problems) -> bool:
    """Whether `definition` is plain JSON of bearable size and depth; else the problem is noted.

    Done before anything else looks at the document, so that the rest may recurse and encode.
    """
    if not _is_json(definition, problems):
        return False
    size = json_size(definition)
    if size > DOCUMENT_BYTES:
        problems.say(
            "LIMIT_EXCEEDED", (), f"the document must not be larger than {DOCUMENT_BYTES} bytes; it has {size}"
        )
    return size <= DOCUMENT_BYTES


def _is_json(definition: Any, problems: Problems) -> bool:
    """Walks without recursion, and keeps nothing but the way to where it is."""
    path: list[str | int] = []
    trail: list[Iterator[tuple[str | int, Any]]] = []
    value = definition
    while True:
        if len(trail) >= JSON_DEPTH and isinstance(value, dict | list):
            problems.say("LIMIT_EXCEEDED", (), f"the document must not be nested deeper than {JSON_DEPTH}")
            return False
        if rule := _json_problem(value):
            problems.add("INVALID_FIELD", tuple(path), rule)
            return False
        if isinstance(value, dict | list):
            trail.append(iter(value.items()) if isinstance(value, dict) else enumerate(value))
            path.append("")
        step = None
        while trail and (step := next(trail[-1], None)) is None:
            trail.pop()
            path.pop()
        if step is None:
            return True
        path[-1], value = step


def _json_problem(value: Any) -> str | None:
    """Why one value is not JSON, apart from what is in it."""
    if isinstance(value, dict):
        sound = all(isinstance(key, str) and _encodable(key) for key in value)
        return None if sound else "must have only texts as keys, without lone surrogates"
    if isinstance(value, str):
        return None if _encodable(value) else "must not contain lone surrogates"
    if value is None or isinstance(value, bool | list):
        return None
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else "must be an integer of at most 64 bits"
    if isinstance(value, float):
        return None if math.isfinite(value) else "must be a finite number"
    return "must be JSON: an object, array, text, number, true, false or null"


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
