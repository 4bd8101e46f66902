"""What may run: workflows and their immutable versions.

A PUT compiles what it was given, then, in one transaction, makes the version, makes it current and brings the schedules
in line; whatever is created after it answered runs the new version. A PUT that changes nothing makes no version.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.errors import InvalidRequest, Problem
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids
from tenants.limits import RESERVED_WORKFLOW_NAMES, WORKFLOW_NAME, Limits
from tenants.paging import Page
from tenants.service import TenantService
from versions.compilation import ScriptChecker
from versions.definitions.service import DefinitionService
from versions.document.types import UrlRule
from versions.errors import InvalidWorkflowName, VersionNotFound, WorkflowNotFound
from versions.forms import Form
from versions.schemas import (
    VersionListed,
    VersionOrigin,
    VersionRow,
    WorkflowBody,
    WorkflowListed,
    WorkflowRow,
)
from versions.scripts import ScriptService
from versions.settings import checked_settings
from versions.sources import Source, document_source, native_source, require_class, script_source
from versions.store import versions as version_store
from versions.store import workflows as workflow_store
from versions.vetting import UrlVet, vetted
from versions.writing import VersionWriter

CACHED_VERSIONS = 2_000
CACHED_CHARACTERS = 64 << 20
SEARCH_MAX = 64


class Deployed(msgspec.Struct, frozen=True):
    """What a PUT came to. `changed`: whether there is a new version; `warnings`: of the definition."""

    workflow: WorkflowRow
    changed: bool
    warnings: tuple[Problem, ...]


class VersionService:
    """Workflows, versions and scripts of accounts.

    `handlers` gives the names of registered action handlers; `check_url` and `vet_url` are the egress rules for URLs
    of `call_api` nodes, as they are written and with their names resolved;
    `checker` loads uploaded scripts in a sandbox; without one they are not looked at before they run.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: Ids,
        tenants: TenantService,
        *,
        handlers: Callable[[], Collection[str]] = tuple,
        check_url: UrlRule | None = None,
        vet_url: UrlVet | None = None,
        checker: ScriptChecker | None = None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._tenants = tenants
        self._handlers = handlers
        self._check_url = check_url or _any_url
        self._vet_url = vet_url or _any_name
        self._cache: OrderedDict[tuple[UUID, UUID], VersionRow] = OrderedDict()
        self._cached_characters = 0
        self.writer = VersionWriter(ids)
        self.scripts = ScriptService(db, clock, ids, tenants, checker)
        self.definitions = DefinitionService(db, clock, tenants, self)

    # --- reading -----------------------------------------------------------------------------------------------

    async def load(self, account_id: UUID, version_key: UUID) -> VersionRow:
        """A version, as the engine runs it; from memory when it was asked for lately. Raises :class:`VersionNotFound`.

        Also of workflows that are deleted: their instances may still be running.
        """
        key = (account_id, version_key)
        if (known := self._cache.get(key)) is not None:
            self._cache.move_to_end(key)
            return known
        async with self._db.scope(account_id) as connection:
            found = await version_store.version(connection, account_id, version_key)
        if found is None:
            raise VersionNotFound()
        self._remember(key, found)
        return found

    def _remember(self, key: tuple[UUID, UUID], version: VersionRow) -> None:
        if key not in self._cache:
            self._cached_characters += len(version.source)
        self._cache[key] = version
        while len(self._cache) > CACHED_VERSIONS or (
            self._cached_characters > CACHED_CHARACTERS and len(self._cache) > 1
        ):
            _, forgotten = self._cache.popitem(last=False)
            self._cached_characters -= len(forgotten.source)

    async def workflow(self, account_id: UUID, handle: str, workspace_id: UUID | None = None) -> WorkflowRow:
        """The workflow of that handle. Raises :class:`WorkflowNotFound`."""
        async with self._db.scope(account_id) as connection:
            return await self._workflow(connection, account_id, workspace_id, handle)

    async def _workflow(
        self, connection: asyncpg.Connection, account_id: UUID, workspace_id: UUID | None, handle: str
    ) -> WorkflowRow:
        found = None
        if WORKFLOW_NAME.holds(handle):
            found = await workflow_store.workflow(connection, account_id, workspace_id, handle)
        if found is None:
            raise WorkflowNotFound()
        return found

    async def describe(self, caller: Caller, handle: str) -> WorkflowListed:
        """A workflow with its instances by status and its schedules. Raises :class:`WorkflowNotFound`."""
        caller.require("workflows:read")
        if not WORKFLOW_NAME.holds(handle):
            raise WorkflowNotFound()
        async with self._db.scope(caller.account_id) as connection:
            found = await workflow_store.workflow_details(connection, caller.account_id, caller.workspace_id, handle)
        if found is None:
            raise WorkflowNotFound()
        return found

    async def page(self, caller: Caller, page: Page, search: str | None = None) -> tuple[list[WorkflowListed], int]:
        """Workflows whose name contains `search` (in any case), the newest first, and how many there are in all."""
        caller.require("workflows:read")
        if search is not None and (not 1 <= len(search) <= SEARCH_MAX or "\0" in search):
            raise InvalidRequest(f"search must be a text of 1 to {SEARCH_MAX} characters")
        async with self._db.scope(caller.account_id) as connection:
            return await workflow_store.workflows(
                connection, caller.account_id, caller.workspace_id, search, page.size, page.offset
            )

    async def versions(self, caller: Caller, handle: str, page: Page) -> tuple[list[VersionListed], int]:
        """A workflow's versions, the newest first, and how many there are. Raises :class:`WorkflowNotFound`."""
        caller.require("workflows:read")
        async with self._db.scope(caller.account_id) as connection:
            found = await self._workflow(connection, caller.account_id, caller.workspace_id, handle)
            return await version_store.versions(
                connection, caller.account_id, found.workflow_key, page.size, page.offset
            )

    async def version(self, caller: Caller, handle: str, version_key: UUID) -> VersionListed:
        """One version of a workflow. Raises :class:`WorkflowNotFound`, :class:`VersionNotFound`."""
        caller.require("workflows:read")
        async with self._db.scope(caller.account_id) as connection:
            workflow = await self._workflow(connection, caller.account_id, caller.workspace_id, handle)
            found = await version_store.version_listed(
                connection, caller.account_id, workflow.workflow_key, version_key
            )
        if found is None:
            raise VersionNotFound()
        return found

    async def graph(self, caller: Caller, handle: str, version_key: UUID) -> tuple[VersionListed, str | None]:
        """A version and its graph as JSON text. Raises :class:`WorkflowNotFound`, :class:`VersionNotFound`."""
        found = await self.version(caller, handle, version_key)
        async with self._db.scope(caller.account_id) as connection:
            return found, await version_store.graph(connection, caller.account_id, version_key)

    async def origin(self, account_id: UUID, version_key: UUID) -> VersionOrigin:
        """What the user sent for a version, verbatim. Raises :class:`VersionNotFound`."""
        async with self._db.scope(account_id) as connection:
            found = await version_store.origin(connection, account_id, version_key)
        if found is None:
            raise VersionNotFound()
        return found

    # --- changing ----------------------------------------------------------------------------------------------

    async def put(self, caller: Caller, handle: str, body: WorkflowBody) -> Deployed:
        """Create or modify a workflow from a request of the Cloudflare face.

        Settings are replaced as a whole. Raises :class:`InvalidWorkflowName`, :class:`InvalidRequest`,
        :class:`DocumentInvalid`, :class:`ScriptInvalid`, `ScriptNotFound`, :class:`CronNotAllowed`,
        :class:`TooManySchedules`, :class:`TooManyWorkflows`, :class:`ScriptElsewhere`.
        """
        caller.require("workflows:write")
        check_handle(handle)
        return await self.deploy(caller, handle, await self._source(caller, handle, body), body)

    async def _source(self, caller: Caller, handle: str, body: WorkflowBody) -> Source:
        if body.definition is not None:
            return await self.compile(caller.account_id, body.definition, handle, pointer="/definition")
        class_name, script_name = require_class(body.class_name, body.script_name)
        return await self.class_source(caller, class_name, script_name, handle)

    async def class_source(self, caller: Caller, class_name: str, script_name: str, handle: str) -> Source:
        """A class of a deployed script ready for :meth:`deploy`. Raises :class:`ScriptInvalid`, `ScriptNotFound`."""
        script = await self.scripts.deployed(caller, script_name)
        runnable = await self.scripts.runnable(caller.account_id, script.id)
        modules = await self.scripts.modules(caller.account_id, script.id)
        return await asyncio.to_thread(script_source, script, runnable.script, modules, class_name, handle)

    async def translate(self, account_id: UUID, form: Form, body: Mapping[str, Any], handle: str) -> Source:
        """A body of a native form ready for :meth:`deploy`. Raises :class:`DocumentInvalid` as :meth:`compile` does."""
        now, handlers = self._clock.now(), self._handlers()
        untyped = (await self._tenants.accounts.settings(account_id)).untyped_tasks

        def compiled(rule: UrlRule) -> Source:
            return native_source(form, body, handle, now, known_handlers=handlers, check_url=rule, untyped=untyped)

        return await vetted(compiled, self._check_url, self._vet_url, account_id)

    async def compile(self, account_id: UUID, definition: Any, handle: str, **form: Any) -> Source:
        """A definition ready for :meth:`deploy`; `form` says what its user wrote, as in :func:`document_source`.

        Raises :class:`DocumentInvalid` with every problem, names in URLs that lead inside included.
        """

        now, handlers = self._clock.now(), self._handlers()

        def compiled(rule: UrlRule) -> Source:
            return document_source(definition, handle, now, known_handlers=handlers, check_url=rule, **form)

        return await vetted(compiled, self._check_url, self._vet_url, account_id)

    async def deploy(self, caller: Caller, handle: str, source: Source, body: WorkflowBody) -> Deployed:
        """Make `source`, with the settings of `body`, the current version of the workflow; create that if need be.

        For faces that compile what they are sent themselves. Raises as :meth:`put` does.
        """
        caller.require("workflows:write")
        limits = await self._tenants.limits(caller.account_id)
        now = self._clock.now()
        settings = checked_settings(source, body, limits, now)
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            workflow, created = await self._lock_or_create(connection, caller, handle, source, limits, now)
            deployed = await self.writer.deploy(connection, caller, workflow, source, settings, limits, now)
        if deployed is None:
            return Deployed(workflow, False, source.warnings)
        action = "workflow.create" if created else "workflow.update"
        await self._tenants.audit(caller, action, handle, {"version": str(deployed.current_version)})
        return Deployed(deployed, True, source.warnings)

    async def _lock_or_create(
        self, connection: asyncpg.Connection, caller: Caller, handle: str, source: Source, limits: Limits, now: datetime
    ) -> tuple[WorkflowRow, bool]:
        """The workflow, locked, and whether it was made just now: where the caller is, else where its script is."""
        account_id, workspace_id = caller.account_id, caller.workspace_id
        found = await workflow_store.workflow_for_update(connection, account_id, handle)
        if found is None:
            made = await self.writer.insert_workflow(
                connection, caller, handle, workspace_id or source.workspace_id, limits, now
            )
            if made is not None:
                return made, True
            found = await workflow_store.workflow_for_update(connection, account_id, handle)
        if found is None or (workspace_id is not None and found.workspace_id != workspace_id):
            raise InvalidWorkflowName(f"the name {handle!r} is taken by a workflow of another workspace")
        return found, False

    async def delete(self, caller: Caller, handle: str) -> None:
        """Delete a workflow: it is gone at once, its instances follow in the background.

        Raises :class:`WorkflowNotFound`.
        """
        caller.require("workflows:write", "workflows:delete")
        gone = None
        if WORKFLOW_NAME.holds(handle):
            async with self._db.scope(caller.account_id, transaction=True) as connection:
                gone = await workflow_store.delete_workflow(
                    connection, caller.account_id, caller.workspace_id, handle, self._clock.now(), self._ids.uuid7()
                )
        if gone is None:
            raise WorkflowNotFound()
        await self._tenants.audit(caller, "workflow.delete", handle)

    async def activity(self, workflow: WorkflowRow) -> tuple[Any, bool]:
        """When the newest instance was created (None: never), and whether a job that ends all of them is running."""
        async with self._db.scope(workflow.account_id) as connection:
            newest = await workflow_store.triggered_at(connection, workflow.account_id, workflow.workflow_key)
            running = await workflow_store.terminator_running(connection, workflow.account_id, workflow.workflow_key)
        return newest, running


def check_handle(handle: str) -> None:
    """Raise :class:`InvalidWorkflowName` unless a workflow may be called so."""
    WORKFLOW_NAME.check(handle, "workflow_name", InvalidWorkflowName)
    if handle in RESERVED_WORKFLOW_NAMES:
        raise InvalidWorkflowName(f"the name {handle!r} is reserved")


def _any_url(url: str) -> None:
    """The rule where nobody gave one."""


async def _any_name(url: str, *, lane: UUID) -> None:
    """The rule where nobody gave one."""
