"""Tokens in the URLs of inbound webhooks.

A token names the account, the workflow and the trigger (by its name, digested) and ends with 128 bits of a MAC under
the platform's secret. So nobody can guess one, nothing is stored that could be read, and a made-up token costs no look
into the database. It starts something only while the workflow's current version has that trigger: whoever gives the
trigger another name has another URL, and the old one is nobody's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from tenants.keys import Keys

_NAME_BYTES = 8
_MAC_BYTES = 16
_LENGTH = 16 + 16 + _NAME_BYTES + _MAC_BYTES
_TEXT_LENGTH = (_LENGTH * 8 + 5) // 6


@dataclass(frozen=True, slots=True)
class Hook:
    """Which trigger a token stands for."""

    account_id: UUID
    workflow_key: UUID
    trigger: bytes

    def is_for(self, name: str) -> bool:
        """Whether it is the trigger of this name."""
        return self.trigger == _digest(name)


class HookTokens:
    """Writes and reads them. A token written under the previous secret is read as long as that is accepted."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys.derive("inbound webhooks")

    def write(self, account_id: UUID, workflow_key: UUID, name: str) -> str:
        """The token of the trigger `name`."""
        named = account_id.bytes + workflow_key.bytes + _digest(name)
        return _text(named + _mac(self._keys[0], named))

    def read(self, token: str) -> Hook | None:
        """What a token stands for; None when it was not written here."""
        if len(token) != _TEXT_LENGTH or not token.isascii():
            return None
        try:
            data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except binascii.Error:
            return None
        named, mac = data[:-_MAC_BYTES], data[-_MAC_BYTES:]
        # One spelling per token: characters the decoder passes over, and bits behind the end, make another one.
        if _text(data) != token or not any(hmac.compare_digest(_mac(key, named), mac) for key in self._keys):
            return None
        return Hook(UUID(bytes=data[:16]), UUID(bytes=data[16:32]), data[32 : 32 + _NAME_BYTES])


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:_NAME_BYTES]


def _mac(key: bytes, named: bytes) -> bytes:
    return hmac.digest(key, named, "sha256")[:_MAC_BYTES]


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
