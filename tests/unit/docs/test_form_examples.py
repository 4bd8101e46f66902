"""The other forms `docs/document.md` shows compile, and are shown again as they stand there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.support.docs import blocks
from tests.support.forms import compiled, document_of, shown

EXAMPLES: list[dict[str, Any]] = [
    msgspec.json.decode(block.text) for block in blocks("json") if block.place.startswith("docs/document.md")
]
DIALECTS = {"tasks": "002", "actions": "004", "definition": "001"}
FOUND = [(DIALECTS[key], body) for body in EXAMPLES for key in body if key in DIALECTS]


def test_each_form_has_an_example() -> None:
    assert sorted(dialect for dialect, _ in FOUND) == ["001", "002", "004"]


@pytest.mark.parametrize(("dialect", "body"), FOUND)
def test_it_compiles_and_is_shown_with_all_it_says(dialect: str, body: dict[str, Any]) -> None:
    source = compiled(dialect, body)
    assert not source.warnings
    displayed = shown(dialect, source)
    main = {"002": "tasks", "004": "actions", "001": "definition"}[dialect]
    assert len(displayed[main]) == len(body[main])
    assert {key for key in body if key not in ("name", "description")} <= set(displayed)


def test_what_the_page_says_of_ids_and_retries() -> None:
    tasks = next(body for dialect, body in FOUND if dialect == "002")
    assert [node.depends_on for node in document_of("002", tasks).nodes] == [(), ("task-1",), ("sync-1",)]
    actions = next(body for dialect, body in FOUND if dialect == "004")
    last = document_of("004", actions).nodes[3]
    assert (last.retries.limit, last.timeout, last.id) == (3, 10_000, "action-3")
