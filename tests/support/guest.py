"""A stand-in for a sandbox process: runs coroutines of this process, and speaks the sandbox's protocol to the letter.

For tests of the worker's half. A script is a function `async def run(event, step)`; `step` has `do`, `sleep`, `wait`
and `call`, which return awaitables and may be called without awaiting them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from instances.sandbox.errors import SandboxDied

Script = Callable[[dict[str, Any], "GuestStep"], Coroutine[Any, Any, Any]]

CONFIG: dict[str, Any] = {"retries": {"limit": 5, "delay": 10_000, "backoff": "exponential"}, "timeout": "10 minutes"}


class GuestError(Exception):
    """An error with a name, as scripts throw and catch it."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


class Promise:
    """Settles once; awaited by one coroutine of the guest."""

    def __init__(self) -> None:
        self.settled = False
        self.value: Any = None
        self.error: GuestError | None = None
        self.then: list[Callable[[], None]] = []

    def settle(self, value: Any = None, error: GuestError | None = None) -> None:
        self.settled, self.value, self.error = True, value, error
        for then in self.then:
            then()

    def __await__(self) -> Any:
        if not self.settled:
            yield self
        if self.error is not None:
            raise self.error
        return self.value


class _Life:
    """One run."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.steps: dict[int, dict[str, Any]] = {}
        self.past: deque[dict[str, Any]] = deque()
        self.counts: dict[tuple[str, str], int] = {}
        self.calls: dict[int, tuple[Promise, int]] = {}
        self.active = 0
        self.last = False
        self.rolling = False
        self.now = 0


class GuestStep:
    def __init__(self, guest: GuestProcess, life: _Life, inside: int = 0) -> None:
        self._guest, self._life, self._inside = guest, life, inside

    def do(
        self,
        name: str,
        callback: Callable[..., Awaitable[Any]],
        *,
        config: Any = None,
        undo: Any = None,
        delay: Any = None,
    ) -> Promise:
        extra: dict[str, Any] = {"config": {**CONFIG, **(config or {})}}
        if undo is not None:
            extra["rollback"] = CONFIG
        if delay is not None:
            extra["dynamic"] = True
        return self._step("do", "step", name, {"callback": callback, "undo": undo, "delay": delay}, extra)

    def sleep(self, name: str, duration: Any) -> Promise:
        return self._step("sleep", "sleep", name, {}, {"duration": duration})

    def wait(self, name: str, type: str, timeout: Any = None) -> Promise:
        return self._step("wait", "wait", name, {}, {"type": type, "timeout": timeout})

    def call(self, kind: str, args: Any) -> Promise:
        promise, number = Promise(), self._guest.next_call()
        self._life.calls[number] = (promise, self._inside)
        self._guest.say(self._life, "call", call=number, kind=kind, args=args, inside=self._inside)
        return promise

    def log(self, text: str) -> None:
        self._guest.say(self._life, "log", level="info", message=text, inside=self._inside)

    @property
    def now(self) -> int:
        return self._life.now

    def _step(self, kind: str, op: str, name: str, kept: dict[str, Any], extra: dict[str, Any]) -> Promise:
        life = self._life
        id = len(life.steps) + 1
        count = life.counts[kind, name] = life.counts.get((kind, name), 0) + 1
        life.steps[id] = {"promise": Promise(), "kind": kind, "name": name, "count": count, **kept}
        if self._inside:
            extra = {**extra, "inside": self._inside}
        self._guest.say(life, op, id=id, name=name, **extra)
        return life.steps[id]["promise"]


class GuestProcess:
    """What :class:`instances.sandbox.process.SandboxProcess` is to an isolate."""

    def __init__(self, scripts: dict[str, Script]) -> None:
        self.scripts = scripts
        self.alive = True
        self.frames: list[list[dict[str, Any]]] = []
        self.deaths: deque[SandboxDied] = deque()
        """The next frames die of these."""
        self.die_on: Callable[[dict[str, Any]], str | None] = lambda _: None
        """Given a message, the cause it kills the process by."""
        self._lives: dict[int, _Life] = {}
        self._out: list[dict[str, Any]] = []
        self._calls = 0

    def next_call(self) -> int:
        self._calls += 1
        return self._calls

    def say(self, life: _Life, op: str, **fields: Any) -> None:
        self._out.append({"op": op, "r": life.number, **fields})

    async def exchange(self, parts: list[bytes], deadline: float) -> bytes:
        if not self.alive:
            raise SandboxDied("gone")
        messages = [json.loads(part[1:]) for part in parts if part[:1] == b"J"]
        self.frames.append(messages)
        for index, message in enumerate(messages):
            cause = self.die_on(message)
            if cause is not None:
                self.alive = False
                raise SandboxDied(cause, index)  # type: ignore[arg-type]
            self._take(message)
            life = self._lives.get(message.get("r", 0))
            while life is not None and self._hand_over(life):
                pass
        state = {
            str(life.number): [
                life.active,
                sum(inside == 0 for _, inside in life.calls.values()),
                sum(inside != 0 for _, inside in life.calls.values()),
            ]
            for life in self._lives.values()
        }
        out, self._out = self._out, []
        answer = {"state": state, "cpu": [1] * len(parts), "out": out}
        return json.dumps(answer, separators=(",", ":")).encode()

    def kill(self) -> None:
        self.alive = False

    async def close(self) -> None:
        self.alive = False

    # --- messages ------------------------------------------------------------------------------------------------

    def _take(self, message: dict[str, Any]) -> None:
        getattr(self, f"_{message['op']}")(message)

    def _load(self, message: dict[str, Any]) -> None:
        self._out.append({"op": "loaded", "exports": [{"name": name, "kind": "workflow"} for name in self.scripts]})

    def _start(self, message: dict[str, Any]) -> None:
        life = self._lives[message["r"]] = _Life(message["r"])
        life.now = message["now"]
        run = self.scripts[message["cls"]](message["event"], GuestStep(self, life))
        self._go_on(run, lambda value: self._end(life, value, None), lambda error: self._end(life, None, error))

    def _end(self, life: _Life, value: Any, error: Exception | None) -> None:
        if error is None:
            self.say(life, "return", **_value(value))
        else:
            self.say(life, "throw", error=_told(error))

    def _past(self, message: dict[str, Any]) -> None:
        life = self._lives[message["r"]]
        life.past.extend(message["outcomes"])
        life.last = message["last"]

    def _hand_over(self, life: _Life) -> bool:
        """The head of the past, when its step was called."""
        if not life.past:
            return False
        head = life.past[0]
        for step in life.steps.values():
            if (step["kind"], step["name"], step["count"]) == (head["kind"], head["name"], head["count"]):
                life.past.popleft()
                life.now = head["at"]
                _settle(step["promise"], head)
                return True
        if life.last and not any(inside == 0 for _, inside in life.calls.values()):
            life.past.clear()
            self.say(life, "mismatch", kind=head["kind"], name=head["name"], count=head["count"])
        return False

    def _outcome(self, message: dict[str, Any]) -> None:
        life = self._lives[message["r"]]
        life.now = message["at"]
        _settle(life.steps[message["id"]]["promise"], message)

    def _attempt(self, message: dict[str, Any]) -> None:
        life = self._lives[message["r"]]
        step = life.steps[message["id"]]
        names = {"id": message["id"], "attempt": message["attempt"]}
        life.active += 1

        def done(value: Any) -> None:
            life.active -= 1
            self.say(life, "attempt_ok", **names, **_value(value))

        def failed(error: Exception) -> None:
            life.active -= 1
            self.say(life, "attempt_failed", **names, error=_told(error))

        work = step["callback"](message["ctx"], GuestStep(self, life, message["id"]))
        self._go_on(work, done, failed)

    def _undo(self, message: dict[str, Any]) -> None:
        life = self._lives[message["r"]]
        names = {"id": message["id"], "attempt": message["attempt"]}
        self._go_on(
            life.steps[message["id"]]["undo"](message["error"]),
            lambda _: self.say(life, "undo_ok", **names),
            lambda error: self.say(life, "undo_failed", **names, error=_told(error)),
        )

    def _delay(self, message: dict[str, Any]) -> None:
        life = self._lives[message["r"]]
        delay = life.steps[message["id"]]["delay"](message["attempt"], message["error"])
        self.say(life, "delay_ok", id=message["id"], attempt=message["attempt"], delay=delay)

    def _reply(self, message: dict[str, Any]) -> None:
        life = self._lives[message["r"]]
        promise, _ = life.calls.pop(message["call"])
        _settle(promise, message)

    def _abandon(self, message: dict[str, Any]) -> None:
        pass

    def _rollback(self, message: dict[str, Any]) -> None:
        self._lives[message["r"]].rolling = True

    def _drop(self, message: dict[str, Any]) -> None:
        self._lives.pop(message["r"], None)

    def _go_on(self, work: Any, done: Callable[[Any], None], failed: Callable[[Exception], None]) -> None:
        """Run a coroutine until it waits for a promise that is not settled, and again when that settles."""

        def turn() -> None:
            try:
                waiting = work.send(None)
            except StopIteration as end:
                done(end.value)
            except Exception as error:
                failed(error)
            else:
                waiting.then.append(turn)

        turn()


def _value(value: Any) -> dict[str, Any]:
    return {} if value is None else {"v": value}


def _settle(promise: Promise, message: dict[str, Any]) -> None:
    if promise.settled:
        return
    if "error" in message:
        promise.settle(error=GuestError(message["error"]["name"], message["error"]["message"]))
    else:
        promise.settle(message.get("v", message.get("x")))


def _told(error: Exception) -> dict[str, Any]:
    name = getattr(error, "name", type(error).__name__)
    return {"name": name, "message": str(error), "permanent": name == "NonRetryableError"}
