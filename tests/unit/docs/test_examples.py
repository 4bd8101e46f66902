"""Documents shown in the documentation, and what its reference says of documents, held against the compiler."""

from __future__ import annotations

import re
from typing import Any

import pytest

from app.examples import examples
from instances.runtimes.document import failures
from tenants import limits
from tests.support.docs import ROOT, Block, blocks, page, words
from versions.document import check_document, decode_document, encode_document, parse_document
from versions.document.types import NODE_TYPES
from versions.expressions import OPERATORS
from versions.expressions.functions import FUNCTIONS
from versions.yaml_body import decode_yaml

HANDLERS = {"ship_order"}
"""Registered by the reference's own example."""
DOCUMENTS = [block for block in blocks("yaml") if block.text.startswith("spec:")]


@pytest.mark.parametrize("block", DOCUMENTS, ids=lambda block: block.place)
def test_every_document_shown_is_valid(block: Block) -> None:
    definition = decode_yaml(block.text.encode())
    document = parse_document(definition, known_handlers=HANDLERS)
    assert decode_document(encode_document(document)) == document
    assert not check_document(definition, known_handlers=HANDLERS).warnings


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_every_example_is_valid_and_listed(example: Any) -> None:
    checked = check_document(example.definition)
    assert checked.document is not None, checked.problems
    assert not checked.warnings
    assert f"({example.file.name})" in (ROOT / "examples" / "README.md").read_text(encoding="utf-8")


def test_there_are_documents_and_no_other_yaml() -> None:
    assert len(DOCUMENTS) > 10
    assert [block.place for block in blocks("yaml") if block not in DOCUMENTS] == []


def known_keys(definition: Any) -> set[str]:
    """The keys the compiler knows in every object of `definition` that has the unknown key `?`."""
    found: set[str] = set()
    for problem in check_document(definition, known_handlers=HANDLERS).problems:
        match = re.search(r"known are: (.*)$", problem.message)
        if match and problem.kind in ("INVALID_FIELD", "INVALID_CONFIG"):
            found.update(match[1].split(", "))
    return found


def test_the_reference_names_every_field() -> None:
    definition = {
        "spec": "workflow/1",
        "?": 0,
        "defaults": {"?": 0},
        "limits": {"?": 0},
        "nodes": [
            {
                "id": "a",
                "?": 0,
                "retries": {"?": 0},
                "compensate": {"?": 0, "type": "noop"},
                "resources": {"?": 0},
            }
        ],
        "sync_points": [{"id": "s", "required": ["a"], "?": 0}],
        "milestones": [{"id": "m", "after": ["a"], "?": 0}],
        "triggers": [
            {"type": "schedule", "interval": 1000, "?": 0},
            {"type": "event", "event": "e", "?": 0},
        ],
        "source": {"dialect": "001", "?": 0},
    }
    assert known_keys(definition) - words(page("document.md")) == set()


@pytest.mark.parametrize("node_type", sorted(NODE_TYPES))
def test_the_reference_names_every_node_type_and_its_config(node_type: str) -> None:
    config: dict[str, Any] = {"?": 0, "for_each": 0}
    keys = known_keys({"spec": "workflow/1", "nodes": [{"id": "a", "type": node_type, "config": config}]})
    described = words(page("document.md"))
    assert node_type in described
    assert keys - {"none"} - described == set()


def test_the_reference_names_every_operator_function_and_code() -> None:
    described = words(page("document.md"))
    assert OPERATORS - described == set()
    assert FUNCTIONS.keys() - described == set()
    codes = {value for name, value in vars(failures).items() if name.isupper() and isinstance(value, str)}
    assert codes - described == set()
    kinds = set()
    for source in (ROOT / "versions" / "document").glob("*.py"):
        kinds |= set(re.findall(r'"([A-Z]+_[A-Z]+|CYCLE)"', source.read_text(encoding="utf-8")))
    assert kinds - {"INVALID_INPUT"} - described == set()  # INVALID_INPUT is about inputs


def test_the_reference_gives_the_limits() -> None:
    text = page("document.md")
    rows = {
        "document | 1 MiB, nested 64 deep": (limits.DOCUMENT_BYTES, limits.JSON_DEPTH) == (1 << 20, 64),
        "1,000 · 10,000": (limits.DOCUMENT_NODES, limits.DOCUMENT_EDGES) == (1_000, 10_000),
        "100 · 100 · 100": {limits.DOCUMENT_SYNC_POINTS, limits.DOCUMENT_MILESTONES, limits.DOCUMENT_TRIGGERS} == {100},
        "128 KiB · 8 KiB": (limits.NODE_CONFIG_BYTES, limits.NODE_META_BYTES) == (128 << 10, 8 << 10),
        "`input_schema` | 64 KiB": limits.INPUT_SCHEMA_BYTES == 64 << 10,
        "10,000, at most 1,000,000": limits.MAX_ATTEMPTS == 1_000_000,
        "up to 50 problems": limits.DOCUMENT_PROBLEMS == 50,
        "(32, at most 256;": limits.MAX_PARALLEL == 256,
        "(0–10,000)": limits.RETRIES == 10_000,
    }
    for words_, holds in rows.items():
        assert words_ in text
        assert holds, words_
