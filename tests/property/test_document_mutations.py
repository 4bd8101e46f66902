"""Valid documents, damaged at random: each is either refused, with pointers into what was sent, or runs to its end."""

from __future__ import annotations

import copy
import re
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instances.runtimes.document.plan import compile_plan
from instances.runtimes.protocol import Attempt, Do, Failure, StepFailure
from tests.support.docs import ROOT, blocks
from tests.support.document_runs import Driver, run_context
from versions.document import check_document, decode_document, encode_document
from versions.errors import DocumentInvalid
from versions.graph import document_graph
from versions.sources import document_source
from versions.yaml_body import decode_yaml

HANDLERS = frozenset({"ship_order"})
NOW = datetime(2026, 1, 1, tzinfo=UTC)

EVERYTHING = decode_yaml((ROOT / "tests/support/everything.yaml").read_bytes())
SHOWN = [decode_yaml(block.text.encode()) for block in blocks("yaml") if block.text.startswith("spec: workflow/1")]
DOCUMENTS = [EVERYTHING, EVERYTHING, *SHOWN]

TEXTS = """
a sum last ready noop condition fail trigger external continue stop go n1 trigger.n ( `1` {{ \\{{ step:sum -a _root
"""
SENTENCES = [
    "",
    "1 day",
    "{{ trigger.n }}",
    "{{ trigger.n }} ",
    "{{ ( }}",
    "{{ steps.last.output }}",
    "{{ sum(trigger) }}",
    "0 0 30 2 *",
    "2026-01-01",
    "9999-12-31T23:59:59-23:59",
    "https://example.com",
    "a" * 129,
    "\0",
]
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 5),
    st.sampled_from([10**6, 10**13, 2**53, 2**63, 0.5, 1e300]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=6),
    st.sampled_from([*TEXTS.split(), *SENTENCES]),
    st.just([]),
    st.just({}),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["field", "operator", "value", "all", "not", "id", "type", "x"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        found += places(inner, (*path, key))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A valid document after one to four random changes."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(places(document)))
        change = draw(st.sampled_from(["replace", "replace", "remove", "copy", "rename", "insert", "move"]))
        if not path:
            continue
        parent, key = at(document, path[:-1]), path[-1]
        if change == "replace":
            parent[key] = draw(VALUES)
        elif change == "remove":
            del parent[key]
        elif change == "insert" and isinstance(parent, list):
            parent.insert(key, draw(VALUES))
        elif change == "insert":
            parent[draw(st.sampled_from(["x", "when", "config", "for_each", "async", "depends_on", "join"]))] = draw(
                VALUES
            )
        elif change == "copy" and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif change == "rename" and isinstance(parent, dict):
            parent[f"{key}s"] = parent.pop(key)
        elif change == "move":
            other = draw(st.sampled_from(places(document)))
            if other:
                at(document, other[:-1])[other[-1]] = copy.deepcopy(parent[key])
    return document


def exists(document: Any, pointer: str) -> bool:
    value = document
    for step in pointer.split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and re.fullmatch("0|[1-9][0-9]*", step) and int(step) < len(value):
            value = value[int(step)]
        else:
            return False
    return True


def check_refusal(document: Any, problems: Any) -> None:
    assert 1 <= len(problems) <= 50
    for problem in problems:
        assert problem.kind
        assert problem.message
        if not exists(document, problem.pointer):
            assert " is required" in problem.message, problem
            assert problem.pointer.startswith("/")


async def run_to_its_end(driver: Driver) -> None:
    await driver.start()
    for _ in range(200):
        await driver.finish()
        if driver.ended:
            return
        key = sorted(driver.external, key=lambda key: (key.kind, key.counted))[0]
        await driver.complete(key.name, '{"ok":true}', kind=key.kind)
    raise AssertionError("the run does not end")


@given(damaged(), st.integers(0, 3))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_a_damaged_document_is_refused_or_runs(definition: Any, bad_luck: int) -> None:
    checked = check_document(definition, known_handlers=HANDLERS, default_name="w")
    for warning in checked.warnings:
        assert exists(definition, warning.pointer or ""), warning
    if checked.document is None:
        check_refusal(definition, checked.problems)
        try:
            document_source(definition, "w", NOW, known_handlers=HANDLERS, check_url=None)
        except DocumentInvalid as error:
            assert error.problems == checked.problems
        return
    source = document_source(definition, "w", NOW, known_handlers=HANDLERS, check_url=None)
    document = decode_document(source.source)
    assert document == checked.document
    assert encode_document(document) == source.source
    assert msgspec.json.decode(source.graph or "") == document_graph(document)
    count = 0

    async def perform(_do: Do, _attempt: Attempt) -> str:
        nonlocal count
        count += 1
        if bad_luck and count % 3 == bad_luck - 1:
            raise StepFailure(Failure("Error", "unlucky", "E"))
        return '{"status":200,"data":[1]}'

    driver = Driver(compile_plan(document), run_context('{"n":1}'), perform=perform)
    await run_to_its_end(driver)
    await driver.check_replay()


def test_what_the_changes_start_from_is_valid() -> None:
    for definition in DOCUMENTS:
        assert check_document(definition, known_handlers=HANDLERS).problems == (), definition["name"]
