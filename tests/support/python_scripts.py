"""Python scripts in a real, locked sandbox, with an engine that fits a page: steps run at once, time moves by hand."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import dedent
from typing import Any

from instances.runtimes.scripts.isolate import encode
from instances.runtimes.scripts.loading import LoadedScript, load_parts
from instances.runtimes.scripts.messages import decode_answer
from instances.sandbox.host import SandboxHost
from instances.sandbox.process import SandboxProcess
from versions.compilation import PYTHON, Code

IMPLICIT = "python_workflows_implicit_dependencies"
HEAD = """
import asyncio, datetime, random, time
from workers import WorkflowEntrypoint, fetch
from workers.workflows import NonRetryableError
"""
START = 1_700_000_000_000
Said = dict[str, Any]


def flow(run: str, outside: str = "") -> str:
    """A script whose class Flow has the `run` with this body."""
    body = "\n".join(f"        {line}" for line in dedent(run).strip().splitlines())
    return (
        f"{HEAD}\n{dedent(outside)}\nclass Flow(WorkflowEntrypoint):\n    async def run(self, event, step):\n{body}\n"
    )


class Script:
    """A sandbox with a script in it."""

    def __init__(self, process: SandboxProcess) -> None:
        self.process = process
        self.runs: dict[int, Run] = {}
        self.loaded: Said = {}
        self.state: dict[str, Any] = {}

    @classmethod
    async def load(
        cls,
        host: SandboxHost,
        source: str | Mapping[str, str],
        *,
        flags: Sequence[str] = (IMPLICIT,),
        modules: Sequence[Mapping[str, Any]] = (),
        **more: Any,
    ) -> Script:
        """The first module is the main one. `loaded` is what it said."""
        sources = {"entry.py": source} if isinstance(source, str) else source
        listed = [{"name": name, "type": "python"} for name in sources]
        script = LoadedScript(
            language=PYTHON,
            main=next(iter(sources)),
            code=[Code(name, text) for name, text in sources.items()],
            modules=[*listed, *modules],
            flags=frozenset(flags),
            **more,
        )
        found = cls(await host.spawn())
        [found.loaded] = await found.exchange(load_parts(script))
        return found

    async def exchange(self, parts: Sequence[bytes]) -> list[Said]:
        """Messages the sandbox answers with, as the worker's own decoder lets them pass."""
        raw = await self.process.exchange(list(parts), 10)
        decode_answer(raw)
        answer = json.loads(raw)
        self.state |= answer["state"]
        return answer["out"]

    async def tell(self, *messages: Said) -> list[Said]:
        return await self.exchange([encode(message) for message in messages])

    async def run(self, payload: Any = None, *, cls: str = "Flow", past: Sequence[Said] = (), **options: Any) -> Run:
        """Start a run, and let it go on until it waits for something only a test can give."""
        run = Run(self, len(self.runs) + 1, past=past, **options)
        self.runs[run.number] = run
        event = {"payload": {"v": payload}, "timestamp": START, "instanceId": "i-1", "workflowName": "flow"}
        start = {"op": "start", "r": run.number, "cls": cls, "event": event, "seed": run.seed, "now": START}
        messages = [start]
        if past:
            messages.append({"op": "past", "r": run.number, "outcomes": list(past), "last": True})
        await run.tell(*messages)
        await run.go_on()
        return run


@dataclass
class Run:
    """A run: what it said, and what it was told. `held`: names of steps that are not attempted by themselves."""

    script: Script
    number: int
    seed: str = "ab" * 32
    held: frozenset[str] = frozenset()
    answers: Mapping[str, Any] = field(default_factory=dict)
    """Replies to host calls, by kind: a list of replies' fields, taken one after the other."""
    now: int = START
    said: list[Said] = field(default_factory=list)
    history: list[Said] = field(default_factory=list)
    """Outcomes told, as the past of another run."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    keys: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    attempts: Counter[int] = field(default_factory=Counter)
    called: list[Said] = field(default_factory=list)
    past: Sequence[Said] = ()
    """Outcomes it was told of when it began."""
    _todo: list[Said] = field(default_factory=list)

    async def tell(self, *messages: Said) -> None:
        for said in await self.script.tell(*messages):
            self.script.runs[said["r"]]._hear(said)

    def _hear(self, said: Said) -> None:
        self.said.append(said)
        self._todo.append(said)
        if said["op"] in ("step", "sleep", "wait"):
            kind = "do" if said["op"] == "step" else said["op"]
            self.counts[kind, said["name"]] += 1
            self.keys[said["id"]] = (kind, said["name"], self.counts[kind, said["name"]])

    async def go_on(self) -> None:
        """Do what is asked for, until nothing is."""
        while self._todo:
            said = self._todo.pop(0)
            act = getattr(self, f"_on_{said['op']}", None)
            if act is not None:
                await act(said)

    async def _on_step(self, said: Said) -> None:
        if said["name"] not in self.held and not self._was_told(said["id"]):
            await self.attempt(said["id"])

    async def _on_sleep(self, said: Said) -> None:
        if said["name"] not in self.held and not self._was_told(said["id"]):
            self.now += int(said.get("duration") or said["until"] - self.now)
            await self.settle(said["id"])

    def _was_told(self, id: int) -> bool:
        kind, name, count = self.keys[id]
        return any((one["kind"], one["name"], one["count"]) == (kind, name, count) for one in self.past)

    async def _on_attempt_ok(self, said: Said) -> None:
        self.now += 7
        await self.settle(said["id"], **{key: said[key] for key in ("v", "x") if key in said})

    async def _on_attempt_failed(self, said: Said) -> None:
        error = said["error"]
        if not error.get("permanent") and self.attempts[said["id"]] < 2:
            await self.attempt(said["id"])
        else:
            await self.settle(said["id"], error={"name": error["name"], "message": error["message"]})

    async def _on_call(self, said: Said) -> None:
        self.called.append(said)
        if said["kind"] == "timer":
            self.now += int(said["args"]["ms"])
            await self.reply(said)
        elif replies := self.answers.get(said["kind"]):
            await self.reply(said, **replies.pop(0))

    async def reply(self, said: Said, **fields: Any) -> None:
        await self.tell({"op": "reply", "r": self.number, "call": said["call"], "now": self.now, **fields})

    async def attempt(self, id: int) -> None:
        """Have a step attempted."""
        self.attempts[id] += 1
        name, count = self.keys[id][1:]
        ctx = {"step": {"name": name, "count": count}, "attempt": self.attempts[id], "config": self._config(id)}
        entropy = base64.b64encode(f"{id}-{self.attempts[id]}".encode().ljust(32)).decode()
        message = {"op": "attempt", "r": self.number, "id": id, "attempt": self.attempts[id], "ctx": ctx}
        await self.tell(message | {"now": self.now, "entropy": entropy})

    def _config(self, id: int) -> Any:
        return next(said["config"] for said in self.said if said["op"] == "step" and said["id"] == id)

    async def settle(self, id: int, **value: Any) -> None:
        """Tell the code a step's outcome, and note it down."""
        kind, name, count = self.keys[id]
        self.history.append({"kind": kind, "name": name, "count": count, "at": self.now, **value})
        await self.tell({"op": "outcome", "r": self.number, "id": id, "at": self.now, **value})

    # --- looking ---------------------------------------------------------------------------------------------------

    def ops(self, *names: str) -> list[Said]:
        return [said for said in self.said if said["op"] in names]

    @property
    def output(self) -> Any:
        """What run() returned, tagged or plain."""
        [end] = self.ops("return", "throw")
        assert end["op"] == "return", end
        return end.get("x", end.get("v"))

    @property
    def error(self) -> tuple[str, str]:
        [end] = self.ops("return", "throw")
        return end["error"]["name"], end["error"]["message"]

    @property
    def logs(self) -> list[tuple[str, str, int]]:
        return [(said["level"], said["message"], said["inside"]) for said in self.ops("log")]

    def id(self, name: str, count: int = 1) -> int:
        return next(id for id, key in self.keys.items() if key[1:] == (name, count))
