"""What Python scripts can import, print, store and ask for."""

from __future__ import annotations

import base64

import pytest

from tests.integration.python.conftest import Loads, Runs
from tests.support.python_scripts import flow

VALUES = [
    ("None", None),
    ("[1, 2.5, True, None, 'ü']", [1, 2.5, True, None, "ü"]),
    ("{'a': (1, 2)}", {"a": [1, 2]}),
    ("2**53", {"$t": "i", "v": "9007199254740992"}),
    (
        "[float('nan'), float('-inf'), -0.0]",
        [{"$t": "n", "v": "NaN"}, {"$t": "n", "v": "-Infinity"}, {"$t": "n", "v": "-0"}],
    ),
    ("{1: 'x'}", {"$t": "m", "v": [[1, "x"]]}),
    ("{'$t': 1}", {"$t": "o", "v": {"$t": 1}}),
    ("{7}", {"$t": "s", "v": [7]}),
    ("b'\\x00\\xff'", {"$t": "b", "v": "AP8=", "k": "Uint8Array"}),
    ("datetime.datetime(1970, 1, 1, 0, 0, 1)", {"$t": "d", "v": 1000}),
    ("datetime.datetime.fromisoformat('1970-01-01T01:00:01+01:00')", {"$t": "d", "v": 1000}),
    ("ValueError('no')", {"$t": "e", "v": {"name": "ValueError", "message": "no"}}),
    ("'a\\ud800 \\ud83d\\ude00'", "a\ufffd \U0001f600"),
]


@pytest.mark.parametrize(("code", "stored"), VALUES)
async def test_values_as_they_are_stored(run: Runs, code: str, stored: object) -> None:
    assert (await run(f"return {code}")).output == stored


async def test_values_come_back_as_they_were(run: Runs) -> None:
    found = await run(
        """
        value = [None, 2**60, {1: "x"}, {7}, b"ab", {"$t": 1}, datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)]
        got = await step.do("s")(lambda: value)()
        return [a == b and type(a) is type(b) for a, b in zip(got, value, strict=True)]
        """
    )
    assert found.output == [True] * 7


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("decimal.Decimal(1)", "a value of type Decimal cannot be stored"),
        ("datetime.date(2020, 1, 1)", "a value of type date cannot be stored"),
        ("[loop]", "a value that contains itself cannot be stored"),
        ("deep", "a value nested this deep cannot be stored"),
        ("{'f': print}", "a value of type builtin_function_or_method cannot be stored"),
    ],
)
async def test_values_that_cannot_be_stored(run: Runs, code: str, reason: str) -> None:
    making = "import decimal\nloop = []\nloop.append(loop)\ndeep = []\nfor _ in range(600): deep = [deep]\n"
    assert (await run(f"return {code}", outside=making)).error[1].endswith(reason)


async def test_the_event_and_the_environment(run: Runs) -> None:
    found = await run(
        """
        env = self.env
        return [event["payload"], event["timestamp"], event["instanceId"], event["workflowName"], env.TEXT, env.DATA,
                env["TEXT"], "TEXT" in env, hasattr(env, "NONE"), workers.env.TEXT]
        """,
        {"n": 1},
        outside="import workers",
        vars={"TEXT": "t", "DATA": {"a": [1]}},
    )
    when = {"$t": "d", "v": 1_700_000_000_000}
    assert found.output == [{"n": 1}, when, "i-1", "flow", "t", {"a": [1]}, "t", True, False, "t"]


async def test_the_library_that_is_there(run: Runs) -> None:
    found = await run(
        """
        zone = zoneinfo.ZoneInfo("Europe/Berlin")
        return [datetime.datetime(2026, 7, 1, tzinfo=zone).isoformat(), str(Decimal("0.1") + 1),
                datetime.datetime.strptime("2026-01-02", "%Y-%m-%d").day, hashlib.sha256(b"x").hexdigest()[:8],
                hmac.new(b"k", b"m", "sha256").hexdigest()[:8], urllib.parse.quote("ü"), csv_rows(),
                "münchen.de".encode("idna").decode(), Point(1, 2).x, Color.RED.name, statistics.mean([1, 2]),
                tomllib.loads("a = 1")["a"], gzip.decompress(gzip.compress(b"z")).decode(),
                "x".encode("utf-16-le").hex()]
        """,
        outside="""
        import csv, gzip, hashlib, hmac, io, statistics, tomllib, urllib.parse, zoneinfo
        from dataclasses import dataclass
        from decimal import Decimal
        from enum import Enum
        @dataclass
        class Point:
            x: int
            y: int
        class Color(Enum):
            RED = 1
        def csv_rows(): return list(csv.reader(io.StringIO("a,b")))
        """,
    )
    assert found.output == [
        "2026-07-01T00:00:00+02:00", "1.1", 2, "2d711642", "b60090e3", "%C3%BC", [["a", "b"]], "xn--mnchen-3ya.de", 1,
        "RED", 1.5, 1, "z", "7800",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["socket", "subprocess", "ctypes", "threading", "gc", "requests", "js", "books", "main"]
)
async def test_imports_of_anything_else_fail_and_say_so(load: Loads, name: str) -> None:
    script = await load(f"\nimport {name}\n")
    assert script.loaded["op"] == "load_failed"
    assert (script.loaded["module"], script.loaded["line"]) == ("entry.py", 2)
    message = f"No module named '{name}': scripts may import the modules uploaded with them, workers and a part"
    assert script.loaded["error"]["message"].startswith(message)
    assert script.loaded["error"]["name"] == "ModuleNotFoundError"


async def test_modules_of_the_upload(load: Loads) -> None:
    source = flow(
        "return [helper.VALUE, deep(), below.__name__, other.X, page(), raw(), vendored.V]",
        """
        import helper
        from package.sub import below
        from package.sub.below import deep
        from plain import other
        import vendored
        from pathlib import Path
        def page(): return (Path(__file__).parent / "web" / "page.html").read_text()
        def raw(): return list(open("raw.bin", "rb").read())
        """,
    )
    modules = {
        "entry.py": source,
        "helper.py": "VALUE = 'helped'",
        "package/__init__.py": "",
        "package/sub/__init__.py": "from ..sub import below",
        "package/sub/below.py": "from .. import sub\ndef deep(): return sub.__name__",
        "plain/other.py": "X = 'no __init__ needed'",
        "python_modules/vendored/__init__.py": "V = 1",
    }
    files = [
        {"name": "web/page.html", "type": "text", "text": "<p>ü"},
        {"name": "./raw.bin", "type": "data", "b64": base64.b64encode(b"\x01\x02").decode()},
    ]
    script = await load(modules, modules=[*files])
    assert script.loaded == {"op": "loaded", "exports": [{"name": "Flow", "kind": "workflow"}]}
    found = await script.run()
    expected = ["helped", "package.sub", "package.sub.below", "no __init__ needed", "<p>ü", [1, 2], 1]
    assert found.output == expected


async def test_there_are_no_other_files(run: Runs) -> None:
    for call in ("open('/etc/passwd')", "open('x', 'w')", "__import__('pathlib').Path('/etc/passwd').read_text()"):
        assert (await run(call)).error[0] == "FileNotFoundError"


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ({"entry.py": "x = 1\ndef f(:\n"}, ("entry.py", 2, 7, "SyntaxError", "invalid syntax")),
        ({"entry.py": "import b", "b.py": "\n\n1 / 0"}, ("b.py", 3, None, "ZeroDivisionError", "division by zero")),
        ({"entry.py": "import asyncio\nasyncio.sleep", "json.py": ""}, ("json.py", None, None, "ImportError", None)),
        ({"my-flow.py": ""}, ("my-flow.py", None, None, "ImportError", None)),
        ({"entry.py": "raise SystemExit(1)"}, ("entry.py", 1, None, "Error", "SystemExit: 1")),
        (
            {"entry.py": "import random\nrandom.random()"},
            ("entry.py", 2, None, "RuntimeError", "Disallowed operation called within global scope"),
        ),
    ],
)
async def test_what_is_wrong_with_a_module_and_where(load: Loads, modules: dict[str, str], expected: tuple) -> None:
    said = (await load(modules)).loaded
    module, line, column, name, message = expected
    assert (said["op"], said.get("module"), said.get("line"), said.get("column")) == (
        "load_failed",
        module,
        line,
        column,
    )
    assert said["error"]["name"] == name
    assert message is None or said["error"]["message"] == message


async def test_what_a_main_module_exports(load: Loads) -> None:
    script = await load(
        {
            "entry.py": "from workers import WorkflowEntrypoint, WorkerEntrypoint\nfrom more import Other\n"
            "from datetime import datetime\nclass Default(WorkerEntrypoint): pass\nclass Plain: pass\n",
            "more.py": "from workers import WorkflowEntrypoint\nclass Other(WorkflowEntrypoint): pass\n",
        }
    )
    assert {one["name"]: one["kind"] for one in script.loaded["exports"]} == {
        "Other": "workflow",
        "Default": "worker",
        "Plain": "other",
    }
    assert (await script.run(cls="Other")).error == ("Error", "Other has no method run")
    assert (await script.run(cls="Plain")).error == ("Error", "The script has no workflow class Plain")


async def test_what_is_printed_and_logged(run: Runs) -> None:
    found = await run(
        """
        print("a", 1, {"b": 2})
        print("two\\nlines")
        print("half", end="")
        print(" whole")
        print("to stderr", file=sys.stderr)
        logging.getLogger("early").warning("careful %s", "now")
        log = logging.getLogger("mine")
        logging.basicConfig(level=logging.DEBUG, format="%(name)s %(message)s")
        log.debug("d")
        log.error("e")
        @step.do()
        def a():
            print("inside")
            print("x" * 10000)
        await a()
        print("unfinished", end="")
        """,
        outside="import logging, sys",
    )
    assert found.logs == [
        ("info", "a 1 {'b': 2}", 0),
        ("info", "two\nlines", 0),
        ("info", "half whole", 0),
        ("error", "to stderr", 0),
        ("warn", "careful now", 0),
        ("debug", "mine d", 0),
        ("error", "mine e", 0),
        ("info", "inside", 1),
        ("info", "x" * 8192, 1),
        ("info", "unfinished", 0),
    ]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("time.sleep(1)", "time.sleep would stop every run of this script: await asyncio.sleep, or step.sleep"),
        ("await asyncio.to_thread(print)", "there are no threads here"),
        ("input()", "there is nobody to talk to"),
    ],
)
async def test_what_does_not_work_says_so(run: Runs, code: str, message: str) -> None:
    name, said = (await run(code)).error
    assert name == "RuntimeError"
    assert said.startswith(message)


async def test_fetch(run: Runs) -> None:
    answer = {"status": 201, "statusText": "Created", "url": "https://a.example/x?q=1", "redirected": False}
    piece = base64.b64encode(b'{"ok":').decode()
    found = await run(
        """
        from workers import Response
        url, wanted = "https://a.example/x#part", {"headers": {"X-A": "1"}}
        answer = await fetch(url, wanted, method="post", json={"a": 1}, params={"q": 1})
        return [answer.status, answer.ok, answer.url, answer.headers["content-type"], answer.headers.get("none"),
                await answer.json(), answer.body_used, Response.json([1]).headers["content-type"]]
        """,
        answers={
            "fetch": [{"v": {**answer, "headers": [["Content-Type", "application/json"]], "body": 4}}],
            "read": [
                {"v": {"b64": piece, "done": False}},
                {"v": {"b64": base64.b64encode(b"true}").decode(), "done": True}},
            ],
        },
    )
    expected = [201, True, answer["url"], "application/json", None, {"ok": True}, True, "application/json"]
    assert found.output == expected
    assert found.called[0]["args"] == {
        "method": "POST",
        "url": "https://a.example/x?q=1",
        "headers": [["X-A", "1"], ["content-type", "application/json"]],
        "redirect": "follow",
        "body": base64.b64encode(b'{"a": 1}').decode(),
    }
    assert [said["args"] for said in found.called[1:]] == [{"body": 4, "as": "bytes", "whole": True}] * 2


async def test_a_fetch_that_fails_and_bodies_that_are_let_go(run: Runs) -> None:
    answer = {"status": 204, "statusText": "", "url": "u", "redirected": False, "headers": [], "body": 9}
    found = await run(
        """
        try: await fetch("https://a.example")
        except TypeError as error: print(error)
        answer = await fetch("https://a.example")
        async for piece in answer.chunks(): break
        await answer.close()
        try: await answer.text()
        except TypeError as error: print(error)
        try: await fetch("https://a.example", body="x")
        except TypeError as error: print(error)
        """,
        answers={
            "fetch": [{"error": {"name": "TypeError", "message": "fetch failed: refused"}}, {"v": answer}],
            "read": [{"v": {"b64": "eA==", "done": False}}],
            "close": [{}, {}],
        },
    )
    assert [message for _, message, _ in found.logs] == [
        "fetch failed: refused",
        "the body was read already",
        "a request with method GET or HEAD cannot have a body",
    ]
    assert [said["kind"] for said in found.called][-1] == "close"


async def test_workflow_bindings(run: Runs) -> None:
    found = await run(
        """
        made = await self.env.SHOP.create({"id": "a-1", "params": {"n": {1}}})
        status = await made.status()
        got = await self.ctx.exports.Flow.get("b")
        await got.send_event({"type": "go", "payload": 5})
        await got.sendEvent(type="go")
        await got.pause()
        await got.restart({"from": {"name": "s"}})
        await got.terminate(rollback=True)
        many = await self.env.SHOP.create_batch([{"id": "x"}, {}])
        more = await self.env.SHOP.createBatch({"count": 2, "params": 1})
        gone = await self.env.SHOP.delete_batch(["x"])
        return [made.id, status.status, status["output"], got.id, [one.id for one in many],
                [one.id for one in more.created], more.errors, gone.deleted]
        """,
        workflows={"SHOP": "shop"},
        exports={"Flow": "flow"},
        answers={
            "workflow": [
                {"v": {"id": "a-1"}},
                {"v": {"status": "running", "output": None}},
                *[{}] * 6,
                {"v": {"created": [{"id": "x"}, {"id": "y"}], "errors": []}},
                {"v": {"created": [{"id": "z"}], "errors": [{"index": 1}]}},
                {"v": {"deleted": [{"id": "x"}], "errors": []}},
            ]
        },
    )
    assert found.output == ["a-1", "running", None, "b", ["x", "y"], ["z"], [{"index": 1}], [{"id": "x"}]]
    assert [said["args"] for said in found.called] == [
        {
            "workflow": "shop",
            "method": "create",
            "instance": {"id": "a-1", "params": {"x": {"n": {"$t": "s", "v": [1]}}}},
        },
        {"workflow": "shop", "method": "status", "id": "a-1"},
        {"workflow": "flow", "method": "get", "id": "b"},
        {"workflow": "flow", "method": "sendEvent", "id": "b", "type": "go", "payload": {"v": 5}},
        {"workflow": "flow", "method": "sendEvent", "id": "b", "type": "go", "payload": {}},
        {"workflow": "flow", "method": "pause", "id": "b"},
        {"workflow": "flow", "method": "restart", "id": "b", "from": {"name": "s"}},
        {"workflow": "flow", "method": "terminate", "id": "b", "rollback": True},
        {"workflow": "shop", "method": "createBatch", "instances": [{"id": "x"}, {}]},
        {"workflow": "shop", "method": "createBatch", "instances": [{"params": {"v": 1}}] * 2},
        {"workflow": "shop", "method": "deleteBatch", "ids": ["x"]},
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("create({'id': '-x'})", "Workflow instance has invalid id"),
        ("create(5)", "(body) Provided argument is invalid"),
        ("get('ü')", "(instance.invalid_id) Instance ID is invalid"),
        ("create_batch([])", "batchCreate should have at least 1 instance"),
        ("create_batch([{}] * 101)", "batchCreate only supports 100 instances at a time"),
        ("create_batch({'count': 0})", "(body) count must be a positive integer"),
        ("create_batch({})", "(body) Provided argument is invalid"),
        ("delete_batch([])", "(body) batchDeleteInstances should have at least 1 instance"),
    ],
)
async def test_wrong_calls_of_bindings(run: Runs, call: str, message: str) -> None:
    found = await run(f"await self.env.SHOP.{call}", workflows={"SHOP": "shop"})
    assert found.error == ("WorkflowError", message)
    assert found.called == []


async def test_errors_of_bindings_are_exceptions(run: Runs) -> None:
    found = await run(
        """
        try: await self.env.A.get("x")
        except Exception as error: return [type(error).__name__, str(error)]
        """,
        workflows={"A": "a"},
        answers={"workflow": [{"error": {"name": "Error", "message": "(instance.not_found) none"}}]},
    )
    assert found.output == ["Exception", "(instance.not_found) none"]
