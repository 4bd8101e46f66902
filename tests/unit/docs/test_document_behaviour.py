"""The documents of the reference do what the text around them says."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from instances.lifecycle import Kind
from instances.runtimes.document.actions import Tools, perform
from instances.runtimes.document.plan import compile_plan
from instances.runtimes.protocol import Attempt, Do, Failure, StepFailure
from tests.support.docs import blocks
from tests.support.document_runs import Driver, NoTools, run_context
from versions.document import parse_document
from versions.expressions import encode_json
from versions.yaml_body import decode_yaml

# The last of a name counts: README has an `order` of its own, which is run for real elsewhere.
SHOWN = {re.search(r"^name: (.*)$", block.text, re.MULTILINE)[1]: block.text for block in blocks("yaml")}  # type: ignore[index]
NO_TOOLS = Tools(NoTools(), NoTools(), NoTools())  # type: ignore[arg-type]

Outside = Callable[[Do], Any]


async def run(name: str, given: Any = None, outside: Outside = lambda _do: None) -> Driver:
    """A document of the pages, started. `outside` gives the outputs of what reaches outside."""

    async def carry_out(do: Do, attempt: Attempt) -> str | None:
        if do.immediate:
            return await perform(do.data, attempt, NO_TOOLS)
        return encode_json(outside(do))

    document = parse_document(decode_yaml(SHOWN[name].encode()), known_handlers={"ship_order"})
    driver = Driver(compile_plan(document), run_context(encode_json(given or {})), perform=carry_out)
    return await driver.start()


@pytest.mark.parametrize("approved", [True, False])
async def test_the_first_document(approved):
    order = await run("order", {"order": 7})
    assert await order.event("approval", encode_json({"approved": approved}))
    assert order.output == {"reservation": "res-7", "shipped": approved}


async def test_totals():
    items = [{"name": "lamp", "price": 120}, {"name": "bulb", "price": 3}]
    assert (await run("totals", {"items": items})).output == {
        "count": 2,
        "sum": 123,
        "dear": ["lamp"],
        "text": "2 items, EUR",
    }


async def test_conditions():
    given = {"total": 700, "address": {"country": "AT"}, "items": [{"sku": "L-1"}], "paid": True}
    assert (await run("conditions", given)).skipped() == {}
    assert set((await run("conditions", {"total": 3, "test": 1})).skipped()) == {"large", "german", "both"}


@pytest.mark.parametrize(("shipping", "taken", "left"), [("express", "courier", "post"), ("slow", "post", "courier")])
async def test_a_fork_takes_one_way(shipping, taken, left):
    fork = await run("fork", {"shipping": shipping})
    assert fork.started() == ["express", taken, "done"]
    assert fork.skipped() == {left: "branch"}


async def test_an_error_that_is_not_worth_a_retry():
    def not_found(_do: Do) -> Any:
        output = encode_json({"status": 404, "statusText": "Not Found", "data": None})
        raise StepFailure(Failure("API_CALL_FAILED", "API call failed: 404", "API_CALL_FAILED", output=output))

    errors = await run("errors", outside=not_found)
    assert errors.output == {"rate": 1.0}
    assert [attempt for name, attempt in errors.executed if name.startswith("fetch")] == [1]


async def test_a_booking_is_undone():
    made: list[str] = []

    def outside(do: Do) -> Any:
        made.append(f"{do.key.kind} {do.key.name}")
        if do.key.name == "pay":
            raise StepFailure(Failure("API_CALL_FAILED", "no", permanent=True))
        return {"data": {"id": 9}, "booking": 9}

    booking = await run("booking", outside=outside)
    assert made == ["do book", "do pay", "rollback book"]
    assert booking.rollback is not None and booking.rollback.complete
    assert booking.error.name == "API_CALL_FAILED"


async def test_a_step_per_item():
    resize = await run("resize", {"images": [{"id": 1}, {"id": 2}]}, lambda do: do.key.counted)
    assert resize.output == ["resize-1", "resize-2"]


async def test_completion_from_outside_and_matching_events():
    review = await run("review", {"title": "T"}, lambda _do: {"taskId": 1})
    await review.complete("review", '{"approved":true}')
    assert not await review.event("published", '{"title":"other"}')
    assert await review.event("published", '{"title":"T"}')
    assert review.output == {"title": "T"}


async def test_marks_on_the_way():
    launch = await run("launch")
    assert launch.records(Kind.MILESTONE) == ["initialization", "built", "live"]
    assert launch.records(Kind.SYNC_POINT) == ["ready", "ready"]
