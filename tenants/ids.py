"""Identifiers: UUIDv7 for rows that travel, 32-hex account ids, and their spellings."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from uuid import UUID

from tenants.clock import Clock

ACCOUNT_ID = re.compile(r"[0-9a-f]{32}")


class Ids:
    """Source of UUIDv7s that grow monotonically within the process and take their time from the platform's clock."""

    def __init__(self, clock: Clock, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self._clock = clock
        self._entropy = entropy
        self._last = 0
        self._lock = threading.Lock()

    def uuid7(self) -> UUID:
        """A fresh UUIDv7: 48 bits of milliseconds, then a 12-bit counter, then 62 random bits."""
        stamp = int(self._clock.now().timestamp() * 1000) << 12
        with self._lock:
            self._last = tick = max(stamp, self._last + 1)
        return _uuid7(tick >> 12, tick & 0xFFF, int.from_bytes(self._entropy(8), "big"))

    def account_id(self) -> UUID:
        """A random account id; shown as 32 lowercase hex characters."""
        return UUID(bytes=self._entropy(16))


def derived_uuid7(milliseconds: int, name: bytes) -> UUID:
    """The UUIDv7 of that time whose other bits follow from `name`: the same whenever it is asked for.

    For keys that must not be made twice. Lists are in the order of keys; a uuid5 would stand anywhere in them.
    """
    digest = int.from_bytes(hashlib.sha256(name).digest()[:10], "big")
    return _uuid7(milliseconds, digest >> 68, digest)


def _uuid7(milliseconds: int, counter: int, random: int) -> UUID:
    """48, 12 and (of `random`, the last) 62 bits."""
    low = random & ((1 << 62) - 1)
    return UUID(int=(milliseconds << 80) | (0x7 << 76) | (counter << 64) | (0b10 << 62) | low)


def account_hex(account_id: UUID) -> str:
    """How an account id is spelled everywhere: 32 lowercase hex characters."""
    return account_id.hex


def parse_account_id(text: str) -> UUID | None:
    """The account id spelled by `text`, or None when it is not 32 lowercase hex characters."""
    return UUID(hex=text) if ACCOUNT_ID.fullmatch(text) else None
