"""The document runtime: compiles a stored definition document once and runs it any number of times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from instances.egress import EgressClient
from instances.payloads import loads
from instances.runtimes.document.actions import Tools
from instances.runtimes.document.failures import INVALID_INPUT, printable, rule
from instances.runtimes.document.handlers import HandlerPool
from instances.runtimes.document.plan import Plan, compile_plan
from instances.runtimes.document.session import DocumentSession
from instances.runtimes.document.store import ActionStore
from instances.runtimes.protocol import RUNTIME_DOCUMENT, Failure, RunContext, StoredVersion
from versions.document import Document, decode_document, validate_input
from versions.errors import InvalidInput

LARGE = 8_192
"""Characters of a document from which on compiling it is left to a thread: thousands of expressions take a while."""


def _compile(source: str) -> Plan:
    return compile_plan(decode_document(source))


def _checked_at_the_door(run: RunContext) -> bool:
    """Whether the input was held against this very version when somebody sent it.

    That of children and schedules was not, and a restart may have moved the instance to another version.
    """
    return run.trigger.get("source") == "api" and run.run == 1


def _refusal(document: Document, text: str | None) -> Failure | None:
    """Why the document does not run on this input."""
    try:
        validate_input(document, loads(text))
    except InvalidInput as error:
        return rule(INVALID_INPUT, printable(f"the input does not match input_schema: {error.message}"))
    return None


class DocumentProgram:
    """A document, compiled; shared by all its runs in the process."""

    def __init__(self, plan: Plan, version: StoredVersion, tools: Tools) -> None:
        self.plan = plan
        self._version = version
        self._tools = tools

    async def start(self, run: RunContext, wake: Callable[[], None]) -> DocumentSession:
        document, refusal = self.plan.document, None
        if document.input_schema is not None and not _checked_at_the_door(run):
            refusal = await asyncio.to_thread(_refusal, document, run.input)
        return DocumentSession(self.plan, run, self._version, self._tools, refusal)


class DocumentRuntime:
    """Runs documents in the worker's own process. Close it with :meth:`close`; the egress client is the caller's."""

    number = RUNTIME_DOCUMENT

    def __init__(self, store: ActionStore, egress: EgressClient) -> None:
        self._handlers = HandlerPool()
        self._tools = Tools(store, egress, self._handlers)

    async def open(self, version: StoredVersion) -> DocumentProgram:
        """Compile the document in `version.source`. Raises `msgspec.ValidationError` if it is none."""
        if len(version.source) > LARGE:
            plan = await asyncio.to_thread(_compile, version.source)
        else:
            plan = _compile(version.source)
        return DocumentProgram(plan, version, self._tools)

    async def close(self) -> None:
        self._handlers.close()
