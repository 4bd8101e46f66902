"""Streams that steps returned, read piece by piece: by the step's route, and by the code of the run itself."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from litestar.response import Stream
from litestar.response.streaming import ASGIStreamingResponse

from instances import store
from instances.projections.values import StoredStream
from tenants.database import Database

CONTENT_TYPE = "application/octet-stream"


class StreamGone(Exception):
    """The stream, or a part of it, is not there any more: the instance was deleted or restarted while it was read."""


class StreamReader:
    """Reads stored streams. Holds no connection between two pieces."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def piece(self, account_id: UUID, key: UUID, stream: StoredStream, after: int) -> tuple[int, str] | None:
        """The piece behind seq `after` (0: the first one): its seq, and its bytes in base64. None: there is none."""
        async with self._db.scope(account_id) as connection:
            return await store.next_piece(connection, account_id, key, stream, after)

    async def pieces(self, account_id: UUID, key: UUID, stream: StoredStream) -> AsyncIterator[bytes]:
        """All of it. Raises :class:`StreamGone` in place of what is missing."""
        after, left = 0, stream.bytes
        while left > 0:
            found = await self.piece(account_id, key, stream, after)
            if found is None:
                raise StreamGone
            after, piece = found[0], base64.b64decode(found[1])
            left -= len(piece)
            yield piece


@dataclass(frozen=True, slots=True)
class StepStream:
    """What a step returned, when it returned a stream: its bytes as they are read, `size` in all."""

    pieces: AsyncIterator[bytes]
    size: int


class ByteStream(Stream):
    """A stream as an answer, sent as it is read. A client that got less than `content-length` knows that it broke."""

    def __init__(self, stream: StepStream) -> None:
        super().__init__(stream.pieces, media_type=CONTENT_TYPE, headers={"content-length": str(stream.size)})

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> ASGIStreamingResponse:
        """As of `Stream`, but with the type of a stream even where the handler is declared to answer JSON."""
        return super().to_asgi_response(*args, **{**kwargs, "media_type": CONTENT_TYPE})  # type: ignore[return-value]
