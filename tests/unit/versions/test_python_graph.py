"""Python workflow classes as graphs."""

from __future__ import annotations

from textwrap import dedent, indent
from typing import Any

import msgspec
import pytest

from versions.python.graph import class_graph

HEAD = "import asyncio\nfrom workers import WorkflowEntrypoint\nNAME = 'named'\nCONFIG = {'timeout': 60 * 1000}\n"
DECLARED = """
@step.do()
async def a(): ...
@step.do("b step", config={"retries": {"limit": 2, "delay": "1 second"}, "timeout": 5})
async def b(): ...
"""


def nodes_of(run: str, outside: str = "", inside: str = "") -> Any:
    return workflow_of(run, outside, inside)["nodes"]


def workflow_of(run: str, outside: str = "", inside: str = "") -> Any:
    body = indent(dedent(run), " " * 8) or "        pass"
    methods = indent(dedent(inside), " " * 4)
    head = f"{HEAD}{dedent(outside)}\nclass Flow(WorkflowEntrypoint):\n    async def run(self, event, step):\n"
    text = f"{head}{body}\n{methods}"
    found = class_graph([("entry.py", text)], "entry.py", "Flow")
    assert found is not None
    msgspec.json.encode(found.graph)
    return found.graph["workflow"]


def brief(nodes: Any) -> Any:
    """A graph as nested lists: names of steps, kinds of groups with their members."""
    found: list[Any] = []
    for node in nodes:
        kind = node["type"]
        if kind.startswith("step_") or kind == "function_call":
            inner = brief(node.get("nodes", []))
            found.append([node["name"], *inner] if inner else node["name"])
        elif kind in ("if", "switch"):
            found.append([kind, *([branch["condition"], *brief(branch["nodes"])] for branch in node["branches"])])
        elif kind == "try":
            blocks = (node["try_block"], node["catch_block"], node["finally_block"])
            found.append(["try", *(None if block is None else brief(block["nodes"]) for block in blocks)])
        elif kind == "break":
            found.append(f"-{node['kind']}")
        else:
            found.append([node.get("kind", kind), *brief(node["nodes"])])
    return found


def test_a_step_with_everything_it_shows() -> None:
    default = {"retries": {"limit": 5, "delay": 10_000, "backoff": "exponential"}, "timeout": "10 minutes"}
    assert nodes_of(DECLARED + "await a()\nawait b()") == [
        {"type": "step_do", "name": "a", "config": default, "nodes": []},
        {
            "type": "step_do",
            "name": "b step",
            "config": {"retries": {"limit": 2, "delay": "1 second", "backoff": "exponential"}, "timeout": 5},
            "nodes": [],
        },
    ]


def test_sleeps_and_waits() -> None:
    assert nodes_of(
        """
        await step.sleep("a", "1 hour")
        await step.sleep_until("b", event["timestamp"])
        await step.wait_for_event("c", "go", timeout=60 * 1000)
        await step.wait_for_event("d", "go")
        """
    ) == [
        {"type": "step_sleep", "name": "a", "duration": "1 hour"},
        {"type": "step_sleep_until", "name": "b", "timestamp": "event['timestamp']"},
        {"type": "step_wait_for_event", "name": "c", "options": {"event_type": "go", "timeout": 60_000}},
        {"type": "step_wait_for_event", "name": "d", "options": {"event_type": "go", "timeout": "24 hours"}},
    ]


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (DECLARED, []),
        (DECLARED + "return await b()", ["b step"]),
        (DECLARED + "@step.do()\nasync def c(a, ctx): ...\nawait c()\nawait c()", ["a", "c", "c"]),
        (DECLARED + "await a()\n@step.do()\nasync def c(a): ...\nawait c()", ["a", "c"]),
        (DECLARED + "@step.do('c', depends=[b, a])\nasync def c(x, y): ...\nawait c()", ["b step", "a", "c"]),
        (
            DECLARED + "@step.do('c', depends=[b, a], concurrent=True)\nasync def c(x, y): ...\nawait c()",
            [["all", "b step", "a"], "c"],
        ),
        (DECLARED + "await asyncio.gather(a(), b())", [["all", "a", "b step"]]),
        (DECLARED + "await asyncio.gather(a(), b(), return_exceptions=True)", [["all_settled", "a", "b step"]]),
        (DECLARED + "one, two = a(), b()\nawait one", ["a", "b step"]),
        (DECLARED + "one = a()\ntwo = b()\nawait asyncio.gather(two, one)", [["all", "b step", "a"]]),
        (
            DECLARED + "async with asyncio.TaskGroup() as g:\n  g.create_task(a())\n  g.create_task(b())",
            [["all", "a", "b step"]],
        ),
        (
            DECLARED + "await asyncio.wait([a(), b()], return_when=asyncio.FIRST_COMPLETED)",
            [["race", "a", "b step"]],
        ),
        ("await asyncio.gather(*[step.sleep(f's {n}', 1) for n in range(3)])", [["all", ["loop", "s {n}"]]]),
        ("for n in range(3):\n  await step.sleep(f's {n}', 1)", [["loop", "s {n}"]]),
        ("while True:\n  await step.sleep('s', 1)\n  if x:\n    break", [["loop", "s", ["if", ["x", "-break"]]]]),
        ("if event['payload']['x']:\n  await step.sleep('s', 1)", [["if", ["event['payload']['x']", "s"]]]),
        (
            "if x:\n  await step.sleep('s', 1)\nelif y:\n  return\nelse:\n  await step.sleep('t', 1)",
            [["if", ["x", "s"], ["y", "-return"], [None, "t"]]],
        ),
        (
            "match x:\n  case 'a':\n    await step.sleep('s', 1)\n  case _:\n    await step.sleep('t', 1)",
            [["switch", ["'a'", "s"], [None, "t"]]],
        ),
        (
            "try:\n  return await step.sleep('s', 1)\nexcept ValueError:\n  await step.sleep('t', 1)\nfinally:\n  pass",
            [["try", ["s"], ["t"], []]],
        ),
        ("x and await step.sleep('s', 1)", [["if", ["x", "s"]]]),
        ("y = (await step.sleep('s', 1)) if x else None", [["if", ["x", "s"], [None]]]),
        ("await step.do('now')(lambda: 1)()", ["now"]),
        ("now = step.do(NAME)(lambda: 1)\nawait now()", ["named"]),
        ("await step.sleep(NAME, 1)\nawait step.sleep(event['x'], 1)", ["named", "event['x']"]),
        (
            "@step.do()\nasync def outer():\n  @step.do()\n  def inner(): ...\n  return await inner()\nawait outer()",
            [["outer", "inner"]],
        ),
        ("with open('x') as f:\n  await step.sleep('s', 1)", ["s"]),
        ("print('nothing')\nx = [1 for _ in y]\nif x: pass", []),
    ],
)
def test_how_code_is_drawn(run: str, expected: Any) -> None:
    assert brief(nodes_of(run)) == expected


def test_branches_that_only_leave_are_drawn() -> None:
    assert brief(nodes_of("if x:\n  return 1\nawait step.sleep('s', 1)")) == [["if", ["x", "-return"]], "s"]


def test_members_of_a_group_start_and_end_together() -> None:
    [group, last] = nodes_of(DECLARED + "await asyncio.gather(a(), b())\nawait a()")
    assert [(node["starts"], node["resolves"]) for node in group["nodes"]] == [(1, 2), (1, 2)]
    assert "starts" not in last


def test_tasks_run_while_the_code_goes_on() -> None:
    a, b = nodes_of(DECLARED + "task = asyncio.create_task(a())\nawait b()\nawait task")
    assert (a["starts"], a["resolves"]) == (1, 2)
    assert "starts" not in b


def test_helpers_are_functions_of_their_own() -> None:
    workflow = workflow_of(
        """
        async def local():
            await step.sleep("l", 1)
        await self.prepare(event, step)
        await self.prepare(event, step)
        await finish(step, 5)
        await local()
        await unknown(step)
        await idle(step)
        print("x")
        """,
        outside="""
        async def finish(s, n):
            await s.sleep("f", n)
        async def idle(step): ...
        """,
        inside="""
        async def prepare(self, event, step):
            @step.do()
            async def p(): ...
            await p()
            await self.prepare(event, step)
        """,
    )
    assert brief(workflow["nodes"]) == ["prepare", "prepare", "finish", "local", "unknown"]
    functions = {name: brief(function["nodes"]) for name, function in workflow["functions"].items()}
    assert functions == {"prepare": ["p", "prepare"], "finish": ["f"], "local": ["l"]}


def test_configuration_from_constants_and_functions() -> None:
    [node] = nodes_of(
        """
        def wait(about): return 5
        @step.do(config={**CONFIG, "retries": {"limit": float("inf"), "delay": wait}})
        async def a(): ...
        await a()
        """
    )
    retries = {"limit": "float('inf')", "delay": "[dynamic]", "backoff": "exponential"}
    assert node["config"] == {"retries": retries, "timeout": 60_000}


@pytest.mark.parametrize(
    ("run", "fields"),
    [
        ("x = event['payload']['a']\ny = event.payload.get('b')", ["a", "b"]),
        ("payload = event['payload']\nprint(payload['c'], payload.get('d', 1), payload[n])", ["c", "d"]),
        ("x = event['other']['a']", None),
    ],
)
def test_the_payload_that_is_read(run: str, fields: Any) -> None:
    found = workflow_of(run).get("payload")
    assert (None if found is None else list(found["fields"])) == fields


def test_a_class_of_another_module() -> None:
    flow = "class Flow:\n    async def run(self, event, step):\n        await step.sleep('s', 1)\n"
    modules = [
        ("src/entry.py", "from .flows import Flow as Shown"),
        ("src/flows/__init__.py", "from .deep import Flow"),
        ("src/flows/deep.py", flow),
    ]
    found = class_graph(modules, "src/entry.py", "Shown")
    assert found is not None
    assert brief(found.graph["workflow"]["nodes"]) == ["s"]
    absolute = class_graph([("entry.py", "from flows.deep import Flow"), ("flows/deep.py", flow)], "entry.py", "Flow")
    assert absolute is not None
    assert class_graph(modules, "src/entry.py", "Gone") is None


@pytest.mark.parametrize(
    ("run", "uses"),
    [
        ("    async def run(self, event, step): return 1", False),
        ("    async def run(self, event): return 1", False),
        ("    async def run(self, *given): return 1", True),
        ("    async def run(self, event, s): await other(s)", True),
        ("    async def run(self, event, step):\n        self.step = step", True),
    ],
)
def test_whether_steps_are_used(run: str, uses: bool) -> None:
    found = class_graph([("entry.py", f"class Flow:\n{run}\n")], "entry.py", "Flow")
    assert found is not None
    assert found.calls_steps is uses


@pytest.mark.parametrize(
    "run",
    [
        "await step.sleep('\\ud800', 2 ** 70)",
        "await step.sleep('x', 10 * 10**400)",
        "await step.sleep('x', 1e999)\nawait step.sleep('y', 123456789012345678901234567890)",
        "await step.sleep(" + "(" * 80 + "1" + ")" * 80 + ", 1)",
        "x = " + "a." * 300 + "b\nif x" + "[0]" * 300 + ": await step.sleep('s', 1)",
        "\n".join(
            [
                "@step.do()\nasync def s0(): ...",
                *(f"@step.do()\nasync def s{n}():\n  await s{n - 1}()\n  await s{n - 1}()" for n in range(1, 40)),
                "await s39()",
            ]
        ),
        "@step.do()\nasync def s():\n  await s()\n  await s()\nawait s()",
        "async def f():\n  await f()\n  await f()\n  await step.sleep('s', 1)\nawait f()",
    ],
)
def test_odd_code_is_drawn_or_left_out(run: str) -> None:
    workflow_of(run)


def test_what_is_too_large_is_not_drawn() -> None:
    assert (
        class_graph(
            [("entry.py", "class Flow:\n  async def run(self, e, s): ...\n" + "#" * 600_000)], "entry.py", "Flow"
        )
        is None
    )
