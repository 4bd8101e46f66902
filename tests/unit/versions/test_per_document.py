"""What is made of a document is made once."""

from __future__ import annotations

import gc
from typing import Any

from versions.document import Document, parse_document
from versions.document.remembered import HELD, PerDocument


def document(name: str = "d") -> Document:
    return parse_document({"spec": "workflow/1", "name": name, "nodes": []})


class Makes:
    """Counts what it makes."""

    def __init__(self) -> None:
        self.made: list[tuple[str, Any]] = []

    def __call__(self, document: Document, of: str = "") -> list[str]:
        self.made.append((document.name, of))
        return [document.name, of]


def test_the_same_document_gives_what_was_made_of_it_before():
    makes, one = Makes(), document()
    of = PerDocument(makes)
    assert of(one) is of(one)
    assert of(one, "x") == ["d", "x"] and of(one, "x") is of(one, "x") is not of(one)
    assert makes.made == [("d", ""), ("d", "x")]


def test_an_equal_document_is_another_one():
    of = PerDocument(Makes())
    one, other = document(), document()
    assert one == other and of(one) is not of(other)


def test_a_document_made_at_the_address_of_one_that_is_gone_is_not_taken_for_it():
    of = PerDocument(Makes())
    for number in range(3 * HELD):
        assert of(document(f"d{number}"))[0] == f"d{number}"
        gc.collect(0)


def test_what_was_asked_for_last_is_remembered():
    makes = Makes()
    of = PerDocument(makes)
    documents = [document(f"d{number}") for number in range(HELD + 1)]
    for one in (*documents[:-1], documents[0], documents[-1]):
        of(one)
    makes.made.clear()
    of(documents[0])
    assert makes.made == []
    of(documents[1])
    assert makes.made == [("d1", "")]
