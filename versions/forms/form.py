"""What a native form is, and what reading any of them needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from app.errors import Problem
from versions.document.model import SPEC, Document
from versions.document.reading import Path, Problems, Reader, check_json

Untyped = Literal["noop", "external"]
"""What a task without a type and without a handler of its name does: nothing, or wait to be completed from outside."""


@dataclasses.dataclass(frozen=True, slots=True)
class Installation:
    """What a translation depends on besides the body: names of registered handlers, and what the account chose."""

    handlers: Collection[str] = ()
    untyped: Untyped = "noop"


@dataclasses.dataclass(frozen=True, slots=True)
class Translation:
    """A document made of a body; None when the body is no JSON that could be read.

    `problems` are those only the form knows; the document has to be checked for the others, with `locate` turning their
    paths into paths of the body.
    """

    definition: dict[str, Any] | None
    problems: tuple[Problem, ...]
    locate: Callable[[Path], Path]


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """One native form.

    `noun`: what it calls a node. `main` and `keys`: the key that holds the work, and all that make a version, besides
    `name` and `description`, which every form has. `show(document, original)`: the body without these two; `original`
    is what the user sent, given only when it was written in this form.
    """

    dialect: str
    noun: str
    main: str
    keys: tuple[str, ...]
    translate: Callable[[Mapping[str, Any], Installation], Translation]
    show: Callable[[Document, Mapping[str, Any] | None], dict[str, Any]]

    def part(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The keys of `body` that make a version, as they are."""
        return {key: body[key] for key in ("name", "description", *self.keys) if key in body}


class Draft:
    """A document in the making: problems of the body, and where each part of the document stands in it."""

    def __init__(self, dialect: str, body: Mapping[str, Any]) -> None:
        self.problems = Problems()
        self.readable = check_json(body, self.problems)
        self.reader = Reader(self.problems, dict(body), ())
        self._dialect = dialect
        self._places: dict[Path, Path] = {}

    def place(self, inside: Path, outside: Path) -> None:
        """Say that what is at `inside` of the document stands at `outside` of the body."""
        self._places[inside] = outside

    def locate(self, path: Path) -> Path:
        """The place in the body of a path in the document: by its longest part whose place is known."""
        for length in range(len(path), 0, -1):
            if (outside := self._places.get(path[:length])) is not None:
                return (*outside, *path[length:])
        return path

    def head(self) -> dict[str, Any]:
        """The document's own name and description."""
        self.reader.required("name")
        return {
            "spec": SPEC,
            "name": self.reader.text("name", "", least=1) or "unnamed",
            "description": self.reader.text("description", most=4096),
            "source": {"dialect": self._dialect},
        }

    def translation(self, definition: dict[str, Any] | None) -> Translation:
        return Translation(definition, tuple(self.problems.errors), self.locate)


def optional_integer(reader: Reader, key: str, low: int, high: int) -> int | None:
    """The integer; None when it is absent, null or wrong (which is noted)."""
    if reader.take(key) is None:
        return None
    return reader.integer(key, 0, low, high) or None


def given(value: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Those of `keys` that say something."""
    return {key: value[key] for key in keys if value.get(key) is not None}


def members(body: Mapping[str, Any] | None, key: str) -> list[Any]:
    """The list in `body`, empty when there is none."""
    found = (body or {}).get(key)
    return found if isinstance(found, list) else []
