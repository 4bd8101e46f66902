"""The document runtime: compiles a stored definition document once and runs it any number of times."""

from __future__ import annotations

import asyncio

from instances.egress import EgressClient
from instances.runtimes.document.actions import Tools
from instances.runtimes.document.handlers import HandlerPool
from instances.runtimes.document.plan import Plan, compile_plan
from instances.runtimes.document.session import DocumentSession
from instances.runtimes.document.store import ActionStore
from instances.runtimes.protocol import RUNTIME_DOCUMENT, RunContext, StoredVersion
from versions.document import decode_document

LARGE = 32_768
"""Characters of a document from which on compiling it is left to a thread: thousands of expressions take a while."""


def _compile(source: str) -> Plan:
    return compile_plan(decode_document(source))


class DocumentProgram:
    """A document, compiled; shared by all its runs in the process."""

    def __init__(self, plan: Plan, version: StoredVersion, tools: Tools) -> None:
        self.plan = plan
        self._version = version
        self._tools = tools

    async def start(self, run: RunContext) -> DocumentSession:
        return DocumentSession(self.plan, run, self._version, self._tools)


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
