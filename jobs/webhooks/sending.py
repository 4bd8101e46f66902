"""One request to an endpoint, and what it answered."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime

from instances.egress import EgressClient, EgressError, OpenResponse
from jobs.webhooks.signing import headers

BEGINNING_BYTES = 1024
"""Of an answer's body, what is kept."""
MAX_RESPONSE = 64 * 1024
MAX_REQUEST = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` is None when there was no answer, and `error` says why; `beginning` is that of the body."""

    status: int | None = None
    error: str | None = None
    beginning: str | None = None
    retry_after: str | None = None

    @property
    def success(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class Poster:
    """Sends. `release` is the platform's, for `User-Agent`."""

    def __init__(self, egress: EgressClient, release: str) -> None:
        self._egress = egress
        self._user_agent = f"millrace-webhooks/{release}"

    async def vet(self, url: str, lane: Hashable) -> str | None:
        """Why nothing may be sent to `url`, as a rule (`must …`); None when it may."""
        return await self._egress.vet(url, lane=lane)

    async def send(
        self,
        url: str,
        event: str,
        event_id: str,
        body: bytes,
        secrets: Sequence[str],
        now: datetime,
        *,
        seconds: float,
        lane: Hashable,
    ) -> Answer:
        """Send a body, signed with every secret. Never raises for what is outside; a redirect is an answer like others.

        `seconds` bounds all of it, connecting takes 5 s at most. Lanes do not wait for each other.
        """
        told = [
            ("Content-Type", "application/json"),
            ("User-Agent", self._user_agent),
            *headers(event, event_id, body, secrets, now),
        ]
        try:
            response = await self._egress.fetch(
                "POST",
                url,
                headers=told,
                body=body,
                timeout=seconds,
                max_request=MAX_REQUEST,
                max_response=MAX_RESPONSE,
                redirect="manual",
                lane=lane,
            )
        except EgressError as error:
            return Answer(error=str(error))
        async with response:
            beginning = await _beginning(response)
        error = None if 200 <= response.status < 300 else f"the endpoint answered {response.status}"
        return Answer(response.status, error, beginning or None, response.header("retry-after"))


async def _beginning(response: OpenResponse) -> str:
    """What of the body came in time, as text that can be stored."""
    whole = bytearray()
    try:
        async for piece in response:
            if len(whole) < BEGINNING_BYTES:
                whole += piece
    except EgressError:
        pass  # the status has said all that counts
    return bytes(whole[:BEGINNING_BYTES]).decode("utf-8", "replace").replace("\0", "\ufffd")
