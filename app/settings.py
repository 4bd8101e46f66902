"""Settings of a Millrace process, read from `MILLRACE_*` environment variables.

Every setting is one field of :class:`Settings`; its variable is ``MILLRACE_`` plus the field's name in upper case.
`millrace config` prints them with secrets masked.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

MIN_SECRET_BYTES = 32


class SettingsError(ValueError):
    """A setting is missing or has a value that cannot be used; the text says which and what to do."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One process's configuration. Times are seconds, sizes bytes, unless the name says otherwise."""

    database_url: str = ""
    """PostgreSQL, as a libpq URL. Empty: the embedded one of `millrace dev`."""
    redis_url: str = ""
    """Redis or Valkey: `redis://`, `rediss://` or `unix://`. Empty: the embedded one of `millrace dev`."""
    secret: str = ""
    """At least 32 bytes. Token hashes, encryption, cursors and JWTs use keys derived from it."""
    secret_previous: str = ""
    """The secret before the current one, accepted while rotating."""
    data_dir: Path | None = None
    """Where `millrace dev` keeps its data; database commands pointed at it use its database and secret."""
    public_url: str = ""
    """The address clients use, when it differs from the bind address (webhook links, `openapi.yaml`)."""
    trusted_proxies: tuple[str, ...] = ()
    """CIDRs whose `X-Forwarded-For` is believed."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call, or `*`; :mod:`app.origins` reads them. Empty: CORS is off."""
    egress_allow: tuple[str, ...] = ()
    """CIDRs and host names `call_api` may reach although they are not public; plain http is allowed for these."""
    egress_deny: tuple[str, ...] = ()
    """CIDRs and host names that are never called, even if they are public or allowed."""
    egress_plain_http: bool = False
    """Whether public addresses may be called by plain http, too."""
    metrics_bind: str = "127.0.0.1:0"
    """Address of `/metrics`; port 0 picks a free one, empty turns it off."""
    bind: str = "127.0.0.1:8484"
    """Address the API listens on."""
    log_level: str = "info"
    """The least that is logged: `debug`, `info`, `warning` or `error`."""
    log_format: str = "auto"
    """`json`, `console`, or `auto`: console on a terminal, else json."""
    worker_slots: int = 2000
    """Runs one worker process holds in memory at most."""
    sandboxes: int = 64
    """Sandboxes of each language a worker process uses at the same time."""
    lease_seconds: float = 6.0
    """A worker that has not renewed its lease for this long is taken over."""
    drain_seconds: float = 20.0
    """Grace for running steps after SIGTERM."""
    db_pool_size: int = 10
    """Connections of each of a process's two pools at most."""
    run_wait: float = 15.0
    """Seconds a call of Medusa's `run` waits for the workflow at most."""
    run_throws: bool = True
    """Whether such a call answers with the workflow's error when that failed, as Medusa does, and not with
    `hasFailed: true`."""

    webhook_secret_on_update: bool = True
    """Whether the answer to a change of a webhook shows its secret."""
    graphql_introspection: str = "authenticated"
    """Who may read the GraphQL schema: `authenticated`, `public`, or `off` for nobody."""
    graphiql: bool = True
    """Whether `/graphql` shows browsers a page to write operations on."""

    def address(self, scope: Mapping[str, Any]) -> str:
        """Where clients reach us: the configured address, else the one the server of an ASGI `scope` listens on. Never
        what the client says in `Host`.
        """
        if self.public_url:
            return self.public_url.rstrip("/")
        host, port = scope.get("server") or ("127.0.0.1", None)
        return f"{scope['scheme']}://{f'[{host}]' if ':' in host else host}{f':{port}' if port else ''}"

    def require_secret(self) -> bytes:
        """The secret as bytes; :class:`SettingsError` when it is missing or too short."""
        raw = _bytes(self.secret)
        if len(raw) < MIN_SECRET_BYTES:
            raise SettingsError(
                f"MILLRACE_SECRET must be at least {MIN_SECRET_BYTES} bytes. Generate one with: openssl rand -hex 32"
            )
        return raw

    def previous_secret(self) -> bytes | None:
        """The secret before, None when there is none; :class:`SettingsError` when it is too short."""
        raw = _bytes(self.secret_previous)
        if raw and len(raw) < MIN_SECRET_BYTES:
            raise SettingsError(
                f"MILLRACE_SECRET_PREVIOUS must be the whole secret used before, at least {MIN_SECRET_BYTES} bytes."
            )
        return raw or None


def _bytes(secret: str) -> bytes:
    """The text as the environment had it, which may have been no UTF-8."""
    return secret.encode("utf-8", "surrogateescape")


_LEAST = {
    "worker_slots": 1,
    "sandboxes": 1,
    "lease_seconds": 2.0,
    "drain_seconds": 0.0,
    "db_pool_size": 1,
    "run_wait": 0.0,
}
"""The smallest value that makes sense; a lease is renewed every second."""
_MOST = 1_000_000

_CHOICES = {"graphql_introspection": ("authenticated", "public", "off")}
"""Settings that are one word of several."""

SECRET_FIELDS = frozenset({"secret", "secret_previous", "database_url", "redis_url"})


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment (default `os.environ`); `overrides` win. Raises :class:`SettingsError`."""
    env = os.environ if environ is None else environ
    hints = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        name, kind = f"MILLRACE_{field.name.upper()}", hints[field.name]
        if kind in (int, float) and env.get(name):
            values[field.name] = _number(name, env[name], kind, _LEAST[field.name])
        elif name in env and kind not in (int, float):
            values[field.name] = _convert(name, env[name], kind)
        if field.name in _CHOICES and values.get(field.name, field.default) not in _CHOICES[field.name]:
            raise SettingsError(f"{name} must be one of {', '.join(_CHOICES[field.name])}, not {env[name]!r}.")
    values.update(overrides)
    return Settings(**values)


def _convert(name: str, text: str, kind: Any) -> Any:
    if kind is bool:
        return _switch(name, text)
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == Path | None:
        return Path(text).expanduser() if text else None
    return text


def _number(name: str, text: str, kind: type[int] | type[float], least: float) -> int | float:
    with contextlib.suppress(ValueError):
        if least <= (number := kind(text)) <= _MOST:
            return number
    what = "whole number" if kind is int else "number"
    raise SettingsError(f"{name} must be a {what} from {kind(least)} to {_MOST}, not {text!r}.")


def _switch(name: str, text: str) -> bool:
    if (lower := text.strip().lower()) not in ("true", "false", "1", "0", ""):
        raise SettingsError(f"{name} must be true or false, not {text!r}.")
    return lower in ("true", "1")
