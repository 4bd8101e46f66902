"""Keys derived from `MILLRACE_SECRET`: token hashes, signatures, and encryption of what must be read again.

One secret, one derived key per purpose (HKDF-SHA256), so that no two uses share a key. While the secret is being
rotated the previous one still opens and verifies; everything new uses the current one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.settings import Settings
from tenants.errors import CannotDecrypt

FORMAT = 1  # first byte of every ciphertext
ID_BYTES = 8
"""Length of a secret's fingerprint, with which every token hash and (behind the format) every ciphertext begins."""
_NONCE_BYTES = 12


class _Ring:
    """The derived keys of one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.token_hash = self.derive("token hash")
        self.id = hashlib.sha256(self.derive("key id")).digest()[:ID_BYTES]
        self.cipher = AESGCM(self.derive("encryption at rest"))

    def derive(self, purpose: str) -> bytes:
        return HKDF(SHA256(), 32, salt=None, info=b"millrace/1/" + purpose.encode()).derive(self._secret)


class Keys:
    """The keys of one process. Raises `app.settings.SettingsError` when a secret is missing or too short."""

    def __init__(self, settings: Settings, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._entropy = entropy
        self._current = _Ring(settings.require_secret())
        self._rings = [self._current]
        if previous := settings.previous_secret():
            self._rings.append(_Ring(previous))

    @property
    def key_ids(self) -> list[bytes]:
        """Public fingerprints of the secrets in use, the current one first."""
        return [ring.id for ring in self._rings]

    def derive(self, purpose: str) -> list[bytes]:
        """32-byte keys for `purpose`: sign with the first, accept any."""
        return [ring.derive(purpose) for ring in self._rings]

    def token_hashes(self, token: str) -> list[bytes]:
        """What may be stored for `token`: its hash under the current secret, then under the previous one.

        A hash begins with the fingerprint of its secret, so that one can tell which secrets are still needed.
        """
        return [ring.id + hmac.digest(ring.token_hash, token.encode(), "sha256") for ring in self._rings]

    def encrypt(self, plain: bytes, context: str) -> bytes:
        """`plain` sealed with AES-256-GCM. The same `context` must be named to open it.

        `context` says what the text belongs to (for example account, script and binding), so that a ciphertext copied
        to another row does not open there.
        """
        nonce = self._entropy(_NONCE_BYTES)
        head = bytes([FORMAT]) + self._current.id
        return head + nonce + self._current.cipher.encrypt(nonce, plain, head + context.encode())

    def decrypt(self, sealed: bytes, context: str) -> bytes:
        """The text :meth:`encrypt` sealed. Raises :class:`CannotDecrypt`, saying whether key or data is at fault."""
        start = 1 + ID_BYTES
        head, nonce, body = sealed[:start], sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        if len(nonce) < _NONCE_BYTES or head[0] != FORMAT:
            raise CannotDecrypt("the stored ciphertext is damaged or was written by a newer release")
        ring = next((ring for ring in self._rings if ring.id == head[1:]), None)
        if ring is None:
            raise CannotDecrypt(
                f"this was encrypted with a secret that is gone (key {head[1:].hex()}): start Millrace with that secret"
                " as MILLRACE_SECRET or MILLRACE_SECRET_PREVIOUS, or store the value again"
            )
        try:
            return ring.cipher.decrypt(nonce, body, head + context.encode())
        except InvalidTag:
            raise CannotDecrypt("the stored ciphertext is damaged or belongs to another object") from None

    def needs_rewrite(self, sealed: bytes) -> bool:
        """Whether `sealed` still uses the previous secret and should be encrypted anew before that is dropped."""
        return self.key_of(sealed) in self.key_ids[1:]

    @staticmethod
    def key_of(sealed: bytes) -> bytes:
        """The fingerprint of the secret that opens `sealed`."""
        return sealed[1 : 1 + ID_BYTES]
