"""`input_schema`: which schemas and inputs pass, and that none of them can stall the process."""

import json
import time
from typing import Any

import msgspec
import pytest

from versions.document import (
    check_document,
    encode_document,
    parse_document,
    stored_schema,
    validate_input,
    validate_inputs,
)
from versions.errors import InvalidInput


def compiled(schema: Any) -> Any:
    return parse_document({"spec": "workflow/1", "name": "t", "input_schema": schema})


def refused(schema: Any) -> list[tuple[str | None, str]]:
    checked = check_document({"spec": "workflow/1", "name": "t", "input_schema": schema})
    return [(p.pointer, p.message) for p in checked.problems]


def violations(schema: Any, value: Any) -> list[tuple[str | None, str]]:
    try:
        validate_input(compiled(schema), value, pointer="/params")
    except InvalidInput as error:
        assert error.status == 400
        return [(p.pointer, p.message) for p in error.problems] or [(None, error.message)]
    return []


ORDER = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["sku", "qty"],
    "properties": {
        "sku": {"type": "string", "pattern": "^[A-Z]{2}-\\d+$"},
        "qty": {"$ref": "#/$defs/count"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}, "uniqueItems": True},
    },
    "patternProperties": {"^x-": True},
    "additionalProperties": False,
    "$defs": {
        "count": {"type": "integer", "minimum": 1},
        "line": {"$anchor": "line", "properties": {"parts": {"items": {"$ref": "#line"}}}},
    },
}


@pytest.mark.parametrize("schema", [ORDER, True, {}, {"$id": "urn:order", "$ref": "#/$defs/a", "$defs": {"a": {}}}])
def test_good_schemas(schema: Any) -> None:
    assert refused(schema) == []


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        (7, ""),
        ("string", ""),
        ({"type": "strin"}, "/type"),
        ({"minimum": "1"}, "/minimum"),
        ({"properties": {"a": {"required": "b"}}}, "/properties/a/required"),
        ({"$ref": "https://example.com/schema.json"}, "/$ref"),
        ({"$ref": "file:///etc/passwd"}, "/$ref"),
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, "/properties/a/$ref"),
        ({"$ref": "#/default", "default": {"type": "string"}}, "/$ref"),
        ({"$dynamicRef": "#a"}, "/$dynamicRef"),
        ({"unevaluatedProperties": False}, "/unevaluatedProperties"),
        ({"properties": {"a": {"$id": "urn:x"}}}, "/properties/a/$id"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        ({"pattern": "(?=a)"}, "/pattern"),
        ({"pattern": "("}, "/pattern"),
        ({"patternProperties": {"\\1": {}}}, "/patternProperties/\\1"),
        ({"$ref": "#"}, ""),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, None),
    ],
)
def test_refused_schemas(schema: Any, pointer: str | None) -> None:
    ((found, _message),) = refused(schema)
    assert found is not None
    assert pointer is None or found == f"/input_schema{pointer}"


def test_words_that_are_data_are_not_schemas() -> None:
    assert refused({"const": {"$ref": "https://example.com"}, "properties": {"$ref": {"type": "string"}}}) == []


def test_a_good_input() -> None:
    assert violations(ORDER, {"sku": "AB-1", "qty": 2, "x-note": 1, "lines": [{"parts": [{}]}, {}]}) == []


def test_every_violation_has_its_pointer() -> None:
    assert sorted(violations(ORDER, {"sku": "ab", "qty": 0, "extra/~": 1, "lines": [1, 1.0]})) == [
        ("/params/extra~1~0", "extra/~: 'extra/~' is not an allowed property"),
        ("/params/lines", "lines: the array has equal elements"),
        ("/params/qty", "qty: 0 is less than the minimum of 1"),
        ("/params/sku", "sku: 'ab' does not match '^[A-Z]{2}-\\\\d+$'"),
    ]
    assert [p for p, _ in violations(ORDER, {})] == ["/params", "/params"]


def test_false_refuses_everything() -> None:
    assert violations(False, None)


def test_no_schema_accepts_everything() -> None:
    validate_input(parse_document({"spec": "workflow/1"}), object())


def test_unique_items_tells_true_from_one_and_big_numbers_apart() -> None:
    assert violations({"uniqueItems": True}, [1, True, "1", 2**64, 2**64 + 1, [1], {"a": 1}]) == []
    assert violations({"uniqueItems": True}, [{"a": 1, "b": 2}, {"b": 2, "a": 1.0}])


@pytest.mark.parametrize(
    ("divisor", "value", "fits"),
    [
        (0.1, 0.3, True),
        (0.1, 0.35, False),
        (1e-300, 1e308, True),
        (0.5, 10**400, True),
        (3, 10**400, False),
        (2, 4.0, True),
        (2, float("inf"), False),  # 1e999 is JSON
        (0.1, float("-inf"), False),
    ],
)
def test_multiples_are_exact(divisor: float, value: float, fits: bool) -> None:
    assert (violations({"multipleOf": divisor}, value) == []) is fits
    assert violations({"multipleOf": divisor}, True) == []


def doubling(levels: int) -> dict[str, Any]:
    """A chain of definitions, each of which applies the next one twice."""
    defs: dict[str, Any] = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "string"}}}


HOSTILE: dict[str, tuple[Any, Any]] = {
    "backtracking": ({"pattern": "^(a+)+$"}, "a" * 5_000 + "b"),
    "long text": ({"pattern": "(x*)*(y*)*(x*)*z"}, "xy" * 500_000),
    "doubling": (doubling(60), "text"),
    "doubling, wrong": (doubling(60), 1),
    "messages": ({"anyOf": [{"type": "object", "title": str(i)} for i in range(1_500)]}, "long" * 200_000),
    "required": ({"items": {"required": [f"k{i}" for i in range(5_000)]}}, [{} for _ in range(100_000)]),
    "dependent": (
        {"items": {"dependentRequired": {"a": [f"b{i}" for i in range(6_000)]}}},
        [{"a": 1} for _ in range(50_000)],
    ),
    "unique": ({"allOf": [{"uniqueItems": True}] * 2_000}, [{"a": list(range(1_000))} for _ in range(100)]),
    "enum": (
        {"items": {"enum": [[i, *range(50)] for i in range(200)]}},
        [list(range(51)) for _ in range(5_000)],
    ),
    "names": ({"patternProperties": {f"a*b*c*{i}": {} for i in range(1_000)}}, {"abc" * 1_000: 1}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pairs_end_soon(case: str) -> None:
    schema, value = HOSTILE[case]
    document = compiled(schema)
    started = time.process_time()
    try:
        validate_input(document, value)
    except InvalidInput as error:
        assert len(error.message) < 500
    assert time.process_time() - started < 2


def test_inputs_of_one_request_share_a_price() -> None:
    schema = msgspec.json.encode(doubling(13))
    validate_inputs(schema, [("text", "/0")])
    started = time.process_time()
    with pytest.raises(InvalidInput, match="too large to be checked"):
        validate_inputs(schema, [("text", f"/{i}") for i in range(100)])
    assert time.process_time() - started < 10
    validate_inputs(b'{"type":"string"}', [("text", f"/{i}") for i in range(100)])
    with pytest.raises(InvalidInput) as caught:
        validate_inputs(b'{"type":"string"}', [("text", "/0"), (1, "/1/params"), (2, "/2")])
    assert [problem.pointer for problem in caught.value.problems] == ["/1/params"]


@pytest.mark.parametrize(("schema", "kept"), [(None, False), (True, False), (False, True), ({"type": "object"}, True)])
def test_the_schema_of_a_stored_document(schema: Any, kept: bool) -> None:
    text = stored_schema(encode_document(compiled(schema)))
    assert text == (msgspec.json.encode(schema) if kept else None)


def test_a_large_ordinary_input_passes() -> None:
    schema = {
        "properties": {
            "rows": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["id", "name"],
                    "properties": {"id": {"type": "integer"}, "name": {"type": "string", "maxLength": 40}},
                },
            }
        }
    }
    assert violations(schema, {"rows": [{"id": i, "name": f"row {i}"} for i in range(25_000)]}) == []


def test_deep_values_against_recursive_schemas() -> None:
    schema = {"items": {"$ref": "#"}}
    assert violations(schema, json.loads("[" * 60 + "]" * 60)) == []
