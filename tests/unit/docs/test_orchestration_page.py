"""`docs/api-orchestration.md` against the routes of the contract and the codes of its errors."""

from __future__ import annotations

import re

import pytest

from tests.support.docs import page
from tests.support.openapi import contract, operations_of

TEXT = page("api-orchestration.md")
ELSEWHERE = ("/api/webhooks", "/graphql")
"""Described on pages of their own."""


def named() -> set[tuple[str, str]]:
    """Every (method, path) of the tables and the text; `/pause`, `/resume` stands for two paths."""
    found: set[tuple[str, str]] = set()
    for methods, path, more in re.findall(
        r"`((?:GET|PUT|POST|DELETE)(?:`, `(?:GET|PUT|POST|DELETE))*) (/api/[\w/{}-]+)`((?:, `/[\w/-]+`)*)", TEXT
    ):
        paths = [path, *(_beside(path, other) for other in re.findall(r"`(/[\w/-]+)`", more))]
        found |= {(method, each) for method in re.findall(r"[A-Z]+", methods) for each in paths}
    return found


def _beside(path: str, other: str) -> str:
    return other if other.startswith("/api/") else path.rpartition("/")[0] + other


def test_every_route_is_described_and_no_other() -> None:
    routes = {route for route in operations_of("orchestration") if not route[1].startswith(ELSEWHERE)}
    assert {route for route in named() if not route[1].startswith(ELSEWHERE)} == routes


@pytest.mark.parametrize(
    "code", contract()["components"]["schemas"]["OrchestrationError"]["properties"]["code"]["enum"]
)
def test_every_code_is_described(code: str) -> None:
    assert f"`{code}`" in TEXT
