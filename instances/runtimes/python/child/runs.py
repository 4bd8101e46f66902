"""Runs: they begin, their steps are attempted, they hear of outcomes and are forgotten."""

from __future__ import annotations

import asyncio
import base64
import contextvars
from collections.abc import Callable
from typing import Any

import entry
from books import Chance, Life, Place, calls, current, lives, on_reply, post
from chance import notice
from console import finish
from durations import YEAR, millis
from steps import WorkflowStep, awaited, fatal, settle
from values import Uncloneable, decode, encode, error_from, moment_of, text_of, told

Message = dict[str, Any]


def handle(loop: asyncio.AbstractEventLoop, message: Message) -> Life | None:
    """Act on a message; the run it was for."""
    number = message["r"]
    if message["op"] == "start":
        life = Life(number, message["seed"], message["now"])
        lives[number] = life
        notice(life, message["now"])
        _spawn(loop, life, 0, contextvars.copy_context(), _run(life, message))
        return life
    life = lives.get(number)
    if life is None:
        return None
    if "now" in message:
        notice(life, message["now"])
    _HANDLERS[message["op"]](loop, life, message)
    return life


def _spawn(
    loop: asyncio.AbstractEventLoop, life: Life, step: int, context: contextvars.Context, work: Any
) -> asyncio.Task[Any]:
    context.run(current.set, Place(life, step))
    return loop.create_task(work, context=context)


async def _run(life: Life, message: Message) -> None:
    event = message["event"]
    shown = {
        "payload": decode(event["payload"]),
        "timestamp": moment_of(event["timestamp"]),
        "instanceId": event["instanceId"],
        "workflowName": event["workflowName"],
    }
    if "schedule" in event:
        shown["schedule"] = event["schedule"]
    answer: Message = {"op": "throw", "r": life.number}
    try:
        workflow = entry.make(message["cls"])
        value = await awaited(lambda: workflow.run(shown, WorkflowStep(life)))
        answer |= {"op": "return", **encode(value)}
    except (GeneratorExit, asyncio.CancelledError) as error:
        if life.dropped or isinstance(error, GeneratorExit):
            raise
        answer["error"] = told(error, leaving=True)
    except Uncloneable as error:
        reason = f"The value returned by run is not serialisable: {text_of(error)}"
        answer |= {"error": told(fatal(reason), leaving=True), "fatal": "unserialisable"}
    except BaseException as error:
        answer["error"] = told(error, leaving=True)
    finish(life, 0)
    if not life.dropped:
        post(answer)


# --- attempts ---------------------------------------------------------------------------------------------------------


def _perform(
    loop: asyncio.AbstractEventLoop,
    life: Life,
    message: Message,
    number: int,
    work: Callable[[], Any],
    done: Callable[[Any], None],
    failed: Callable[[BaseException], None],
) -> None:
    """Run `work` as part of a step, in a context of its own, and report unless it was given up."""
    id = message["id"]
    chance = Chance(base64.b64decode(message.get("entropy", "")))
    life.attempts[id] = chance
    life.active += 1

    async def perform() -> None:
        try:
            value = await awaited(work)
        except GeneratorExit:
            raise
        except BaseException as error:
            finish(life, id)
            if life.running.get((id, number)) is task:
                failed(error)
            return
        finish(life, id)
        if life.running.get((id, number)) is task:
            done(value)

    def over(_: asyncio.Task[None]) -> None:
        life.active -= 1
        if life.attempts.get(id) is chance:
            del life.attempts[id]
        if life.running.get((id, number)) is task:
            del life.running[id, number]

    task = _spawn(loop, life, id, life.steps[id - 1].context.copy(), perform())
    life.running[id, number] = task
    task.add_done_callback(over)


def _answer(op: str, life: Life, message: Message, **more: Any) -> None:
    post({"op": op, "r": life.number, "id": message["id"], "attempt": message["attempt"], **more})


def _on_attempt(loop: asyncio.AbstractEventLoop, life: Life, message: Message) -> None:
    step = life.steps[message["id"] - 1]
    callback = step.callback
    assert callback is not None
    step.ctx = message["ctx"]

    def done(value: Any) -> None:
        try:
            encoded = encode(value)
        except Exception as error:
            _answer("attempt_failed", life, message, error=told(error, leaving=False), fatal="unserialisable")
            return
        _answer("attempt_ok", life, message, **encoded)

    def failed(error: BaseException) -> None:
        _answer("attempt_failed", life, message, error=told(error, leaving=False))

    _perform(loop, life, message, message["attempt"], lambda: callback(message["ctx"]), done, failed)


def _on_delay(loop: asyncio.AbstractEventLoop, life: Life, message: Message) -> None:
    step = life.steps[message["id"] - 1]
    delay = step.delay
    assert delay is not None
    given = {"ctx": step.ctx, "error": error_from(message["error"])}

    def done(value: Any) -> None:
        wait = millis(value)
        _answer("delay_ok", life, message, delay="invalid" if wait is None or wait > YEAR else wait)

    def failed(error: BaseException) -> None:
        _answer("delay_failed", life, message, error=told(error, leaving=False))

    _perform(loop, life, message, -message["attempt"], lambda: delay(given), done, failed)


def _on_undo(loop: asyncio.AbstractEventLoop, life: Life, message: Message) -> None:
    """No step of Python has a handler."""
    _answer("undo_failed", life, message, error={"name": "Error", "message": "the step has no rollback handler"})


def _on_abandon(loop: asyncio.AbstractEventLoop, life: Life, message: Message) -> None:
    for number in (message["attempt"], -message["attempt"]):
        task = life.running.pop((message["id"], number), None)
        if task is not None:
            task.cancel()


# --- everything else --------------------------------------------------------------------------------------------------


def _on_past(loop: asyncio.AbstractEventLoop, life: Life, message: Message) -> None:
    life.past += message["outcomes"]
    life.complete = message["last"]


def _on_rollback(loop: asyncio.AbstractEventLoop, life: Life, message: Message) -> None:
    life.rolling_back = True


def _on_drop(loop: asyncio.AbstractEventLoop, life: Life, message: Message) -> None:
    life.dropped = True
    del lives[life.number]
    for number, call in list(calls.items()):
        if call.life is life:
            del calls[number]
    for task in list(life.tasks):
        task.cancel()


_HANDLERS: dict[str, Callable[[asyncio.AbstractEventLoop, Life, Message], None]] = {
    "past": _on_past,
    "attempt": _on_attempt,
    "undo": _on_undo,
    "delay": _on_delay,
    "outcome": lambda loop, life, message: settle(life, message["id"], message),
    "abandon": _on_abandon,
    "reply": lambda loop, life, message: on_reply(message),
    "rollback": _on_rollback,
    "drop": _on_drop,
}
