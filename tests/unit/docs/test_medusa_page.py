"""docs/api-medusa.md names every route, filter, error, state and event there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.contract import contract
from app.faces.medusa import telling
from app.faces.medusa.filters import FILTERS, OPERATORS
from app.faces.medusa.states import STATES
from tests.support.openapi import operations_of

PAGE = (Path(__file__).parents[3] / "docs" / "api-medusa.md").read_text()
BASE = "/admin/workflows-executions"
SCHEMAS = contract()["components"]["schemas"]
UNUSED = {"database_error", "invalid_argument"}
"""Types of failures of workflows that nothing else has."""


@pytest.mark.parametrize(("method", "path"), operations_of("medusa"))
def test_every_route_is_named(method: str, path: str) -> None:
    shown = path.removeprefix(BASE) or "/"
    if shown.endswith("/steps/failure"):
        shown = "/steps/failure"
        method = "POST"
        assert f"`{shown}`" in PAGE
    else:
        assert re.search(rf"`{method} {re.escape(shown)}`", PAGE)


@pytest.mark.parametrize(
    "word",
    [
        *FILTERS,
        *STATES,
        *OPERATORS,
        *sorted(set(SCHEMAS["MedusaError"]["properties"]["type"]["enum"]) - UNUSED),
    ],
)
def test_every_word_is_there(word: str) -> None:
    assert f"`{word}`" in PAGE


def test_every_event_is_named() -> None:
    told = set(re.findall(r'"(on[A-Z]\w+)"', Path(telling.__file__).read_text()))
    shown = PAGE[PAGE.index("## Streams") : PAGE.index("## Errors")]
    assert set(re.findall(r"`(on[A-Z]\w+)`", shown)) == told
