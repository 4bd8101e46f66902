"""`Idempotency-Key`: the same request sent twice has one effect, and both get the same answer.

A key belongs to an account and an operation (method and route) and is remembered for 24 hours. Its row is written
before the work starts and holds a *seed* that names what the work creates; when the process dies in between, the next
request of the key takes over with the same seed and finds what was created instead of creating it again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

from app.errors import MillraceError
from tenants.clock import Clock
from tenants.database import Database
from tenants.errors import IdempotencyInFlight, IdempotencyKeyReused
from tenants.ids import Ids
from tenants.limits import IDEMPOTENCY_KEEP_MS, IDEMPOTENCY_KEY
from tenants.store import idempotency as store

KEEP = timedelta(milliseconds=IDEMPOTENCY_KEEP_MS)
HELD = timedelta(seconds=90)
"""A request that has not been answered for this long is taken for dead: longer than any request may last."""
HELD_REPEATABLE = timedelta(seconds=5)
"""The same for work that may be under way twice at a time, because all it does follows from the seed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A response: HTTP status and JSON text. A `replayed` one carries `Idempotent-Replayed: true`."""

    status: int
    body: str
    replayed: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """The right to do the work of a key, once. `fresh`: nobody had it before; else the work may have been done.

    `held_until`: nobody else gets it before then; somebody who does, has another time there.
    """

    account_id: UUID
    operation: str
    key: str
    seed: UUID
    fresh: bool = dataclasses.field(default=True, compare=False)
    held_until: datetime | None = dataclasses.field(default=None, compare=False)

    def id(self, index: int = 0) -> UUID:
        """The UUIDv7 of the `index`-th thing the request creates (below 65536): the same in a repeated request."""
        return UUID(int=self.seed.int & ~0xFFFF | index)


class Idempotency:
    """Remembers answers by key. Use :meth:`run`; :meth:`begin` and the rest are its parts."""

    def __init__(self, db: Database, clock: Clock, ids: Ids) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids

    async def run(
        self,
        account_id: UUID,
        operation: str,
        key: str | None,
        request: bytes,
        work: Callable[[Claim], Awaitable[Answer]],
        held: timedelta = HELD,
    ) -> Answer:
        """The answer of `work`, or the stored one of the first request with this key.

        `request` is whatever makes two requests the same: path parameters and body. The first one, refused (an error
        below 500), gives the key back. After any other failure the outcome is unknown, and stays so when a repeat is
        refused, so the key stays bound to the request and its seed. A process that dies keeps it for `held`.

        Raises :class:`IdempotencyKeyReused`, :class:`IdempotencyInFlight`, and what `work` raises.
        """
        if key is None:
            return await work(Claim(account_id, operation, "", self._ids.uuid7()))
        claim = await self.begin(account_id, operation, key, request, held)
        if isinstance(claim, Answer):
            return claim
        try:
            answer = await work(claim)
        except MillraceError as error:
            await (self.abandon(claim) if claim.fresh and error.status < 500 else self.release(claim))
            raise
        except Exception:
            await self.release(claim)
            raise
        await self.finish(claim, answer)
        return answer

    async def begin(
        self, account_id: UUID, operation: str, key: str, request: bytes, held: timedelta = HELD
    ) -> Claim | Answer:
        """Take the key, or get the stored answer. Raises as :meth:`run`, and :class:`InvalidRequest` for a bad key."""
        key = IDEMPOTENCY_KEY.check(key, "Idempotency-Key")
        digest = hashlib.sha256(request).digest()
        now, offered = self._clock.now(), self._ids.uuid7()
        async with self._db.scope(account_id) as connection:
            seed = await store.begin_idempotent(
                connection,
                account_id,
                operation,
                key,
                digest,
                seed=offered,
                now=now,
                held_until=now + held,
                forgotten=now - KEEP,
            )
            if seed is not None:
                return Claim(account_id, operation, key, seed, fresh=seed == offered, held_until=now + held)
            stored = await store.idempotent_answer(connection, account_id, operation, key)
        if stored is not None and stored[0] != digest:
            raise IdempotencyKeyReused("this Idempotency-Key was used for a different request; choose a new one")
        if stored is None or stored[1] is None or stored[2] is None:
            raise IdempotencyInFlight("the first request with this Idempotency-Key is being answered", retry_after=1)
        return Answer(stored[1], stored[2], replayed=True)

    async def finish(self, claim: Claim, answer: Answer) -> None:
        """Store the answer for whoever asks again."""
        async with self._db.scope(claim.account_id) as connection:
            await store.finish_idempotent(
                connection, claim.account_id, claim.operation, claim.key, claim.seed, answer.status, answer.body
            )

    async def abandon(self, claim: Claim) -> None:
        """Give the key back: nothing was done. Does nothing when somebody else has taken the claim over."""
        async with self._db.scope(claim.account_id) as connection:
            await store.abandon_idempotent(
                connection, claim.account_id, claim.operation, claim.key, claim.seed, claim.held_until
            )

    async def release(self, claim: Claim) -> None:
        """Let a repeat of the same request take over at once: it is not known whether something was done."""
        async with self._db.scope(claim.account_id) as connection:
            await store.release_idempotent(
                connection, claim.account_id, claim.operation, claim.key, claim.seed, self._clock.now()
            )
