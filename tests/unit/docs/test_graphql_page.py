"""`docs/api-graphql.md` against the codes, the limits and the rules of sockets there are."""

from __future__ import annotations

import re

from app.contract import contract
from app.faces.orchestration.graphql import limits, sockets
from tests.support.docs import page

TEXT = page("api-graphql.md")


def test_every_code_is_there() -> None:
    error = contract()["components"]["schemas"]["GraphqlError"]
    codes = error["properties"]["extensions"]["properties"]["code"]["enum"]
    assert not [code for code in codes if f"`{code}`" not in TEXT]


def test_limits_are_right() -> None:
    rows = dict(re.findall(r"^\| ([a-z ]+) \| ([0-9,]+)(?: levels)? \|$", TEXT, re.MULTILINE))
    assert {name: int(value.replace(",", "")) for name, value in rows.items()} == {
        "depth": limits.DEPTH_MAX,
        "tokens of a document": limits.TOKENS_MAX,
        "fields at the root": limits.ROOT_FIELDS_MAX,
        "aliases": limits.ALIASES_MAX,
        "fields of one selection": limits.COMPLEXITY_MAX // 5,
        "complexity": limits.COMPLEXITY_MAX,
    }


def test_times_of_sockets_are_right() -> None:
    assert f"every {sockets.PING_EVERY:.0f} seconds" in TEXT
    assert f"within {sockets.INIT_WAIT:.0f} seconds" in TEXT
    assert f"{sockets.SILENCE:.0f} seconds without a message" in TEXT
    assert sockets.RECHECK_EVERY < 60
