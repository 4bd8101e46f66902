"""JSON Web Tokens as the platform makes and reads them: HS256, a key of their own, times by the platform's clock.

Every token names its user (`sub`), account (`account_id`), itself (`jti`) and the login it came from (`sid`); whoever
has it made adds the claims its clients read. Refresh tokens are signed with another key, so that neither passes for the
other.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt

from app.errors import NotAuthenticated
from tenants.clock import Clock
from tenants.ids import Ids
from tenants.keys import Keys
from tenants.workspaces import uuid_of

ALGORITHM = "HS256"
SHAPE = re.compile(r"[A-Za-z0-9_-]{1,512}\.[A-Za-z0-9_-]{1,7680}\.[A-Za-z0-9_-]{43}")
"""What one looks like; nothing else is decoded."""
LEEWAY = timedelta(seconds=5)
"""How far `iat` and `nbf` may be in the future: processes' clocks follow the database's, a little apart."""

OURS = frozenset({"sub", "account_id", "jti", "sid", "iat", "nbf", "exp", "aud", "iss"})
"""Claims nobody else may set."""
_REQUIRED = ["sub", "account_id", "jti", "sid", "iat", "exp"]
# Times are held against the platform's clock below, not the host's. An `aud` or `iss` we never set is refused.
_OPTIONS: Any = {"require": _REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False}


@dataclasses.dataclass(frozen=True, slots=True)
class Claims:
    """What a genuine token says. `issued_at` and `expires_at` have whole seconds."""

    account_id: UUID
    user_id: UUID
    jti: UUID
    login_id: UUID
    not_before: datetime
    expires_at: datetime


class Jwts:
    """Signs with the first key of a purpose, and accepts any: the second one is that of the previous secret."""

    def __init__(self, keys: Keys, clock: Clock, ids: Ids, purpose: str = "jwt") -> None:
        self._clock = clock
        self._ids = ids
        self._keys: Sequence[bytes] = keys.derive(purpose)

    def issue(
        self, account_id: UUID, user_id: UUID, login_id: UUID, lifetime: timedelta, claims: Mapping[str, Any]
    ) -> str:
        """A token with `claims` and those every token has. Raises ValueError for a claim that is not theirs to set."""
        if taken := OURS & claims.keys():
            raise ValueError(f"claims of the platform: {', '.join(sorted(taken))}")
        now = int(self._clock.now().timestamp())
        payload = {
            **claims,
            "sub": user_id.hex,
            "account_id": account_id.hex,
            "jti": self._ids.uuid7().hex,
            "sid": login_id.hex,
            "iat": now,
            "exp": now + int(lifetime.total_seconds()),
        }
        return jwt.encode(payload, self._keys[0], algorithm=ALGORITHM)

    def read(self, text: str) -> Claims:
        """The claims of a token that is ours. Raises :class:`NotAuthenticated`; times are checked by :meth:`current`.

        The signature is checked whatever algorithm the token names; only ours is ever used.
        """
        if not SHAPE.fullmatch(text):
            raise NotAuthenticated()
        for key in self._keys:
            try:
                payload = jwt.decode(text, key, algorithms=[ALGORITHM], options=_OPTIONS)
                return _claims(payload)
            except jwt.InvalidSignatureError:
                continue
            except (jwt.InvalidTokenError, ValueError, OverflowError, RecursionError):
                break
        raise NotAuthenticated()

    def current(self, claims: Claims) -> bool:
        """Whether the token may be used at this time."""
        now = self._clock.now()
        return claims.not_before - LEEWAY <= now < claims.expires_at


def _claims(payload: dict[str, Any]) -> Claims:
    """Raises ValueError."""
    if "iss" in payload:
        raise ValueError("iss")
    account_id, user_id, jti, login_id = (_id(payload[name]) for name in ("account_id", "sub", "jti", "sid"))
    issued, expires = _time(payload["iat"]), _time(payload["exp"])
    starts = max(issued, _time(payload["nbf"])) if "nbf" in payload else issued
    return Claims(account_id, user_id, jti, login_id, starts, expires)


def _id(value: Any) -> UUID:
    found = uuid_of(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("id")
    return found


def _time(value: Any) -> datetime:
    """A NumericDate."""
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value < 2**33:
        raise ValueError("time")
    return datetime.fromtimestamp(value, UTC)
