"""Who may do what in the workspace a path names.

Checks come in one order everywhere: credential, workspace, membership, scope, and then what the request asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

from litestar.di import NamedDependency
from litestar.params import FromPath

from tenants.auth import Caller
from tenants.service import TenantService
from tenants.workspaces import Entered, WorkspaceService


@dataclass(frozen=True, slots=True)
class WorkspaceAccess:
    """The caller before the workspace of the path, not let in yet."""

    caller: Caller
    slug: str
    workspaces: WorkspaceService

    async def enter(self, *scopes: str) -> Entered:
        """Let in whoever has one of `scopes` there, if any are named. Raises `WorkspaceNotFound`, `NotAllowed`."""
        return _allowed(await self.workspaces.enter(self.caller, self.slug), scopes)

    async def enter_as_member(self, *scopes: str) -> Entered:
        """The same for members only. Raises `NotAMember`, too."""
        return _allowed(await self.workspaces.require_member(self.caller, self.slug), scopes)


def _allowed(entered: Entered, scopes: tuple[str, ...]) -> Entered:
    if scopes:
        entered.caller.require(*scopes)
    return entered


def access(
    slug: FromPath[str], caller: NamedDependency[Caller], tenants: NamedDependency[TenantService]
) -> WorkspaceAccess:
    """The dependency `access` of this face's routes."""
    return WorkspaceAccess(caller, slug, tenants.workspaces)
