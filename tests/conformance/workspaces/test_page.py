"""The first example of docs/api-workspaces.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conformance.conftest import Face
from tests.conformance.workspaces.support import HERE, start, stream

PAGE = (Path(__file__).parents[3] / "docs" / "api-workspaces.md").read_text()


async def test_the_first_example(face: Face) -> None:
    made, started = re.findall(r"-d '(\{.*?\})'", PAGE, re.DOTALL)
    workflow = (await face.http.post(f"{HERE}/workflows", content=made)).json()["workflow"]["id"]
    answer = await face.http.post(f"{HERE}/workflows/{workflow}/execute", content=started)
    id = answer.json()["execution"]["id"]
    async with stream(face.http, id) as events:
        assert (await anext(events))[0] == "connected"
        ask = lambda: face.http.get(f"{HERE}/notifications")  # noqa: E731
        [note] = (await face.when(ask, lambda body: body["notifications"]))["notifications"]
    assert (note["message"], note["recipient"]) == ("Welcome Ada", "user_123")
    dry = await start(face, workflow, 60, triggerData={"name": "Ada"}, dryRun=True)
    assert (dry["status"], dry["steps"][2]["output"]["title"]) == ("COMPLETED", "Call Ada")
