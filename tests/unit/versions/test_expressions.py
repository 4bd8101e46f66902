"""The expression language: JMESPath's rules, and the bounds that keep a tenant's expression from stalling a worker."""

import contextlib

import pytest

from versions.expressions import (
    Budget,
    BudgetExceeded,
    ExpressionError,
    ExpressionSyntaxError,
    Lazy,
    compile_expression,
    compile_template,
)

DATA = {
    "a": {"b": {"c": "deep"}, "n": 3},
    "items": [{"sku": "x", "qty": 2}, {"sku": "y", "qty": 5}, {"sku": "z", "qty": 5}],
    "nested": [[1, 2], [3, [4]], 5],
    "numbers": [3, 1.5, 2],
    "words": ["pear", "apple", "fig"],
    "empty": {"s": "", "l": [], "o": {}, "n": None, "f": False, "zero": 0},
    "text": "héllo",
}


def evaluate(text, data=DATA):
    return compile_expression(text).evaluate(data)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b.c", "deep"),
        ('a."b".c', "deep"),
        ("a.missing.c", None),
        ("text.x", None),
        ("items[0].sku", "x"),
        ("items[-1].sku", "z"),
        ("items[9].sku", None),
        ("items[99999999999999999999]", None),
        ("items[*].qty", [2, 5, 5]),
        ("items[*].missing", []),
        ("items[?qty > `2`].sku", ["y", "z"]),
        ("items[?qty > `2` && sku == 'z'].sku | [0]", "z"),
        ("items[1:].sku", ["y", "z"]),
        ("items[::-1].sku", ["z", "y", "x"]),
        ("nested[]", [1, 2, 3, [4], 5]),
        ("nested[][]", [1, 2, 3, 4, 5]),
        ("a.*", [{"c": "deep"}, 3]),
        ("*.b", [{"c": "deep"}]),
        ("a.[n, b.c]", [3, "deep"]),
        ("a.{x: n, y: b.c}", {"x": 3, "y": "deep"}),
        ("missing.[n]", None),
        ("missing.{x: n}", None),
        ("empty.n || 'other'", "other"),
        ("empty.zero || 'other'", 0),
        ("empty.s || empty.l || empty.o || empty.f", False),
        ("a && text", "héllo"),
        ("empty.l && text", []),
        ("!a", False),
        ("!a.missing", True),
        ("!a.b.c", False),
        ("!a.missing && text", "héllo"),
        ("!a.missing.*", True),
        ("!empty.zero", False),
        ("!empty.o", True),
        ("a.n == `3.0`", True),
        ("a.n == '3'", False),
        ("`true` == `1`", False),
        ("`[true]` == `[1]`", False),
        ("nested == `[[1,2],[3,[4]],5]`", True),
        ("a != `{}`", True),
        ("a > `1`", None),
        ("empty.n < `1`", None),
        ("'a' < 'b'", True),
        ("@.a.n", 3),
        ("`literal`", "literal"),
        ('`"json"`', "json"),
        ("'it\\'s'", "it's"),
        ("a.n | @", 3),
    ],
)
def test_language(text, value):
    result = evaluate(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("abs(`-3`)", 3),
        ("ceil(`1.2`)", 2),
        ("floor(`1.8`)", 1),
        ("sum(numbers)", 6.5),
        ("sum(`[]`)", 0),
        ("avg(numbers)", 6.5 / 3),
        ("avg(`[]`)", None),
        ("max(numbers)", 3),
        ("max(words)", "pear"),
        ("min(words)", "apple"),
        ("min(`[]`)", None),
        ("max_by(items, &qty).sku", "y"),
        ("min_by(items, &sku).sku", "x"),
        ("max_by(`[]`, &qty)", None),
        ("sort(words)", ["apple", "fig", "pear"]),
        ("sort(numbers)", [1.5, 2, 3]),
        ("sort_by(items, &qty)[*].sku", ["x", "y", "z"]),
        ("sort_by(items, &sku)[-1].sku", "z"),
        ("map(&qty, items)", [2, 5, 5]),
        ("map(&missing, items)", [None, None, None]),
        ("reverse(words)", ["fig", "apple", "pear"]),
        ("reverse(text)", "olléh"),
        ("join(', ', words)", "pear, apple, fig"),
        ("join('', `[]`)", ""),
        ("contains(text, 'éll')", True),
        ("contains(words, 'fig')", True),
        ("contains(nested, `[1.0,2]`)", True),
        ("contains(text, `1`)", False),
        ("starts_with(text, 'h')", True),
        ("ends_with(text, 'x')", False),
        ("length(text)", 5),
        ("length(items)", 3),
        ("length(a)", 2),
        ("keys(a)", ["b", "n"]),
        ("values(empty)[?@ == `0`]", [0]),
        ("merge(a, {n: `4`}).n", 4),
        ("not_null(missing, empty.n, a.n)", 3),
        ("not_null(missing)", None),
        ("to_array(a.n)", [3]),
        ("to_array(words)", ["pear", "apple", "fig"]),
        ("to_string(a.b)", '{"c":"deep"}'),
        ("to_string(text)", "héllo"),
        ("to_string(missing)", "null"),
        ("to_number('12')", 12),
        ("to_number('-1.5e1')", -15.0),
        ("to_number('1_000')", None),
        ("to_number('nan')", None),
        ("to_number('1e999')", None),
        ("to_number(`true`)", None),
        ("to_number(a.n)", 3),
        ("type(missing)", "null"),
        ("type(`true`)", "boolean"),
        ("type(`1.5`)", "number"),
        ("[type(a), type(items), type(text)]", ["object", "array", "string"]),
    ],
)
def test_functions(text, value):
    result = evaluate(text)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a.n > 'x'",
        "'x' < a.n",
        "abs('x')",
        "abs(`true`)",
        "sum(words)",
        "sum(`[1, true]`)",
        'sort(`[1, "a"]`)',
        "sort(nested)",
        "sort_by(items, &missing)",
        "max_by(items, &@)",
        "join('', numbers)",
        "length(a.n)",
        "keys(items)",
        "merge(a, a.n)",
        "reverse(a)",
        "contains(a, 'b')",
        "map(&@, text)",
        "avg(`[1e308, 1e308]`) > 'x'",
    ],
)
def test_wrong_types_are_errors(text):
    with pytest.raises(ExpressionError):
        evaluate(text)


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("steps.a-b.c", 7),
        ("", 0),
        ("  ", 0),
        ("a.", 2),
        ("a ~ b", 2),
        ("a b", 2),
        ("items[", 6),
        ("'open", 0),
        ("nope(a)", 0),
        ("a || nope(b)", 5),
        ("length(a, b)", 0),
        ("not_null()", 0),
        ("sort_by(items, qty)", 0),
        ("[&a]", 0),
        ("to_string(&a)", 0),
        ("`NaN`", 0),
        ("`[1, Infinity]`", 0),
        ("items[::0]", 0),
    ],
)
def test_mistakes_in_the_text_are_found_when_compiling(text, offset):
    with pytest.raises(ExpressionSyntaxError) as caught:
        compile_expression(text)
    assert caught.value.offset == offset


@pytest.mark.parametrize("text", ["a.", "a. ", "a ==", "["])
def test_a_text_that_just_stops_is_said_to_be_incomplete(text):
    with pytest.raises(ExpressionSyntaxError, match="the expression is incomplete"):
        compile_expression(text)


def test_a_dashed_name_is_explained():
    with pytest.raises(ExpressionSyntaxError, match='must be quoted: "task-1"'):
        compile_expression("steps.task-1.output")


def test_length_and_pipes_are_limited():
    assert evaluate("a.n" + " " * 1021) == 3
    with pytest.raises(ExpressionSyntaxError, match="1024 characters"):
        compile_expression("a" * 1025)
    compile_expression("|".join(["a"] * 21))
    with pytest.raises(ExpressionSyntaxError, match="20 pipes"):
        compile_expression("|".join(["a"] * 22))


@pytest.mark.parametrize(
    "text",
    [
        "(" * 500 + "a" + ")" * 500,
        "!" * 1000 + "a",
        "[*]" * 340,
        "[]" * 510,
        "[" * 500,
        "{a:" * 300,
        "[?" * 500,
        "f(" * 500,
        "[::]" * 250,
        "a==" * 300 + "a",
        "`" + "[" * 1000 + "`",
        "`" + "[" * 500 + "]" * 500 + "`",
        "a." * 500 + "a",
        "a||" * 300 + "a",
        "a&&" * 300 + "a",
        "*." * 500 + "a",
        "[?a][?b]" * 100,
        "map(&" * 150,
    ],
)
def test_deep_nesting_is_refused_or_harmless(text):
    with contextlib.suppress(ExpressionSyntaxError, ExpressionError):
        compile_expression(text).evaluate(DATA)


# --- budgets -----------------------------------------------------------------------------------------------------

THOUSAND = [1] * 1000


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("|".join(["[@,@][]"] * 14), THOUSAND),
        ("|".join(["[@,@][]"] * 20), [1]),
        ("@" + ".[@,@][]" * 20, THOUSAND),
        ("@" + " | join('',[@,@])" * 20, "x"),
        ("@" + " | [to_string(@), to_string(@)]" * 20, "x"),
        ("@" + " | [reverse(@), reverse(@)] | join('', @)" * 10, "x" * 2000),
        ("|".join(["[@,@][]"] * 8) + " | [*].[@,@,@,@,@,@,@,@]", THOUSAND),
        ("|".join(["[@,@][]"] * 14) + " | [*].contains(@, 'ab')", ["a" * 100_000]),
        ("|".join(["[@,@][]"] * 14) + " | sort(@)", ["a" * 10_000 + "b", "a" * 10_000 + "c"]),
        ("|".join(["[@,@][]"] * 14) + " | max(@)", ["a" * 10_000 + "b", "a" * 10_000 + "c"]),
        ("|".join(["[@,@][]"] * 10) + " | [*].{x: @[0], y: @[1]} | [?x == y]", [[THOUSAND, list(THOUSAND)]]),
        ("|".join(["[@,@][]"] * 12) + " | [*].merge(@, @, @, @)", [{str(i): i for i in range(100)}]),
        ("|".join(["[@,@][]"] * 12) + " | [*].values(@)[]", [{str(i): i for i in range(100)}]),
        ("[*][*][*]", [[[1] * 200] * 200] * 200),
        ("map(&length(to_string(@)), @)", ["x" * 1000, *[["x" * 1000]] * 2000]),
    ],
)
def test_bombs_run_into_the_budget(text, data):
    budget = Budget()
    with pytest.raises(BudgetExceeded):
        compile_expression(text).evaluate(data, budget)
    # However it ends, no more was made than was paid for (a rejected payment is not spent).
    assert budget.nodes > -200_000_000


@pytest.mark.parametrize("links", [17, 20])
def test_shared_results_are_measured_before_they_are_serialised(links):
    """A chain of `[@,@]` costs nothing to evaluate and doubles its text per link."""
    text = "|".join(["[@,@]"] * links)
    result = compile_expression(text).evaluate(1)
    assert isinstance(result, list)
    with pytest.raises(BudgetExceeded):
        compile_template(f"{{{{ {text} }}}}").render(1)
    with pytest.raises(BudgetExceeded):
        compile_template(f"text {{{{ {text} }}}}").render(1)


def test_comparing_shared_results_is_paid_for():
    text = "|".join(["[@,@]"] * 18)
    expression = compile_expression(f"left == right && ({text}) == left")
    doubled = compile_expression(text)
    with pytest.raises(BudgetExceeded):
        expression.evaluate({"left": doubled.evaluate(1), "right": doubled.evaluate(1)})


def test_an_ordinary_query_over_thousands_of_rows_fits():
    rows = [{"sku": f"s{i}", "qty": i % 7, "price": 1.5} for i in range(5_000)]
    expression = compile_expression("sort_by(rows[?qty > `3`].{sku: sku, qty: qty}, &qty)[-1].qty")
    assert expression.evaluate({"rows": rows}) == 6


def test_references_are_known_without_running():
    expression = compile_expression("steps.a.output.x || steps.\"b-c\".output[?vars == 'x'] | [trigger]")
    assert expression.names == {"steps"}
    assert expression.steps == {"a", "b-c"}
    assert compile_expression("!steps.a.output").steps == {"a"}
    assert compile_expression("keys(steps)").steps == {"*"}
    assert compile_expression("{a: vars.x, b: length(trigger.items[1:])}").names == {"vars", "trigger"}


# --- lazy scopes -------------------------------------------------------------------------------------------------


class Recording(Lazy):
    def __init__(self, members):
        self.members = members
        self.asked = []

    def field(self, name, budget):
        self.asked.append(name)
        return self.members.get(name)

    def whole(self, budget):
        return {name: self.field(name, budget) for name in self.members}


@pytest.fixture
def scope():
    return Recording({"trigger": {"a": 1}, "steps": Recording({"x": {"output": 2}, "y": {"output": 3}})})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("steps.x.output", 2),
        ("steps.x.output == `2`", True),
        ("steps | x.output", 2),
        ("@.steps.y.output", 3),
        ("steps.*.output", [2, 3]),
        ("keys(steps)", ["x", "y"]),
        ("[steps.x, trigger.a]", [{"output": 2}, 1]),
        ("{s: steps}.s.x.output", 2),
        ("steps", {"x": {"output": 2}, "y": {"output": 3}}),
        ("steps && trigger.a", 1),
        ("!steps", False),
        ("steps[0]", None),
        ("steps[*]", None),
        ("length(@.steps)", 2),
        ("not_null(missing, steps).y.output", 3),
    ],
)
def test_lazy_objects_behave_as_objects(scope, text, value):
    assert evaluate(text, scope) == value


def test_only_what_is_read_is_made(scope):
    evaluate("steps.x.output", scope)
    assert scope.asked == ["steps"]
    assert scope.members["steps"].asked == ["x"]
