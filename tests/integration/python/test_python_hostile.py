"""Hostile Python: it can end its own process, and nothing else."""

from __future__ import annotations

import contextlib

import pytest

from instances.runtimes.scripts.isolate import encode
from instances.runtimes.scripts.messages import Violation, decode_answer
from instances.sandbox.errors import SandboxDied
from tests.integration.python.conftest import Loads
from tests.support.python_scripts import flow

LOCKED = [
    "os.listdir('/')", "os.stat('/etc/passwd')", "os.open('/etc/passwd', 0)", "os.fork()", "os.execv('/bin/sh', ['x'])",
    "os.kill(os.getppid(), 0)", "os.kill(-1, 0)", "os.pipe()", "os.setuid(0)", "os.mkdir('/tmp/x')", "os.dup(3)",
    "os.posix_spawn('/bin/true', ['x'], {})", "os.sched_setaffinity(0, {0})", "os.memfd_create('x')",
]  # fmt: skip


@pytest.mark.parametrize("call", LOCKED)
async def test_the_kernel_refuses(load: Loads, call: str) -> None:
    script = await load(flow(f"{call}", "import os"))
    assert (await script.run()).error[0] == "PermissionError"


async def test_nothing_is_left_behind(load: Loads) -> None:
    body = """
    odd = ("ctypes", "_ctypes", "socket", "subprocess", "zygote", "books", "main", "gc")
    names = [name for name in sys.modules if name.split(".")[0] in odd]
    return [dict(os.environ), sys.path, sys.path_hooks, names, sys.argv[1:2]]
    """
    found = await (await load(flow(body, "import os, sys"))).run()
    assert found.output[:4] == [{}, [], [], []]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("os._exit(3)", "exit"),
        ("os.abort()", "exit"),
        ("os.write(3, b'\\x05\\x00\\x00\\x00{}')", None),
        ("os.close(3)", None),
    ],
)
async def test_ending_its_process_ends_only_that(load: Loads, code: str, cause: str | None) -> None:
    script = await load(flow(code, "import os"))
    with pytest.raises((SandboxDied, Violation, ValueError, AssertionError)):
        await script.run()
        await script.run()
    other = await load(flow("return 1"))
    assert (await other.run()).output == 1


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "while True:\n    try: 1 / 0\n    except BaseException: pass",
        "while True: await asyncio.sleep(0)",
        "9 ** 9 ** 9",
        "re.match(r'(a+)+$', 'a' * 64 + 'b')",
    ],
)
async def test_code_that_does_not_end_is_ended(load: Loads, code: str) -> None:
    script = await load(flow(code, "import re"))
    start = {"op": "start", "r": 1, "cls": "Flow", "seed": "ab" * 32, "now": 0}
    event = {"payload": {}, "timestamp": 0, "instanceId": "i", "workflowName": "w"}
    with pytest.raises(SandboxDied) as died:
        await script.process.exchange([encode(start | {"event": event})], 0.3)
    assert died.value.cause == "cpu"
    assert died.value.part == 0


async def test_memory_is_limited_and_using_it_up_is_an_error(load: Loads) -> None:
    script = await load(flow("return len(bytes(event['payload'] << 20))"))
    assert (await script.run(100)).output == 100 << 20
    assert (await script.run(300)).error[0] == "MemoryError"
    assert (await script.run(1)).output == 1 << 20


async def test_deep_recursion_is_an_error(load: Loads) -> None:
    script = await load(flow("def f(): return f()\nf()"))
    assert (await script.run()).error == ("RecursionError", "maximum recursion depth exceeded")
    assert (await script.run()).error[0] == "RecursionError"


async def test_a_task_that_raises_system_exit_ends_itself(load: Loads) -> None:
    script = await load(
        flow("async def f(): raise SystemExit\nasyncio.create_task(f())\nawait asyncio.sleep(1)\nreturn 1")
    )
    assert (await script.run()).output == 1


async def test_saying_too_much_is_an_error(load: Loads) -> None:
    calling = "for n in range(30000): asyncio.ensure_future(step.sleep('s', 1))"
    body = f"{calling}\nawait asyncio.sleep(0)\nawait asyncio.sleep(0)"
    script = await load(flow(body))
    found = await script.run(held=frozenset({"s"}))
    assert len(found.ops("sleep")) < 20_000
    script = await load(flow("for n in range(30000): print(n)\nreturn 1"))
    found = await script.run()
    assert len(found.logs) == 10_001
    assert found.output == 1


async def test_odd_objects_are_data(load: Loads) -> None:
    body = """
    class Odd(Exception):
        def __str__(self): raise ValueError
        @property
        def name(self): raise ValueError
    class Text(str):
        def __str__(self): raise ValueError
    class Dict(dict):
        def items(self): raise ValueError("items")
    @step.do()
    def a(): raise Odd
    try: await a()
    except Exception as error: print(error)
    return [Text("t"), Dict()]
    """
    found = await (await load(flow(body))).run()
    assert found.logs[0][1] == "(a value that cannot be made a text)"
    assert found.ops("return", "throw")


async def test_what_replaces_the_library_breaks_only_the_script(load: Loads) -> None:
    body = "import json, builtins\njson.loads = json.dumps = builtins.len = builtins.isinstance = None\nreturn 1"
    script = await load(flow(body))
    with contextlib.suppress(SandboxDied, AssertionError, ValueError):
        await script.run()
    assert (await (await load(flow("return 1"))).run()).output == 1


def test_answers_are_decoded_strictly() -> None:
    with pytest.raises(Violation):
        decode_answer(b'{"out":[{"op":"step","r":1,"id":0,"name":"x","config":{}}]}')
