"""Paths, decided on their raw spelling.

The Cloudflare face lives under `/client/v4` and, as an alias, at the root; both become `/client/v4/…` here, so that its
routes exist once. Ids of instances that a schedule made (`*/30 * * * *-1786001400000`) hold slashes, spaces and more,
and clients send them encoded (SDKs) or as they are (wrangler). So the instance part of a path is a *remainder*: it is
cut at `/status`, `/step`, `/logs` and `/events/{type}`, put aside in `scope[INSTANCE_ID]`, and replaced by one
placeholder segment for the router; :class:`RestoreInstanceId` gives it back as the path parameter. Everywhere else an
encoded slash has no business.

The server's own decoding of the path cannot be used for any of this: it turns `%2F` into `/` before anyone can look.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

from litestar.types import ASGIApp, Receive, Scope, Send

from app.errors import NoRoute

PREFIX = "/client/v4"
SECRETS = "/hooks/"
"""What comes behind it is a secret: whoever has it may start a workflow."""
INSTANCE_ID = "millrace.instance_id"
PLACEHOLDER = "-"

_ALIASES = frozenset({"accounts", "user", "memberships"})
_LITERALS = frozenset({"batch", "batch/terminate", "batch/delete", "terminate"})
_INSTANCES = re.compile(r"(/accounts/[^/]+/workflows/[^/]+/instances)/(.+)")
_TAIL = re.compile(r"(.+)(/status|/step|/logs|/events/[^/]+)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def raw_path_of(scope: MutableMapping[str, Any]) -> str:
    """The path as it came over the wire, without the query. Raises :class:`NoRoute` when it is not UTF-8."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    try:
        return raw.split(b"?", 1)[0].decode()
    except UnicodeDecodeError:
        raise NoRoute() from None


def canonicalise(scope: MutableMapping[str, Any]) -> None:
    """Rewrite `scope["path"]` to what is routed on. Raises :class:`NoRoute` for a path that can name nothing."""
    raw = raw_path_of(scope)
    inside = _inside_cloudflare(raw)
    if inside is None:
        scope["path"] = _decode_segments(raw)
        return
    match = _INSTANCES.fullmatch(inside.rstrip("/"))
    if match is None or match[2] in _LITERALS:
        scope["path"] = PREFIX + _decode_segments(inside)
        return
    base, remainder = match.groups()
    tail = _TAIL.fullmatch(remainder)
    instance_id, suffix = (tail[1], tail[2]) if tail else (remainder, "")
    scope[INSTANCE_ID] = _decode(instance_id)
    scope["path"] = f"{PREFIX}{_decode_segments(base)}/{PLACEHOLDER}{_decode_segments(suffix)}"


def shown(path: str) -> str:
    """A path as logs may have it. A secret may be behind a prefix or a slash too many, where nothing is found."""
    start, found, _ = unquote(path).partition(SECRETS)
    return f"{start}{found}[REDACTED]" if found else path


def is_cloudflare(path: str) -> bool:
    """Whether a canonical path belongs to the Cloudflare face."""
    return path == PREFIX or path.startswith(PREFIX + "/")


def _inside_cloudflare(raw: str) -> str | None:
    """The part of `raw` below the face's prefix, or None for other faces' paths."""
    if is_cloudflare(raw):
        return raw[len(PREFIX) :]
    return raw if raw.split("/", 2)[1:2] and raw.split("/", 2)[1] in _ALIASES else None


def _decode_segments(path: str) -> str:
    if "//" in path:
        raise NoRoute()
    if "%" not in path and _CONTROL.search(path) is None:
        return path
    segments = [_decode(segment) for segment in path.split("/")]
    if any("/" in segment for segment in segments):
        raise NoRoute()
    return "/".join(segments)


def _decode(text: str) -> str:
    if "%" in text:
        if _BAD_ESCAPE.search(text):
            raise NoRoute()
        try:
            text = unquote_to_bytes(text).decode()
        except UnicodeDecodeError:
            raise NoRoute() from None
    if _CONTROL.search(text):
        raise NoRoute()
    return text


class RestoreInstanceId:
    """Gives handlers the instance id that :func:`canonicalise` put aside, decoded, as `instance_id`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        instance_id = scope.get(INSTANCE_ID)
        if instance_id is not None and "instance_id" in scope["path_params"]:
            # A copy: the router caches and shares the dictionary between requests of the same (placeholder) path.
            scope["path_params"] = {**scope["path_params"], "instance_id": instance_id}
        await self.app(scope, receive, send)
