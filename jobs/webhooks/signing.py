"""Secrets, and the signatures endpoints check: Standard Webhooks' and the plain HMAC of a body.

Standard Webhooks 1.0 signs `<id>.<timestamp>.<body>` with HMAC-SHA256. A secret beginning with `whsec_` is base64 of
the key; of any other the key is its UTF-8 bytes. The reference verifier for Python decodes every secret as base64, so
such secrets get a second signature with what that comes to: a verifier accepts any that fits.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import datetime

from app.errors import InvalidRequest
from tenants.limits import TextRule

PREFIX = "whsec_"
SECRET_BYTES = 32
SECRET = TextRule(re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*"), 8, 256, "no control characters")


def generated(entropy: bytes) -> str:
    """The secret made of :data:`SECRET_BYTES` random bytes."""
    return PREFIX + base64.b64encode(entropy).decode()


def chosen_secret(secret: object, pointer: str = "/secret") -> str | None:
    """A secret somebody chose; None when it was left out, null or empty. Raises :class:`InvalidRequest`."""
    if secret is None or secret == "":
        return None
    if not SECRET.holds(secret):
        raise InvalidRequest(f"secret must be {SECRET.rule}", pointer=pointer)
    assert isinstance(secret, str)
    if secret.startswith(PREFIX):
        try:
            key = base64.b64decode(secret[len(PREFIX) :], validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not key:
            raise InvalidRequest(f"secret must be base64 after {PREFIX}", pointer=pointer)
    return secret


def keys_of(secret: str) -> list[bytes]:
    """The keys to sign with, the one a verifier should use first."""
    if secret.startswith(PREFIX):
        return [base64.b64decode(secret[len(PREFIX) :])]
    keys = [secret.encode()]
    try:
        lenient = base64.b64decode(secret + "==")  # as the reference verifier reads it: other characters are left out
    except (binascii.Error, ValueError):
        lenient = b""
    return [*keys, lenient] if lenient else keys


def headers(event: str, event_id: str, body: bytes, secrets: Sequence[str], now: datetime) -> list[tuple[str, str]]:
    """All headers of one attempt that tell what it is and who sends it. `secrets`: the current one first, or none."""
    stamp = str(int(now.timestamp()))
    told = [
        ("webhook-id", event_id),
        ("webhook-timestamp", stamp),
        ("X-Webhook-Event", event),
        ("X-Webhook-Timestamp", str(int(now.timestamp() * 1000))),
    ]
    if secrets:
        text = f"{event_id}.{stamp}.".encode() + body
        signatures = [f"v1,{_signature(key, text)}" for secret in secrets for key in keys_of(secret)]
        told.append(("webhook-signature", " ".join(signatures)))
        told.append(("X-Webhook-Signature", hmac.new(keys_of(secrets[0])[0], body, hashlib.sha256).hexdigest()))
    return told


def _signature(key: bytes, text: bytes) -> str:
    return base64.b64encode(hmac.digest(key, text, "sha256")).decode()
