"""A document's `input_schema`: JSON Schema 2020-12, made safe to run for strangers.

References stay inside the schema, patterns are matched in bounded time, and every keyword evaluated pays from a
budget, so that neither a schema nor an input can hold the process up. `format` is an annotation, as the standard has
it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from fractions import Fraction
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
import referencing
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend

from app.errors import Problem
from tenants.limits import DOCUMENT_PROBLEMS, INPUT_SCHEMA_BYTES
from versions.document.model import Document, Trigger
from versions.document.patterns import PatternError, compile_pattern
from versions.document.reading import Path, Problems, json_pointer, json_size
from versions.errors import InvalidInput

DIALECT = "https://json-schema.org/draft/2020-12/schema"
BUDGET = 200_000
"""Keywords evaluated and pattern steps taken for one input; large values and keywords count for more."""
INPUTS_AT_PRICE = 5
"""How many times that all inputs of one request may ask for together."""
REFERENCE_PRICE = 5
SUBSCHEMAS = 5_000
"""Schemas within one schema; checking one takes about a third of a millisecond."""
MESSAGE_LENGTH = 300

_ONE = ("additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames", "contentSchema")
_MANY = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
"""Keywords that apply a subschema to the very same value."""
_REFUSED = ("$dynamicRef", "$recursiveRef", "unevaluatedItems", "unevaluatedProperties")


# --- when a document is written --------------------------------------------------------------------------------


def check_schema(problems: Problems, schema: Any, path: Path) -> bool:
    """Whether `schema` can be used; what is wrong with it is noted."""
    if not isinstance(schema, dict | bool):
        problems.add("INVALID_FIELD", path, "must be a JSON Schema: an object, true or false")
        return False
    if (size := json_size(schema)) > INPUT_SCHEMA_BYTES:
        problems.add("LIMIT_EXCEEDED", path, f"must not be larger than {INPUT_SCHEMA_BYTES} bytes; it has {size}")
        return False
    noted = len(problems.errors)
    schemas = _subschemas(schema, path)
    if len(schemas) > SUBSCHEMAS:
        problems.add("LIMIT_EXCEEDED", path, f"must not hold more than {SUBSCHEMAS} schemas; it has {len(schemas)}")
        return False
    for where, subschema in schemas.items():
        _check_keywords(problems, subschema, where, is_root=where == path)
    if len(problems.errors) == noted:
        try:
            Draft202012Validator.check_schema(schema, format_checker=FormatChecker(formats=()))
        except SchemaError as error:
            problems.add("INVALID_FIELD", (*path, *error.absolute_path), f"is not JSON Schema: {_short(error.message)}")
    if len(problems.errors) == noted:
        _check_references(problems, schemas, path)
    return len(problems.errors) == noted


def _subschemas(schema: Any, path: Path) -> dict[Path, Any]:
    """Every schema inside `schema`, itself included, by path. Data (`const`, `default` …) is not looked into."""
    found: dict[Path, Any] = {}
    stack: list[tuple[Any, Path]] = [(schema, path)]
    while stack:
        here, where = stack.pop()
        found[where] = here
        if isinstance(here, dict):
            stack.extend((inner, (*where, *steps)) for steps, inner in _children(here))
    return found


def _children(schema: dict[str, Any]) -> Iterator[tuple[Path, Any]]:
    for key, value in schema.items():
        if key in _ONE:
            yield (key,), value
        elif key in _MANY and isinstance(value, list):
            yield from (((key, position), inner) for position, inner in enumerate(value))
        elif key in _NAMED and isinstance(value, dict):
            yield from (((key, name), inner) for name, inner in value.items())


def _check_keywords(problems: Problems, schema: Any, path: Path, *, is_root: bool) -> None:
    if not isinstance(schema, dict):
        return
    for key in _REFUSED:
        if key in schema:
            problems.add("INVALID_FIELD", (*path, key), "is not supported")
    if "$id" in schema and not is_root:
        problems.add("INVALID_FIELD", (*path, "$id"), "must only stand at the schema's root")
    dialect = schema.get("$schema", DIALECT)
    if not isinstance(dialect, str) or dialect.removesuffix("#") != DIALECT:
        problems.add("INVALID_FIELD", (*path, "$schema"), f"must be {DIALECT}")
    patterns = [(("pattern",), schema.get("pattern"))]
    named = schema.get("patternProperties")
    patterns += [(("patternProperties", name), name) for name in named] if isinstance(named, dict) else []
    for steps, pattern in patterns:
        if isinstance(pattern, str):
            try:
                compile_pattern(pattern)
            except PatternError as error:
                problems.add("INVALID_FIELD", (*path, *steps), f"is not a usable pattern: it {error}")


def _check_references(problems: Problems, schemas: dict[Path, Any], root: Path) -> None:
    """References must lead to a schema inside this one, and not back to themselves without looking at a part."""
    anchors = {s["$anchor"]: where for where, s in schemas.items() if isinstance(s, dict) and "$anchor" in s}
    same: dict[Path, list[Path]] = {}
    for where, schema in schemas.items():
        if not isinstance(schema, dict):
            continue
        same[where] = [(*where, *steps) for steps, _ in _children(schema) if steps[0] in _IN_PLACE]
        if "$ref" in schema:
            target = _target(schema["$ref"], root, anchors)
            if target in schemas:
                same[where].append(target)
            else:
                problems.add("INVALID_FIELD", (*where, "$ref"), "must name a schema within input_schema (`#/…`)")
    if endless := _endless(same):
        problems.add("INVALID_FIELD", endless, "refers to itself without end")


def _target(reference: Any, root: Path, anchors: dict[str, Path]) -> Path | None:
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return anchors.get(reference[1:])
    parts = [part.replace("~1", "/").replace("~0", "~") for part in reference[2:].split("/")]
    steps: list[str | int] = []
    for part in parts:
        in_list = bool(steps) and steps[-1] in _MANY
        steps.append(int(part) if in_list and part.isascii() and part.isdigit() and len(part) < 6 else part)
    return (*root, *steps)


def _endless(edges: dict[Path, list[Path]]) -> Path | None:
    """A schema that leads back to itself on the same value, or None."""
    done: set[Path] = set()
    for start in edges:
        trail: list[tuple[Path, Iterator[Path]]] = [(start, iter(edges[start]))]
        open_: set[Path] = {start}
        while trail and start not in done:
            here, rest = trail[-1]
            for following in rest:
                if following in open_:
                    return following
                if following in edges and following not in done:
                    open_.add(following)
                    trail.append((following, iter(edges[following])))
                    break
            else:
                done.add(here)
                open_.discard(here)
                trail.pop()
    return None


# --- when an instance is created -------------------------------------------------------------------------------


class _OutOfBudget(Exception):
    """The input needs more checking than one request may ask for."""


_left: ContextVar[list[int]] = ContextVar("input_schema_budget")


def _spend(units: int) -> None:
    left = _left.get()
    left[0] -= units
    if left[0] < 0:
        raise _OutOfBudget


Keyword = Callable[..., Any]
"""`(validator, keyword's value, instance, schema)` to errors."""


def _priced(keyword: Keyword, price: int) -> Keyword:
    def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        _spend(price + (_width(value) + _width(instance)) // 8)
        for error in keyword(validator, value, instance, schema) or ():
            _spend(len(error.message) // 64)  # messages quote the value, whatever its size
            yield error

    return check


def _width(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(len(inner) for inner in value.values() if isinstance(inner, list))
    return len(value) if isinstance(value, list) else 0


def _pattern(_validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not compile_pattern(pattern).search(instance, _spend):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, subschema in patterns.items():
        matcher = compile_pattern(pattern)
        for name, value in instance.items():
            if matcher.search(name, _spend):
                yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, subschema: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    matchers = [compile_pattern(pattern) for pattern in schema.get("patternProperties", ())]
    known = schema.get("properties", {})
    for name, value in instance.items():
        if name in known or any(matcher.search(name, _spend) for matcher in matchers):
            continue
        if subschema is False:
            yield ValidationError(f"{name!r} is not an allowed property", path=[name])
        else:
            yield from validator.descend(value, subschema, path=name)


def _unique_items(_validator: Any, unique: bool, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if unique and isinstance(instance, list):
        keys = [msgspec.json.encode(_comparable(item), order="sorted") for item in instance]
        _spend(sum(map(len, keys)) // 4)
        if len(set(keys)) < len(keys):
            yield ValidationError("the array has equal elements")


def _multiple_of(_validator: Any, divisor: float, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """By what the numbers say in decimal: 0.3 is three times 0.1, whatever their binary neighbours are."""
    if isinstance(instance, bool) or not isinstance(instance, int | float):
        return
    if instance in _INFINITE or _decimal(instance) % _decimal(divisor):
        yield ValidationError(f"{instance!r} is not a multiple of {divisor!r}")


_INFINITE = (math.inf, -math.inf)
"""What a number beyond all bounds is read as; a multiple of nothing."""


def _decimal(number: float) -> Fraction:
    return Fraction(repr(number)) if isinstance(number, float) else Fraction(number)


def _comparable(value: Any) -> Any:
    """`value` such that JSON-equal values have one spelling: 1.0 is 1."""
    if isinstance(value, dict):
        return {key: _comparable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_comparable(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # Beyond 64 bits the encoder refuses numbers; as an object they still equal only themselves.
    return value if not isinstance(value, int) or abs(value) < 2**63 else {"\0": str(value)}


_OWN: dict[str, Keyword] = {
    "multipleOf": _multiple_of,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "uniqueItems": _unique_items,
}
_Bounded = extend(
    Draft202012Validator,
    {
        name: _priced(_OWN.get(name) or keyword, REFERENCE_PRICE if name == "$ref" else 1)
        for name, keyword in Draft202012Validator.VALIDATORS.items()
    },
)


@lru_cache(maxsize=256)
def _validator(schema_text: bytes) -> Any:
    # An empty registry: nothing is ever fetched.
    return _Bounded(msgspec.json.decode(schema_text), registry=referencing.Registry())


class _Stored(msgspec.Struct):
    input_schema: msgspec.Raw = msgspec.Raw(b"null")
    idempotent: bool = False
    rollback: str = "auto"
    triggers: tuple[Trigger, ...] = ()


_stored = msgspec.json.Decoder(_Stored)


def stored_schema(source: str) -> bytes | None:
    """The schema (JSON text) inputs of a stored document are held against; None when there is nothing to check."""
    text = bytes(_stored.decode(source).input_schema)
    return None if text in (b"null", b"true") else text


def stored_idempotent(source: str) -> bool:
    """Whether a stored document says that a transaction id finds its instance again once that is finished."""
    return _stored.decode(source).idempotent


def stored_rolls_back_cancelled(source: str) -> bool:
    """Whether a stored document says that an instance which is cancelled is undone first."""
    return _stored.decode(source).rollback == "always"


def stored_triggers(source: str) -> tuple[Trigger, ...]:
    """What starts a stored document."""
    return _stored.decode(source).triggers


def validate_inputs(schema: bytes, inputs: Iterable[tuple[Any, str]]) -> None:
    """Check the inputs of instances, each with the pointer to where it stands in the request, one after the other.

    Takes up to a second of computing for one, and up to `INPUTS_AT_PRICE` for any number: leave it to a thread. Raises
    :class:`InvalidInput` with a problem per violation of the first that fails.
    """
    validator = _validator(schema)
    spent = 0
    for value, pointer in inputs:
        token = _left.set(left := [min(BUDGET, INPUTS_AT_PRICE * BUDGET - spent)])
        before = left[0]
        try:
            problems = [_problem(error, pointer) for error in islice(validator.iter_errors(value), DOCUMENT_PROBLEMS)]
        except (_OutOfBudget, RecursionError):
            raise InvalidInput("the input is too large to be checked against the workflow's input_schema") from None
        finally:
            _left.reset(token)
        spent += before - left[0]
        if problems:
            raise InvalidInput(problems[0].message, problems=problems)


def validate_input(document: Document, value: Any, *, pointer: str = "") -> None:
    """Check one input against the document's schema, see :func:`validate_inputs`."""
    if document.input_schema is not None and document.input_schema is not True:
        validate_inputs(msgspec.json.encode(document.input_schema), [(value, pointer)])


def _problem(error: ValidationError, pointer: str) -> Problem:
    where = "/".join(str(step) for step in error.absolute_path)
    message = f"{where}: {error.message}" if where else error.message
    return Problem(_short(message), pointer=json_pointer(pointer, error.absolute_path), kind="INVALID_INPUT")


def _short(message: str) -> str:
    return message if len(message) <= MESSAGE_LENGTH else message[: MESSAGE_LENGTH - 1] + "…"
