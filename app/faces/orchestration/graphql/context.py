"""What resolvers have at hand: who asks, the services, and look-ups that are made once per operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from strawberry.dataloader import DataLoader
from strawberry.types import Info

from app.composition import Platform
from app.errors import InvalidRequest, NotAuthenticated
from instances.listing import COUNTED_ROWS
from tenants.auth import Caller
from versions.definitions.schemas import Definition
from versions.errors import WorkflowNotFound

PAGE_MAX = 100


class Context:
    """Of one operation."""

    def __init__(self, platform: Platform, caller: Caller | None, request_id: str) -> None:
        self.platform = platform
        self._caller = caller
        self.request_id = request_id
        self.forget()

    @property
    def caller(self) -> Caller:
        """Raises :class:`NotAuthenticated` when there is nobody."""
        if self._caller is None:
            raise NotAuthenticated()
        return self._caller

    def forget(self) -> None:
        """Forget what was looked up: the next message of a subscription looks anew."""
        self.versions: DataLoader[UUID, Definition | None] = DataLoader(self._versions)
        self.definitions: DataLoader[str, Definition | None] = DataLoader(self._definitions)
        self.means: DataLoader[UUID, dict[str, float]] = DataLoader(self._means)

    async def _versions(self, keys: list[UUID]) -> Sequence[Definition | None]:
        found = await self.platform.versions.definitions.of_versions(self.caller, keys)
        return [found.get(key) for key in keys]

    async def _definitions(self, ids: list[str]) -> Sequence[Definition | None]:
        return [await self._definition(id) for id in ids]

    async def _definition(self, id: str) -> Definition | None:
        try:
            return await self.platform.versions.definitions.get(self.caller, id, decimal=True)
        except WorkflowNotFound:
            return None

    async def _means(self, workflows: list[UUID]) -> Sequence[dict[str, float]]:
        return [await self._means_of(workflow) for workflow in workflows]

    async def _means_of(self, workflow: UUID) -> dict[str, float]:
        figures = await self.platform.versions.definitions.node_figures(self.caller.account_id, workflow)
        return {task: figure.mean_ms for task, figure in figures.items()}


Asked = Info[Context, Any]


def page(limit: int | None, offset: int | None, default: int = 10) -> tuple[int, int]:
    """Rows of a page, and rows before it. Raises :class:`InvalidRequest`."""
    rows, start = default if limit is None else limit, offset or 0
    if not 1 <= rows <= PAGE_MAX:
        raise InvalidRequest(f"limit must be a whole number from 1 to {PAGE_MAX}", pointer="/limit")
    if not 0 <= start <= COUNTED_ROWS:
        raise InvalidRequest(f"offset must be a whole number from 0 to {COUNTED_ROWS}", pointer="/offset")
    return rows, start
