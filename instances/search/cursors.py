"""Cursors of lists by creation, as text for clients: signed, and good for the list that gave them out only.

`cursor_`, then base64url of a msgpack pair (creation time in epoch milliseconds, key) and the first four bytes of an
HMAC over it and over what names the list.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from uuid import UUID

import msgspec

from app.errors import InvalidRequest
from tenants.keys import Keys

PREFIX = "cursor_"
_SIGNATURE_BYTES = 4
_LENGTH_MAX = 64

_decoder = msgspec.msgpack.Decoder(tuple[int, bytes])


class Cursors:
    """Writes and reads cursors of one process; those of others with the same secret are good, too."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys.derive("cursors")

    def write(self, key: UUID, of: bytes) -> str:
        """The cursor at `key` in the list that `of` names: account, filters, order, whatever tells lists apart."""
        body = msgspec.msgpack.encode((key.int >> 80, key.bytes))
        signed = body + _sign(self._keys[0], body, of)
        return PREFIX + base64.urlsafe_b64encode(signed).rstrip(b"=").decode()

    def read(self, text: str, of: bytes, field: str = "cursor") -> UUID:
        """The key a cursor stands at. Raises :class:`InvalidRequest` for one that no list `of` this name gave out."""
        try:
            if not text.startswith(PREFIX) or len(text) > _LENGTH_MAX:
                raise ValueError
            packed = text[len(PREFIX) :].encode("ascii")
            signed = base64.b64decode(packed + b"=" * (-len(packed) % 4), altchars=b"-_", validate=True)
            body, signature = signed[:-_SIGNATURE_BYTES], signed[-_SIGNATURE_BYTES:]
            if not any(hmac.compare_digest(signature, _sign(key, body, of)) for key in self._keys):
                raise ValueError
            return UUID(bytes=_decoder.decode(body)[1])
        except (ValueError, binascii.Error, msgspec.DecodeError):
            raise InvalidRequest(f"{field} must be one that this list has returned", pointer=f"/{field}") from None


def _sign(key: bytes, body: bytes, of: bytes) -> bytes:
    return hmac.digest(key, len(body).to_bytes(4, "big") + body + of, "sha256")[:_SIGNATURE_BYTES]
