"""Regular expressions of tenants, matched in bounded time.

A backtracking matcher lets forty characters of pattern stall a shared process for years. This one compiles the pattern
(ECMA-262's syntax, which JSON Schema asks for) to a small program and follows all its alternatives at once, so that
time is at most pattern size times text length, and pays for each step. What cannot be matched that way, look-around
and back-references, is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache

MAX_LENGTH = 1_024
MAX_PROGRAM = 2_000
"""Instructions, after `{n,m}` was unfolded."""
MAX_NESTING = 50

Spend = Callable[[int], None]
Ranges = tuple[tuple[int, int], ...]
Instruction = tuple[object, ...]
"""("char", bounds, negated) · ("split", a, b) · ("jump", a) · ("assert", kind) · ("match",)"""

_DIGIT: Ranges = ((48, 57),)
_WORD: Ranges = ((48, 57), (65, 90), (95, 95), (97, 122))
_SPACE: Ranges = (
    (9, 13),
    (32, 32),
    (160, 160),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
)
_LINE_ENDS: Ranges = ((10, 10), (13, 13), (0x2028, 0x2029))
_CLASSES = {"d": _DIGIT, "w": _WORD, "s": _SPACE}
_CONTROLS = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "0": 0}
_HEX = re.compile(r"x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}")
_COUNT = re.compile(r"\{(\d{1,4})(,(\d{1,4})?)?\}", re.ASCII)
_GROUP = re.compile(r"\?:|\?<[A-Za-z_$][\w$]*>")


class PatternError(ValueError):
    """The pattern is malformed, too large, or asks for something that needs backtracking."""


class Pattern:
    """A compiled pattern. Finds matches anywhere in a text, as JSON Schema wants it."""

    __slots__ = ("_program", "text")

    def __init__(self, text: str) -> None:
        """Raises :class:`PatternError`."""
        if len(text) > MAX_LENGTH:
            raise PatternError(f"must have at most {MAX_LENGTH} characters")
        self.text = text
        self._program = _Compiler(text).program()

    def search(self, subject: str, spend: Spend = lambda _steps: None) -> bool:
        """Whether the pattern matches somewhere in `subject`. `spend` is told of the steps taken and may raise."""
        program = self._program
        arrived: set[int] = set()
        for position in range(len(subject) + 1):
            arrived.add(0)
            alive = self._closure(arrived, subject, position)
            spend(len(alive) + 1)
            if len(program) - 1 in alive:
                return True
            if position == len(subject):
                break
            code = ord(subject[position])
            arrived = {at + 1 for at in alive if program[at][0] == "char" and _takes(program[at], code)}
        return False

    def _closure(self, start: set[int], subject: str, position: int) -> set[int]:
        """Everywhere the program can be without reading another character."""
        alive: set[int] = set()
        stack = list(start)
        while stack:
            at = stack.pop()
            if at in alive:
                continue
            alive.add(at)
            match self._program[at]:
                case ("split", int(a), int(b)):
                    stack += (a, b)
                case ("jump", int(a)):
                    stack.append(a)
                case ("assert", str(kind)) if _asserted(kind, subject, position):
                    stack.append(at + 1)
        return alive


@lru_cache(maxsize=512)
def compile_pattern(text: str) -> Pattern:
    """Raises :class:`PatternError`."""
    return Pattern(text)


def _takes(instruction: Instruction, code: int) -> bool:
    _, bounds, negated = instruction
    return bool(bisect_right(bounds, code) % 2) is not negated  # type: ignore[arg-type]


def _asserted(kind: str, subject: str, position: int) -> bool:
    if kind == "^":
        return position == 0
    if kind == "$":
        return position == len(subject)
    before = position > 0 and _is_word(subject[position - 1])
    after = position < len(subject) and _is_word(subject[position])
    return (before != after) is (kind == "b")


def _is_word(character: str) -> bool:
    return bool(bisect_right(_WORD_BOUNDS, ord(character)) % 2)


def _bounds(ranges: Ranges) -> tuple[int, ...]:
    """Where membership changes, ascending: a code is in the set if an odd number of bounds is not above it."""
    found: list[int] = []
    for low, high in sorted(ranges):
        if found and low <= found[-1]:
            found[-1] = max(found[-1], high + 1)
        else:
            found += (low, high + 1)
    return tuple(found)


_WORD_BOUNDS = _bounds(_WORD)


class _Compiler:
    """Recursive descent over the pattern, straight to a program."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._nesting = 0

    def program(self) -> list[Instruction]:
        found = self._alternatives()
        if self._at < len(self._text):
            raise PatternError("has a ) without (")
        return [*found, ("match",)]

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _eat(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _alternatives(self) -> list[Instruction]:
        self._nesting += 1
        if self._nesting > MAX_NESTING:
            raise PatternError(f"must not be nested deeper than {MAX_NESTING}")
        found = self._sequence()
        while self._eat("|"):
            other = self._sequence()
            found = [
                ("split", 1, len(found) + 2),
                *_moved(found, 1),
                ("jump", len(found) + len(other) + 2),
                *_moved(other, len(found) + 2),
            ]
            _bounded(found)
        self._nesting -= 1
        return found

    def _sequence(self) -> list[Instruction]:
        found: list[Instruction] = []
        while self._next() not in ("", "|", ")"):
            found += _moved(self._quantified(), len(found))
            _bounded(found)
        return found

    def _quantified(self) -> list[Instruction]:
        start = self._at
        atom = self._atom()
        least, most = self._quantifier()
        if (least, most) == (1, 1):
            return atom
        if atom and atom[0][0] == "assert" and len(atom) == 1:
            raise PatternError(f"has nothing to repeat at character {start}")
        self._eat("?")  # laziness does not change whether there is a match
        return _repeated(atom, least, most)

    def _quantifier(self) -> tuple[int, int | None]:
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._eat(sign):
                return bounds
        if match := _COUNT.match(self._text, self._at):
            self._at = match.end()
            least = int(match[1])
            most = least if match[2] is None else int(match[3]) if match[3] else None
            if most is not None and most < least:
                raise PatternError("has a quantifier whose bounds are out of order")
            return least, most
        return 1, 1

    def _atom(self) -> list[Instruction]:
        character = self._next()
        self._at += 1
        match character:
            case "^" | "$":
                return [("assert", character)]
            case ".":
                return [("char", _bounds(_LINE_ENDS), True)]
            case "[":
                return [self._class()]
            case "(":
                return self._group()
            case "\\":
                return [self._escape()]
            case "*" | "+" | "?":
                raise PatternError(f"has nothing to repeat at character {self._at - 1}")
            case _:
                return [("char", (ord(character), ord(character) + 1), False)]

    def _group(self) -> list[Instruction]:
        if self._next() == "?":
            match = _GROUP.match(self._text, self._at)
            if match is None:
                raise PatternError("must not look ahead or behind, nor set flags")
            self._at = match.end()
        found = self._alternatives()
        if not self._eat(")"):
            raise PatternError("has a ( without )")
        return found

    def _escape(self) -> Instruction:
        if self._next() in ("b", "B") and self._next():
            kind = self._next()
            self._at += 1
            return ("assert", kind)
        ranges, negated = self._escaped()
        return ("char", _bounds(ranges), negated)

    def _escaped(self) -> tuple[Ranges, bool]:
        """What follows a backslash, as a set of characters."""
        character = self._next()
        if not character:
            raise PatternError("ends with a backslash")
        if match := _HEX.match(self._text, self._at):
            self._at = match.end()
            code = int(next(group for group in match.groups() if group), 16)
            if code > 0x10FFFF:
                raise PatternError("has a character beyond Unicode")
            return ((code, code),), False
        self._at += 1
        if character.lower() in _CLASSES and character.isascii():
            return _CLASSES[character.lower()], character.isupper()
        if character in _CONTROLS:
            return ((_CONTROLS[character], _CONTROLS[character]),), False
        if character.isalnum():
            raise PatternError(f"must not use \\{character}")
        return ((ord(character), ord(character)),), False

    def _class(self) -> Instruction:
        negated = self._eat("^")
        ranges: list[tuple[int, int]] = []
        while not self._eat("]"):
            if not self._next():
                raise PatternError("has a [ without ]")
            item = self._class_item()
            if _is_single(item) and self._next() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                last = self._class_item()
                if not _is_single(last):
                    ranges += (*item, (45, 45), *last)
                    continue
                if last[0][0] < item[0][0]:
                    raise PatternError("has a range out of order")
                item = ((item[0][0], last[0][0]),)
            ranges += item
        return ("char", _bounds(tuple(ranges)), negated)

    def _class_item(self) -> Ranges:
        if self._eat("\\"):
            if self._eat("b"):
                return ((8, 8),)
            if self._eat("-"):
                return ((45, 45),)
            ranges, negated = self._escaped()
            return _complement(ranges) if negated else ranges
        code = ord(self._next())
        self._at += 1
        return ((code, code),)


def _is_single(ranges: Ranges) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]


def _complement(ranges: Ranges) -> Ranges:
    found: list[tuple[int, int]] = []
    start = 0
    for low, high in ranges:
        if low > start:
            found.append((start, low - 1))
        start = high + 1
    return (*found, (start, 0x10FFFF))


def _moved(program: list[Instruction], offset: int) -> list[Instruction]:
    """The program, to be placed `offset` further on."""
    if not offset:
        return program
    return [
        (i[0], *(target + offset for target in i[1:]))  # type: ignore[operator]
        if i[0] in ("split", "jump")
        else i
        for i in program
    ]


def _repeated(atom: list[Instruction], least: int, most: int | None) -> list[Instruction]:
    copies = least + (1 if most is None else most - least)
    if (len(atom) + 2) * copies > MAX_PROGRAM:
        raise PatternError("is too large once its repetitions are unfolded")
    found: list[Instruction] = []
    for _ in range(least):
        found += _moved(atom, len(found))
    if most is None:
        start = len(found)
        found.append(("split", start + 1, start + len(atom) + 2))
        found += _moved(atom, start + 1)
        found.append(("jump", start))
        return found
    for _ in range(most - least):
        start = len(found)
        end = len(atom) + 1
        found.append(("split", start + 1, start + end))
        found += _moved(atom, start + 1)
    return found


def _bounded(program: list[Instruction]) -> None:
    if len(program) > MAX_PROGRAM:
        raise PatternError("is too large once its repetitions are unfolded")
