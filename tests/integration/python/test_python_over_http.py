"""Python workflows on a running Millrace, deployed and run over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.javascript import Refused, Run, Scripts
from tests.support.python_scripts import flow

PYTHON = "text/x-python"
FLAGS = ("python_workers", "python_workflows")


async def deploy(scripts: Scripts, source: str | Mapping[str, str], **options: Any) -> str:
    name = scripts.name()
    sources = {"entry.py": source} if isinstance(source, str) else source
    modules = {path: (text, PYTHON) for path, text in sources.items()}
    await scripts.upload(name, modules, flags=FLAGS, **options)
    await scripts.bind(name, name, "Flow")
    return name


async def run(scripts: Scripts, source: str | Mapping[str, str], params: Any = None, **options: Any) -> Run:
    return await scripts.create(await deploy(scripts, source, **options), params)


async def test_a_workflow_from_beginning_to_end(scripts: Scripts) -> None:
    source = flow(
        """
        @step.do("fetch order")
        async def order(ctx):
            print("attempt", ctx["attempt"])
            return {"total": event["payload"]["total"], "at": event["timestamp"]}
        found = await order()
        await step.sleep("short", 10)
        @step.do("flaky", config={"retries": {"limit": 2, "delay": 1}})
        def flaky(ctx):
            if ctx["attempt"] < 3: raise ValueError("again")
            return ctx["attempt"]
        sides = await asyncio.gather(flaky(), step.do("x")(lambda: "x")())
        got = await step.wait_for_event("approval", "approve", timeout="1 hour")
        return [found["total"], found["at"] == event["timestamp"], sides, got["payload"], self.env.GREETING]
        """
    )
    bindings = [{"type": "plain_text", "name": "GREETING", "text": "hello"}]
    found = await run(scripts, source, {"total": 42}, bindings=bindings)
    await found.has("approval-1")
    await found.send("approve", {"by": "me"})
    assert await found.output() == [42, True, [3, "x"], {"by": "me"}, "hello"]
    flaky = await found.has("flaky-1")
    assert [attempt["success"] for attempt in flaky["attempts"]] == [False, False, True]
    assert flaky["attempts"][0]["error"] == {"name": "ValueError", "message": "again"}
    assert "attempt 1" in await found.logs()


async def test_a_sandbox_that_dies_is_replaced_and_the_run_replayed(scripts: Scripts) -> None:
    source = flow(
        """
        drawn, when = random.random(), time.time()
        first = await step.do("note")(lambda: [drawn, when])()
        await step.sleep("a while", 5)
        @step.do("die")
        def die(ctx):
            if not (event["payload"]["calm"] or ctx["attempt"] > 1): os._exit(3)
            return ctx["attempt"]
        died = await die()
        return [first == [drawn, when], died]
        """,
        "import os",
    )
    name = await deploy(scripts, source)
    assert await (await scripts.create(name, {"calm": True})).output() == [True, 1]
    wild = await scripts.create(name, {"calm": False})
    calm = await scripts.create(name, {"calm": True})
    same, attempts = await wild.output()
    assert same
    assert attempts > 1
    assert (await calm.output())[0]  # its attempt may have been in the process that died


async def test_a_step_that_uses_up_its_time_fails(scripts: Scripts) -> None:
    source = flow(
        """
        @step.do("busy", config={"retries": {"limit": 0, "delay": 0}})
        def busy():
            while True: pass
        try: await busy()
        except Exception as error: return str(error)
        """
    )
    found = await run(scripts, source, limits={"cpu_ms": 200})
    assert await found.output() == "Worker exceeded CPU time limit."


async def test_a_step_that_always_ends_its_process_fails(scripts: Scripts) -> None:
    source = flow(
        "await step.do('die', config={'retries': {'limit': 0, 'delay': 0}})(lambda: os._exit(1))()", "import os"
    )
    found = await run(scripts, source)
    assert (await found.error())[0] == "WorkflowInternalError"


async def test_a_run_goes_on_where_it_was_after_a_pause(scripts: Scripts) -> None:
    source = flow(
        """
        drawn = random.random()
        noted = await step.do("note")(lambda: drawn)()
        await step.wait_for_event("wait", "go")
        return noted == drawn
        """
    )
    found = await run(scripts, source)
    await found.has("wait-1")
    await found.command("pause")
    await found.until("paused")
    await found.command("resume")
    await found.send("go")
    assert await found.output() is True


async def test_one_workflow_starts_another(scripts: Scripts) -> None:
    child = await deploy(scripts, flow("return await step.do('s')(lambda: {'got': event['payload']['n'] + 1})()"))
    source = flow(
        """
        @step.do("start")
        async def start():
            return (await self.env.CHILD.create({"params": {"n": 1}})).id
        id = await start()
        @step.do("wait", config={"retries": {"limit": 100, "delay": 20, "backoff": "constant"}})
        async def wait():
            status = await (await self.env.CHILD.get(id)).status()
            if status.status != "complete": raise RuntimeError(status.status)
            return status.output
        return await wait()
        """
    )
    binding = {"type": "workflow", "name": "CHILD", "workflow_name": child, "class_name": "Flow"}
    assert await (await run(scripts, source, bindings=[binding])).output() == {"got": 2}


@pytest.mark.parametrize(
    ("date", "name", "message"),
    [
        ("2026-05-13", "WorkflowFatalError", 'Step threw a NonRetryableError with message "no use"'),
        ("2026-05-14", "NonRetryableError", "no use"),
    ],
)
async def test_a_non_retryable_error_ends_the_instance(scripts: Scripts, date: str, name: str, message: str) -> None:
    source = flow("await step.do('s')(fail)()", "def fail(): raise NonRetryableError('no use')")
    found = await run(scripts, source, compatibility_date=date)
    assert (await found.error())[0] == name
    [attempt] = (await found.has("s-1"))["attempts"]
    assert attempt["error"] == {"name": name, "message": message}


async def test_the_compatibility_date_chooses_how_dependencies_are_declared(scripts: Scripts) -> None:
    legacy = flow("a = step.do('a')(lambda: 1)\nreturn await step.do('b', [a])(lambda x: x + 1)()")
    assert await (await run(scripts, legacy, compatibility_date="2026-02-24")).output() == 2
    implicit = flow("a = step.do('a')(lambda: 1)\nreturn await step.do('b')(lambda a: a + 1)()")
    assert await (await run(scripts, implicit, compatibility_date="2026-02-25")).output() == 2
    assert (await (await run(scripts, implicit, compatibility_date="2026-02-24")).error())[0] == "TypeError"


async def test_two_languages_in_one_account(scripts: Scripts) -> None:
    javascript = await scripts.flow("return await step.do('s', async () => event.payload.map((n) => n + 1));")
    python = await deploy(scripts, flow("return await step.do('s')(lambda: [n + 1 for n in event['payload']])()"))
    runs = [await scripts.create(name, [1, 2]) for name in (javascript, python)]
    assert [await found.output() for found in runs] == [[2, 3], [2, 3]]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"entry.py": "def f(:\n"}, "entry.py:1:7: SyntaxError: invalid syntax"),
        (
            {"entry.py": "import lib", "lib.py": "\nimport numpy"},
            "lib.py:2:1: ModuleNotFoundError: No module named 'numpy'",
        ),
        ({"entry.py": "import lib", "lib.py": "\n1 / 0"}, "lib.py:2: ZeroDivisionError: division by zero"),
        ({"entry.py": "import os\nos._exit(1)"}, "the script ended its sandbox"),
    ],
)
async def test_uploads_that_cannot_be_loaded(scripts: Scripts, sources: dict[str, str], message: str) -> None:
    with pytest.raises(Refused) as refused:
        await deploy(scripts, sources)
    assert refused.value.message.startswith(message)


async def test_classes_that_are_no_workflows(scripts: Scripts) -> None:
    name = scripts.name()
    source = (
        "from workers import WorkflowEntrypoint\nclass Idle(WorkflowEntrypoint):\n  async def run(self, e, step): ...\n"
    )
    await scripts.upload(name, {"entry.py": (source, PYTHON)}, flags=FLAGS)
    with pytest.raises(Refused, match="calls no step"):
        await scripts.bind(name, name, "Idle")
    with pytest.raises(Refused, match="those it exports: Idle"):
        await scripts.bind(name, name, "Gone")
