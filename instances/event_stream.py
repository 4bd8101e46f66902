"""Server-sent events as a response."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from litestar.response import Stream
from litestar.response.streaming import ASGIStreamingResponse

CONTENT_TYPE = "text/event-stream"  # Litestar adds the charset
_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class EventStream(Stream):
    """Sends what `frames` gives, each frame at once. The client's leaving cancels `frames`."""

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        super().__init__(frames, media_type=CONTENT_TYPE, headers=_HEADERS)

    def to_asgi_response(self, *args: Any, **kwargs: Any) -> ASGIStreamingResponse:
        """As of `Stream`, but with the type of a stream even where the handler is declared to answer JSON."""
        return super().to_asgi_response(*args, **{**kwargs, "media_type": CONTENT_TYPE})  # type: ignore[return-value]
