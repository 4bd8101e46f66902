"""The first example of `docs/api-orchestration.md`, as it stands there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil

import pytest

from tests.conformance.conftest import Face
from tests.support.docs import page

TEXT = page("api-orchestration.md")


@pytest.mark.skipif(shutil.which("curl") is None, reason="the example uses curl")
async def test_the_first_example(face: Face) -> None:
    example = re.search(r"^```sh\nexport [^\n]*\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert example is not None
    own = {"MILLRACE_URL": face.server.base_url, "TOKEN": face.tenant.token, "NO_PROXY": "*"}
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", example[1], env={**os.environ, **own}, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    started, at = json.JSONDecoder().raw_decode(output.decode())
    assert [one["id"] for one in json.loads(output.decode()[at:])] == [started["id"]]
    ask = lambda: face.http.get(f"/api/executions/{started['id']}")  # noqa: E731
    told = await face.when(ask, lambda body: body["status"] == "COMPLETED")
    assert f"`{told['context']['data']}`" in TEXT
