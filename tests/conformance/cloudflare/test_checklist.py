"""Every line of the checklist is held by tests there are, or docs/compatibility.md says why there is none."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.docs import DOCS, ROOT

from .checklist import CHECKLIST, Held, Nothing

LINES = {"B": 30, "C": 33, "E": 47, "V": 11, "D": 11}


@cache
def _named_tests(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(function.name for function in functions if function.name.startswith("test_"))


def test_every_line_is_there() -> None:
    expected = {f"{letter}{number:02}" for letter, last in LINES.items() for number in range(1, last + 1)}
    assert set(CHECKLIST) == expected


@pytest.mark.parametrize("line", [line for line, entry in CHECKLIST.items() if isinstance(entry, Held)])
def test_the_tests_that_hold_a_line_are_there(line: str) -> None:
    entry = CHECKLIST[line]
    assert isinstance(entry, Held)
    missing = [test for test in entry.tests if test not in _named_tests(entry.file)]
    missing += [test for file, test in entry.also if test not in _named_tests(file)]
    assert not missing


def test_tests_named_after_lines_hold_them() -> None:
    """A test that bears the number of a line which says nothing of it has been renamed, or the line forgotten."""
    files = {entry.file for entry in CHECKLIST.values() if isinstance(entry, Held)}
    holding: dict[str, set[str]] = {}
    for line, entry in CHECKLIST.items():
        if isinstance(entry, Held):
            holding[line] = {*entry.tests, *(test for _, test in entry.also)}
    for file in files:
        for test in _named_tests(file):
            numbers = re.match(r"test_((?:[bcevd]\d\d_)+)", test)
            for number in re.findall(r"[bcevd]\d\d", numbers[1]) if numbers else ():
                assert number.upper() in holding, f"{file}: {test}"


def test_reasons_are_in_the_documentation() -> None:
    page = (DOCS / "compatibility.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")}
    assert {entry.row for entry in CHECKLIST.values() if isinstance(entry, Nothing)} <= rows
