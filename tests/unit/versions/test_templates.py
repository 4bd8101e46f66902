"""Templates: where an expression begins and ends, what it is replaced by, what it may cost."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from versions.expressions import BudgetExceeded, ExpressionError, ExpressionSyntaxError, compile_template
from versions.expressions.values import decode_json, encode_json

SCOPE = {
    "trigger": {"n": 3, "s": "text", "list": [1, {"a": None}], "null": None, "yes": True, "f": 1.5, "é": "ü"},
    "vars": {"big": "x" * 600_000},
}


def render(value, scope=SCOPE):
    return compile_template(value).render(scope)


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("{{ trigger.n }}", 3),
        ("{{trigger.n}}", 3),
        ("{{\n trigger.list \t}}", [1, {"a": None}]),
        ("{{ trigger.missing }}", None),
        ("{{ trigger.missing.deeper }}", None),
        (" {{ trigger.n }}", " 3"),
        ("{{ trigger.n }}!", "3!"),
        ("{{ trigger.n }}{{ trigger.s }}", "3text"),
        ("a{{ trigger.null }}b{{ trigger.missing }}c", "abc"),
        ("{{ trigger.yes }},{{ trigger.f }},{{ trigger.list }}", 'true,1.5,[1,{"a":null}]'),
        ('{{ trigger."é" }} ', "ü "),
        ("\\{{ trigger.n }}", "{{ trigger.n }}"),
        ("\\{{ {{ trigger.n }} }}", "{{ 3 }}"),
        ("\\\\{{ x", "\\{{ x"),
        ("no braces }} here {", "no braces }} here {"),
        ("{ {trigger.n} }", "{ {trigger.n} }"),
        ("{{ '}}' }}", "}}"),
        ("{{ '\\'}}' }}", "'}}"),
        ('{{ `"}}"` }}', "}}"),
        ("{{ trigger.\"}}\" || 'none' }}", "none"),
        ("{{ {a: {b: trigger.n} } }}", {"a": {"b": 3}}),
        ("", ""),
        (5, 5),
        (None, None),
        (
            {"k {{ trigger.n }}": ["{{ trigger.n }}", {"x": "{{ trigger.s }}"}]},
            {"k {{ trigger.n }}": [3, {"x": "text"}]},
        ),
    ],
)
def test_rendering(template, value):
    result = render(template)
    assert result == value
    assert type(result) is type(value)


def test_what_holds_no_expression_is_returned_as_it_is():
    value = {"a": [1, 2, {"b": "text"}]}
    template = compile_template(value)
    assert template.constant
    assert template.render(SCOPE) is value
    mixed = compile_template({"constant": value, "other": "{{ trigger.n }}"})
    assert not mixed.constant
    assert mixed.render(SCOPE)["constant"] is value


@pytest.mark.parametrize(
    ("template", "path", "offset"),
    [
        ("{{", (), 0),
        ("abc {{ trigger.n", (), 4),
        ("{{ 'open }}", (), 3),
        ("{{ }}", (), 3),
        ("{{}}", (), 2),
        ("{{ a. }}", (), 5),
        ("xx {{ trigger.n }} {{ a ~ }}", (), 24),
        ({"a": [0, {"b": "{{ 1a }}"}]}, ("a", 1, "b"), 3),
        ("{{ {a: {b: c}} }}", (), 12),
        ("it's {{ it's }}", (), 10),
        ("{{ `[\\`] }}", (), 3),
    ],
)
def test_mistakes_name_the_place(template, path, offset):
    with pytest.raises(ExpressionSyntaxError) as caught:
        compile_template(template)
    assert (caught.value.path, caught.value.offset) == (path, offset)


@pytest.mark.parametrize("hostile", ["'" + "\\'" * 500_000, "`" + "\\`" * 500_000, "''" * 500_000, "\\" * 1_000_000])
def test_the_end_of_an_expression_is_looked_for_in_linear_time(hostile):
    started = time.process_time()
    with pytest.raises(ExpressionSyntaxError):
        compile_template("{{ " + hostile)
    assert time.process_time() - started < 2


def test_all_mistakes_can_be_collected():
    problems = []
    compile_template({"a": "{{ ( }}", "b": ["{{ ok }}", "{{ nope(1) }}"]}, problems)
    assert [problem.path for problem in problems] == [("a",), ("b", 1)]


def test_nesting_is_limited():
    value = "{{ trigger.n }}"
    for _ in range(100):
        value = [value]
    render(value)
    with pytest.raises(ExpressionSyntaxError, match="nested too deeply"):
        compile_template([value])


def test_expressions_are_listed_with_their_place():
    template = compile_template({"a": "{{ steps.x.output }} and {{ vars.y }}", "b": [1, "{{ steps.z.output }}"]})
    assert [(path, sorted(e.steps)) for path, e in template.expressions] == [
        (("a",), ["x"]),
        (("a",), []),
        (("b", 1), ["z"]),
    ]


def test_runtime_failures_are_expression_errors():
    with pytest.raises(ExpressionError, match="cannot compare"):
        render("{{ trigger.n > 'x' }}")


def test_one_budget_holds_for_the_whole_value():
    one = "{{ vars.big }}"
    assert len(render(one)) == 600_000
    with pytest.raises(BudgetExceeded):
        render([one, one])
    with pytest.raises(BudgetExceeded):
        render(f"{one}{one}")
    loops = "{{ map(&length(@), trigger) }}"
    scope = {"trigger": ["x"] * 30_000}
    render(loops, scope)
    with pytest.raises(BudgetExceeded):
        render([loops] * 4, scope)


def test_result_size_counts_shared_parts_each_time():
    with pytest.raises(BudgetExceeded):
        render("{{ " + "|".join(["[@,@]"] * 17) + " }}", 1)


# --- JSON text ---------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=10,
)


@given(json_values)
def test_json_round_trips(value):
    assert decode_json(encode_json(value)) == value
    assert decode_json(json.dumps(value)) == value


@pytest.mark.parametrize("text", ['"\\ud800"', '{"a":["\\udfff x"]}', '"\\u0000"', "123456789012345678901234567890"])
def test_odd_but_legal_text_is_kept(text):
    assert encode_json(decode_json(text)) == text


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "nope", "NaN1", ""])
def test_text_that_cannot_be_read_is_an_expression_error(text):
    with pytest.raises(ExpressionError):
        decode_json(text)


@given(st.text(alphabet="{} '\"`\\ab.", max_size=30))
def test_any_text_renders_or_is_a_syntax_error(text):
    try:
        template = compile_template(text)
    except ExpressionSyntaxError as error:
        assert 0 <= error.offset <= len(text)
        return
    json.dumps(template.render({"a": {"b": [1, "x"]}}))


@given(st.text())
def test_text_without_braces_is_itself(text):
    text = text.replace("{{", "")
    if "{{" not in text:
        assert render(text) == text


@given(st.text())
def test_escaped_braces_protect_any_text(text):
    text = text.replace("{{", "").replace("\\", "")
    if "{{" not in text:
        assert render("\\{{" + text) == "{{" + text
