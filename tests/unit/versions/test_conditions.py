"""Conditions: every operator with its aliases, type rules, negation, nesting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versions.expressions import OPERATORS, ExpressionError, ExpressionSyntaxError, compile_condition
from versions.expressions.conditions import timestamp

SCOPE = {
    "trigger": {
        "n": 5,
        "f": 5.0,
        "s": "hello",
        "b": True,
        "null": None,
        "list": [1, "two", {"x": 3}],
        "obj": {"k": 1},
        "empty": "",
        "none": [],
        "nothing": {},
        "zero": 0,
        "at": "2026-01-02T03:04:05Z",
        "items": [{"sku": "a"}, {"sku": "b"}],
        "numeric": "5",
    },
    "steps": {"task-1": {"output": {"ok": True}}},
}
MISSING = "trigger.missing"


def holds(condition, scope=SCOPE):
    warnings = []
    return compile_condition(condition).holds(scope, warnings.append), warnings


def compare(field, operator, value=None):
    return holds({"field": field, "operator": operator, "value": value})


@pytest.mark.parametrize(
    ("field", "operator", "value", "expected"),
    [
        ("trigger.n", "equals", 5, True),
        ("trigger.n", "eq", 5.0, True),
        ("trigger.f", "eq", 5, True),
        ("trigger.numeric", "eq", 5, False),
        ("trigger.b", "eq", 1, False),
        ("trigger.list", "eq", [1.0, "two", {"x": 3}], True),
        (MISSING, "eq", None, True),
        ("trigger.n", "not_equals", 6, True),
        ("trigger.n", "ne", 5, False),
        ("trigger.n", "neq", "5", True),
        ("trigger.n", "greater_than", 4, True),
        ("trigger.n", "gt", 5, False),
        ("trigger.n", "greater_than_or_equal", 5, True),
        ("trigger.n", "gte", 5.5, False),
        ("trigger.n", "less_than", 6, True),
        ("trigger.n", "lt", 5, False),
        ("trigger.n", "less_than_or_equal", 5, True),
        ("trigger.n", "lte", 4, False),
        ("trigger.at", "gt", "2026-01-02T03:04:04.999Z", True),
        ("trigger.at", "lt", "2026-01-02T04:04:06+01:00", True),
        ("trigger.at", "gte", "2026-01-02T05:04:05+02:00", True),
        ("trigger.at", "lt", "2026-01-02T03:04:05.0000001Z", False),
        ("trigger.s", "contains", "ell", True),
        ("trigger.s", "contains", "x", False),
        ("trigger.list", "contains", 1.0, True),
        ("trigger.list", "contains", {"x": 3}, True),
        ("trigger.list", "contains", True, False),
        ("trigger.obj", "contains", "k", True),
        ("trigger.obj", "contains", "x", False),
        ("trigger.s", "not_contains", "x", True),
        ("trigger.n", "in", [1, 5], True),
        ("trigger.n", "in", [], False),
        ("trigger.n", "not_in", ["5"], True),
        ("trigger.n", "exists", None, True),
        ("trigger.b", "exists", "ignored", True),
        ("trigger.null", "exists", None, False),
        (MISSING, "not_exists", None, True),
        ("trigger.zero", "exists", None, True),
        ("trigger.empty", "is_empty", None, True),
        ("trigger.none", "is_empty", None, True),
        ("trigger.nothing", "is_empty", None, True),
        (MISSING, "is_empty", None, True),
        ("trigger.zero", "is_empty", None, False),
        ("trigger.s", "is_not_empty", None, True),
        ("trigger.s", "starts_with", "he", True),
        ("trigger.s", "ends_with", "he", False),
        ("trigger.items.1.sku", "eq", "b", True),
        ("trigger.items.2.sku", "exists", None, False),
        ("trigger.items.01.sku", "exists", None, False),
        ("trigger.s.0", "exists", None, False),
        ("steps.task-1.output.ok", "eq", True, True),
        ("trigger.n", "eq", "{{ trigger.f }}", True),
        ("trigger.n", "in", "{{ [`1`, trigger.n] }}", True),
    ],
)
def test_operators(field, operator, value, expected):
    assert compare(field, operator, value) == (expected, [])


@pytest.mark.parametrize(
    ("field", "operator", "value"),
    [
        ("trigger.s", "gt", 1),
        ("trigger.n", "lt", "9"),
        ("trigger.b", "gt", 0),
        (MISSING, "gte", 1),
        ("trigger.at", "gt", "2026-01-01"),
        ("trigger.at", "gt", "2026-01-01T00:00:00"),
        ("trigger.at", "gt", "2026-13-01T00:00:00Z"),
        ("trigger.at", "gt", 5),
        ("trigger.n", "contains", 5),
        ("trigger.s", "contains", 1),
        ("trigger.n", "in", "{{ trigger.s }}"),
        ("trigger.n", "starts_with", "5"),
        ("trigger.s", "ends_with", None),
    ],
)
def test_a_type_mismatch_is_false_and_told(field, operator, value):
    verdict, warnings = compare(field, operator, value)
    assert verdict is False
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{field} {operator}: ")


@pytest.mark.parametrize(
    ("positive", "negative"),
    [("equals", "not_equals"), ("contains", "not_contains"), ("in", "not_in"), ("exists", "not_exists"),
     ("is_empty", "is_not_empty")],
)  # fmt: skip
@given(data=st.data())
def test_negated_forms_are_exactly_the_negation(positive, negative, data):
    anything = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(0, 2),
        st.sampled_from(["", "a", "ab"]),
        st.lists(st.integers(0, 2), max_size=2),
    )
    actual, wanted = data.draw(anything), data.draw(anything if positive != "in" else st.lists(anything, max_size=3))
    scope = {"x": actual}
    first = compile_condition({"field": "x", "operator": positive, "value": wanted}).holds(scope)
    second = compile_condition({"field": "x", "operator": negative, "value": wanted}).holds(scope)
    assert first is (not second)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("trigger.n", True),
        ("trigger.zero", True),
        ("trigger.null", False),
        ("trigger.empty", False),
        ("trigger.none", False),
        ("trigger.nothing", False),
        ("`false`", False),
        ("trigger.n > `4` && trigger.s == 'hello'", True),
        ("!trigger.missing", True),
        ({"all": []}, True),
        ({"any": []}, False),
        ({"all": ["trigger.n", {"field": "trigger.s", "operator": "eq", "value": "hello"}]}, True),
        ({"all": ["trigger.n", "trigger.null"]}, False),
        ({"any": ["trigger.null", {"not": "trigger.null"}]}, True),
        ({"not": {"all": ["trigger.n"]}}, False),
    ],
)
def test_forms(condition, expected):
    assert holds(condition)[0] is expected


def nested(depth):
    condition = "trigger.n"
    for _ in range(depth - 1):
        condition = {"not": condition}
    return condition


def test_nesting_is_at_most_eight():
    assert holds(nested(8))[0] is False
    with pytest.raises(ExpressionSyntaxError, match="at most 8"):
        compile_condition(nested(9))


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        (5, ()),
        (None, ()),
        ([], ()),
        ({}, ()),
        ({"all": [], "any": []}, ()),
        ({"all": "x"}, ("all",)),
        ({"any": [{"not": ["x"]}]}, ("any", 0, "not")),
        ({"field": "a", "operator": "matches", "value": ".*"}, ("operator",)),
        ({"field": "a", "operator": ["eq"]}, ("operator",)),
        ({"field": "a"}, ("operator",)),
        ({"operator": "eq", "value": 1}, ("field",)),
        ({"field": "", "operator": "eq"}, ("field",)),
        ({"field": "a..b", "operator": "eq"}, ("field",)),
        ({"field": "{{ a }}", "operator": "eq"}, ("field",)),
        ({"field": "x" * 1025, "operator": "eq"}, ("field",)),
        ({"field": "a", "operator": "in", "value": "abc"}, ("value",)),
        ({"field": "a", "operator": "eq", "value": {"x": "{{ ( }}"}}, ("value", "x")),
        ({"field": "a", "operator": "eq", "values": 1}, ("values",)),
        ({"all": ["ok", "a ~"]}, ("all", 1)),
    ],
)
def test_mistakes_name_the_place(condition, path):
    with pytest.raises(ExpressionSyntaxError) as caught:
        compile_condition(condition)
    assert caught.value.path == path
    problems = []
    compile_condition(condition, problems)
    assert [problem.path for problem in problems] == [path]


def test_all_mistakes_can_be_collected():
    problems = []
    compile_condition({"all": ["a ~", {"field": "a", "operator": "nope"}]}, problems)
    assert [problem.path for problem in problems] == [("all", 0), ("all", 1, "operator")]


def test_a_runtime_error_is_an_error_not_a_verdict():
    with pytest.raises(ExpressionError):
        holds("trigger.n > 'x'")


def test_there_is_no_operator_for_patterns():
    assert not {"matches", "regex", "like"} & OPERATORS


def test_one_budget_for_all_parts():
    bomb = "length(" + "|".join(["[@,@][]"] * 10) + ") > `0`"
    assert holds(bomb, [1] * 8)[0] is True
    with pytest.raises(ExpressionError):
        holds({"all": [bomb] * 20}, [1] * 8)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02t03:04:05.5z", "2026-01-02T03:04:05.500000+00:00"),
        ("2026-01-02 03:04:05.123456789+05:30", "2026-01-02T03:04:05.123456+05:30"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
        ("2026-02-30T00:00:00Z", None),
        ("2026-01-02T03:04Z", None),
        ("2026-01-02T03:04:05+99:00", None),
        ("", None),
        (5, None),
    ],
)
def test_timestamps(text, expected):
    moment = timestamp(text)
    assert (moment and moment.isoformat()) == expected
