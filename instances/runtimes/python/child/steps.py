"""The step API: calls become messages, outcomes settle what awaits them."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import re
import types
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from books import OVER, Life, Step, current, flags, post
from chance import now_millis
from durations import YEAR, is_number, millis
from values import decode, error_from, fault, millis_of, moment_of, text_of

STEP_NAME = 256
MAX_RETRIES = 10_000
IMPLICIT = "python_workflows_implicit_dependencies"
NOT_IMPLICIT = f"no_{IMPLICIT}"
_CONTROL = re.compile(r"[\x00-\x1f]")
EVENT_TYPE = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_-]{0,99}", re.ASCII)


def fatal(message: str) -> Exception:
    return fault("WorkflowFatalError", message)


# --- entering and settling --------------------------------------------------------------------------------------------


def enter(life: Life, kind: str, name: str, message: dict[str, Any], **kept: Any) -> asyncio.Future[Any]:
    """Enter a step that `life`'s code has called: the future of its outcome."""
    if life.dropped:
        raise RuntimeError(OVER)
    count = life.counts.get((kind, name), 0) + 1
    place = current.get()
    inside = place.step if place.life is life else 0
    message |= {"r": life.number, "id": len(life.steps) + 1, "name": name}
    if inside:
        message["inside"] = inside
    post(message)
    outcome = asyncio.get_running_loop().create_future()
    life.counts[kind, name] = count
    life.steps.append(Step(kind, name, count, inside, outcome, contextvars.copy_context(), **kept))
    life.ids[kind, name, count] = len(life.steps)
    return outcome


def settle(life: Life, id: int, message: dict[str, Any]) -> None:
    """Settle a step, at the time the outcome was recorded."""
    step = life.steps[id - 1] if 0 < id <= len(life.steps) else None
    if step is None or step.outcome is None:
        return
    outcome, step.outcome, step.callback, step.delay = step.outcome, None, None, None
    if step.inside == 0:
        life.clock = max(life.clock, message["at"])
    if outcome.done():  # the code that awaited it was cancelled
        return
    if "error" in message:
        outcome.set_exception(error_from(message["error"]))
        outcome.exception()  # code may never look
        return
    value = decode(message)
    if step.kind == "wait" and isinstance(value, dict):
        timestamp = value.get("timestamp")
        value = {"payload": value.get("payload"), "timestamp": _moment(timestamp), "type": value.get("type")}
    outcome.set_result(value)


def _moment(timestamp: Any) -> Any:
    if is_number(timestamp):
        return moment_of(timestamp)
    return datetime.fromisoformat(timestamp) if isinstance(timestamp, str) else timestamp


def hand_over(life: Life) -> bool:
    """Hand the next recorded outcome over, if its step has been called; whether there was one."""
    if not life.past:
        return False
    head = life.past[0]
    id = life.ids.get((head["kind"], head["name"], head["count"]))
    if id is not None:
        life.past.popleft()
        settle(life, id, head)
        return True
    if life.complete and life.outside == 0:
        life.past.clear()
        post({"op": "mismatch", "r": life.number, "kind": head["kind"], "name": head["name"], "count": head["count"]})
    return False


# --- arguments --------------------------------------------------------------------------------------------------------


_DEFAULT_CONFIG: dict[str, Any] = {
    "retries": {"limit": 5, "delay": 10_000, "backoff": "exponential"},
    "timeout": "10 minutes",
}


def check_config(config: Any) -> tuple[dict[str, Any], Callable[..., Any] | None]:
    """A configuration, merged with the defaults, and its delay function. ValueError says what is wrong with it."""
    if config is None:
        return _DEFAULT_CONFIG, None
    if not isinstance(config, dict):
        raise ValueError("it must be a dict")
    if unknown := config.keys() - {"retries", "timeout", "sensitive"}:
        raise ValueError(f"only retries, timeout, sensitive are known, not {text_of(sorted(unknown, key=str)[0])}")
    timeout = config.get("timeout", _DEFAULT_CONFIG["timeout"])
    merged: dict[str, Any] = {"retries": {**_DEFAULT_CONFIG["retries"]}, "timeout": timeout}
    delay = _check_retries(config["retries"], merged["retries"]) if config.get("retries") is not None else None
    limit = millis(timeout)
    if limit is None or not 1 <= limit <= YEAR:
        raise ValueError("timeout must be a duration of more than 0")
    if config.get("sensitive") is not None:
        if config["sensitive"] != "output":
            raise ValueError('sensitive must be "output"')
        merged["sensitive"] = "output"
    return merged, delay


def _check_retries(retries: Any, merged: dict[str, Any]) -> Callable[..., Any] | None:
    if not isinstance(retries, dict) or retries.keys() - {"limit", "delay", "backoff"}:
        raise ValueError("retries must have limit, delay and, if any, backoff")
    limit = retries.get("limit")
    if not is_number(limit) or not limit >= 0:
        raise ValueError("retries.limit must be a number of 0 or more")
    if limit != float("inf") and limit > MAX_RETRIES:
        raise ValueError(f"retries.limit must not exceed {MAX_RETRIES}")
    merged["limit"] = None if limit == float("inf") else int(limit)
    delay = retries.get("delay")
    if delay is None:
        raise ValueError("retries.delay is required")
    backoff = retries.get("backoff", "exponential")
    if backoff not in ("constant", "linear", "exponential"):
        raise ValueError("retries.backoff must be constant, linear or exponential")
    merged["backoff"] = backoff
    if callable(delay):
        merged["delay"] = "[dynamic]"
        return delay
    wait = millis(delay)
    if wait is None or wait > YEAR:
        raise ValueError("retries.delay must be a duration")
    merged["delay"] = delay
    return None


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or len(name) > STEP_NAME or _CONTROL.search(name):
        shown = text_of(name)
        raise fatal(f'Step name "{shown}" exceeds max length ({STEP_NAME} chars) or invalid characters found')


def _check_phase(life: Life) -> None:
    if life.rolling_back:
        raise fatal("Cannot execute steps during rollback phase")


# --- what run() is given ----------------------------------------------------------------------------------------------


class _Declared:
    """A decorated function. Awaiting what it is called with runs the step, again and again; as a dependency of others
    it runs once."""

    def __init__(self, step: WorkflowStep, function: Callable[..., Any], name: Any, depends: list[_Declared]) -> None:
        self._step = step
        self._function = function
        self._name = name
        self._depends = depends
        self._concurrent = False
        self._config: Any = None
        self._wants_ctx = False
        self._by_name: list[str] | None = None
        self._latest: asyncio.Future[Any] | None = None
        self.__name__ = getattr(function, "__name__", text_of(name))
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def configured(self, *, concurrent: bool, config: Any, wants_ctx: bool, by_name: list[str] | None) -> _Declared:
        self._concurrent, self._config, self._wants_ctx, self._by_name = concurrent, config, wants_ctx, by_name
        return self

    async def __call__(self) -> Any:
        shared: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._latest = shared
        try:
            value = await self._step._run(self._name, self._config, self._callback(await self._dependencies()))
        except asyncio.CancelledError:
            shared.cancel()
            raise
        except BaseException as error:
            shared.set_exception(error)
            shared.exception()
            raise
        shared.set_result(value)
        return value

    async def _once(self) -> Any:
        """Its result as a dependency."""
        latest = self._latest
        if latest is None or latest.cancelled() or (latest.done() and latest.exception() is not None):
            return await self()
        return await asyncio.shield(latest)

    async def _dependencies(self) -> list[Any]:
        if self._concurrent:
            return list(await asyncio.gather(*(one._once() for one in self._depends)))
        return [await one._once() for one in self._depends]

    def _callback(self, values: list[Any]) -> Callable[[dict[str, Any]], Any]:
        names = self._by_name

        def callback(ctx: dict[str, Any]) -> Any:
            given: dict[str, Any] = {"ctx": ctx} if self._wants_ctx else {}
            if names is None:
                return self._function(*values, **given)
            return self._function(**given, **dict(zip(names, values, strict=True)))

        return callback

    def __repr__(self) -> str:
        return f"<step {self._name!r}>"


def _parameters(function: Callable[..., Any]) -> list[str]:
    """Names of a function's parameters. (`inspect.signature` takes longer than all the rest of a step.)"""
    if type(function) is types.FunctionType and not hasattr(function, "__wrapped__"):
        code = function.__code__
        if not code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS):
            return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    return list(inspect.signature(function).parameters)


Decorator = Callable[[Callable[..., Any]], _Declared]


class WorkflowStep:
    """`step` of `run(self, event, step)`."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._declared: dict[str, _Declared] = {}

    def do(self, *args: Any, **kwargs: Any) -> Decorator:
        """A decorator that makes a function a step; awaiting what the result is called with runs it."""
        if args and callable(args[0]):
            raise TypeError("step.do makes a decorator: write @step.do() or @step.do(name)")
        return (self._do_implicit if IMPLICIT in flags else self._do_legacy)(*args, **kwargs)

    def _do_implicit(self, name: str | None = None, *, concurrent: bool = False, config: Any = None) -> Decorator:
        def decorator(function: Callable[..., Any]) -> _Declared:
            step_name = function.__name__ if name is None else name
            wanted = _parameters(function)
            depends: list[_Declared] = []
            for parameter in wanted:
                if parameter == "ctx":
                    continue
                if parameter not in self._declared:
                    raise TypeError(f"Received unexpected parameter {parameter}")
                depends.append(self._declared[parameter])
            names = [parameter for parameter in wanted if parameter != "ctx"]
            declared = _Declared(self, function, step_name, depends)
            self._declared[text_of(step_name)] = declared
            return declared.configured(concurrent=concurrent, config=config, wants_ctx="ctx" in wanted, by_name=names)

        return decorator

    def _do_legacy(
        self, name: str, depends: list[Any] | None = None, concurrent: bool = False, config: Any = None
    ) -> Decorator:
        def decorator(function: Callable[..., Any]) -> _Declared:
            wanted = _parameters(function)
            names = [parameter for parameter in wanted if parameter != "ctx"]
            given = list(depends or ())
            if names and not given:
                raise TypeError(f"Step {name!r} has parameters but no depends")
            if len(names) != len(given):
                raise TypeError(f"Step {name!r} takes {len(names)} parameters but depends on {len(given)} steps")
            if not all(isinstance(one, _Declared) for one in given):
                raise TypeError(f"Step {name!r} depends on something that is not a step")
            declared = _Declared(self, function, name, given)
            return declared.configured(concurrent=concurrent, config=config, wants_ctx="ctx" in wanted, by_name=names)

        return decorator

    async def _run(self, name: Any, config: Any, callback: Callable[[dict[str, Any]], Any]) -> Any:
        _check_phase(self._life)
        _check_name(name)
        try:
            merged, delay = check_config(config)
        except ValueError as error:
            raise fatal(f'Step config for "{name}" is in a invalid format. {error}') from None
        message: dict[str, Any] = {"op": "step", "config": merged}
        if delay is not None:
            message["dynamic"] = True
        return await enter(self._life, "do", name, message, callback=callback, delay=delay)

    async def sleep(self, name: str, duration: Any) -> None:
        """Wait, durably: milliseconds, or a text such as "10 seconds"."""
        _check_phase(self._life)
        _check_name(name)
        wait = millis(duration)
        if wait is None or wait > YEAR:
            rule = "it must be a number of ms or a duration of at most 365 days"
            raise fatal(f'Sleep "{name}" has an invalid duration: {rule}')
        await enter(self._life, "sleep", name, {"op": "sleep", "duration": int(wait)})

    async def sleep_until(self, name: str, timestamp: Any) -> None:
        """Wait, durably, until a datetime or a number of milliseconds since 1970."""
        _check_phase(self._life)
        _check_name(name)
        until = millis_of(timestamp) if isinstance(timestamp, datetime) else timestamp
        if not is_number(until) or until - until != 0:
            raise fatal(f'Sleep "{name}" has an invalid timestamp: it must be a datetime or a number of ms')
        if until < int(now_millis()):
            raise Exception("You can't sleep until a time in the past, time-traveler")
        if until - now_millis() > YEAR:
            raise fatal(f'Sleep "{name}" is longer than 365 days')
        await enter(self._life, "sleep", name, {"op": "sleep", "until": int(until)})

    async def wait_for_event(self, name: str, event_type: str, /, timeout: Any = "24 hours") -> Any:
        """Wait for an event sent to the instance: `{payload, timestamp, type}`."""
        _check_phase(self._life)
        _check_name(name)
        if not isinstance(event_type, str) or not EVENT_TYPE.fullmatch(event_type):
            raise fault("WorkflowError", "(workflow.invalid_event_type) Provided event type is invalid")
        limit = millis(timeout)
        if limit is None or not 1 <= limit <= YEAR:
            rule = "it must be a duration of at most 365 days"
            raise fatal(f'Step "{name}" has an invalid timeout: {rule}')
        return await enter(self._life, "wait", name, {"op": "wait", "type": event_type, "timeout": max(1, int(limit))})


for _function in (WorkflowStep._do_implicit, WorkflowStep._do_legacy):
    _function.__name__, _function.__qualname__ = "do", "WorkflowStep.do"

Work = Callable[[], Any]


async def awaited(work: Work) -> Any:
    """The result of a function that may be asynchronous."""
    found = work()
    if isinstance(found, Awaitable):
        return await found
    return found
