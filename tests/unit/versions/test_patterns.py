"""Patterns matched in bounded time: the same answers as `re`, and no way to stall."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from versions.document.patterns import Pattern, PatternError

ATOMS = ["a", "b", ".", "[ab]", "[^a]", r"\d", r"\W", "(a|b)", "(?:ab)", "^", "$", r"\b", "a*", "b+?", "(ab)?", "a{2}",
         "b{1,2}", "b{1,}", "(a|b|)*", "(a*)*", "|", r"\x61", r"[\d-]", "[a-b1]", "1"]  # fmt: skip


@given(st.lists(st.sampled_from(ATOMS), min_size=1, max_size=6).map("".join), st.text("ab1 -", max_size=8))
@settings(max_examples=500, deadline=None)
def test_same_answers_as_re(text: str, subject: str) -> None:
    assert Pattern(text).search(subject) == bool(re.search(text, subject, re.ASCII))


@pytest.mark.parametrize(
    "text",
    ["(", "a)", "[a", "a**", "*a", "+", "(?=a)", "(?<!a)b", "(?i)a", r"\1", r"\p{L}", "a{2,1}", "[b-a]", "\\",
     "(a{999}){999}", "x{9999}", "(" * 60 + ")" * 60, r"\u{ffffff}", "a" * 1_025, "^*"],
)  # fmt: skip
def test_refused(text: str) -> None:
    with pytest.raises(PatternError):
        Pattern(text)


@pytest.mark.parametrize(
    ("text", "subject", "matches"),
    [
        ("^[A-Z]{2}-\\d{4}$", "AB-1234", True),
        ("^[A-Z]{2}-\\d{4}$", "AB-1234\n", False),
        ("(?<year>\\d{4})", "in 2026", True),
        ("[\\]\\-]", "-", True),
        ("[^]", "x", True),
        ("[]", "x", False),
        ("[\\s\\S]", "\n", True),
        ("[^\\D]", "7", True),
        ("\\u00e9|\\xe8", "é", True),
        ("\\u{1F600}", "😀", True),
        ("a{,2}", "a{,2}", True),
        ("", "", True),
    ],
)
def test_ecmascript(text: str, subject: str, matches: bool) -> None:
    assert Pattern(text).search(subject) is matches


def test_time_is_bounded_and_paid_for() -> None:
    steps: list[int] = []
    started = time.process_time()
    assert not Pattern("^(a|a)*(a|a)*$").search("a" * 3_000 + "b", steps.append)
    assert time.process_time() - started < 1
    assert sum(steps) < 3_001 * 30
