"""Stream tickets: what opens one stream, once, within a minute, where no header can be sent.

Browsers' `EventSource` and `WebSocket` cannot send credentials, and URLs end up in logs: so a page asks for a ticket
with its own credential and puts that into the URL.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from urllib.parse import unquote

from app.errors import InvalidRequest, NotAllowed, NotAuthenticated
from tenants.auth import Caller
from tenants.clock import Clock
from tenants.database import Database
from tenants.ids import Ids
from tenants.keys import Keys
from tenants.sessions import Opaque
from tenants.store import logins as store
from tenants.store.logins import Ticket

LIFETIME = timedelta(seconds=60)
_PATH_CHARACTERS = 2048


class TicketService:
    """Makes tickets and takes them. `recheck` looks up a caller again (`TenantService.recheck`)."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        ids: Ids,
        keys: Keys,
        recheck: Callable[[Caller], Awaitable[Caller]],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._recheck = recheck
        self._texts = Opaque(keys, "stream ticket", entropy)

    async def issue(self, caller: Caller, path: str) -> str:
        """A ticket with which whoever has it may open the stream at `path` as the caller.

        Raises :class:`InvalidRequest` for what is no path, :class:`NotAllowed` for an operator, who has no credential.
        """
        if caller.token_id is None and caller.login_id is None:
            raise NotAllowed()
        given, path = path, canonical(path)
        if not given.startswith("/") or len(path) > _PATH_CHARACTERS or not path.isprintable():
            raise InvalidRequest(f"path must begin with '/' and have at most {_PATH_CHARACTERS} printable characters")
        text, hashed = self._texts.new()
        now = self._clock.now()
        ticket = Ticket(
            account_id=caller.account_id,
            path=path,
            token_id=caller.token_id,
            user_id=caller.user_id,
            login_id=caller.login_id,
            login_expires_at=caller.expires_at,
            workspace_id=caller.workspace_id,
            expires_at=now + LIFETIME,
        )
        await store.insert_ticket(self._db.engine, self._ids.uuid7(), hashed, ticket, now)
        return text

    async def redeem(self, text: str, path: str) -> Caller:
        """Take the ticket; whose it is, as they are now. Raises :class:`NotAuthenticated`, and it is gone all the same.

        `path` is the decoded path of the request.
        """
        hashes = self._texts.hashes(text)
        ticket = await store.take_ticket(self._db.engine, hashes) if hashes else None
        if ticket is None or ticket.expires_at <= self._clock.now() or ticket.path != _trimmed(path):
            raise NotAuthenticated()
        return await self._recheck(
            Caller(
                account_id=ticket.account_id,
                token_id=ticket.token_id,
                user_id=ticket.user_id,
                name="",
                scopes=frozenset(),
                role="",
                workspace_id=ticket.workspace_id,
                login_id=ticket.login_id,
                expires_at=ticket.login_expires_at,
            )
        )


def canonical(path: str) -> str:
    """How a path is compared: without query, decoded, without a slash at its end.

    >>> canonical("/a%20b/?x=1")
    '/a b'
    """
    return _trimmed(unquote(path.partition("?")[0]))


def _trimmed(path: str) -> str:
    return path.rstrip("/") or "/"
