"""What Node answers to the same calls (`cases/*.json`, written by `cases/expect.mjs`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.javascript_engine import Engine

CASES = sorted((Path(__file__).parent / "cases").glob("*.js"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_engine_answers_as_node_does(engine: Engine, path: Path) -> None:
    expected = json.loads(path.with_suffix(".json").read_text())
    flags = ("nodejs_compat", "nodejs_compat_v2")
    got = engine.value(f"{path.read_text()}\nreturn JSON.stringify(out.map((one) => one ?? null));", flags=flags)
    got = json.loads(got)
    different = [pair for pair in zip(got, expected, strict=False) if pair[0] != pair[1]]
    assert not different
    assert len(got) == len(expected)
