"""The commands that use the API, as a user runs them: own processes against a running server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.api import Tenant, new_tenant
from tests.support.live import Live

EXAMPLES = Path(__file__).parents[3] / "examples"


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Runs `millrace …` as a tenant's user."""

    server: Live
    tenant: Tenant

    async def __call__(self, *arguments: str, input: str = "", **environment: str) -> Ran:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
        ours = {
            "MILLRACE_URL": self.server.base_url,
            "MILLRACE_ACCOUNT_ID": self.tenant.hex,
            "MILLRACE_TOKEN": self.tenant.token,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.cli.main",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=inherited | ours | environment,
        )
        out, err = await process.communicate(input.encode())
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture
async def millrace(server: Live) -> Shell:
    return Shell(server, await new_tenant(server.platform))


async def test_deploying_a_document(millrace: Shell) -> None:
    first = await millrace("deploy", str(EXAMPLES / "hello.yaml"))
    again = await millrace("deploy", str(EXAMPLES / "hello.yaml"))
    named = await millrace("deploy", str(EXAMPLES / "hello.yaml"), "--name", "other", "--json")
    assert (first.code, first.out.split()[:2]) == (0, ["deployed", "hello,"])
    assert again.out.split()[0] == "unchanged"
    assert named.json["name"] == "other"
    listed = await millrace("workflows", "list")
    assert [line.split("\t")[0] for line in listed.out.splitlines()] == ["other", "hello"]
    described = await millrace("workflows", "describe", "hello")
    assert "document" in described.out
    versions = await millrace("workflows", "versions", "hello", "--json")
    assert len(versions.json) == 1


async def test_problems_of_a_document_are_located(millrace: Shell, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "spec: workflow/1\nname: bad\nnodes:\n  - {id: a, type: noop, suprise: 1}\n  - {id: a, type: nope}\n"
    )
    ran = await millrace("deploy", str(file))
    assert ran.code == 1
    assert ran.out == ""
    assert "bad.yaml has" in ran.err
    assert "/nodes/0/suprise" in ran.err
    assert "Nothing was deployed" in ran.err


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "- 1\n", "must hold an object"),
        ("a.yaml", "a: [", "is not YAML"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '{"definition": {}, "surprise": 1}', "surprise"),
        ("a.py", "x = 1\n", "no class"),
    ],
)
async def test_files_that_cannot_be_deployed(millrace: Shell, tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    ran = await millrace("deploy", str(tmp_path / name))
    assert ran.code in (1, 2)
    assert said in ran.err
    assert "Traceback" not in ran.err


FLOW = """
import { WorkflowEntrypoint } from "cloudflare:workers";
export class Flow extends WorkflowEntrypoint {
  async run(event, step) {
    return await step.do("tell", async () => `${this.env.GREETING} ${this.env.KEY ?? "nobody"}`);
  }
}
"""


async def test_deploying_a_script(millrace: Shell, tmp_path: Path) -> None:
    file, secrets = tmp_path / "flow.js", tmp_path / ".env"
    file.write_text(FLOW)
    secrets.write_text("KEY=hunter2\n")
    first = await millrace("deploy", str(file), "--var", "GREETING=hello", "--secret-file", str(secrets))
    assert first.code == 0, first.err
    assert first.out.split()[:2] == ["deployed", "flow,"]
    ran = await millrace("instances", "trigger", "flow", "--wait", "--json")
    assert ran.json["output"] == "hello hunter2"
    again = await millrace("deploy", str(file), "--var", "GREETING=hi", "--name", "other", "--class", "Flow")
    assert again.code == 0, again.err
    ran = await millrace("instances", "trigger", "other", "--wait", "--json")
    assert ran.json["output"] == "hi hunter2", "secrets stay, variables are those given"
    typed = tmp_path / "flow.ts"
    typed.write_text(FLOW.replace("run(event", "run(event: unknown"))
    deployed = await millrace("deploy", str(typed), "--name", "typed")
    assert deployed.code == 0, deployed.err
    typed.write_text(FLOW.replace("run(event", "run(event: "))
    refused = await millrace("deploy", str(typed))
    assert refused.code == 1
    assert "flow.ts:4:" in refused.err
    assert (await millrace("deploy", str(EXAMPLES / "hello.yaml"), "--var", "A=1")).code == 2


async def test_the_life_of_an_instance(millrace: Shell) -> None:
    await millrace("deploy", str(EXAMPLES / "order-approval.yaml"))
    params = '{"order": 7, "sku": "lamp", "total": 900}'
    created = await millrace("instances", "trigger", "order-approval", "--id", "o-7", "--params", params)
    assert created.out == "created o-7 (queued)\n"
    await _until(millrace, "order-approval", "o-7", "waiting")
    for arguments, said in (
        (("pause", "order-approval", "o-7"), "o-7 is paused\n"),
        (("send-event", "order-approval", "latest", "--type", "approval", "--payload", '{"approved": true}'), None),
        (("resume", "order-approval", "o-7"), None),
    ):
        ran = await millrace("instances", *arguments)
        assert ran.code == 0, ran.err
        assert said is None or ran.out == said
    watched = await millrace("instances", "describe", "order-approval", "o-7", "--watch")
    assert watched.out.splitlines()[-1] == "o-7\tcomplete"
    described = await millrace("instances", "describe", "order-approval", "o-7")
    assert "reserve-1\tstep\tdone" in described.out
    assert (await millrace("instances", "describe", "order-approval", "--json")).json["output"]["order"] == 7
    logs = await millrace("instances", "logs", "order-approval", "o-7")
    followed = await millrace("instances", "logs", "order-approval", "o-7", "--follow")
    assert logs.out == followed.out != ""
    lines = [
        json.loads(line) for line in (await millrace("instances", "logs", "order-approval", "--json")).out.splitlines()
    ]
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
    again = await millrace("instances", "restart", "order-approval", "o-7", "--from-step", "ship")
    assert again.code == 0, again.err
    deleted = await millrace("instances", "delete", "order-approval", "o-7", "gone")
    assert deleted.out == "deleted o-7\n"
    assert (deleted.code, "gone: workflows.api.error.instance.not_found" in deleted.err) == (1, True)


async def test_following_a_log_live(millrace: Shell) -> None:
    await millrace("deploy", str(EXAMPLES / "order-approval.yaml"))
    await millrace("instances", "trigger", "order-approval", "--id", "o-1", "--params", '{"order": 1, "total": 900}')
    following = asyncio.create_task(millrace("instances", "logs", "order-approval", "o-1", "-f"))
    await _until(millrace, "order-approval", "o-1", "waiting")
    await millrace("instances", "terminate", "order-approval", "o-1", "--rollback")
    ran = await asyncio.wait_for(following, 20)
    assert ran.code == 0, ran.err
    assert "reserve" in ran.out


async def test_creating_many(millrace: Shell) -> None:
    await millrace("deploy", str(EXAMPLES / "hello.yaml"))
    ran = await millrace(
        "instances", "trigger", "hello", "--batch", "250", "--id", "n", "--params", "-", input='{"name": 1}'
    )
    assert ran.out.startswith("created 250 instances")
    listed = await millrace("instances", "list", "hello", "--limit", "1000", "--json")
    assert {row["id"] for row in listed.json} == {f"n-{number}" for number in range(1, 251)}
    few = await millrace("instances", "list", "hello", "--limit", "3")
    assert len(few.out.splitlines()) == 3


async def test_waiting_for_the_output(millrace: Shell, tmp_path: Path) -> None:
    await millrace("deploy", str(EXAMPLES / "hello.yaml"))
    (tmp_path / "params.json").write_text('{"name": "file"}')
    ran = await millrace("instances", "trigger", "hello", "--params", f"@{tmp_path / 'params.json'}", "--wait")
    assert ran.json == {"greeting": "Hello, file!"}
    text = await millrace("instances", "trigger", "hello", "--params", '"{}"', "--wait", "--json")
    assert text.json["params"] == "{}"


async def test_deleting_a_workflow(millrace: Shell) -> None:
    await millrace("deploy", str(EXAMPLES / "hello.yaml"))
    refused = await millrace("workflows", "delete", "hello", input="n\n")
    assert refused.code == 1
    assert (await millrace("workflows", "delete", "hello", "--yes")).code == 0
    gone = await millrace("workflows", "describe", "hello")
    assert gone.code == 1
    assert "10200" in gone.err
    assert "hint:" in gone.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("instances", "trigger", "w", "--params", "{nope"), "is not JSON"),
        (("instances", "trigger", "w", "--params", "@/nowhere"), "cannot read"),
        (("instances", "trigger", "w", "--batch", "0"), "0"),
        (("instances", "restart", "w", "i", "--from-count", "2"), "--from-step"),
        (("instances", "pause", "w"), "Missing argument"),
        (("instances", "list", "w", "--status", "happy"), "happy"),
        (("instnces",), "instances"),
        (("deploy", "/nowhere.yaml"), "/nowhere.yaml"),
    ],
)
async def test_a_wrong_command_line_is_2(millrace: Shell, arguments: tuple[str, ...], said: str) -> None:
    ran = await millrace(*arguments)
    assert ran.code == 2
    assert said in ran.err


async def test_refusals_are_1_with_a_hint(millrace: Shell) -> None:
    token = await millrace("workflows", "list", MILLRACE_TOKEN="sk_wrong_wrong_wrong_wrong")
    assert (token.code, "--token" in token.err) == (1, True)
    away = await millrace("workflows", "list", MILLRACE_URL="http://127.0.0.1:1")
    assert (away.code, "cannot reach http://127.0.0.1:1" in away.err) == (1, True)
    account = await millrace("workflows", "list", "--account", "0" * 32)
    assert (account.code, "7003" in account.err) == (1, True)


async def _until(millrace: Shell, workflow: str, instance_id: str, status: str) -> None:
    async with asyncio.timeout(20):
        while (await millrace("instances", "describe", workflow, instance_id, "--json")).json["status"] != status:
            await asyncio.sleep(0.05)
