"""Our evaluator against the jmespath library, on small inputs. Differences by intent are kept out of the generators:
booleans next to 0 and 1 (the library calls them equal inside arrays), texts only Python reads as numbers, and `!a.b`
(which the library reads as `(!a).b`)."""

import contextlib
import json

import jmespath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from versions.expressions import ExpressionError, ExpressionSyntaxError, compile_expression

NAMES = ["a", "b", "c"]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(2, 9),
    st.sampled_from([2.0, 2.5, -3.5]),
    st.sampled_from(["", "a", "b", "ab", "12", "2.5"]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)),
    max_leaves=12,
)
names = st.sampled_from(NAMES)
literals = values.map(lambda value: f"`{json.dumps(value)}`")

ONE_ARGUMENT = [
    "abs", "avg", "ceil", "floor", "keys", "length", "max", "min", "reverse", "sort", "sum", "to_array", "to_number",
    "to_string", "type", "values", "not_null",
]  # fmt: skip
TWO_ARGUMENTS = ["contains", "ends_with", "join", "not_null", "starts_with"]


def compose(inner):
    pair = st.tuples(inner, inner)
    return st.one_of(
        st.tuples(inner, names).map(lambda p: f"({p[0]}).{p[1]}"),
        st.tuples(inner, names).map(lambda p: f"({p[0]})[*].{p[1]}"),
        st.tuples(inner, names).map(lambda p: f"({p[0]})[].{p[1]}"),
        st.tuples(inner, names).map(lambda p: f"({p[0]}).*.{p[1]}"),
        inner.map(lambda e: f"({e})[*]"),
        inner.map(lambda e: f"({e})[]"),
        inner.map(lambda e: f"({e}).*"),
        pair.map(lambda p: f"({p[0]})[?{p[1]}]"),
        st.tuples(inner, st.integers(-3, 3)).map(lambda p: f"({p[0]})[{p[1]}]"),
        st.tuples(inner, st.sampled_from(["1:", ":2", "::-1", "::2", "-2:", "3:0:-1"])).map(
            lambda p: f"({p[0]})[{p[1]}]"
        ),
        pair.map(lambda p: f"({p[0]}) | ({p[1]})"),
        pair.map(lambda p: f"({p[0]}) || ({p[1]})"),
        pair.map(lambda p: f"({p[0]}) && ({p[1]})"),
        st.tuples(inner, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), inner).map(
            lambda p: f"({p[0]}) {p[1]} ({p[2]})"
        ),
        inner.map(lambda e: f"(!({e}) | @)"),
        pair.map(lambda p: f"[{p[0]}, {p[1]}]"),
        pair.map(lambda p: f"{{x: {p[0]}, y: {p[1]}}}"),
        st.tuples(st.sampled_from(ONE_ARGUMENT), inner).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(st.sampled_from(TWO_ARGUMENTS), inner, inner).map(lambda p: f"{p[0]}({p[1]}, {p[2]})"),
        st.tuples(st.sampled_from(["sort_by", "max_by", "min_by"]), inner, inner).map(
            lambda p: f"{p[0]}({p[1]}, &({p[2]}))"
        ),
        pair.map(lambda p: f"merge({p[0]}, {{x: {p[1]}}})"),
        pair.map(lambda p: f"map(&({p[0]}), {p[1]})"),
    )


expressions = st.recursive(st.one_of(names, names, literals, st.just("@"), st.just("'ab'")), compose, max_leaves=6)


@settings(max_examples=600, deadline=None)
@given(expressions, values)
def test_same_result_as_the_library(text, data):
    try:
        expected = jmespath.search(text, data)
    except jmespath.exceptions.ParseError:
        raise AssertionError(f"the generator made {text!r}") from None
    except jmespath.exceptions.JMESPathError:
        with pytest.raises(ExpressionError):
            compile_expression(text).evaluate(data)
        return
    except TypeError:  # The library's own slip: mixed comparisons, a number looked for in a string.
        with contextlib.suppress(ExpressionError):
            compile_expression(text).evaluate(data)
        return
    actual = compile_expression(text).evaluate(data)
    assert json.dumps(actual) == json.dumps(expected)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab.[]*?()|&!=<>'\"`{}:,@ -01\\", max_size=40))
def test_any_text_compiles_or_is_a_syntax_error(text):
    try:
        expression = compile_expression(text)
    except ExpressionSyntaxError as error:
        assert 0 <= error.offset <= len(text)
        return
    with contextlib.suppress(ExpressionError):
        json.dumps(expression.evaluate({"a": [{"b": 1}], "b": "x"}))


@settings(max_examples=300, deadline=None)
@given(expressions)
def test_what_the_library_parses_we_parse(text):
    compile_expression(text)
