"""What callers can do with endpoints, whichever face they come through.

Every method takes the :class:`Caller` first, checks its scope, and sees nothing outside its account (and workspace,
when the credential is restricted to one). Endpoints of a restricted caller hear of its workspace only.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import structlog
from msgspec import Raw

from app.errors import InvalidRequest
from jobs.webhooks.catalogue import checked_event, checked_events
from jobs.webhooks.dispatch import KEPT
from jobs.webhooks.envelope import envelope, event_id
from jobs.webhooks.errors import DeliveryNotFound, WebhookInactive, WebhookNotFound
from jobs.webhooks.schemas import FORMATS, Delivery, DeliveryStatus, SealedWebhook, TestOutcome, Webhook
from jobs.webhooks.sealing import Sealing
from jobs.webhooks.sending import Poster
from jobs.webhooks.signing import SECRET_BYTES, chosen_secret, generated
from jobs.webhooks.store import deliveries, endpoints, upkeep
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import CannotDecrypt, LimitReached
from tenants.ids import Ids
from tenants.service import TenantService

READ, WRITE = "webhooks:read", "webhooks:write"
WEBHOOKS_MAX = 50
"""Endpoints of one account."""
URL_MAX = 2048
OVERLAP = timedelta(hours=24)
"""How long a secret that was replaced signs beside its successor."""
TEST_SECONDS = 10.0
COUNTED = 100_000
SEALED_PAGE = 500

log = structlog.get_logger(__name__)


class Bell(Protocol):
    """What rings the workers."""

    async def ring(self, job: str, refs: Sequence[tuple[UUID, UUID, int | None]] = ()) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to make an endpoint, or to change in one: None leaves things as they are, or takes the default."""

    url: Any = None
    events: Any = None
    secret: Any = None
    format: Any = None
    active: Any = None


class WebhookService:
    """Endpoints of all accounts. One per process."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: Ids,
        tenants: TenantService,
        poster: Poster,
        bell: Bell,
        *,
        secret_on_update: bool = True,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._tenants = tenants
        self.poster = poster
        self._bell = bell
        self._secret_on_update = secret_on_update
        self._entropy = entropy
        self.sealing = Sealing(tenants.keys)

    # --- endpoints -----------------------------------------------------------------------------------------------

    async def create(self, caller: Caller, wanted: Wanted) -> Webhook:
        """A new endpoint, with its secret. Raises :class:`InvalidRequest`, :class:`LimitReached`."""
        caller.require(WRITE)
        events, form, active = checked_events(wanted.events), _format(wanted.format), _active(wanted.active, True)
        secret = chosen_secret(wanted.secret) or generated(self._entropy(SECRET_BYTES))
        url = await self._checked_url(caller, wanted.url)
        id, account = self._ids.uuid7(), caller.account_id
        values = url, events, form, self.sealing.seal(account, id, secret), active, self._clock.now()
        async with self._db.scope(account, transaction=True) as connection:
            await endpoints.lock(connection, account)
            if await endpoints.count(connection, account) >= WEBHOOKS_MAX:
                raise LimitReached(f"an account may have at most {WEBHOOKS_MAX} webhooks")
            made = await endpoints.insert(connection, account, caller.workspace_id, id, *values)
        await self._tenants.audit(caller, "webhook.create", str(made.no), {"events": events})
        await self._bell.ring("deliver_webhook")
        return _shown(made, secret)

    async def all(self, caller: Caller) -> list[Webhook]:
        """The endpoints, the oldest first, without their secrets."""
        caller.require(READ)
        async with self._db.scope(caller.account_id) as connection:
            return [_shown(one) for one in await endpoints.all_of(connection, caller.account_id, caller.workspace_id)]

    async def get(self, caller: Caller, no: int) -> Webhook:
        """One endpoint, without its secret. Raises :class:`WebhookNotFound`."""
        caller.require(READ)
        async with self._db.scope(caller.account_id) as connection:
            return _shown(await self._find(connection, caller, no))

    async def update(self, caller: Caller, no: int, wanted: Wanted) -> Webhook:
        """Change an endpoint; the answer has its secret (unless the operator forbids it), which is audited.

        A new secret signs beside the old one for 24 hours. Who is switched on hears what happens from now on; what was
        put up before goes on. Raises :class:`WebhookNotFound`, :class:`InvalidRequest`.
        """
        caller.require(WRITE)
        events = None if wanted.events is None else checked_events(wanted.events)
        form = None if wanted.format is None else _format(wanted.format)
        active = None if wanted.active is None else _active(wanted.active, True)
        new = chosen_secret(wanted.secret)
        url = None if wanted.url is None else await self._checked_url(caller, wanted.url)
        hook = await self._change(caller, no, url, events, form, active, new)
        return hook if self._secret_on_update else dataclasses.replace(hook, secret=None)

    async def rotate(self, caller: Caller, no: int) -> Webhook:
        """Give an endpoint a new secret, made here. Raises :class:`WebhookNotFound`."""
        caller.require(WRITE)
        return await self._change(caller, no, None, None, None, None, generated(self._entropy(SECRET_BYTES)))

    async def _change(
        self,
        caller: Caller,
        no: int,
        url: str | None,
        events: list[str] | None,
        form: str | None,
        active: bool | None,
        new: str | None,
    ) -> Webhook:
        account, now = caller.account_id, self._clock.now()
        async with self._db.scope(account, transaction=True) as connection:
            old = await self._find(connection, caller, no, for_update=True)
            try:
                current = self.sealing.open(account, old.id, old.secret)
            except CannotDecrypt:
                if new is None:
                    raise
                current = None
            sealed = None if new is None or new == current else self.sealing.seal(account, old.id, new)
            made = await endpoints.update(
                connection,
                account,
                caller.workspace_id,
                no,
                url or old.url,
                events or old.events,
                form or old.format,
                old.active if active is None else active,
                sealed,
                now + OVERLAP,
            )
        await self._tenants.audit(caller, "webhook.update", str(no), {"secret": "replaced" if sealed else "shown"})
        await self._bell.ring("deliver_webhook")
        return _shown(made, new or current)

    async def delete(self, caller: Caller, no: int) -> None:
        """Remove an endpoint; nothing more is sent to it. Raises :class:`WebhookNotFound`."""
        caller.require(WRITE)
        async with self._db.scope(caller.account_id) as connection:
            where = connection, caller.account_id, caller.workspace_id, no
            if not await endpoints.delete(*where, self._clock.now()):
                raise WebhookNotFound()
        await self._tenants.audit(caller, "webhook.delete", str(no))

    async def _find(self, connection: Any, caller: Caller, no: int, *, for_update: bool = False) -> SealedWebhook:
        found = await endpoints.one(connection, caller.account_id, caller.workspace_id, no, for_update=for_update)
        if found is None:
            raise WebhookNotFound()
        return found

    async def _checked_url(self, caller: Caller, url: Any) -> str:
        rule = await self._problem(caller, url)
        if rule is not None:
            raise InvalidRequest(f"url {rule}", pointer="/url")
        return url

    async def _problem(self, caller: Caller, url: Any) -> str | None:
        """Why nothing may be sent to `url`, as a rule; None when it may."""
        if not isinstance(url, str) or not 1 <= len(url) <= URL_MAX:
            return f"must be a text of 1 to {URL_MAX} characters: an absolute URL"
        if any(ord(letter) <= 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in url):
            return "must be an absolute URL without spaces and control characters"
        return await self.poster.vet(url, caller.account_id)

    # --- deliveries ----------------------------------------------------------------------------------------------

    async def deliveries(
        self, caller: Caller, no: int, *, status: DeliveryStatus | None = None, limit: int, offset: int = 0
    ) -> tuple[list[Delivery], int]:
        """Deliveries to an endpoint, the newest first, and how many there are, counted to one more than `COUNTED`.

        Raises :class:`WebhookNotFound`.
        """
        caller.require(READ)
        async with self._db.scope(caller.account_id) as connection:
            await self._find(connection, caller, no)
            where = connection, caller.account_id, caller.workspace_id, no, status
            return await deliveries.page(*where, limit, offset), await deliveries.count(*where, COUNTED + 1)

    async def redeliver(self, caller: Caller, delivery_no: int, *, webhook_no: int | None = None) -> Delivery:
        """Send an event to its endpoint again, at once, under the same id; the schedule begins anew.

        `webhook_no`: only if it is of that endpoint. Raises :class:`DeliveryNotFound`, :class:`WebhookInactive`.
        """
        caller.require(WRITE)
        account, workspace, now = caller.account_id, caller.workspace_id, self._clock.now()
        async with self._db.scope(account, transaction=True) as connection:
            where = connection, account, workspace, delivery_no, webhook_no
            found = await deliveries.redeliver(*where, now, now + KEPT)
            if found is None:
                if await deliveries.one(*where) is None:
                    raise DeliveryNotFound()
                raise WebhookInactive("the webhook is switched off: nothing is sent to it until it is active again")
        await self._tenants.audit(caller, "webhook.redeliver", str(found.webhook_no), {"delivery": delivery_no})
        await self._bell.ring("deliver_webhook")
        return found

    # --- tests ---------------------------------------------------------------------------------------------------

    async def test(self, caller: Caller, url: Any, event: Any, payload: Raw, secret: Any = None) -> TestOutcome:
        """Send one request now; nothing is stored but an audit line. Unsigned without `secret`.

        Raises :class:`InvalidRequest`, :class:`WebhookTestRateExceeded`. The outcome tells neither what the target said
        nor which address was asked.
        """
        caller.require(WRITE)
        name = checked_event(event)
        chosen = chosen_secret(secret)
        target = await self._checked_url(caller, url)
        await self._tenants.admit_webhook_test(caller)
        now = self._clock.now()
        id, secrets = event_id(now, self._ids.uuid7()), [] if chosen is None else [chosen]
        body = envelope("standard", caller.account_id, name, id, now, None, payload)
        lane = caller.account_id, "test"
        answer = await self.poster.send(target, name, id, body, secrets, now, seconds=TEST_SECONDS, lane=lane)
        await self._tenants.audit(caller, "webhook.test", name, {"success": answer.success, "status": answer.status})
        if answer.success:
            return TestOutcome(True, answer.status, "Webhook delivered successfully")
        return TestOutcome(False, answer.status, f"Failed to deliver webhook: {answer.error}")

    # --- the platform's secret -----------------------------------------------------------------------------------

    async def renew_secrets(self) -> int:
        """Encrypt with the platform's current secret what still uses the previous one; how many endpoints changed."""
        renewed, after = 0, (UUID(int=0), 0)
        while page := await upkeep.sealed(self._db, after, SEALED_PAGE):
            for row in page:
                try:
                    pair = [
                        None if sealed is None else self.sealing.renewed(row["account_id"], row["id"], sealed)
                        for sealed in (row["secret"], row["former_secret"])
                    ]
                except CannotDecrypt as error:
                    log.warning("webhook_secret_not_renewed", webhook=row["no"], error=error.message)
                    continue
                if pair[0] is not None and pair != [row["secret"], row["former_secret"]]:
                    renewed += await upkeep.reseal(self._db, row, pair[0], pair[1])
            after = page[-1]["account_id"], page[-1]["no"]
        return renewed


def _shown(one: SealedWebhook, secret: str | None = None) -> Webhook:
    return Webhook(
        no=one.no,
        url=one.url,
        events=one.events,
        format=one.format,
        active=one.active,
        disabled_reason=one.disabled_reason,
        created_at=one.created_at,
        secret=secret,
    )


def _format(value: Any) -> str:
    if value is None:
        return FORMATS[0]
    if value not in FORMATS:
        raise InvalidRequest(f"format must be one of {', '.join(FORMATS)}", pointer="/format")
    return value


def _active(value: Any, default: bool) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest("active must be a boolean", pointer="/active")
    return value
