"""Names of workflows and ids of instances that the API takes: the checks of Cloudflare's validator tests."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.support.javascript import Refused, Scripts

NAMES = ["abc", "NAME_123-hello", "a-valid-string"]
INVALID_ID = 10450


@pytest.fixture(scope="module")
async def script(js: Scripts) -> str:
    """A script to bind; its name is that of its workflow."""
    return await js.flow('return await step.do("a", async () => 1);')


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        (" ", (400, 10002)),
        ("   ", (400, 10002)),
        ("\n\nhello", (404, 7003)),  # no path has line breaks
        ("#1231231!!!!", (400, 10002)),
        ("a" * 65, (400, 10002)),
        ("-badName", (400, 10002)),
    ],
)
async def test_v01_names_that_no_workflow_may_have(js: Scripts, script: str, name: str, refusal: tuple[int, int]):
    with pytest.raises(Refused) as refused:
        await js.bind(quote(name, safe=""), script, "Flow")
    assert (refused.value.status, refused.value.code) == refusal


@pytest.mark.parametrize("name", [*NAMES, "a" * 64])
async def test_v02_names_that_workflows_may_have(js: Scripts, script: str, name: str):
    await js.bind(name, script, "Flow")
    run = await js.create(name)
    assert await run.output() == 1


@pytest.mark.parametrize("id", ["", " ", "   ", "\n\nhello", "#1231231!!!!", "a" * 101, "*/30 * * * *-1786001400000"])
async def test_v03_ids_that_no_new_instance_may_have(js: Scripts, script: str, id: str):
    with pytest.raises(Refused) as refused:
        await js.create(script, instance_id=id)
    assert (refused.value.status, refused.value.code) == (400, INVALID_ID)


@pytest.mark.parametrize("id", [7, True, ["a"], {}])
async def test_v03_ids_that_are_no_text(js: Scripts, script: str, id: object):
    with pytest.raises(Refused) as refused:
        await js.create(script, instance_id=id)
    assert refused.value.status == 400


@pytest.mark.parametrize("id", [*NAMES, "a" * 100])
async def test_v04_ids_that_new_instances_may_have(js: Scripts, script: str, id: str):
    run = await js.create(script, instance_id=id)
    assert run.id == id
    assert await run.output() == 1


@pytest.mark.parametrize("id", ["invalid!", "what?", "a" * 272])
async def test_v05_ids_that_no_instance_can_have(js: Scripts, script: str, id: str):
    for method, path, body in (
        ("GET", f"/{quote(id)}", None),
        ("DELETE", f"/{quote(id)}", None),
        ("POST", "/batch/delete", {"instances": [id]}),
    ):
        with pytest.raises(Refused) as refused:
            await js.call(method, f"/workflows/{script}/instances{path}", json=body)
        assert (refused.value.status, refused.value.code) == (400, INVALID_ID), method


@pytest.mark.parametrize("id", ["plain", "*/30 * * * *-1786001400000", "0 18 * * 6#2,3-1", "NAME_123-/cron", "a" * 271])
async def test_v06_b09_ids_that_instances_can_have_are_looked_for(js: Scripts, script: str, id: str):
    for method in ("GET", "DELETE"):
        with pytest.raises(Refused) as refused:
            await js.call(method, f"/workflows/{script}/instances/{quote(id, safe='')}")
        assert (refused.value.status, refused.value.code) == (404, 10400)
        assert refused.value.message == "workflows.api.error.instance.not_found"
