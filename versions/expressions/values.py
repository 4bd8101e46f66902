"""JSON values as expressions see them: kinds, truth, equality, text; and the budget every operation pays from.

Values are what a JSON decoder gives: None, bool, int, float, str, list, dict. They are shared freely and never changed.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any

import msgspec

from versions.expressions.errors import BudgetExceeded, ExpressionError

MAX_NODES = 100_000
MAX_ELEMENTS = 100_000
MAX_CHARACTERS = 1 << 20
MAX_DECODED = 16 << 20

READ = 64
"""Characters of stored text read in the time of one visited node."""
_SCAN = 256
"""Characters looked at for the price of one visited node."""


class Budget:
    """What one evaluation may still spend.

    `nodes`: expression nodes visited and values walked over; `elements`: list elements and object members made;
    `characters`: characters of string made; `decoded`: characters of stored JSON text read on the way. Whoever is about
    to allocate pays first.
    """

    __slots__ = ("_read", "characters", "decoded", "elements", "nodes")

    def __init__(self, nodes: int = MAX_NODES, elements: int = MAX_ELEMENTS, characters: int = MAX_CHARACTERS) -> None:
        self.nodes = nodes
        self.elements = elements
        self.characters = characters
        self.decoded = MAX_DECODED
        self._read: set[Hashable] | None = None

    @property
    def cost(self) -> int:
        """About how long what was spent has taken, in nodes visited. For budgets of the usual size."""
        return MAX_NODES - self.nodes + (MAX_DECODED - self.decoded) // READ

    def visit(self, count: int = 1) -> None:
        self.nodes -= count
        if self.nodes < 0:
            raise BudgetExceeded(f"the expression visits more than {MAX_NODES} nodes")

    def scan(self, characters: int) -> None:
        """Pay for looking at so many characters."""
        if characters >= _SCAN:
            self.visit(characters // _SCAN)

    def make(self, count: int) -> None:
        self.elements -= count
        if self.elements < 0:
            raise BudgetExceeded(f"the expression makes more than {MAX_ELEMENTS} list elements")

    def write(self, characters: int) -> None:
        self.characters -= characters
        if self.characters < 0:
            raise BudgetExceeded(f"the expression makes more than {MAX_CHARACTERS} characters of text")

    def decode(self, source: Hashable, characters: int) -> None:
        """Pay for reading a stored value: once per evaluation, and whether or not it happens to be in memory, so that
        an evaluation that fits once always fits."""
        if self._read is None:
            self._read = set()
        elif source in self._read:
            return
        self._read.add(source)
        self.decoded -= characters
        if self.decoded < 0:
            raise BudgetExceeded(f"the expression reads more than {MAX_DECODED} characters of stored values")


class Lazy:
    """An object whose members are made when an expression asks for them; by itself it has none."""

    __slots__ = ()

    def field(self, name: str, budget: Budget | None) -> Any:
        """Member `name`: a JSON value or another :class:`Lazy`; None when there is none."""
        return None

    def whole(self, budget: Budget | None) -> dict[str, Any]:
        """The object as an ordinary dict, all members made."""
        return {}


def kind(value: Any) -> str:
    """JSON type name as JMESPath's `type()` gives it."""
    return _KINDS.get(type(value), "object")


_KINDS = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
NUMBERS = (int, float)


def truthy(value: Any) -> bool:
    """JMESPath truth: everything but null, false and the empty string, array and object. 0 is true."""
    return bool(value) or type(value) in NUMBERS


def equal(left: Any, right: Any, budget: Budget) -> bool:
    """JSON equality at any depth: 1 equals 1.0; a boolean or a string never equals a number."""
    if left is right:
        return True
    pairs = [(left, right)]
    while pairs:
        a, b = pairs.pop()
        if a is b:
            continue
        budget.visit()
        type_a, type_b = type(a), type(b)
        if type_a in NUMBERS:
            if type_b not in NUMBERS or a != b:
                return False
        elif type_a is not type_b:
            return False
        elif type_a is str:
            if len(a) != len(b):
                return False
            budget.scan(len(a))
            if a != b:
                return False
        elif type_a is list:
            if len(a) != len(b):
                return False
            budget.visit(len(a))
            pairs.extend(zip(a, b, strict=True))
        elif type_a is dict:
            if len(a) != len(b):
                return False
            budget.visit(len(a))
            for key, member in a.items():
                if key not in b:
                    return False
                pairs.append((member, b[key]))
        else:  # Booleans that are not the same object; null is always the same.
            return False
    return True


def measure(value: Any, budget: Budget) -> None:
    """Pay for every node and character `value` will have as text, shared parts counted each time.

    Done before anything is serialised: a chain of `[@,@]` costs nothing to build and doubles its text per link.
    """
    stack = [value]
    while stack:
        current = stack.pop()
        budget.visit()
        current_type = type(current)
        if current_type is str:
            budget.write(len(current))
        elif current_type is list:
            _room(len(current), budget)
            stack.extend(current)
        elif current_type is dict:
            _room(len(current), budget)
            budget.write(sum(map(len, current)))
            stack.extend(current.values())
        elif current_type is int and current.bit_length() > 64:
            budget.write(current.bit_length() // 3)


def _room(count: int, budget: Budget) -> None:
    """Stop before members are stacked that cannot be paid for."""
    if count > budget.nodes:
        budget.visit(count)


def json_text(value: Any, budget: Budget) -> str:
    """`value` as compact JSON, paid for."""
    before = budget.characters
    measure(value, budget)
    paid = before - budget.characters
    text = encode_json(value)
    budget.write(max(len(text) - paid, 0))
    return text


def to_text(value: Any, budget: Budget) -> str:
    """How a value reads inside other text: null is empty, a string is itself, anything else compact JSON."""
    if value is None:
        return ""
    if type(value) is str:
        budget.write(len(value))
        return value
    return json_text(value, budget)


_encoder = msgspec.json.Encoder()
_decode = msgspec.json.Decoder().decode


def encode_json(value: Any) -> str:
    """Compact JSON text. Numbers JSON lacks become null; lone surrogates are escaped.

    Raises :class:`ExpressionError` for what cannot be written (nested too deeply, numbers of thousands of digits).
    """
    try:
        try:
            return _encoder.encode(value).decode()
        except UnicodeEncodeError:
            return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (RecursionError, ValueError, OverflowError) as error:
        raise ExpressionError(f"the value cannot be written as JSON: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def decode_json(text: str) -> Any:
    """The value of JSON text; :class:`ExpressionError` when it is nested too deeply to be read."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, msgspec.ValidationError):
        # Lone surrogates and numbers beyond a double are legal JSON text.
        try:
            return json.loads(text, parse_constant=_no_constant)
        except ValueError as error:
            raise ExpressionError(f"the value is not JSON: {error}") from None
        except RecursionError:
            raise ExpressionError("the value is nested too deeply to be read") from None
    except RecursionError:
        raise ExpressionError("the value is nested too deeply to be read") from None
