"""Versions and deployments of scripts, their secrets and settings.

Every upload of a script is a version; so is what a change of its secrets or bindings makes, with the same code. One
version is deployed: the one that was deployed last, which may be an older one. A PUT of a workflow takes the version
that is deployed then. Workflows that run the version a change of secrets starts from move on to what it makes, so that
the change reaches their next instances without a PUT.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.errors import InvalidRequest
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids
from tenants.paging import Page
from tenants.service import TenantService
from versions.deployments import store
from versions.deployments.schemas import (
    SECRET_TEXT,
    Annotations,
    DeploymentBody,
    DeploymentRow,
    SecretText,
    SettingsPatch,
    UploadRow,
    VersionSettings,
)
from versions.errors import (
    DeploymentHolds,
    NoScriptVersions,
    ScriptInvalid,
    ScriptNotFound,
    ScriptReferenced,
    ScriptVersionNotFound,
    SecretNotFound,
)
from versions.scripts import ScriptService
from versions.store import scripts as script_store
from versions.uploads import Metadata, kept_annotations, read_bindings

NAMED_REFERENCES = 10
"""How many workflows a refusal to delete names."""
SECRETS_MAX = 500
"""Bindings a script may have for a secret to be added."""

Secrets = Mapping[str, SecretText | None]


class DeploymentService:
    """Scripts of accounts as those see them who deploy. Uploading and reading code is the :class:`ScriptService`'s."""

    def __init__(self, db: Database, clock: Clock, ids: Ids, tenants: TenantService, scripts: ScriptService) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._tenants = tenants
        self._scripts = scripts

    # --- reading -----------------------------------------------------------------------------------------------

    async def versions(self, caller: Caller, name: str, page: Page) -> tuple[list[UploadRow], int]:
        """A script's versions, the newest first, and how many there are. Raises :class:`ScriptNotFound`."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            rows, total = await store.uploads(connection, *_of(caller, name), page.size, page.offset)
        if not total:
            raise ScriptNotFound()
        return rows, total

    async def version(self, caller: Caller, name: str, version_id: UUID) -> UploadRow:
        """One version of a script. Raises :class:`ScriptNotFound`, :class:`ScriptVersionNotFound`."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            found = await store.upload(connection, *_of(caller, name), version_id)
            if found is None:
                await self._require(connection, caller, name)
                raise ScriptVersionNotFound()
        return found

    async def deployed(self, caller: Caller, name: str) -> UploadRow:
        """The version that is deployed. Raises :class:`ScriptNotFound`."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            return await self._deployed(connection, caller, name)

    async def _deployed(self, connection: asyncpg.Connection, caller: Caller, name: str) -> UploadRow:
        found = await store.deployed_upload(connection, *_of(caller, name))
        if found is None:
            raise ScriptNotFound()
        return found

    async def deployments(self, caller: Caller, name: str) -> list[DeploymentRow]:
        """A script's latest deployments, the newest, which holds, first. Raises :class:`ScriptNotFound`."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            await self._require(connection, caller, name)
            return await store.deployments(connection, *_of(caller, name))

    async def deployment(self, caller: Caller, name: str, deployment_id: UUID) -> DeploymentRow:
        """One deployment. Raises :class:`ScriptNotFound`, :class:`ScriptVersionNotFound`."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            await self._require(connection, caller, name)
            found = await store.deployment(connection, *_of(caller, name), deployment_id)
        if found is None:
            raise ScriptVersionNotFound("This Worker has no such deployment.")
        return found

    async def settings(self, caller: Caller, name: str) -> dict[str, Any]:
        """What is set for the script as a whole. Raises :class:`ScriptNotFound`."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            await self._require(connection, caller, name)
            return await store.settings(connection, *_of(caller, name))

    async def exists(self, caller: Caller, name: str) -> None:
        """Raises :class:`ScriptNotFound` when nothing was uploaded under that name."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            await self._require(connection, caller, name)

    async def _require(self, connection: asyncpg.Connection, caller: Caller, name: str) -> None:
        if await store.newest_upload(connection, *_of(caller, name)) is None:
            raise ScriptNotFound()

    # --- changing ----------------------------------------------------------------------------------------------

    async def deploy(self, caller: Caller, name: str, body: DeploymentBody, source: str) -> DeploymentRow:
        """Make one version the deployed one; `source` says which client asked for it.

        Raises :class:`InvalidRequest` unless it is one version with 100 percent, :class:`ScriptNotFound`,
        :class:`ScriptVersionNotFound`.
        """
        caller.require("scripts:write")
        if body.strategy != "percentage":
            raise InvalidRequest("strategy must be percentage", pointer="/strategy")
        if len(body.versions) != 1 or body.versions[0].percentage != 100:
            raise InvalidRequest(
                "versions must be one version with percentage 100: instances are not split between versions",
                pointer="/versions",
            )
        version_id = body.versions[0].version_id
        author = await self._scripts.author(caller)
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            await script_store.lock_script(connection, caller.account_id, name)
            await self._require(connection, caller, name)
            if not await store.deploy(connection, *_of(caller, name), version_id, self._clock.now()):
                raise ScriptVersionNotFound()
            row = await self._note(
                connection, caller, name, version_id, source, author, kept_annotations(body.annotations)
            )
        await self._tenants.audit(caller, "script.deploy", name, {"version": str(version_id)})
        return row

    async def delete_deployment(self, caller: Caller, name: str, deployment_id: UUID) -> None:
        """Forget that something was deployed; the version stays.

        Raises :class:`ScriptNotFound`, :class:`ScriptVersionNotFound`, :class:`DeploymentHolds` for the latest one.
        """
        caller.require("scripts:write")
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            await script_store.lock_script(connection, caller.account_id, name)
            await self._require(connection, caller, name)
            if await store.deployment(connection, *_of(caller, name), deployment_id) is None:
                raise ScriptVersionNotFound("This Worker has no such deployment.")
            if (await store.deployments(connection, *_of(caller, name)))[0].id == deployment_id:
                raise DeploymentHolds()
            await store.delete_deployment(connection, *_of(caller, name), deployment_id)
        await self._tenants.audit(caller, "script.deployment.delete", name, {"deployment": str(deployment_id)})

    async def _note(
        self,
        connection: asyncpg.Connection,
        caller: Caller,
        name: str,
        version_id: UUID,
        source: str,
        author: str | None,
        annotations: dict[str, str],
    ) -> DeploymentRow:
        row = DeploymentRow(self._ids.uuid7(), version_id, source, author, _text(annotations), self._clock.now())
        values = (row.id, version_id, source, author, row.annotations, row.created_at)
        await store.insert_deployment(connection, *_of(caller, name), *values)
        return row

    async def change_secrets(self, caller: Caller, name: str, secrets: Secrets, source: str) -> UploadRow:
        """Set secrets, or take away those whose value is None: a new version, deployed.

        Raises :class:`ScriptNotFound`, :class:`SecretNotFound`, :class:`ScriptInvalid` for a name that another binding
        has, :class:`InvalidRequest`.
        """
        caller.require("scripts:write")
        author = await self._scripts.author(caller)
        annotations = {"workers/triggered_by": "secret"}
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            await script_store.lock_script(connection, caller.account_id, name)
            base = await self._deployed(connection, caller, name)
            made = await self._with_secrets(connection, caller, base, secrets, source, author, annotations)
            await self._replace(connection, caller, base, made, source, author, annotations)
        await self._audit_secrets(caller, name, secrets)
        return made

    async def add_secrets(
        self, caller: Caller, name: str, secrets: Secrets, source: str, annotations: Annotations
    ) -> UploadRow:
        """As :meth:`change_secrets`, but made from the newest version, and not deployed.

        Raises :class:`NoScriptVersions` when there is none.
        """
        caller.require("scripts:write")
        author = await self._scripts.author(caller)
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            await script_store.lock_script(connection, caller.account_id, name)
            base = await store.newest_upload(connection, *_of(caller, name))
            if base is None:
                raise NoScriptVersions()
            kept = {"workers/triggered_by": "secret"} | kept_annotations(annotations)
            made = await self._with_secrets(connection, caller, base, secrets, source, author, kept)
        await self._audit_secrets(caller, name, secrets)
        return made

    async def _audit_secrets(self, caller: Caller, name: str, secrets: Secrets) -> None:
        for put, action in ((True, "script.secret.put"), (False, "script.secret.delete")):
            if changed := sorted(key for key, value in secrets.items() if (value is not None) is put):
                await self._tenants.audit(caller, action, name, {"names": changed})

    async def _with_secrets(
        self,
        connection: asyncpg.Connection,
        caller: Caller,
        base: UploadRow,
        secrets: Secrets,
        source: str,
        author: str | None,
        annotations: dict[str, str],
    ) -> UploadRow:
        bindings = {binding["name"]: binding for binding in msgspec.json.decode(base.bindings)}
        sealed: dict[str, str] = msgspec.json.decode(base.secrets)
        for name, value in secrets.items():
            if name in bindings and bindings[name]["type"] != SECRET_TEXT:
                raise ScriptInvalid(f"the name {name!r} is in use by a binding of type {bindings[name]['type']}")
            if value is None:
                if name not in bindings:
                    raise SecretNotFound(f"the script has no secret {name!r}")
                del bindings[name]
                sealed.pop(name, None)
                continue
            if value.type != SECRET_TEXT:
                raise InvalidRequest(f"a secret's type must be {SECRET_TEXT}", pointer="/type")
            bindings[name] = {"type": SECRET_TEXT, "name": name}
            sealed[name] = self._scripts.seal(caller.account_id, base.name, name, value.text)
        if len(bindings) > SECRETS_MAX:
            raise InvalidRequest(f"a script that gets secrets may have {SECRETS_MAX} bindings in all")
        metadata = msgspec.json.decode(base.metadata) | {"annotations": annotations}
        return await self._derive(
            connection, caller, base, metadata, list(bindings.values()), sealed, source=source, author=author
        )

    async def _derive(
        self,
        connection: asyncpg.Connection,
        caller: Caller,
        base: UploadRow,
        metadata: dict[str, Any],
        bindings: Sequence[dict[str, Any]],
        sealed: dict[str, str],
        *,
        source: str,
        author: str | None,
        compiled: str | None = None,
    ) -> UploadRow:
        """A version with the code of `base`."""
        made = self._ids.uuid7()
        values = (_text(metadata), _text(bindings), _text(sealed), source, author, self._clock.now(), compiled)
        await store.derive(connection, caller.account_id, base.id, made, *values)
        row = await store.upload(connection, *_of(caller, base.name), made)
        assert row is not None
        return row

    async def _replace(
        self,
        connection: asyncpg.Connection,
        caller: Caller,
        base: UploadRow,
        made: UploadRow,
        source: str,
        author: str | None,
        annotations: dict[str, str],
    ) -> None:
        """Deploy `made`, and have the workflows that run `base` run it from now on."""
        account_id, now = caller.account_id, self._clock.now()
        await store.deploy(connection, *_of(caller, base.name), made.id, now)
        await self._note(connection, caller, base.name, made.id, source, author, annotations)
        for workflow_key, version_key in await store.workflows_on(connection, account_id, base.id):
            await store.move_workflow(
                connection, account_id, workflow_key, version_key, self._ids.uuid7(), made.id, now, caller.actor
            )

    async def change_settings(self, caller: Caller, name: str, patch: SettingsPatch) -> dict[str, Any]:
        """Set what holds for the script as a whole; all of it, afterwards. Raises :class:`ScriptNotFound`."""
        caller.require("scripts:write")
        given = {key: value for key, value in msgspec.structs.asdict(patch).items() if value is not msgspec.UNSET}
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            await script_store.lock_script(connection, caller.account_id, name)
            await self._require(connection, caller, name)
            settings = await store.merge_settings(connection, *_of(caller, name), given)
        await self._tenants.audit(caller, "script.settings", name, {"changed": sorted(given)})
        return settings

    async def change_version(self, caller: Caller, name: str, patch: VersionSettings, source: str) -> UploadRow:
        """Change bindings and compatibility: a new version, deployed. Bindings that are not named go. The script is
        loaded with them before, as an upload is.

        Raises :class:`ScriptNotFound`, :class:`ScriptInvalid`, :class:`UnresolvedBinding`.
        """
        caller.require("scripts:write")
        author = await self._scripts.author(caller)
        given = {key: value for key, value in msgspec.structs.asdict(patch).items() if value is not msgspec.UNSET}
        annotations = {"workers/triggered_by": "settings"}
        made = None
        while made is None:
            base = await self.deployed(caller, name)
            if not given:
                return base
            changed = self._changed(caller.account_id, base, given | {"annotations": annotations})
            raw, metadata, bindings, sealed = changed
            # Loading takes seconds, during which others may deploy: then it was the wrong version.
            flags = metadata.flags_in_force
            compiled = await self._scripts.checked(caller.account_id, base.id, name, flags, bindings, sealed)
            async with self._db.scope(caller.account_id, transaction=True) as connection:
                await script_store.lock_script(connection, caller.account_id, name)
                if (await self._deployed(connection, caller, name)).id == base.id:
                    made = await self._derive(
                        connection, caller, base, raw, bindings, sealed, source=source, author=author, compiled=compiled
                    )
                    await self._replace(connection, caller, base, made, source, author, annotations)
        await self._tenants.audit(caller, "script.settings", name, {"changed": sorted(given)})
        return made

    def _changed(
        self, account_id: UUID, base: UploadRow, given: dict[str, Any]
    ) -> tuple[dict[str, Any], Metadata, list[dict[str, Any]], dict[str, str]]:
        """The metadata of `base` with `given` in place, as it is stored and as it is read, its bindings and its
        secrets, encrypted. Raises :class:`ScriptInvalid`, :class:`UnresolvedBinding`."""
        before: list[dict[str, Any]] = msgspec.json.decode(base.bindings)
        inherited = [{"type": "inherit", "name": binding["name"]} for binding in before]
        raw = msgspec.json.decode(base.metadata) | given
        try:
            metadata = msgspec.convert(raw | {"bindings": given.get("bindings", inherited)}, Metadata)
        except msgspec.ValidationError as error:
            raise ScriptInvalid(f"the settings are not valid: {error}") from None
        secrets: dict[str, str] = msgspec.json.decode(base.secrets)
        bindings = read_bindings(metadata, before, frozenset(secrets), strict=True)
        sealed = {key: secrets[key] for key in sorted(bindings.kept)}
        sealed |= {key: self._scripts.seal(account_id, base.name, key, text) for key, text in bindings.secrets.items()}
        raw["bindings"] = bindings.plain
        return raw, metadata, list(bindings.plain), sealed

    async def references(self, caller: Caller, name: str) -> list[str]:
        """Workflows whose code is in the script, the first few by name. Raises :class:`ScriptNotFound`."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            await self._require(connection, caller, name)
            return await store.referring(connection, *_of(caller, name), NAMED_REFERENCES + 1)

    async def delete(self, caller: Caller, name: str, *, force: bool) -> None:
        """Delete a script with its versions, deployments and settings.

        With `force` also one that workflows run: they go on with the version they have. Raises
        :class:`ScriptNotFound`, :class:`ScriptReferenced`.
        """
        caller.require("scripts:write")
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            await script_store.lock_script(connection, caller.account_id, name)
            await self._require(connection, caller, name)
            if not force:
                used = await store.referring(connection, *_of(caller, name), NAMED_REFERENCES + 1)
                if used:
                    raise ScriptReferenced(_referenced(used))
            await store.delete_script(connection, *_of(caller, name), self._clock.now())
        await self._tenants.audit(caller, "script.delete", name, {"force": force})


def _of(caller: Caller, name: str) -> tuple[UUID, UUID | None, str]:
    """A script as the store is asked for it: with the account and the workspace the caller is restricted to."""
    return caller.account_id, caller.workspace_id, name


def _referenced(used: Sequence[str]) -> str:
    named = ", ".join(used[:NAMED_REFERENCES]) + (" and more" if len(used) > NAMED_REFERENCES else "")
    return f"workflows run this script: {named}; delete them first, or delete it with force=true"


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
