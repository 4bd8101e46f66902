"""From any exception to an answer in the shape of the face whose path was asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, LitestarException
from litestar.types import ExceptionHandlersMap

from app import envelope
from app.errors import MillraceError
from app.faces.face import Answer
from app.faces.registry import face_of
from app.failures import log_failure, understand


class Refusals:
    """Says no, for all faces. `now` is the platform's clock: some faces put the time into their answers."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now

    def answer(self, error: Exception, scope: Any) -> Answer:
        """The answer to a request that failed with `error`; what the caller must not see is logged. Never raises."""
        understood = understand(error)
        log_failure(error, understood)
        face = face_of(scope["path"])
        if face is None:
            return envelope.refuse(understood, scope)
        return face.refuse(understood, scope, self._now())

    def handlers(self) -> ExceptionHandlersMap:
        """Litestar's exception handlers."""

        def handle(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
            answer = self.answer(error, request.scope)
            return Response(
                answer.body, status_code=answer.status, headers=answer.headers, media_type=answer.media_type
            )

        return dict.fromkeys((MillraceError, HTTPException, LitestarException, Exception), handle)
