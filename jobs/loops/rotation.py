"""Replacing the operator's secret: what is encrypted with the previous one is encrypted anew."""

from __future__ import annotations

from typing import Protocol

import structlog

log = structlog.get_logger(__name__)


class Sealed(Protocol):
    """Keeps texts encrypted with the operator's secret (scripts, webhooks)."""

    async def renew_secrets(self) -> int:
        """Encrypt with the current secret what still uses the previous one; how many objects were changed."""
        ...


class RenewSecrets:
    """Runs while there is a previous secret. Safe on any number of workers at once."""

    def __init__(self, sealed: Sealed) -> None:
        self._sealed = sealed

    async def tick(self) -> bool:
        """All there is."""
        if renewed := await self._sealed.renew_secrets():
            log.info("secrets_renewed", of=type(self._sealed).__name__, objects=renewed)
        return False
