"""The progress a stream tells of a moment is what the execution showed at that moment."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from app.faces.workspaces.moments import Moments
from instances.lifecycle import Status
from instances.projections.entries import Entry
from instances.projections.execution import execution
from instances.projections.fold import fold
from instances.search.query import Facet
from tenants.spellings import EXECUTION, parse_key
from tests.conformance.conftest import Face
from tests.conformance.workspaces.support import FAILING, THREE, make, start

GATE = {"type": "condition", "config": {"field": "trigger.never", "operator": "exists"}}
SCRIPT = """
import { WorkflowEntrypoint } from 'cloudflare:workers';
export class W extends WorkflowEntrypoint {
  async run(event, step) {
    await step.do('one', async () => 1);
    await Promise.all([step.do('two', async () => 2), step.do('three', async () => 3)]);
    try { await step.do('four', { retries: { limit: 0 } }, async () => { throw new Error('no') }) } catch {}
    await step.sleep('five', 1);
  }
}
"""


async def moments(face: Face, id: str) -> None:
    """Compare, at every entry of the journal, with what is made of the entries up to it."""
    instances = face.server.platform.instances
    caller = await face.server.platform.tenants.authenticate(face.tenant.token)
    key = parse_key(id, EXECUTION)
    assert key is not None
    told = (await instances.reader.one(caller, key)).execution
    entries: list[Entry] = [one async for batch in instances.follow.instance(caller, key) for one in batch]
    end = told.history.end
    assert end is not None
    facts = dataclasses.replace(told.facts, status=Status.RUNNING)
    asked = Moments(told)
    compared = 0
    for place, entry in enumerate(entries, 1):
        if entry.seq < end.seq:
            then = execution(facts, Facet.RUNNING, fold(entries[:place]), told.document)
            assert asked.progress(entry.seq) == then.progress, entry
            compared += 1
    assert compared > 5
    assert asked.progress(end.seq) == told.progress


@pytest.mark.parametrize(
    "actions",
    [
        [*THREE, {**FAILING, "onError": "continue"}, {"type": "wait", "config": {"durationMs": 1}}, *THREE],
        [*THREE, FAILING, *THREE],
        [*THREE, GATE, *THREE],
    ],
)
async def test_of_actions(face: Face, actions: list[dict[str, Any]]) -> None:
    await moments(face, (await start(face, await make(face, actions), 60))["id"])


async def test_of_a_document_with_branches(face: Face) -> None:
    nodes = [
        {"id": "begin", "type": "trigger"},
        {"id": "a", "depends_on": ["begin"]},
        {"id": "b", "depends_on": ["begin"], "when": "`false`"},
        {"id": "c", "depends_on": ["begin"], "type": "fail", "config": {"message": "no"}, "on_error": "continue"},
        {"id": "d", "depends_on": ["a", "b", "c"]},
    ]
    await face.deploy("branches", nodes)
    await moments(face, (await start(face, "branches", 60))["id"])


async def test_of_a_script(face: Face) -> None:
    files = [
        ("metadata", (None, json.dumps({"main_module": "index.mjs"}), "application/json")),
        ("index.mjs", ("index.mjs", SCRIPT, "application/javascript+module")),
    ]
    assert (await face.cloud.put("/workers/scripts/mine", files=files)).status_code == 200
    await face.cloud.put("/workflows/script", json={"class_name": "W", "script_name": "mine"})
    execution = await start(face, "script", 60)
    assert execution["status"] == "COMPLETED"
    await moments(face, execution["id"])
