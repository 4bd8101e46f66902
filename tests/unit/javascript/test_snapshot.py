"""V8 with the prelude in its snapshot: nothing is different but the time it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.javascript_engine import CHILD, Engine

PROGRAM = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import engine, main, snapshot
v8 = engine.V8()
"""

EVERYTHING = """(() => {
  const seen = new Set(), found = [];
  const walk = (object, path) => {
    if ((typeof object !== "object" && typeof object !== "function") || object === null || seen.has(object)) return;
    seen.add(object);
    for (const key of Reflect.ownKeys(object)) {
      const { value, get, set, ...flags } = Reflect.getOwnPropertyDescriptor(object, key);
      const at = `${path}.${String(key)}`;
      found.push([at, typeof value, Object.isExtensible(object), ...Object.values(flags)].join());
      walk(value, at); walk(get, `${at}.get`); walk(set, `${at}.set`);
    }
    walk(Object.getPrototypeOf(object), `${path}.__proto__`);
  };
  walk(globalThis, "");
  const more = [function* () {}(), async function* () {}(), async () => 1, [].values(), "a".matchAll(/a/g)];
  more.forEach((object, number) => walk(object, `(${number})`));
  return found.sort().join("\\n");
})()"""

BRANCHES = """
    const order = [];
    const branch = async (name, hops) => {
      for (let i = 0; i < 3; i++) {
        const value = await step.do(name, async () => 0);
        for (let hop = 0; hop < hops; hop++) await null;
        order.push(`${name}${i}=${value}`);
      }
    };
    await Promise.all([branch("slow", 25), branch("quick", 0), branch("middling", 7)]);
    return order;
"""


def program(text: str) -> Any:
    """What a program that has an engine writes last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + text, str(CHILD)], check=True, timeout=100, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module", params=[True, False], ids=["snapshot", "no snapshot"])
def either(request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = Engine(snapshots=request.param)
    yield engine
    engine.close()


def test_the_prelude_is_in_the_snapshot() -> None:
    assert program("v8.load(main.prelude()); print(json.dumps(v8.settles))") is True


def test_a_context_is_as_if_the_prelude_had_run_in_it() -> None:
    text = f"""
v8.load(main.prelude(), snapshots=SNAPSHOTS)
v8.open()
print(json.dumps(v8.evaluate({EVERYTHING!r}.encode()).decode()))
"""
    with_one, without = (program(f"SNAPSHOTS = {snapshots}\n{text}") for snapshots in (True, False))
    assert len(with_one.split("\n")) > 2500
    assert with_one == without


@pytest.mark.parametrize(
    "broken",
    [
        "snapshot.make = lambda *_: os.abort()",
        "snapshot.make = lambda *_: (_ for _ in ()).throw(RuntimeError('not made'))",
        "snapshot.make = lambda *_: b'no snapshot'",
        "snapshot._new_context = lambda library, isolate: library['no such function']",
        "make = snapshot.make; snapshot.make = lambda library, script: make(library, b'throw 1')",
        "make = snapshot.make; snapshot.make = lambda library, script: make(library, b'0')",
        "def install(*_): raise OSError\nsnapshot.install = install",
        "snapshot.SECONDS = 1\nsnapshot.make = lambda *_: [0 for _ in iter(int, 1)]",
    ],
)
def test_where_it_cannot_be_had_the_prelude_is_run(broken: str) -> None:
    text = "v8.load(main.prelude()); v8.open(); print(json.dumps([v8.settles, v8.take().decode()]))"
    assert program(f"{broken}\n{text}") == [False, '{"state":{},"out":[]}']


def test_every_isolate_begins_anew() -> None:
    text = """
v8.load(main.prelude())
found = []
for _ in range(2):
    v8.open()
    found.append(v8.evaluate(b"Array.prototype.push = 1; globalThis.x = (globalThis.x ?? 0) + 1"))
    v8.close()
print(json.dumps(found))
"""
    assert program(text) == [1, 1]


def test_scripts_have_none_of_v8s_own_functions() -> None:
    text = """
v8.load(main.prelude())
v8.open()
found = []
for source in (b"%PerformMicrotaskCheckpoint()", b"(() => { %PerformMicrotaskCheckpoint() })", b"eval('%Abort()')"):
    try:
        found.append(str(v8.evaluate(source)))
    except engine.ScriptError as error:
        found.append(str(error))
print(json.dumps(found))
"""
    for error in program(text):
        assert "SyntaxError" in error or "EvalError" in error


def test_each_outcome_is_handed_over_when_nothing_moves_any_more(either: Engine) -> None:
    """In the order of the record, however many turns the code takes between one and the next."""
    names = ["slow", "quick", "quick", "middling", "slow", "quick", "middling", "middling", "slow"]
    past = [
        {"kind": "do", "name": name, "count": names[:at].count(name) + 1, "v": at, "at": 2000 + at}
        for at, name in enumerate(names)
    ]
    assert either.run(BRANCHES, past=past).value == [
        f"{name}{names[:at].count(name)}={at}" for at, name in enumerate(names)
    ]


def test_a_record_ahead_of_what_was_called_waits(either: Engine) -> None:
    past = [{"kind": "do", "name": "other", "count": 1, "v": 1, "at": 2000}]
    assert either.run("await step.do('a', async () => 1)", past=past).end == {
        "op": "mismatch", "r": 1, "kind": "do", "name": "other", "count": 1,
    }  # fmt: skip


def test_code_that_throws_or_never_rests_does_not_stop_the_record(either: Engine) -> None:
    body = """
    queueMicrotask(() => { throw new Error("nobody hears this"); });
    Promise.reject(new Error("nor this"));
    const a = await step.do("a", async () => 0);
    queueMicrotask(() => { throw new Error("nor that"); });
    let b;
    try { await step.do("b", async () => 0); } catch (error) { b = error.message; }
    return [a, b];
"""
    past: list[dict[str, Any]] = [
        {"kind": "do", "name": "a", "count": 1, "v": 1, "at": 2000},
        {"kind": "do", "name": "b", "count": 1, "error": {"name": "Error", "message": "failed"}, "at": 2001},
    ]
    assert either.run(body, past=past).value == [1, "failed"]


def test_what_is_told_of_a_stack_names_the_scripts_own_functions(either: Engine) -> None:
    body = "await null; const thrower = () => { throw new TypeError('one\\ntwo'); }; thrower();"
    lines = either.run(body).end["error"]["stack"].split("\n")
    assert lines[:2] == ["TypeError: one", "two"]
    assert [line.split()[1] for line in lines[2:]] == ["thrower", "Flow.run"]
    at_once = either.run("const thrower = () => { throw new TypeError('x'); }; thrower();").end["error"]["stack"]
    assert "prelude" not in at_once and "thrower" in at_once


def test_what_the_zygote_rehearses_is_what_sandboxes_do() -> None:
    text = """
import rehearsal
said = []
rehearsal.Frame.reply = lambda frame, body: said.extend(message["op"] for message in json.loads(body)["out"])
made = main.engine()
made.prepare()
print(json.dumps([said, len(os.listdir("/proc/self/task"))]))
"""
    said, threads = program(text)
    assert said == ["loaded", *["step", "attempt_ok", "return"] * 8]
    assert threads == 1
