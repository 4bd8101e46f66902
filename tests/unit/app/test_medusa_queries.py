"""What the Medusa face reads out of query strings: names in the qs style, filters, fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest

from app.errors import InvalidRequest
from app.faces.medusa.fields import DEFAULTS, parse_fields
from app.faces.medusa.filters import list_query
from app.faces.medusa.states import FACETS, STATES
from instances.search.query import AnyOf, By, Compare, Every, Facet, Field, InFacets, Not, Op, Predicate
from tenants.spellings import WORKFLOW_EXECUTION, spell, ulid_text

KEY = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def where(query: str) -> tuple[Predicate, ...]:
    found = list_query(query.encode()).search.where
    assert isinstance(found, Every)
    return found.parts


def refused(query: str) -> str:
    with pytest.raises(InvalidRequest) as caught:
        list_query(query.encode())
    return "; ".join(one.message for one in caught.value.problems) or caught.value.message


def workflow(op: Op, value: Any) -> Compare:
    return Compare(Field.HANDLE, op, value)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("workflow_id=a", workflow(Op.EQ, "a")),
        ("workflow_id=a,b", workflow(Op.EQ, "a,b")),
        ("workflow_id=a&workflow_id=b", workflow(Op.IN, ["a", "b"])),
        ("workflow_id[]=a", workflow(Op.IN, ["a"])),
        ("workflow_id[]=a,b", workflow(Op.IN, ["a", "b"])),
        ("workflow_id[1]=b&workflow_id[0]=a", workflow(Op.IN, ["a", "b"])),
        ("workflow_id%5B0%5D=a&workflow_id%5B1%5D=b", workflow(Op.IN, ["a", "b"])),
        ("workflow_id[$ne]=a", workflow(Op.NE, "a")),
        ("workflow_id.$like=a%25", workflow(Op.LIKE, "a%")),
        ("workflow_id%5B%24nin%5D[0]=a&workflow_id[$nin][1]=b", workflow(Op.NOT_IN, ["a", "b"])),
        ("workflow_id[$in]=a,b", workflow(Op.IN, ["a", "b"])),
        ("transaction_id[$contains]=x+y", Compare(Field.TRANSACTION_ID, Op.CONTAINS, "x y")),
        (
            "created_at[$gte]=2026-01-01T00:00:00.000Z",
            Compare(Field.CREATED_AT, Op.GTE, datetime(2026, 1, 1, tzinfo=UTC)),
        ),
        (
            "updated_at.$lt=2026-01-01T02:00:00+02:00",
            Compare(Field.UPDATED_AT, Op.LT, datetime(2026, 1, 1, tzinfo=UTC)),
        ),
        ("state=done", InFacets(frozenset({Facet.COMPLETE}))),
        ("state[$ne]=done", InFacets(frozenset(set(Facet) - {Facet.COMPLETE}))),
        ("state[$like]=%25ing", InFacets(FACETS["invoking"] | FACETS["compensating"])),
        (f"id={spell(WORKFLOW_EXECUTION, KEY)}", Compare(Field.KEY, Op.IN, [KEY])),
        (f"id[$ne]={KEY}", Not(Compare(Field.KEY, Op.IN, [KEY]))),
        ("id=nonsense", AnyOf(())),
    ],
)
def test_filters_become_comparisons(query: str, expected: Predicate) -> None:
    assert where(query) == (expected,)


def test_filters_are_combined() -> None:
    [either] = where("$or[0][state]=done&$or[1][workflow_id]=a&$or[1][transaction_id]=t")
    one = Every((InFacets(FACETS["done"]),))
    other = Every((workflow(Op.EQ, "a"), Compare(Field.TRANSACTION_ID, Op.EQ, "t")))
    assert either == AnyOf((one, other))
    [both] = where("$and[0][$or][0][workflow_id][$gt]=a&$and[0][$or][1][state]=failed")
    assert both == Every((Every((AnyOf((Every((workflow(Op.GT, "a"),)), Every((InFacets(FACETS["failed"]),)))),)),))


def test_the_deepest_filter_allowed_can_be_searched() -> None:
    """Three deep here is within what a search may be nested."""
    assert where("$or[0][$and][0][$or][0][workflow_id][$gt]=a&$or[0][$and][0][$or][0][workflow_id][$lt]=b")
    assert "nested 3 deep" in refused("$or[0][$and][0][$or][0][$and][0][state]=done")


def test_too_many_comparisons() -> None:
    twenty = "&".join(f"$or[{n}][workflow_id]=w{n}" for n in range(20))
    assert where(twenty)
    assert "at most 20 comparisons" in refused(twenty + "&$or[20][workflow_id]=x")


def test_search_text_looks_at_ids_and_states() -> None:
    [found] = where("q=Comp")
    assert isinstance(found, AnyOf)
    assert InFacets(FACETS["waiting_to_compensate"] | FACETS["compensating"]) in found.parts
    assert Compare(Field.TRANSACTION_ID, Op.CONTAINS, "Comp") in found.parts
    assert where("q=") == ()
    [run] = where(f"q={ulid_text(KEY).lower()}")
    assert isinstance(run, AnyOf) and Compare(Field.KEY, Op.EQ, KEY) in run.parts


@pytest.mark.parametrize(
    ("query", "limit", "offset"),
    [("", 100, 0), ("limit=7&offset=3", 7, 3), ("limit=12abc", 12, 0), ("limit=0", 1, 0), ("limit=99999", 1000, 0)],
)
def test_pages(query: str, limit: int, offset: int) -> None:
    search = list_query(query.encode()).search
    assert (search.limit, search.offset) == (limit, offset)


@pytest.mark.parametrize(
    ("query", "by", "descending"),
    [
        ("", By.TRANSACTION, False),
        ("order=created_at", By.CREATED, False),
        ("order=-updated_at", By.UPDATED, True),
        ("order=state", By.FACET, False),
    ],
)
def test_orders(query: str, by: By, descending: bool) -> None:
    search = list_query(query.encode()).search
    assert (search.by, search.descending) == (by, descending)
    assert {state: {search.ranks[facet] for facet in FACETS[state]} for state in STATES} == {
        state: {place} for place, state in enumerate(sorted(STATES))
    }


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("foo=1", "Unrecognized fields: 'foo'"),
        ("foo=1&bar[x]=2", "Unrecognized fields: 'foo', 'bar'"),
        ("$or[0][foo]=1", "Unrecognized fields: 'foo'"),
        ("workflow_id[$re]=a", "Unrecognized fields: 'workflow_id.$re'"),
        ("created_at[$like]=2", "Unrecognized fields: 'created_at.$like'"),
        ("id[$gt]=2", "Expected: 'the id of an execution' for field 'id', but got: '2'"),
        ("id[$like]=2", "Unrecognized fields: 'id.$like'"),
        ("limit=x", "Expected type: 'number' for field 'limit', got: 'NaN'"),
        ("limit=1&limit=2", "Expected type: 'number' for field 'limit', got: 'array'"),
        ("offset=-1", "Value for field 'offset' too small, expected at least: '0'"),
        ("with_deleted=yes", "Expected type: 'boolean' for field 'with_deleted', got: 'string'"),
        ("state=over", f"Expected: '{', '.join(STATES)}' for field 'state', but got: 'over'"),
        ("order=q", "for field 'order', but got: 'q'"),
        ("created_at=soon", "Expected type: 'date' for field 'created_at', got: 'soon'"),
        ("$or[state]=done", "Expected type: 'array' for field '$or', got: 'object'"),
        ("$or=1", "Expected type: 'array' for field '$or', got: 'string'"),
        ("$or[0]=1", "Expected type: 'object' for field '$or', got: 'string'"),
        ("workflow_id.a.$gt=1", "Only one dot"),
        ("workflow_id[a=1", "Name is malformed"),
        ("workflow_id=%00", "NUL"),
        ("workflow_id=%ff", "UTF-8"),
        ("workflow_id[0][0]=a", "Expected type: 'string' for field 'workflow_id', got: 'object'"),
        ("q" + "[a]" * 10 + "=1", "nested 10 deep"),
        ("&".join(["q=1"] * 1001), "at most 1000"),
    ],
)
def test_what_cannot_be_asked_is_named(query: str, message: str) -> None:
    assert message in refused(query)


# --- fields ------------------------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "id": "wf_exec_1",
    "workflow_id": "w",
    "execution": {"state": "done", "steps": {"_root": {"next": []}, "_root.a": {"depth": 1}}},
    "context": {"data": {"payload": msgspec.Raw(b'{"a":{"b":1},"c":2}'), "invoke": {}}, "errors": [{"action": "x"}]},
    "state": "done",
    "deleted_at": None,
    "run_id": "R",
}


@pytest.mark.parametrize("text", [None, "", ",", "+context", " context", "*context", "context.*,+state"])
def test_changes_that_add_what_is_there_change_nothing(text: str | None) -> None:
    fields = parse_fields("+context" if text == "context.*,+state" else text)
    assert [name for name in DEFAULTS if fields.has(name)] == list(DEFAULTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id,state", {"id": "wf_exec_1", "state": "done"}),
        ("state", {"id": "wf_exec_1", "state": "done"}),
        ("name", {"id": "wf_exec_1"}),
        ("id,-deleted_at", {"id": "wf_exec_1", "deleted_at": None}),
        ("execution.state", {"id": "wf_exec_1", "execution": {"state": "done"}}),
        ("execution.steps", {"id": "wf_exec_1", "execution": {"steps": WHOLE["execution"]["steps"]}}),
        ("execution.steps._root", {"id": "wf_exec_1", "execution": {"steps": {"_root": {"next": []}}}}),
        ("execution.steps._root.a", {"id": "wf_exec_1", "execution": {"steps": {"_root": {}}}}),
        ("context.errors.action", {"id": "wf_exec_1", "context": {"errors": [{"action": "x"}]}}),
        ("context.data.payload.a", {"id": "wf_exec_1", "context": {"data": {"payload": {"a": {"b": 1}}}}}),
        ("*", {key: value for key, value in WHOLE.items() if key != "run_id"}),
    ],
)
def test_fields_that_stand_for_themselves(text: str, expected: dict[str, Any]) -> None:
    assert msgspec.json.decode(msgspec.json.encode(parse_fields(text).pick(WHOLE))) == msgspec.json.decode(
        msgspec.json.encode(expected)
    )


def test_what_is_taken_away_goes_with_all_under_it() -> None:
    picked = parse_fields("-execution,-context.data,+run_id,-id").pick(WHOLE)
    assert picked == {
        "id": "wf_exec_1",
        "workflow_id": "w",
        "context": {"errors": [{"action": "x"}]},
        "state": "done",
        "deleted_at": None,
        "run_id": "R",
    }
