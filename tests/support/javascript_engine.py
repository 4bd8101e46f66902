"""The JavaScript engine without its sandbox: bodies of `run(event, step)`, each in an isolate of its own.

As a program (`python javascript_engine.py CHILD_FOLDER 1`, or 0 for no snapshot) it takes requests as lines of JSON and
answers each with a line: V8 runs in that process, since what breaks V8 ends its process.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHILD = Path(__file__).resolve().parents[2] / "instances/runtimes/javascript/child"
START = {"op": "start", "r": 1, "cls": "Flow", "event": {"payload": {}, "timestamp": 1, "instanceId": "i"}, "now": 1000}
MODULE = """(async function (__import, __export) {
%s
const { WorkflowEntrypoint } = await __import("cloudflare:workers", ["WorkflowEntrypoint"]);
const load = (name) => __import(name, []);
__export({ Flow: () => Flow });
class Flow extends WorkflowEntrypoint { async run(event, step) {
%s
}}
})"""


class Engine:
    """Runs bodies in a process of its own."""

    def __init__(self, *, snapshots: bool = True) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(CHILD), str(int(snapshots))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def run(
        self,
        body: str,
        *,
        before: str = "",
        flags: tuple[str, ...] = (),
        fetched: tuple[dict[str, Any], ...] = (),
        past: Sequence[dict[str, Any]] = (),
    ) -> Outcome:
        """What becomes of a run with that body, and `before` outside the class. `fetched`: answers of the outside, in
        order: `{status?, headers?, body?}`, the body in pieces of Latin-1 text. `past`: recorded outcomes."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"body": body, "before": before, "flags": flags, "fetched": fetched, "past": past}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the engine's process is gone"
        return Outcome(json.loads(answer))

    def value(self, body: str, **options: Any) -> Any:
        """What the body returns."""
        return self.run(body, **options).value


class Outcome:
    """What a run said. `calls` are its host calls, `parts` the parts of the web its text asked for."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.calls: list[dict[str, Any]] = said["calls"]
        self.parts: list[str] = said["parts"]
        self.end: dict[str, Any] = said["end"]

    @property
    def value(self) -> Any:
        assert self.end["op"] == "return", self.end
        return self.end.get("v", self.end.get("x"))

    @property
    def error(self) -> tuple[str, str]:
        assert self.end["op"] == "throw", self.end
        return self.end["error"]["name"], self.end["error"]["message"]


def main() -> None:
    """The program."""
    sys.path.insert(0, sys.argv[1])
    child, engine, parts = (importlib.import_module(name) for name in ("main", "engine", "parts"))
    v8 = engine.V8()
    v8.load(child.prelude(), snapshots=sys.argv[2] == "1")
    web = parts.Parts(Path(sys.argv[1]) / "web")
    for line in sys.stdin:
        v8.open()
        print(json.dumps(_Run(v8, web, json.loads(line)).answer()), flush=True)
        v8.close()


class _Run:
    def __init__(self, v8: Any, web: Any, request: dict[str, Any]) -> None:
        self._v8 = v8
        self._request = request
        self._fetched = iter(request["fetched"])
        self._bodies: dict[int, list[str]] = {}
        self._calls: list[dict[str, Any]] = []
        source = (MODULE % (request["before"], request["body"])).encode()
        self._parts = web.wanted(source)
        for part in self._parts:
            v8.evaluate(b"__module=" + web.source(part))
            self._give({"op": "part"})
        v8.evaluate(b"__module=" + source)
        self._give({"op": "module", "name": "main.js"})
        self._give({"op": "load", "main": "main.js", "modules": [], "vars": {"TEXT": "text"}, "workflows": {},
                    "exports": {}, "flags": request["flags"]})  # fmt: skip
        self._give({**START, "seed": "ab" * 32})
        if request["past"]:
            self._give({"op": "past", "r": 1, "outcomes": request["past"], "last": True})

    def _give(self, message: dict[str, Any]) -> None:
        self._v8.give(json.dumps(message).encode())
        while not self._v8.settles and self._v8.more():
            pass

    def answer(self) -> dict[str, Any]:
        end: dict[str, Any] = {"op": "nothing"}
        cancelled: set[int] = set()
        while out := json.loads(self._v8.take())["out"]:
            cancelled |= {message["call"] for message in out if message["op"] == "cancel"}
            for message in out:
                if message["op"] in ("return", "throw", "load_failed", "mismatch"):
                    end = message
                elif message["op"] == "call" and message["call"] not in cancelled:
                    self._calls.append({"kind": message["kind"], **message["args"]})
                    reply = self._perform(message["kind"], message["args"])
                    if reply is not None:
                        self._give({"op": "reply", "r": 1, "call": message["call"], "now": 2000, **reply})
        return {"end": end, "calls": self._calls, "parts": self._parts}

    def _perform(self, kind: str, args: dict[str, Any]) -> dict[str, Any] | None:
        if kind == "fetch":
            answer = next(self._fetched)
            if answer.get("never"):
                return None
            if "error" in answer:
                return {"error": {"name": "TypeError", "message": answer["error"]}}
            number = None
            if "body" in answer:
                number = len(self._bodies) + 1
                self._bodies[number] = list(answer["body"])
            return {"v": {"status": answer.get("status", 200), "statusText": answer.get("statusText", ""),
                          "headers": answer.get("headers", []), "url": args["url"],
                          "redirected": answer.get("redirected", False), "body": number}}  # fmt: skip
        if kind == "read":
            pieces = self._bodies[args["body"]]
            piece = ("".join(pieces) if args.get("whole") else pieces[0] if pieces else "").encode("latin-1")
            pieces[:] = [] if args.get("whole") else pieces[1:]
            if args["as"] == "text":
                return {"v": {"text": piece.decode(), "done": not pieces}}
            return {"v": {"b64": base64.b64encode(piece).decode(), "done": not pieces}}
        if kind in ("digest", "hmac"):
            name, data = args["alg"].replace("-", "").lower(), base64.b64decode(args["data"])
            made = (
                hashlib.new(name, data).digest()
                if kind == "digest"
                else hmac.digest(base64.b64decode(args["key"]), data, name)
            )
            return {"v": base64.b64encode(made).decode()}
        return {}


if __name__ == "__main__":
    main()
