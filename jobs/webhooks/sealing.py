"""Secrets of endpoints at rest: encrypted, each for its endpoint."""

from __future__ import annotations

from uuid import UUID

from tenants.ids import account_hex
from tenants.keys import Keys


class Sealing:
    """Seals and opens secrets. `id` is the endpoint's own, which no other ever has."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def seal(self, account_id: UUID, id: UUID, secret: str) -> bytes:
        """The secret as it is stored."""
        return self._keys.encrypt(secret.encode(), _context(account_id, id))

    def open(self, account_id: UUID, id: UUID, sealed: bytes) -> str:
        """The secret. Raises :class:`CannotDecrypt`."""
        return self._keys.decrypt(sealed, _context(account_id, id)).decode()

    def renewed(self, account_id: UUID, id: UUID, sealed: bytes) -> bytes:
        """The same under the platform's current secret. Raises :class:`CannotDecrypt`."""
        if not self._keys.needs_rewrite(sealed):
            return sealed
        return self.seal(account_id, id, self.open(account_id, id, sealed))


def _context(account_id: UUID, id: UUID) -> str:
    return f"webhook {account_hex(account_id)}/{id.hex}"
