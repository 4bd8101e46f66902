"""Settings of a Millrace process, read from `MILLRACE_*` environment variables.

Every setting is one field of :class:`Settings`; its variable is ``MILLRACE_`` plus the field's name in upper case.
`millrace config` prints them with secrets masked.
"""

from __future__ import annotations

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
    """Origins browsers may call from. Empty: CORS is off."""
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
    log_format: str = "auto"
    """`json`, `console`, or `auto`: console on a terminal, else json."""
    worker_slots: int = 2000
    """Runs one worker process holds in memory at most."""
    lease_seconds: float = 6.0
    """A worker that has not renewed its lease for this long is taken over."""
    drain_seconds: float = 20.0
    """Grace for running steps after SIGTERM."""
    db_pool_size: int = 10
    test_clock_offset: float = 0.0
    """Tests only: seconds added to this process's wall clock (which nothing may depend on)."""

    def require_secret(self) -> bytes:
        """The secret as bytes; :class:`SettingsError` when it is missing or too short."""
        raw = self.secret.encode()
        if len(raw) < MIN_SECRET_BYTES:
            raise SettingsError(
                f"MILLRACE_SECRET must be at least {MIN_SECRET_BYTES} bytes. Generate one with: openssl rand -hex 32"
            )
        return raw


SECRET_FIELDS = frozenset({"secret", "secret_previous", "database_url", "redis_url"})


def load_settings(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from the environment (default `os.environ`); `overrides` win. Raises :class:`SettingsError`."""
    env = os.environ if environ is None else environ
    hints = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        name = f"MILLRACE_{field.name.upper()}"
        if name in env:
            values[field.name] = _convert(name, env[name], hints[field.name])
    values.update(overrides)
    return Settings(**values)


def _convert(name: str, text: str, kind: Any) -> Any:
    if kind is bool:
        return _switch(name, text)
    try:
        if kind is int or kind is float:
            return kind(text)
        if kind == tuple[str, ...]:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        if kind == Path | None:
            return Path(text).expanduser() if text else None
    except ValueError:
        raise SettingsError(f"{name} must be a number, not {text!r}.") from None
    return text


def _switch(name: str, text: str) -> bool:
    if (lower := text.strip().lower()) not in ("true", "false", "1", "0", ""):
        raise SettingsError(f"{name} must be true or false, not {text!r}.")
    return lower in ("true", "1")
