"""The script: its classes, what they are given, and what loading it comes to."""

from __future__ import annotations

import base64
import types
from typing import Any

from bindings import Workflow
from books import flags
from library import HOME, Library, ModuleRefused
from values import clean, told


class Env:
    """`env`: variables, secrets and bindings by name."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no binding {name!r}")

    def __getitem__(self, name: str) -> Any:
        return vars(self)[name]

    def __contains__(self, name: object) -> bool:
        return name in vars(self)


class Context:
    """`ctx` of an entrypoint. `exports`: the workflows of this script's own classes."""

    def __init__(self) -> None:
        self.exports = exports
        self.props: dict[str, Any] = {}

    def wait_until(self, promise: Any) -> None:
        """A run is not over before its code is."""

    waitUntil = wait_until

    def passThroughOnException(self) -> None:
        """There is no origin behind this."""


env = Env()
exports = Env()


class _Entrypoint:
    def __init__(self, ctx: Any, env: Any) -> None:
        self.ctx = ctx
        self.env = env


class WorkflowEntrypoint(_Entrypoint):
    """A workflow: `async def run(self, event, step)`."""


class WorkerEntrypoint(_Entrypoint):
    """A Worker. It is deployed along with its workflows; requests are not served here."""


class DurableObject(_Entrypoint):
    """There to be inherited from; not served here."""


_main: types.ModuleType | None = None


def make(name: str) -> Any:
    """An object of one of the script's workflow classes."""
    kind = getattr(_main, name, None)
    if not isinstance(kind, type) or not issubclass(kind, WorkflowEntrypoint):
        raise Exception(f"The script has no workflow class {name}")
    workflow: Any = kind(Context(), env)
    if not callable(getattr(workflow, "run", None)):
        raise Exception(f"{name} has no method run")
    return workflow


def load(library: Library, message: dict[str, Any]) -> dict[str, Any]:
    """Run the main module; the message that says how it went."""
    global _main
    flags.update(message["flags"])
    for module in message["modules"]:
        if module["type"] in ("text", "json"):
            library.add_file(module["name"], module["text"].encode("utf-8", "surrogatepass"))
        elif module["type"] == "data":
            library.add_file(module["name"], base64.b64decode(module["b64"]))
    for name, value in message["vars"].items():
        setattr(env, name, value)
    for name, handle in message["workflows"].items():
        setattr(env, name, Workflow(handle))
    for name, handle in message["exports"].items():
        setattr(exports, name, Workflow(handle))
    try:
        _main = library.main(message["main"])
    except BaseException as error:
        return load_failed(error, library)
    found = [
        {"name": clean(name, 256), "kind": kind} for name, value in vars(_main).items() if (kind := _kind(value, _main))
    ]
    return {"op": "loaded", "exports": found[:1000]}


def _kind(value: Any, main: types.ModuleType) -> str | None:
    if not isinstance(value, type) or value in (WorkflowEntrypoint, WorkerEntrypoint, DurableObject):
        return None
    if issubclass(value, WorkflowEntrypoint):
        return "workflow"
    if issubclass(value, WorkerEntrypoint):
        return "worker"
    return "other" if value.__module__ == main.__name__ else None


def load_failed(error: BaseException, library: Library) -> dict[str, Any]:
    """What is wrong, and where: the last line of the script's that had to do with it."""
    message: dict[str, Any] = {"op": "load_failed", "error": told(error, leaving=True)}
    if isinstance(error, ModuleRefused):
        message["error"] = {"name": "ImportError", "message": str(error)}
    own = library.paths()
    if isinstance(error, SyntaxError) and error.filename in own:
        message["error"]["message"] = clean(error.msg, 2000)
        _place(message, error.filename, error.lineno, error.offset)
        return message
    at = error.__traceback__
    while at is not None:
        if at.tb_frame.f_code.co_filename in own:
            _place(message, at.tb_frame.f_code.co_filename, at.tb_lineno, None)
        at = at.tb_next
    return message


def _place(message: dict[str, Any], path: str, line: int | None, column: int | None) -> None:
    message["module"] = path.removeprefix(HOME)[:1024]
    if line is not None:
        message["line"] = line
    if column is not None and column > 0:
        message["column"] = column
