"""docs/api-workspaces.md names every route, every error and every event there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.contract import contract
from tests.support.openapi import operations_of

PAGE = (Path(__file__).parents[3] / "docs" / "api-workspaces.md").read_text()
BASE = "/api/workspaces/{slug}"


@pytest.mark.parametrize(("method", "path"), operations_of("workspaces"))
def test_every_route_is_named(method: str, path: str) -> None:
    shown = re.sub(r"\{\w+\}", "{id}", path.removeprefix(BASE))
    rows = [line for line in PAGE.splitlines() if re.search(rf"`(?:[A-Z]+ )?{re.escape(shown)}`", line)]
    assert any(re.search(rf"\b{method}\b", row) for row in rows)


def test_no_other_route_is_named() -> None:
    known = {re.sub(r"\{\w+\}", "{id}", path.removeprefix(BASE)) for _, path in operations_of("workspaces")}
    table = PAGE[PAGE.index("| route | does |") : PAGE.index("### Starting")]
    named = re.findall(r"`(?:[A-Z]+ )?(/[^`?]+)`", table)
    assert set(named) == known


@pytest.mark.parametrize("code", contract()["components"]["schemas"]["WorkspacesError"]["properties"]["error"]["enum"])
def test_every_error_is_named(code: str) -> None:
    assert f"`{code}`" in PAGE
