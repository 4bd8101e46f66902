"""From any exception to an answer in the shape of the face whose path was asked for."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response
from litestar.exceptions import HTTPException, LitestarException
from litestar.types import ExceptionHandlersMap

from app import envelope
from app.errors import MillraceError
from app.faces import face_of
from app.faces.face import Answer
from app.failures import log_failure, understand


def refuse(error: Exception, scope: Any) -> Answer:
    """The answer to a request that failed with `error`; what the caller must not see is logged. Never raises."""
    understood = understand(error)
    log_failure(error, understood)
    face = face_of(scope["path"])
    return (envelope.refuse if face is None else face.refuse)(understood, scope)


def handle_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler, for all faces."""
    answer = refuse(error, request.scope)
    return Response(answer.body, status_code=answer.status, headers=answer.headers, media_type=answer.media_type)


ERROR_HANDLERS: ExceptionHandlersMap = {
    MillraceError: handle_error,
    HTTPException: handle_error,
    LitestarException: handle_error,
    Exception: handle_error,
}
