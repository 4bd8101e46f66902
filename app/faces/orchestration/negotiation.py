"""Which version of this API a request is for: said in the URL (`/api/v1/…`), in `Accept`, or nowhere.

Every version there is has the same representation today. The vendor type is also taken as a body's `Content-Type`.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from litestar.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import InvalidRequest, UnsupportedMediaType
from app.faces.orchestration.errors import NotAcceptable, UnsupportedVersion

SUPPORTED = ("v1", "v2")
DEFAULT = "v1"
JSON = "application/json"

_IN_URL = re.compile(r"/api/(v[0-9]+)(?:/.*)?", re.DOTALL)
_VENDOR = re.compile(r"application/vnd\.workflow-orchestration\.(v[0-9a-z]+)\+json")
_PLAIN = frozenset({JSON, "application/*", "*/*"})
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """The version of an answer (`v1`), and its media type."""

    version: str
    media_type: str

    @property
    def number(self) -> str:
        """As the header `API-Version` has it."""
        return self.version.removeprefix("v")


def version_in(path: str) -> str | None:
    """The version a path names, supported or not; None when it names none."""
    match = _IN_URL.fullmatch(path)
    return match[1] if match else None


def choose(path: str, accept: str) -> Chosen:
    """What to answer a request with. Raises :class:`UnsupportedVersion` for that of the URL, :class:`NotAcceptable`
    when `Accept` wants no other than versions there are not, :class:`InvalidRequest` when the two name different ones.
    """
    named = version_in(path)
    if named is not None and named not in SUPPORTED:
        raise UnsupportedVersion(named)
    best = _best(accept)
    if best is None:
        return Chosen(named or DEFAULT, JSON)
    version, media_type = best
    if named is not None and named != version:
        raise InvalidRequest(f"the URL names the API version {named}, the header Accept {version}")
    return Chosen(version, media_type)


def chosen_for(scope: Any) -> Chosen:
    """The same of an ASGI scope, for answers that must be given: where the request is at fault, the plain default."""
    try:
        return choose(scope["path"], header(scope, b"accept"))
    except (UnsupportedVersion, NotAcceptable, InvalidRequest):
        return Chosen(DEFAULT, JSON)


def _best(accept: str) -> tuple[str, str] | None:
    """The version of the vendor type that is wanted most; None when plain JSON is. Raises :class:`NotAcceptable`."""
    wanted: tuple[float, tuple[str, str] | None] = (0.0, None)
    refused: str | None = None
    for part in accept.split(","):
        media_type, quality = _range(part)
        vendor = _VENDOR.fullmatch(media_type)
        if vendor is not None and vendor[1] not in SUPPORTED:
            refused = refused or vendor[1]
        elif quality > wanted[0] and (vendor is not None or media_type in _PLAIN):
            wanted = quality, None if vendor is None else (vendor[1], media_type)
    if refused is not None and not wanted[0]:
        raise NotAcceptable(refused)
    return wanted[1]


def _range(part: str) -> tuple[str, float]:
    """A media range in lower case, and how much it is wanted; an unreadable quality counts as 1."""
    media_type, *parameters = (piece.strip().lower() for piece in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q" and _QUALITY.fullmatch(value.strip()):
            return media_type, float(value)
    return media_type, 1.0


def check_content_type(content_type: str, named: str | None) -> None:
    """Raise :class:`UnsupportedMediaType` unless a body of that type is JSON, and :class:`InvalidRequest` when it is of
    another version than the URL has `named`. `Accept` is about the answer, and may want another.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    vendor = _VENDOR.fullmatch(media_type)
    if vendor is not None:
        if vendor[1] not in SUPPORTED:
            raise UnsupportedMediaType(f"API version '{vendor[1]}' is not supported")
        if named not in (None, vendor[1]):
            raise InvalidRequest(f"the URL names the API version {named}, the header Content-Type {vendor[1]}")
    elif media_type != JSON and not media_type.endswith("+json"):
        raise UnsupportedMediaType("Request bodies must be application/json")


class Negotiate:
    """ASGI middleware: refuses what cannot be answered, and gives answers the media type that was asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises as :func:`choose` and :func:`check_content_type`."""
        if scope["type"] != "http" or scope["method"] == "OPTIONS":
            await self._app(scope, receive, send)
            return
        chosen = choose(scope["path"], header(scope, b"accept"))
        if _has_body(scope):
            check_content_type(header(scope, b"content-type") or JSON, version_in(scope["path"]))

        async def echoed(message: Message) -> None:
            if message["type"] == "http.response.start" and chosen.media_type != JSON:
                message["headers"] = [
                    (name, chosen.media_type.encode() if name.lower() == b"content-type" else value)
                    for name, value in message["headers"]
                ]
            await send(message)

        await self._app(scope, receive, echoed)


def _has_body(scope: Any) -> bool:
    return header(scope, b"content-length") not in ("", "0") or bool(header(scope, b"transfer-encoding"))


def header(scope: Any, name: bytes) -> str:
    """A request header's value, lines of the same name joined; empty when there is none."""
    return ", ".join(value.decode("latin-1") for key, value in scope["headers"] if key == name)
