"""Uploaded scripts: stored whole, secrets encrypted, every upload kept for the versions made from it."""

from __future__ import annotations

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec
import structlog

from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import CannotDecrypt
from tenants.ids import Ids, account_hex
from tenants.keys import Keys
from tenants.limits import SCRIPT_NAME, Limits
from tenants.service import TenantService
from versions.compilation import CompiledScript, ScriptChecker, compile_upload, typescript_modules
from versions.deployments import store as deployments
from versions.errors import InvalidScriptName, ScriptNameTaken, ScriptNotFound, ScriptTooLarge, TooManyScripts
from versions.schemas import ScriptRow, SealedRow
from versions.store import scripts as script_store
from versions.store import workflows as workflow_store
from versions.uploads import Bindings, Metadata, Module, Upload, kept_annotations, read_bindings, read_upload

SEALED_PAGE = 100
SETTING_KEYS = ("tags", "logpush", "observability", "tail_consumers")
"""What is set for a script as a whole, by uploads or by itself."""

log = structlog.get_logger(__name__)

_MODULES = msgspec.json.Decoder(list[Module])


class RunnableScript(msgspec.Struct, frozen=True, kw_only=True):
    """An upload with everything a sandbox is given; secrets are among `variables`, in clear text."""

    script: CompiledScript
    variables: dict[str, Any]
    workflows: dict[str, str]
    """Workflow bindings: handle by name."""
    classes: dict[str, str]
    """Handle of the workflow made of each class of this script."""
    flags: frozenset[str]
    cpu_ms: int | None
    subrequests: int | None


class ScriptService:
    """Scripts of accounts. Uploading one starts nothing: workflows are made from it by a PUT of their own."""

    def __init__(
        self, db: Database, clock: Clock, ids: Ids, tenants: TenantService, checker: ScriptChecker | None = None
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._tenants = tenants
        self._checker = checker

    async def upload(
        self,
        caller: Caller,
        name: str,
        body: bytes,
        content_type: str,
        *,
        strict: bool = False,
        source: str = "api",
        deploy: bool = True,
    ) -> tuple[ScriptRow, tuple[str, ...]]:
        """Store an upload, and deploy it unless told not to; it, and the `inherit` bindings that found nothing.

        With `strict` those are an error. `source` says which client sent it. Raises :class:`InvalidRequest`,
        :class:`ScriptInvalid`, :class:`UnresolvedBinding`, :class:`ScriptTooLarge`, :class:`TooManyScripts`,
        :class:`ScriptNameTaken`.
        """
        caller.require("scripts:write")
        SCRIPT_NAME.check(name, "script_name", InvalidScriptName)
        return await self._store(caller, name, read_upload(body, content_type), strict, source, deploy)

    async def replace_code(self, caller: Caller, name: str, body: bytes, content_type: str, source: str) -> ScriptRow:
        """Deploy other modules with the bindings and settings of the deployed upload.

        Of the upload's metadata only its main module counts. Raises :class:`ScriptNotFound`, and as :meth:`upload`.
        """
        caller.require("scripts:write")
        upload = read_upload(body, content_type)
        before = await self.deployed(caller, name)
        raw: dict[str, Any] = msgspec.json.decode(before.metadata)
        names = [binding["name"] for binding in msgspec.json.decode(before.bindings)]
        for key in ("main_module", "body_part", "annotations", "keep_bindings", *SETTING_KEYS):
            raw.pop(key, None)
        raw["main_module"] = upload.metadata.main_module
        raw["bindings"] = [{"type": "inherit", "name": each} for each in names]
        metadata = msgspec.convert(raw, Metadata)
        upload = msgspec.structs.replace(upload, metadata=metadata, metadata_text=_text(raw))
        return (await self._store(caller, name, upload, strict=False, source=source, deploy=True))[0]

    async def _store(
        self, caller: Caller, name: str, upload: Upload, strict: bool, source: str, deploy: bool
    ) -> tuple[ScriptRow, tuple[str, ...]]:
        where = caller.account_id, caller.workspace_id, name
        limits = await self._tenants.limits(caller.account_id)
        if limits.script_bytes is not None and upload.size > limits.script_bytes:
            raise ScriptTooLarge(f"the script has {upload.size} bytes; at most {limits.script_bytes} are allowed")
        # In a thread: parsing a bundle of megabytes takes tenths of a second.
        compiled = await asyncio.to_thread(compile_upload, upload, await self._stripped(upload))
        async with self._db.scope(caller.account_id) as connection:
            previous = await script_store.script(connection, *where)
        compiled = await self._checked(caller.account_id, name, compiled, upload, previous, strict)
        author, script_id = await self.author(caller), self._ids.uuid7()
        async with self._db.scope(caller.account_id, transaction=True) as connection:
            await script_store.lock_script(connection, caller.account_id, name)
            await workflow_store.lock_account(connection, caller.account_id)
            await self._check_count(connection, caller.account_id, name, limits)
            previous = await script_store.script(connection, *where)
            bindings, sealed = self._bindings(caller.account_id, name, upload, previous, strict)
            fits = await script_store.insert_script(
                connection,
                *where,
                script_id,
                upload.metadata_text,
                _text(upload.modules),
                _text(bindings.plain),
                _text(sealed),
                upload.etag,
                upload.size,
                source,
                author,
                _text(compiled),
                self._clock.now(),
                deploy,
            )
            if not fits:
                raise ScriptNameTaken(f"the name {name!r} is taken by a script of another workspace")
            if deploy:
                await self._deployed(connection, where, script_id, upload.metadata, source, author)
            stored = await script_store.script_by_id(connection, caller.account_id, script_id)
        assert stored is not None
        detail = {"etag": upload.etag, "bytes": upload.size, "version": str(script_id), "deployed": deploy}
        await self._tenants.audit(caller, "script.upload", name, detail)
        return stored, bindings.unresolved

    async def _stripped(self, upload: Upload) -> dict[str, str]:
        modules = typescript_modules(upload)
        return await self._checker.strip(modules) if modules and self._checker is not None else {}

    async def _deployed(
        self,
        connection: Any,
        where: tuple[UUID, UUID | None, str],
        script_id: UUID,
        metadata: Metadata,
        source: str,
        author: str | None,
    ) -> None:
        """Note the deployment of an upload, and what its metadata says of the script as a whole."""
        annotations = _text(kept_annotations(metadata.annotations))
        values = (self._ids.uuid7(), script_id, source, author, annotations, self._clock.now())
        await deployments.insert_deployment(connection, *where, *values)
        given = {key: value for key in SETTING_KEYS if (value := getattr(metadata, key)) is not None}
        if given:
            await deployments.merge_settings(connection, *where, given)

    async def author(self, caller: Caller) -> str | None:
        """The e-mail address of the caller, when it is a user's credential and the user has one."""
        if caller.user_id is None:
            return None
        return (await self._tenants.users.by_id(caller.account_id, caller.user_id)).email

    async def _check_count(self, connection: Any, account_id: UUID, name: str, limits: Limits) -> None:
        if limits.scripts is None:
            return
        if await script_store.count_other_scripts(connection, account_id, name) >= limits.scripts:
            raise TooManyScripts(f"the account has {limits.scripts} scripts, which is all it may have")

    def _bindings(
        self, account_id: UUID, name: str, upload: Upload, previous: ScriptRow | None, strict: bool
    ) -> tuple[Bindings, dict[str, str]]:
        """What the upload binds, and its secrets by binding, encrypted."""
        secrets = {} if previous is None else msgspec.json.decode(previous.secrets)
        before = [] if previous is None else msgspec.json.decode(previous.bindings)
        bindings = read_bindings(upload.metadata, before, frozenset(secrets), strict=strict)
        sealed = {kept: secrets[kept] for kept in sorted(bindings.kept)}
        sealed |= {binding: self.seal(account_id, name, binding, text) for binding, text in bindings.secrets.items()}
        return bindings, sealed

    def seal(self, account_id: UUID, name: str, binding: str, text: str) -> str:
        """A secret of script `name`, encrypted, as it is stored."""
        return base64.b64encode(self._tenants.keys.encrypt(text.encode(), _context(account_id, name, binding))).decode()

    async def _checked(
        self,
        account_id: UUID,
        name: str,
        compiled: CompiledScript,
        upload: Upload,
        previous: ScriptRow | None,
        strict: bool,
    ) -> CompiledScript:
        """The script with what it exports, after it has been loaded once. Raises :class:`ScriptInvalid`."""
        if self._checker is None:
            return compiled
        bindings, sealed = self._bindings(account_id, name, upload, previous, strict)
        variables = _variables(bindings.plain) | self._opened(account_id, name, sealed)
        exports = await self._checker.check(compiled, upload.metadata.flags_in_force, variables)
        return msgspec.structs.replace(compiled, exports=exports)

    async def checked(
        self,
        account_id: UUID,
        script_id: UUID,
        name: str,
        flags: Iterable[str],
        bindings: Sequence[dict[str, Any]],
        sealed: dict[str, str],
    ) -> str | None:
        """The compiled form of an upload, after it was loaded once with other flags, bindings and secrets. None: as it
        was.

        Raises :class:`ScriptInvalid`.
        """
        async with self._db.scope(account_id) as connection:
            row = await script_store.runnable_script(connection, account_id, script_id)
        if self._checker is None or row is None or row["compiled"] is None:
            return None
        compiled = msgspec.json.decode(row["compiled"], type=CompiledScript)
        variables = _variables(bindings) | self._opened(account_id, name, sealed)
        exports = await self._checker.check(compiled, flags, variables)
        return _text(msgspec.structs.replace(compiled, exports=exports))

    async def runnable(self, account_id: UUID, script_id: UUID) -> RunnableScript:
        """An upload as its runs need it. Secrets have their present values: one that was replaced since reaches
        instances of earlier versions, too. Raises :class:`ScriptNotFound`, `tenants.errors.CannotDecrypt`."""
        async with self._db.scope(account_id) as connection:
            row = await script_store.runnable_script(connection, account_id, script_id)
        if row is None or row["compiled"] is None:
            raise ScriptNotFound()
        metadata = msgspec.json.decode(row["metadata"], type=Metadata)
        bindings: list[dict[str, Any]] = msgspec.json.decode(row["bindings"])
        secrets = msgspec.json.decode(row["secrets"]) | msgspec.json.decode(row["current_secrets"])
        named = {binding["name"] for binding in bindings if binding["type"] == "secret_text"}
        opened = self._opened(account_id, row["name"], {key: secrets[key] for key in named if key in secrets})
        return RunnableScript(
            script=msgspec.json.decode(row["compiled"], type=CompiledScript),
            variables=_variables(bindings) | opened,
            workflows={b["name"]: b["workflow_name"] for b in bindings if b["type"] == "workflow"},
            classes=msgspec.json.decode(row["classes"]),
            flags=metadata.flags_in_force,
            cpu_ms=metadata.limits.cpu_ms,
            subrequests=metadata.limits.subrequests,
        )

    def _opened(self, account_id: UUID, name: str, sealed: dict[str, str]) -> dict[str, str]:
        return {
            binding: self._tenants.keys.decrypt(base64.b64decode(cipher), _context(account_id, name, binding)).decode()
            for binding, cipher in sealed.items()
        }

    async def all(self, caller: Caller) -> list[ScriptRow]:
        """The scripts the caller may see, by name."""
        caller.require("scripts:read")
        async with self._db.scope(caller.account_id) as connection:
            return await script_store.scripts(connection, caller.account_id, caller.workspace_id)

    async def get(self, caller: Caller, name: str) -> ScriptRow:
        """The deployed upload. Raises :class:`ScriptNotFound`."""
        caller.require("scripts:read")
        return await self.deployed(caller, name)

    async def deployed(self, caller: Caller, name: str) -> ScriptRow:
        """The deployed upload, for whoever may use it. Raises :class:`ScriptNotFound`."""
        if "\0" in name:  # no name has one, and PostgreSQL takes none
            raise ScriptNotFound()
        async with self._db.scope(caller.account_id) as connection:
            found = await script_store.script(connection, caller.account_id, caller.workspace_id, name)
        if found is None:
            raise ScriptNotFound()
        return found

    async def modules(self, account_id: UUID, script_id: UUID) -> Sequence[Module]:
        """The modules of an upload, in the order they were sent. Raises :class:`ScriptNotFound`."""
        async with self._db.scope(account_id) as connection:
            text = await script_store.script_modules(connection, account_id, script_id)
        if text is None:
            raise ScriptNotFound()
        return _MODULES.decode(text)

    def secrets(self, script: ScriptRow) -> dict[str, str]:
        """The clear texts of a script's secrets by binding. Raises `tenants.errors.CannotDecrypt`."""
        return self._opened(script.account_id, script.name, msgspec.json.decode(script.secrets))

    async def renew_secrets(self) -> int:
        """Encrypt with the current secret what uploads of all accounts still have under the previous one.

        How many uploads were changed. What cannot be decrypted stays as it is. Safe in many processes at once.
        """
        renewed = 0
        async for row in self._sealed():
            old: dict[str, str] = msgspec.json.decode(row.secrets)
            new = {binding: self._renewed(row, binding, cipher) for binding, cipher in old.items()}
            if new != old:
                text = _text(new)
                renewed += await script_store.replace_secrets(
                    self._db.engine, row.account_id, row.id, row.secrets, text
                )
        return renewed

    async def secrets_by_key(self) -> Counter[bytes]:
        """How many secrets of all accounts' scripts need which secret of the platform; see `Keys.key_ids`."""
        found: Counter[bytes] = Counter()
        async for row in self._sealed():
            ciphers: dict[str, str] = msgspec.json.decode(row.secrets)
            found.update(Keys.key_of(base64.b64decode(cipher)) for cipher in ciphers.values())
        return found

    async def _sealed(self) -> AsyncIterator[SealedRow]:
        """Every upload that has secrets."""
        after = SealedRow(UUID(int=0), UUID(int=0), "", "")
        while page := await script_store.sealed(self._db.engine, after.account_id, after.id, SEALED_PAGE):
            for row in page:
                yield row
            after = page[-1]

    def _renewed(self, row: SealedRow, binding: str, cipher: str) -> str:
        sealed, context = base64.b64decode(cipher), _context(row.account_id, row.name, binding)
        if not self._tenants.keys.needs_rewrite(sealed):
            return cipher
        try:
            plain = self._tenants.keys.decrypt(sealed, context)
        except CannotDecrypt as error:
            log.error("secret_not_renewed", account=row.account_id.hex, script=row.name, error=str(error))
            return cipher
        return base64.b64encode(self._tenants.keys.encrypt(plain, context)).decode()


def _variables(bindings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What texts and JSON values a script finds in its environment."""
    return {
        binding["name"]: binding["text"] if binding["type"] == "plain_text" else binding["json"]
        for binding in bindings
        if binding["type"] in ("plain_text", "json")
    }


def _context(account_id: UUID, script: str, binding: str) -> str:
    """What a ciphertext belongs to: it opens nowhere else."""
    return f"script secret/{account_hex(account_id)}/{script}/{binding}"


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
