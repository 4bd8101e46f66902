"""Handles made of display names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenants.limits import RESERVED_WORKFLOW_NAMES, WORKFLOW_NAME
from versions.names import handle_for, slug


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Order Intake", "order-intake"),
        ("  Prüfung: Straße №5 ", "prufung-strae-no5"),
        ("a_b--c", "a-b-c"),
        ("日本", "workflow"),
        ("", "workflow"),
        ("-x-", "x"),
        ("Metrics", "metrics-2"),
        ("x" * 100, "x" * 64),
    ],
)
def test_handles(name: str, expected: str) -> None:
    assert handle_for(name, lambda _: False) == expected


def test_taken_ones_are_numbered() -> None:
    taken = {"a", "a-2", "x" * 64}
    assert handle_for("A", taken.__contains__) == "a-3"
    assert handle_for("x" * 64, taken.__contains__) == "x" * 62 + "-2"
    assert handle_for("settings", {"settings-2"}.__contains__) == "settings-3"


@given(st.text(max_size=200), st.integers(0, 12))
def test_every_name_has_a_valid_handle(name: str, taken: int) -> None:
    used: set[str] = set()
    for _ in range(taken):
        used.add(handle_for(name, used.__contains__))
    handle = handle_for(name, used.__contains__)
    assert handle not in used | RESERVED_WORKFLOW_NAMES
    assert WORKFLOW_NAME.holds(handle)
    assert slug(handle) == handle
