"""The example scripts, deployed and run."""

from __future__ import annotations

from tests.support.docs import ROOT
from tests.support.javascript import Run, Scripts

FOLDER = ROOT / "examples"


async def deployed(js: Scripts, file: str, class_name: str, kind: str, *, currency: str = "CHF") -> str:
    name = js.name()
    text = (FOLDER / file).read_text(encoding="utf-8")
    bindings = [{"type": "plain_text", "name": "CURRENCY", "text": currency}]
    await js.upload(name, {file: (text, kind)}, bindings=bindings)
    await js.bind(name, name, class_name)
    assert f"({file})" in (FOLDER / "README.md").read_text(encoding="utf-8")
    return name


async def order(js: Scripts, params: dict[str, object], *, approved: bool = True) -> Run:
    handle = await deployed(js, "order-javascript.js", "OrderJavascript", "application/javascript+module")
    run = await js.create(handle, params)
    await run.until("waiting")
    await run.send("approval", {"approved": approved})
    return run


async def test_the_javascript_example(js: Scripts):
    run = await order(js, {"items": {"lamp": 2, "pen": 10}})
    assert await run.output() == {"state": "packed", "total": 95, "currency": "CHF"}


async def test_the_javascript_example_refused(js: Scripts):
    run = await order(js, {"items": {"lamp": 2}}, approved=False)
    assert await run.output() == {"state": "refused", "total": 80}


async def test_the_javascript_example_gives_the_money_back(js: Scripts):
    run = await order(js, {"items": {"lamp": 2}, "broken": True})
    details = await run.until("errored")
    assert details["rollback"] == {"outcome": "complete", "error": None}
    assert (await run.logs())[-1].startswith("giving payment ")


async def test_the_typescript_example(js: Scripts):
    handle = await deployed(js, "order-typescript.ts", "OrderTypescript", "application/typescript")
    run = await js.create(handle, {"parcels": ["a", "bb"]})
    assert await run.output() == [{"parcel": "a", "code": 1007}, {"parcel": "bb", "code": 2007}]
