"""Expression text to JMESPath's tree, within bounds that hold on any call stack."""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from jmespath import exceptions
from jmespath.lexer import Lexer
from jmespath.parser import Parser

from versions.expressions.errors import ExpressionSyntaxError

MAX_LENGTH = 1_024
"""Characters of one expression."""
MAX_PIPES = 20
MAX_NESTING = 64
"""Brackets within brackets; and, counted apart, projections and prefix operators. Bounds the parser's recursion."""
MAX_DEPTH = 100
"""Levels of the tree. Bounds the evaluator's recursion."""

Tree = dict[str, Any]

_OPENING = {"lparen", "lbracket", "lbrace", "filter"}
_CLOSING = {"rparen", "rbracket", "rbrace"}
_RECURSING = {"not", "expref", "star", "filter", "colon"}
_SIGNS = (("([{", MAX_NESTING), ("!&*:[", MAX_NESTING), ("|", MAX_PIPES))
"""Characters tokens are made of: with fewer of them than the limits allow, the tokens need no counting."""
_CHAINS = {"pipe", "or_expression", "and_expression"}
_DASHED = re.compile(r"(?<![\"'`\w-])[A-Za-z_]\w*(?:-\w+)+")


def parse(text: str) -> Tree:
    """The tree of `text`. Raises :class:`ExpressionSyntaxError`."""
    if len(text) > MAX_LENGTH:
        raise ExpressionSyntaxError(f"an expression has at most {MAX_LENGTH} characters, this one {len(text)}")
    if not text.strip():
        raise ExpressionSyntaxError("the expression is empty")
    try:
        if "`" in text:
            with warnings.catch_warnings():
                # `word` without JSON quotes is deprecated but widespread.
                warnings.simplefilter("ignore", PendingDeprecationWarning)
                tree = _parse(text)
        else:
            tree = _parse(text)
    except exceptions.ParseError as error:
        raise _translated(text, error) from None
    except exceptions.JMESPathError as error:
        raise ExpressionSyntaxError(str(error)) from None
    except RecursionError:
        raise ExpressionSyntaxError("the expression is nested too deeply") from None
    _check_depth(tree)
    return tree


def _parse(text: str) -> Any:
    if "`" in text or any(sum(map(text.count, signs)) > most for signs, most in _SIGNS):
        _check_tokens(Lexer().tokenize(text))
    return Parser().parse(text).parsed


def _check_tokens(tokens: Iterator[Any]) -> None:
    nesting = recursing = pipes = 0
    for token in tokens:
        kind = token["type"]
        nesting += (kind in _OPENING) - (kind in _CLOSING)
        recursing += kind in _RECURSING
        pipes += kind == "pipe"
        if nesting > MAX_NESTING or recursing > MAX_NESTING:
            raise ExpressionSyntaxError("the expression is nested too deeply", token["start"])
        if pipes > MAX_PIPES:
            raise ExpressionSyntaxError(f"an expression has at most {MAX_PIPES} pipes", token["start"])
        if kind == "literal" and not _finite(token["value"]):
            raise ExpressionSyntaxError("a literal is not JSON", token["start"])


def _finite(literal: Any) -> bool:
    if isinstance(literal, float):
        return math.isfinite(literal)
    if isinstance(literal, (list, dict)):
        try:
            json.dumps(literal, allow_nan=False)
        except ValueError:
            return False
    return True


def _translated(text: str, error: exceptions.ParseError) -> ExpressionSyntaxError:
    ended = not error.token_value and error.lex_position >= len(text.rstrip())
    if isinstance(error, exceptions.IncompleteExpressionError) or ended:
        return ExpressionSyntaxError("the expression is incomplete", len(text))
    offset = error.lex_position
    for dashed in _DASHED.finditer(text):
        if dashed.start() < offset < dashed.end():
            return ExpressionSyntaxError(f'a name with dashes must be quoted: "{dashed[0]}"', offset)
    if isinstance(error, exceptions.LexerError):
        return ExpressionSyntaxError(str(error.message), offset)
    return ExpressionSyntaxError(f"unexpected {error.token_value!r}", offset)


def _check_depth(tree: Tree) -> None:
    stack = [(tree, 1)]
    while stack:
        node, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise ExpressionSyntaxError("the expression is nested too deeply")
        for position, child in enumerate(node["children"]):
            if isinstance(child, dict):
                # `a | b | c` leans to the left but is evaluated as a list.
                same = position == 0 and node["type"] in _CHAINS and child["type"] == node["type"]
                stack.append((child, depth if same else depth + 1))


def bound(node: Tree) -> Tree:
    """`node` with `!` binding looser than dots.

    The library reads `!a.b` as `(!a).b`, which is null whatever `a` is; JMESPath's rules and everybody who writes it
    mean `!(a.b)`.
    """
    if node["type"] not in ("subexpression", "value_projection"):
        return node
    first, *rest = node["children"]
    first = bound(first)
    if first["type"] != "not_expression":
        return node
    operand = {"type": node["type"], "children": [first["children"][0], *rest]}
    return {"type": "not_expression", "children": [operand]}


def chain(node: Tree) -> list[Tree]:
    """Operands of a left-leaning chain of one operator, in order."""
    operands = [node["children"][1]]
    left = node["children"][0]
    while left["type"] == node["type"]:
        operands.append(left["children"][1])
        left = left["children"][0]
    operands.append(left)
    return operands[::-1]


def references(tree: Tree) -> tuple[frozenset[str], frozenset[str]]:
    """Names the expression reads from the scope's root, and `<id>` of every `steps.<id>` among them.

    The second holds `*` when the expression takes all steps (`steps.*`, `keys(steps)`).
    """
    names: set[str] = set()
    steps: set[str] = set()
    stack = [tree]
    while stack:
        node = bound(stack.pop())
        children = node["children"]
        match node["type"]:
            case "field":
                names.add(node["value"])
                if node["value"] == "steps":
                    steps.add("*")
            case "subexpression" if _is_field(children[0], "steps") and children[1]["type"] == "field":
                names.add("steps")
                steps.add(children[1]["value"])
            case (
                "subexpression" | "pipe" | "index_expression" | "projection" | "value_projection" | "filter_projection"
            ):
                # Only the first part sees the root.
                stack.append(children[0])
            case "slice":
                pass
            case _:
                stack.extend(children)
    return frozenset(names), frozenset(steps)


def _is_field(node: Tree, name: str) -> bool:
    return node["type"] == "field" and node["value"] == name
