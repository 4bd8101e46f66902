"""Custom action handlers: the operator's own code, called by nodes of their name.

Registered with :func:`register_action_handler`, or found under the entry point group `millrace.action_handlers`.
Handlers are trusted: they run in the worker. Asynchronous ones are awaited; others run in a bounded pool of threads, so
that none holds up the loop.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

import jsonschema
import jsonschema.exceptions
import msgspec
import structlog

from instances.runtimes.document.failures import UNKNOWN_ACTION, ConfigError, printable, rule
from instances.runtimes.protocol import Failure, Raw, StepFailure
from versions.document.types import MESSAGE_LENGTH, NODE_TYPES

log = structlog.get_logger(__name__)

ENTRY_POINTS = "millrace.action_handlers"
THREADS = 32
"""Synchronous handlers that run at once in one process; the rest queue."""

HandlerFunction = Callable[[dict[str, Any], "ActionContext"], Any | Awaitable[Any]]


class NonRetryableError(Exception):
    """Raised by a handler: the step fails without retries."""

    permanent = True


@dataclass(frozen=True, slots=True)
class ActionHandler:
    """A registered handler. `schema` (JSON Schema) is what a node's config must match, templates filled in."""

    name: str
    function: HandlerFunction
    schema: dict[str, Any] | None = None


class ActionContext:
    """What a handler may know and do besides its action.

    Values are copies: what a handler does to them stays with it. `cancelled` turns true when the attempt's result is no
    longer wanted; long handlers should look at it.
    `idempotencyKey` is the same for every attempt of the step: pass it on to systems that can tell repeats.
    """

    def __init__(
        self,
        *,
        workspace_id: str,
        workflow_id: str,
        execution_id: str,
        user_id: str | None,
        attempt: int,
        idempotency_key: str,
        variables: Callable[[], dict[str, Any]],
        log: Callable[[str, str], None],
        cancelled: Callable[[], bool],
        trigger_data: Callable[[], Any],
        previous_results: Callable[[], list[dict[str, Any]]],
        compensation: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
    ) -> None:
        self.workspaceId = workspace_id
        self.workflowId = workflow_id
        self.executionId = execution_id
        self.userId = user_id
        self.attempt = attempt
        self.idempotencyKey = idempotency_key
        self.compensation = compensation
        """`{input}` when the handler compensates a step, else None."""
        self.error = error
        """What went wrong, when the handler compensates a step."""
        self._log = log
        self._cancelled = cancelled
        self._variables = variables
        self._trigger_data = trigger_data
        self._previous_results = previous_results

    @cached_property
    def vars(self) -> dict[str, Any]:
        """The variables, as they stood when the step started."""
        return self._variables()

    @cached_property
    def triggerData(self) -> Any:
        """The instance's input."""
        return self._trigger_data()

    @cached_property
    def previousStepResults(self) -> list[dict[str, Any]]:
        """Results of the steps that had finished when this one started, in finishing order."""
        return self._previous_results()

    @property
    def cancelled(self) -> bool:
        return self._cancelled()

    def in_thread(self, loop: asyncio.AbstractEventLoop) -> ActionContext:
        """Itself, made safe to use from another thread."""
        log = self._log

        def post(level: str, message: str) -> None:
            loop.call_soon_threadsafe(log, level, message)

        self._log = post
        return self

    def log(self, message: str, level: str = "info") -> None:
        """Write a log line of the instance: debug, info, warn or error."""
        self._log(level if level in ("debug", "info", "warn", "error") else "info", message)


_registered: dict[str, ActionHandler] = {}
_discovered: dict[str, ActionHandler] | None = None


def register_action_handler(name: str, fn: HandlerFunction, schema: dict[str, Any] | None = None) -> None:
    """Make `fn` the handler called `name`; a later registration replaces an earlier one.

    `fn(action, context)` gets `{id, name, type, config}` and an :class:`ActionContext`, and returns
    `{"success": True, "output": ..., "compensateInput": ...}` or `{"success": False, "error": ..., "permanent": ...}`;
    any other value is the output. Raising is failure; an exception with a true `permanent` is a final one.
    Raises `jsonschema.SchemaError` for a schema that is none, ValueError for the name of a built-in type.
    """
    if name in NODE_TYPES:
        raise ValueError(f"{name!r} is a built-in node type")
    if schema is not None:
        jsonschema.Draft202012Validator.check_schema(schema)
    _registered[name] = ActionHandler(name, fn, schema)


def unregister_action_handler(name: str) -> None:
    """Forget a registered handler."""
    _registered.pop(name, None)


def known_handlers() -> Mapping[str, ActionHandler]:
    """All handlers by name: registered ones, and those of installed packages."""
    global _discovered
    if _discovered is None:
        _discovered = {}
        for entry in entry_points(group=ENTRY_POINTS):
            try:
                loaded = entry.load()
            except Exception:
                log.exception("an action handler cannot be loaded", handler=entry.name)
                continue
            _discovered[entry.name] = ActionHandler(entry.name, loaded, getattr(loaded, "schema", None))
    return {**_discovered, **_registered}


def find_handler(name: str) -> ActionHandler:
    """The handler called `name`. Raises :class:`StepFailure`, final: it may have gone with a deploy."""
    handler = _registered.get(name) or known_handlers().get(name)
    if handler is None:
        raise StepFailure(rule(UNKNOWN_ACTION, f"Unknown action type: {name}"))
    return handler


@dataclass(frozen=True, slots=True)
class Returned:
    """What a handler gave back, as JSON text. `compensate_input`: for the step's compensation, if it said so."""

    output: Raw | None
    compensate_input: Raw | None = None


class HandlerPool:
    """Calls handlers. One per process; close it with :meth:`close`."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="millrace-handler")

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def call(self, name: str, action: dict[str, Any], context: ActionContext) -> Returned:
        """Call a handler. Raises :class:`StepFailure`."""
        handler = find_handler(name)
        _check(handler, action["config"])
        try:
            returned = await self._run(handler.function, action, context)
        except StepFailure:
            raise
        except Exception as error:
            raise StepFailure(_raised(error)) from error
        return _outcome(handler, returned)

    async def _run(self, function: HandlerFunction, action: dict[str, Any], context: ActionContext) -> Any:
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
            return await function(action, context)
        loop = asyncio.get_running_loop()
        returned = await loop.run_in_executor(self._threads, function, action, context.in_thread(loop))
        return await returned if inspect.isawaitable(returned) else returned


def _check(handler: ActionHandler, config: Any) -> None:
    if handler.schema is None:
        return
    problem = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(handler.schema).iter_errors(config))
    if problem is not None:
        where = "/".join(str(part) for part in problem.absolute_path)
        raise ConfigError(f"config{f'/{where}' if where else ''} of {handler.name}: {problem.message}")


def _said(text: str) -> str:
    """Words of a handler, such that they can be stored."""
    return printable(text[:MESSAGE_LENGTH])


def _raised(error: Exception) -> Failure:
    return Failure(
        type(error).__name__,
        _said(str(error)) or type(error).__name__,
        permanent=getattr(error, "permanent", False) is True,
    )


def _outcome(handler: ActionHandler, returned: Any) -> Returned:
    if isinstance(returned, dict) and isinstance(returned.get("success"), bool):
        if not returned["success"]:
            raise StepFailure(_reported(returned))
        output, given = returned.get("output"), returned.get("compensateInput")
        return Returned(_text(handler, output), _text(handler, given))
    return Returned(_text(handler, returned))


def _text(handler: ActionHandler, value: Any) -> Raw | None:
    try:
        return None if value is None else msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        message = f"the output of handler {handler.name} cannot be written as JSON: {error}"
        raise StepFailure(Failure("TypeError", message, permanent=True)) from error


def _reported(returned: dict[str, Any]) -> Failure:
    """The failure a handler returned: `error` is a text, or `{name, message, code}`."""
    error = returned.get("error")
    permanent = returned.get("permanent") is True
    if isinstance(error, dict):
        code = error.get("code")
        return Failure(
            _said(str(error.get("name") or "Error")),
            _said(str(error.get("message") or "the handler failed")),
            None if code is None else _said(str(code)),
            permanent=permanent or error.get("permanent") is True,
        )
    return Failure("Error", _said(str(error)) if error else "the handler failed", permanent=permanent)
