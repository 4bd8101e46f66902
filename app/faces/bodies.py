"""Request bodies of the faces that take JSON alone."""

from __future__ import annotations

from typing import Any

from litestar import Request

from app.errors import UnsupportedMediaType


def require_json(request: Request[Any, Any, Any]) -> None:
    """Raise :class:`UnsupportedMediaType` for a body that says it is something else. Clients that send none may say
    what they like.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and kind != "application/json" and not kind.endswith("+json") and _has_body(request):
        raise UnsupportedMediaType("Request bodies must be application/json")


def _has_body(request: Request[Any, Any, Any]) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
