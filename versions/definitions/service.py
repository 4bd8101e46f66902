"""What callers of the translated faces can do with workflows.

Every method takes the :class:`Caller` first, checks its scope, and sees nothing outside its account, nor outside
`workspace_id`, where that is given, or the workspace the caller is restricted to. A *reference* names a workflow by its
id as faces show it (`wf_…`, or its number where `decimal` says so), its UUID, or its handle, in that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import msgspec

from app.errors import InvalidRequest
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.limits import WORKFLOW_NAME
from tenants.service import TenantService
from tenants.spellings import WORKFLOW, parse_key, parse_no
from versions.definitions import store
from versions.definitions.schemas import Defined, Definition, Named, NodeFigure, Profile, Verdict
from versions.document.model import SPEC
from versions.errors import ChangedMeanwhile, DocumentInvalid, OtherForm, VersionNotFound, WorkflowNotFound
from versions.forms import FORMS, Form
from versions.names import handle_for, parse_semver, slug
from versions.schemas import ACTIVE, WorkflowBody
from versions.settings import checked_settings
from versions.sources import Source
from versions.store.schedules import park_schedules
from versions.writing import VersionWriter, wake_schedules

COUNTED = 100_000
"""Workflows a total is exact up to."""
ATTEMPTS = 8
"""Times a change is made anew because somebody else's came in between."""
_NAME_MAX = 255
_TRIGGERS = frozenset({"trigger", "triggers"})


class Compiler(Protocol):
    """The part of :class:`versions.service.VersionService` that makes code of what users write."""

    writer: VersionWriter

    async def translate(self, account_id: UUID, form: Form, body: Mapping[str, Any], handle: str) -> Source: ...

    async def compile(self, account_id: UUID, definition: Any, handle: str, **form: Any) -> Source: ...

    async def class_source(self, caller: Caller, class_name: str, script_name: str, handle: str) -> Source: ...


class DefinitionService:
    """Workflows of all accounts in native forms. `dialect` is a key of `versions.forms.FORMS`."""

    def __init__(self, db: Database, clock: Clock, tenants: TenantService, compiler: Compiler) -> None:
        self._db = db
        self._clock = clock
        self._tenants = tenants
        self._compiler = compiler

    # --- reading -----------------------------------------------------------------------------------------------

    async def get(
        self,
        caller: Caller,
        reference: str,
        *,
        decimal: bool = False,
        workspace_id: UUID | None = None,
        counted: bool = False,
    ) -> Definition:
        """A workflow with its current version. `counted`: with its executions. Raises :class:`WorkflowNotFound`."""
        caller.require("workflows:read")
        visible = _visible(caller, workspace_id)
        async with self._db.scope(caller.account_id) as connection:
            found = await store.definition(
                connection, caller.account_id, visible, _reference(reference, decimal=decimal), counted=counted
            )
        if found is None:
            raise WorkflowNotFound()
        return found

    async def named(self, caller: Caller, reference: str) -> Named:
        """Which workflow `reference` means, for whoever may see workflows or executions of them.

        Raises :class:`WorkflowNotFound`.
        """
        caller.require("workflows:read", "executions:read")
        async with self._db.scope(caller.account_id) as connection:
            found = await store.named(
                connection, caller.account_id, caller.workspace_id, _reference(reference, decimal=False)
            )
        if found is None:
            raise WorkflowNotFound()
        return found

    async def page(
        self,
        caller: Caller,
        *,
        limit: int,
        offset: int,
        workspace_id: UUID | None = None,
        statuses: Sequence[str] | None = None,
        search: str | None = None,
        counted: bool = False,
    ) -> tuple[list[Definition], int]:
        """Workflows, the newest first, and how many there are: one more than `COUNTED` means more than that.

        `search`: in their names, in any case. `counted`: with their executions. Raises :class:`InvalidRequest` for a
        search no name can be found by.
        """
        caller.require("workflows:read")
        if search is not None and ("\0" in search or len(search) > _NAME_MAX):
            raise InvalidRequest(f"search must be at most {_NAME_MAX} characters, none NUL", pointer="/search")
        visible = _visible(caller, workspace_id)
        async with self._db.scope(caller.account_id) as connection:
            where = connection, caller.account_id, visible, statuses, search
            return (
                await store.definitions(*where, limit, offset, counted=counted),
                await store.count(*where, COUNTED + 1),
            )

    async def versions(
        self, caller: Caller, reference: str, *, limit: int, offset: int = 0, decimal: bool = False
    ) -> list[Definition]:
        """Versions of a workflow, the newest first. Raises :class:`WorkflowNotFound`."""
        caller.require("workflows:read")
        return await self._versions(caller, reference, None, limit, offset, decimal=decimal)

    async def version(self, caller: Caller, reference: str, semver: str, *, decimal: bool = False) -> Definition:
        """The version shown as `1.0.<n>`. Raises :class:`WorkflowNotFound`, :class:`VersionNotFound`."""
        caller.require("workflows:read")
        no = parse_semver(semver)
        found = await self._versions(caller, reference, 0 if no is None else no, 1, 0, decimal=decimal)
        if not found:
            raise VersionNotFound()
        return found[0]

    async def _versions(
        self, caller: Caller, reference: str, no: int | None, limit: int, offset: int, *, decimal: bool
    ) -> list[Definition]:
        async with self._db.scope(caller.account_id) as connection:
            key = await store.key(
                connection, caller.account_id, caller.workspace_id, _reference(reference, decimal=decimal)
            )
            if key is None:
                raise WorkflowNotFound()
            return await store.versions(connection, caller.account_id, key, no, limit, offset)

    async def of_versions(self, caller: Caller, version_keys: Iterable[UUID]) -> dict[UUID, Definition]:
        """Versions that instances run, by key, also of workflows that were deleted since; others are left out."""
        caller.require("workflows:read", "executions:read")
        keys = sorted(set(version_keys))
        async with self._db.scope(caller.account_id) as connection:
            found = await store.by_version(connection, caller.account_id, caller.workspace_id, keys)
        return {each.version_key: each for each in found}

    async def node_figures(self, account_id: UUID, workflow_key: UUID) -> dict[str, NodeFigure]:
        """How long each node of a workflow takes, as far as that is known, by node id. For estimates."""
        async with self._db.scope(account_id) as connection:
            return await store.node_figures(connection, account_id, workflow_key)

    async def validate(self, caller: Caller, dialect: str, body: Mapping[str, Any]) -> Verdict:
        """What is wrong with a body; nothing is stored."""
        caller.require("workflows:read")
        try:
            source = await self._compiler.translate(caller.account_id, FORMS[dialect], body, "workflow")
        except DocumentInvalid as error:
            return Verdict(error.problems)
        return Verdict((), source.warnings)

    # --- making ------------------------------------------------------------------------------------------------

    async def create(
        self,
        caller: Caller,
        dialect: str,
        body: Mapping[str, Any],
        *,
        workspace_id: UUID | None = None,
        profile: Profile | None = None,
    ) -> Defined:
        """A new workflow; its handle is made of its name. Active unless `profile` says otherwise.

        Raises :class:`DocumentInvalid`, :class:`InvalidRequest`, :class:`CronNotAllowed`, :class:`TooManySchedules`,
        :class:`TooManyWorkflows`.
        """
        caller.require("workflows:write")
        profile = (profile or Profile()).checked()
        source = await self._compiler.translate(caller.account_id, FORMS[dialect], body, "workflow")
        return await self._create(caller, source, WorkflowBody(), _visible(caller, workspace_id), profile)

    async def duplicate(
        self,
        caller: Caller,
        reference: str,
        *,
        name: str | None = None,
        status: str = "draft",
        decimal: bool = False,
        workspace_id: UUID | None = None,
    ) -> Defined:
        """A copy of a workflow's current version, called `name`, else `<its name> (copy)`. Raises as :meth:`create`."""
        caller.require("workflows:write")
        current = await self.get(caller, reference, decimal=decimal, workspace_id=workspace_id)
        workflow = current.workflow
        if name is not None and not 1 <= len(name) <= _NAME_MAX:
            raise InvalidRequest(f"name must have 1 to {_NAME_MAX} characters", pointer="/name")
        name = f"{workflow.display_name[: _NAME_MAX - 7]} (copy)" if name is None else name
        if current.is_document:
            source = await self._renamed(caller, current, {"name": name})
        else:
            source = await self._compiler.class_source(
                caller, current.class_name, workflow.script_name, workflow.handle
            )
            source = msgspec.structs.replace(source, display_name=name, description=workflow.description)
        profile = Profile(status, msgspec.json.decode(workflow.tags), msgspec.json.decode(workflow.metadata)).checked()
        return await self._create(caller, source, _settings_of(current), workflow.workspace_id, profile)

    async def _create(
        self, caller: Caller, source: Source, body: WorkflowBody, workspace_id: UUID | None, profile: Profile
    ) -> Defined:
        account_id, now = caller.account_id, self._clock.now()
        limits = await self._tenants.limits(account_id)
        settings = checked_settings(source, body, limits, now)
        writer = self._compiler.writer
        async with self._db.scope(account_id, transaction=True) as connection:
            taken = await store.handles(connection, account_id, slug(source.display_name)[:_HANDLE_STEM])
            made = None
            while made is None:
                handle = handle_for(source.display_name, taken.__contains__)
                made = await writer.insert_workflow(connection, caller, handle, workspace_id, limits, now)
                taken.add(handle)
            if not source.script_id:
                source = msgspec.structs.replace(source, script_name=made.handle)
            made = await store.set_profile(connection, account_id, made.workflow_key, profile.texts(), now)
            await writer.deploy(connection, caller, made, source, settings, limits, now)
            found = await store.definition(
                connection, account_id, None, store.Reference(made.workflow_key, None, None), counted=False
            )
        assert found is not None
        await self._tenants.audit(caller, "workflow.create", made.handle, {"version": str(found.version_key)})
        return Defined(found, True, source.warnings)

    # --- changing ----------------------------------------------------------------------------------------------

    async def update(
        self,
        caller: Caller,
        dialect: str,
        reference: str,
        body: Mapping[str, Any],
        *,
        decimal: bool = False,
        workspace_id: UUID | None = None,
        profile: Profile | None = None,
    ) -> Defined:
        """Change what `body` and `profile` name, and keep the rest. What comes to the same version makes none.

        Changes made at the same time are made one after the other: none is lost. Raises :class:`WorkflowNotFound`,
        :class:`OtherForm`, :class:`ChangedMeanwhile`, and what :meth:`create` raises.
        """
        caller.require("workflows:write")
        profile = (profile or Profile()).checked()
        form = FORMS[dialect]
        for _ in range(ATTEMPTS):
            current = await self.get(caller, reference, decimal=decimal, workspace_id=workspace_id)
            source = await self._changed(caller, form, current, form.part(body))
            triggered = bool(_TRIGGERS & body.keys() & set(form.keys))
            done = await self._update(caller, current, source, _settings_of(current, own=triggered), profile)
            if done is not None:
                return done
        raise ChangedMeanwhile()

    async def set_status(
        self,
        caller: Caller,
        reference: str,
        status: str,
        *,
        decimal: bool = False,
        workspace_id: UUID | None = None,
    ) -> Definition:
        """Activate or deactivate a workflow. Schedules of one that is not active rest; what they miss is not caught up.

        Raises :class:`WorkflowNotFound`, :class:`InvalidRequest`.
        """
        caller.require("workflows:write")
        profile = Profile(status=status).checked()
        for _ in range(ATTEMPTS):
            current = await self.get(caller, reference, decimal=decimal, workspace_id=workspace_id)
            done = await self._update(caller, current, None, WorkflowBody(), profile)
            if done is not None:
                return done.definition
        raise ChangedMeanwhile()

    async def delete(
        self, caller: Caller, reference: str, *, decimal: bool = False, workspace_id: UUID | None = None
    ) -> None:
        """Retire a workflow: nothing starts it any more and its handle is free; what runs goes on and stays readable.

        Raises :class:`WorkflowNotFound`.
        """
        caller.require("workflows:write", "workflows:delete")
        visible = _visible(caller, workspace_id)
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            found = await store.definition(
                connection, caller.account_id, visible, _reference(reference, decimal=decimal), counted=False
            )
            if found is None or not await store.retire(
                connection, caller.account_id, found.workflow.workflow_key, self._clock.now()
            ):
                raise WorkflowNotFound()
        await self._tenants.audit(caller, "workflow.retire", found.workflow.handle)

    async def _update(
        self, caller: Caller, current: Definition, source: Source | None, body: WorkflowBody, profile: Profile
    ) -> Defined | None:
        """Store a change of `current`; None when that is no longer current."""
        account_id, key, now = caller.account_id, current.workflow.workflow_key, self._clock.now()
        limits = await self._tenants.limits(account_id)
        settings = None if source is None else checked_settings(source, body, limits, now)
        deployed = None
        async with self._db.scope(account_id, transaction=True) as connection:
            workflow = await store.lock(connection, account_id, key)
            if workflow is None:
                raise WorkflowNotFound()
            if workflow.current_version != current.version_key:
                return None
            before = workflow
            if profile != Profile():
                workflow = await store.set_profile(connection, account_id, key, profile.texts(), now)
            if source is not None and settings is not None:
                deployed = await self._compiler.writer.deploy(
                    connection, caller, workflow, source, settings, limits, now
                )
            if before.status == ACTIVE != workflow.status:
                await park_schedules(connection, account_id, key)
            elif before.status != ACTIVE == workflow.status:
                await wake_schedules(connection, workflow, now)
            found = await store.definition(
                connection, account_id, None, store.Reference(key, None, None), counted=False
            )
        assert found is not None
        if deployed is not None:
            detail = {"version": str(found.version_key)}
            await self._tenants.audit(caller, "workflow.update", workflow.handle, detail)
        if workflow.status != before.status:
            await self._tenants.audit(caller, "workflow.status", workflow.handle, {"status": workflow.status})
        return Defined(found, deployed is not None, () if source is None else source.warnings)

    # --- merging -----------------------------------------------------------------------------------------------

    async def _changed(self, caller: Caller, form: Form, current: Definition, given: dict[str, Any]) -> Source | None:
        """The code of `current` with what is `given` changed; None when nothing is."""
        if not given:
            return None
        for key in ("name", *form.keys):
            if key in given and given[key] is None and key != "trigger":
                raise InvalidRequest(f"{key} must not be null", pointer=f"/{key}")
        if current.dialect != form.dialect and not any(key in given for key in form.keys):
            return await self._renamed(caller, current, given)
        if current.dialect == form.dialect:
            before = current.said()
        elif form.main in given:
            before = current.shown(form.dialect, caller)
        else:
            raise OtherForm(f"the workflow was not written as {form.main}: give {form.main} too, to replace it")
        return await self._compiler.translate(caller.account_id, form, {**before, **given}, current.workflow.handle)

    async def _renamed(self, caller: Caller, current: Definition, given: dict[str, Any]) -> Source:
        """The code of `current` under another name or description, in the form it was written in."""
        account_id, handle, said = caller.account_id, current.workflow.handle, current.said()
        if current.dialect in FORMS:
            return await self._compiler.translate(account_id, FORMS[current.dialect], {**said, **given}, handle)
        if isinstance(said, dict) and said.get("spec") == SPEC:
            return await self._compiler.compile(account_id, {**said, **given}, handle, dialect=current.dialect)
        raise OtherForm("the workflow is a script: its name and description are those of its deployment")


_HANDLE_STEM = WORKFLOW_NAME.maximum - 12
"""Characters of a slug that the handles made of it have in common, whatever number they end in."""


def _visible(caller: Caller, workspace_id: UUID | None) -> UUID | None:
    """The one workspace to look in, None for all. Raises :class:`WorkflowNotFound` for one closed to the caller."""
    if workspace_id is None or caller.workspace_id is None:
        return workspace_id or caller.workspace_id
    if workspace_id != caller.workspace_id:
        raise WorkflowNotFound()
    return workspace_id


def _reference(text: str, *, decimal: bool) -> store.Reference:
    handle = text if WORKFLOW_NAME.holds(text) else None
    return store.Reference(parse_key(text, WORKFLOW), parse_no(text) if decimal else None, handle)


def _settings_of(current: Definition, *, own: bool = False) -> WorkflowBody:
    """What was set beside the definition, which a change of it keeps; `own`: but for schedules."""
    settings = msgspec.json.decode(current.settings)
    if schedules := settings.pop("schedules", None):
        settings["schedules"] = None if own else [{"cron": cron} for cron in schedules]
    return msgspec.convert(settings, WorkflowBody)
