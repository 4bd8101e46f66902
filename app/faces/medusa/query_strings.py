"""Query strings as Medusa's clients write them (the `qs` style): nested names, repeated names, arrays.

`a=x`, `a=x&a=y`, `a[]=x`, `a[0]=x&a[1]=y`, `a[$gte]=…`, `a.$gte=…`, `$or[0][state]=done`; brackets and `$` may be
percent-encoded. The order of the query string is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar
from urllib.parse import unquote_plus

from app.errors import InvalidRequest, Problem

P = ParamSpec("P")
T = TypeVar("T")

PARAMETERS_MAX = 1_000
DEPTH_MAX = 10
"""Brackets of one name."""
_NAME = re.compile(r"([^\[\]]*)((?:\[[^\[\]]*\])*)")
_BRACKETED = re.compile(r"\[([^\[\]]*)\]")
_DIGITS = re.compile(r"[0-9]{1,9}")


@dataclass(slots=True)
class Node:
    """What was given under a name: texts, and what was given under names inside it. Both may be there."""

    texts: list[str] = field(default_factory=list)
    inside: dict[str, Node] = field(default_factory=dict)

    @property
    def is_list(self) -> bool:
        """Whether everything inside is numbered, or was appended."""
        return bool(self.inside) and all(name == "" or _DIGITS.fullmatch(name) for name in self.inside)

    @property
    def items(self) -> list[Node]:
        """What is inside a list, in its order: appended ones first, as they came, then by number."""
        appended = self.inside.get("")
        first = [Node([text]) for text in appended.texts] if appended is not None else []
        if appended is not None and appended.inside:
            first.append(Node([], appended.inside))
        numbered = sorted((name for name in self.inside if name), key=int)
        return [*first, *(self.inside[name] for name in numbered)]


def parse(query: bytes) -> Node:
    """A query string; the root has only names inside. Raises :class:`InvalidRequest`."""
    root = Node()
    pairs = [pair for pair in query.decode("latin-1").split("&") if pair]
    if len(pairs) > PARAMETERS_MAX:
        raise InvalidRequest(f"A query may have at most {PARAMETERS_MAX} parameters")
    for pair in pairs:
        name, _, value = pair.partition("=")
        node = root
        for part in _parts(_decoded(name)):
            node = node.inside.setdefault(part, Node())
        node.texts.append(_decoded(value))
    return root


def _decoded(text: str) -> str:
    try:
        decoded = unquote_plus(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("The query is not UTF-8") from None
    if "\0" in decoded:
        raise InvalidRequest("The query must not contain NUL characters")
    return decoded


def _parts(name: str) -> list[str]:
    """`a[b][c]` or `a.b` as `a`, `b`, `c`."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise problem(f"Name is malformed: '{name}'")
    head = match[1].split(".")
    if len(head) > 2:
        raise problem(f"Only one dot is allowed in a name: '{name}'")
    parts = [*head, *_BRACKETED.findall(match[2])]
    if len(parts) > DEPTH_MAX:
        raise problem(f"Names may be nested {DEPTH_MAX} deep: '{name[:100]}'")
    return parts


class Problems:
    """What is wrong with the parts of a request, all of which are looked at."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def of(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What a part says; None when it is refused."""
        try:
            return read(*args, **kwargs)
        except InvalidRequest as error:
            self._found += error.problems or [Problem(error.message)]
            return None

    def check(self) -> None:
        """Raises :class:`InvalidRequest`."""
        if self._found:
            raise InvalidRequest(self._found[0].message, problems=self._found)


def problem(*messages: str) -> InvalidRequest:
    """A refusal that tells these problems, in this face's words."""
    return InvalidRequest(messages[0], problems=[Problem(message) for message in messages])
