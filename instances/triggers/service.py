"""Inbound webhooks and published events: which workflows they start, each of them once.

A repeat is recognised by the id its sender gives: the id of the instance follows from it, so whatever becomes of a
request, the next one with the same id finds the instance instead of making another, as long as that is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

import msgspec
import structlog

from app.errors import InvalidRequest
from instances.creation import Creator, Wanted
from instances.errors import HookNotFound, InstanceExists, TooManyListeners
from instances.finding import Finder
from instances.lifecycle import TriggerSource
from instances.payloads import loads
from instances.runtimes.protocol import RUNTIME_DOCUMENT
from instances.triggers import store
from instances.triggers.store import Startable
from instances.triggers.tokens import HookTokens
from tenants.auth import Caller, expand
from tenants.database import Database
from tenants.errors import AccountNotFound, RequestRateExceeded
from tenants.limits import EVENT_LISTENERS, EVENT_NAME, IDEMPOTENCY_KEY
from tenants.service import TenantService
from versions.document import Trigger, stored_triggers
from versions.errors import WorkflowInactive, WorkflowNotFound
from versions.expressions import ExpressionError, compile_condition
from versions.service import VersionService

log = structlog.get_logger(__name__)

MANAGE, START = "workflows:write", "executions:write"


@dataclass(frozen=True, slots=True)
class InboundHook:
    """A webhook of a workflow, by the name of its trigger. Whoever has the token may start the workflow."""

    name: str
    token: str


@dataclass(frozen=True, slots=True)
class Fired:
    """What a trigger did in a workflow. `instance_id` is None when it started nothing; `refused` says why, unless its
    condition did not hold.
    """

    workflow: str
    instance_id: str | None = None
    refused: str | None = None


class Triggers:
    """One per process. `fresh` gives keys of new instances."""

    def __init__(
        self,
        db: Database,
        tenants: TenantService,
        versions: VersionService,
        creator: Creator,
        finder: Finder,
        fresh: Callable[[int], UUID],
    ) -> None:
        self._db = db
        self._tenants = tenants
        self._versions = versions
        self._creator = creator
        self._finder = finder
        self._fresh = fresh
        self._tokens = HookTokens(tenants.keys)

    async def hooks(self, caller: Caller, handle: str) -> list[InboundHook]:
        """The webhooks of a workflow's current version. Raises :class:`WorkflowNotFound`."""
        caller.require(MANAGE)
        workflow_key = await self._finder.workflow(caller, handle)
        async with self._db.scope(caller.account_id) as connection:
            found = await store.hooked(connection, caller.account_id, workflow_key)
        triggers = () if found is None else await self._triggers(caller.account_id, found)
        names = dict.fromkeys(trigger.name for trigger in triggers if trigger.type == "webhook")
        return [InboundHook(name, self._tokens.write(caller.account_id, workflow_key, name)) for name in names]

    async def receive(self, token: str, payload: str, id: str | None) -> Fired:
        """A request to a webhook's URL; `payload` is JSON text, `id` what repeats of the request have in common.

        Counts as a request of a credential of its own. Raises :class:`HookNotFound` (also of a workflow that is not
        active), `RequestRateExceeded`, and what `Creator.create` raises.
        """
        hook = self._tokens.read(token)
        if hook is None:
            raise HookNotFound()
        async with self._db.scope(hook.account_id) as connection:
            found = await store.hooked(connection, hook.account_id, hook.workflow_key)
        if found is None:
            raise HookNotFound()
        triggers = [
            one
            for one in await self._triggers(hook.account_id, found)
            if one.type == "webhook" and hook.is_for(one.name)
        ]
        if not triggers:
            raise HookNotFound()
        caller = _by_hook(hook.account_id, hook.workflow_key)
        try:
            rate = await self._tenants.count_request(caller)
            if rate is not None and rate.retry_after is not None:
                raise RequestRateExceeded(retry_after=rate.retry_after)
            return await self._fire(caller, found, triggers, "webhook", triggers[0].name, payload, id)
        except (AccountNotFound, WorkflowNotFound, WorkflowInactive):
            raise HookNotFound() from None

    async def publish(self, caller: Caller, event: str, payload: str, id: str | None) -> list[Fired]:
        """Start every workflow that has a trigger of `event` whose condition holds; what became of each, by handle.

        Raises :class:`app.errors.InvalidRequest` for an event name or an id that is none, :class:`TooManyListeners`
        (nothing was started), and for what waiting helps (queues, rates) what `Creator.create` raises: some may have
        been started then, which a repeat with the same `id` does not start again.
        """
        caller.require(START)
        EVENT_NAME.check(event, "the name of the event")
        if id is not None:
            IDEMPOTENCY_KEY.check(id, "the id of the delivery")  # also when nobody listens
        async with self._db.scope(caller.account_id) as connection:
            found = await store.listeners(
                connection, caller.account_id, event, caller.workspace_id, EVENT_LISTENERS + 1
            )
        if len(found) > EVENT_LISTENERS:
            raise TooManyListeners(f"more than {EVENT_LISTENERS} workflows listen to {event!r}")
        fired: list[Fired] = []
        for workflow in found:
            triggers = [
                one
                for one in await self._triggers(caller.account_id, workflow)
                if one.type == "event" and one.event == event
            ]
            try:
                fired.append(await self._fire(caller, workflow, triggers, "event", event, payload, id))
            except InvalidRequest as error:
                fired.append(Fired(workflow.handle, refused=error.message))
            except (WorkflowNotFound, WorkflowInactive):
                continue  # in this moment
        return fired

    async def _triggers(self, account_id: UUID, workflow: Startable) -> tuple[Trigger, ...]:
        version = await self._versions.load(account_id, workflow.version_key)
        return stored_triggers(version.source) if version.runtime == RUNTIME_DOCUMENT else ()

    async def _fire(
        self,
        caller: Caller,
        workflow: Startable,
        triggers: Iterable[Trigger],
        kind: str,
        name: str,
        payload: str,
        id: str | None,
    ) -> Fired:
        """Start the workflow, unless no condition holds or it was started for this id before."""
        instance_id = None if id is None else _instance_id(kind, name, id)
        try:
            if not any(_holds(trigger, payload) for trigger in triggers):
                return Fired(workflow.handle)
        except ExpressionError as error:
            return Fired(workflow.handle, refused=f"the trigger's condition failed: {error}")
        detail: dict[str, str] = {kind: name}
        if id is not None:
            detail["id"] = id
        wanted = Wanted(
            instance_id=instance_id,
            input=payload,
            trigger_source=TriggerSource.WEBHOOK if kind == "webhook" else TriggerSource.EVENT,
            trigger_detail=msgspec.json.encode(detail).decode(),
        )
        try:
            [made] = await self._creator.create(caller, workflow.handle, [wanted], self._fresh)
        except InstanceExists:
            return Fired(workflow.handle, instance_id)
        started = instance_id or str(made.key)
        await self._tenants.audit(caller, "instance.create", f"{workflow.handle}/{started}", {"by": kind}, wait=False)
        return Fired(workflow.handle, started)


def _by_hook(account_id: UUID, workflow_key: UUID) -> Caller:
    """Whoever has the URL: may start, and nothing else."""
    return Caller(account_id, None, None, "webhook", expand([START]), "operator", via=f"hook:{workflow_key.hex}")


def _instance_id(kind: str, name: str, id: str) -> str:
    """The id of what this delivery starts in any workflow. Raises :class:`app.errors.InvalidRequest` for a bad id."""
    IDEMPOTENCY_KEY.check(id, "the id of the delivery")
    digest = hashlib.sha256(f"{kind}\n{name}\n{id}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{kind}-{digest[:40]}"


def _holds(trigger: Trigger, payload: str) -> bool:
    """Whether the trigger's condition, if it has one, holds for what came, whose members can be named directly.

    Raises ExpressionError.
    """
    if trigger.condition is None:
        return True
    value = loads(payload)
    members = value if isinstance(value, dict) else {}
    return compile_condition(trigger.condition).holds(members | {"trigger": value, "input": value, "payload": value})
