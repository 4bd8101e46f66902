"""`millrace workspace …`: workspaces of an account and who is a member."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import click

from app.cli.environment import Direct
from app.cli.operator_options import Text, account_option, operator_command
from app.cli.output import Output
from tenants.auth import WORKSPACE_ROLES, operator
from tenants.clock import iso
from tenants.limits import DISPLAY_NAME, WORKSPACE_SLUG
from tenants.schemas import WorkspaceRow


@click.group("workspace")
def workspace() -> None:
    """Workspaces of an account. Works on the database directly."""


@workspace.command("create")
@click.argument("slug", type=Text(WORKSPACE_SLUG))
@account_option
@click.option("--name", type=Text(DISPLAY_NAME), help="Name for people; the slug when left out.")
@operator_command
async def create(at: Direct, out: Output, slug: str, account_id: UUID, name: str | None) -> None:
    """Create a workspace."""
    await at.tenants.accounts.get(account_id)
    shown = _shown(await at.tenants.workspaces.create(operator(account_id), slug, name))
    if out.as_json:
        out.json(shown)
    else:
        out.fields(list(shown.items()))


@workspace.command("list")
@account_option
@operator_command
async def list_workspaces(at: Direct, out: Output, account_id: UUID) -> None:
    """List workspaces by slug."""
    await at.tenants.accounts.get(account_id)
    rows = [_shown(row) for row in await at.tenants.workspaces.all(account_id)]
    if out.as_json:
        out.json(rows)
    else:
        out.table(("ID", "SLUG", "NAME", "CREATED"), [tuple(row.values()) for row in rows])


@workspace.command("members")
@click.argument("slug", metavar="SLUG|ID")
@account_option
@operator_command
async def members(at: Direct, out: Output, slug: str, account_id: UUID) -> None:
    """List the members of a workspace by name. Admins of the account are members without being listed."""
    found = await at.tenants.workspaces.get(account_id, slug)
    rows = [
        {"id": row.user_id.hex, "name": row.name, "role": row.role, "since": iso(row.created_at)}
        for row in await at.tenants.workspaces.members(account_id, found)
    ]
    if out.as_json:
        out.json(rows)
    else:
        out.table(
            ("ID", "NAME", "ROLE", "SINCE"), [tuple(row.values()) for row in rows], empty="No members are listed."
        )


@workspace.command("add-member")
@click.argument("slug", metavar="SLUG|ID")
@click.argument("user", metavar="USER")
@account_option
@click.option("--role", type=click.Choice(WORKSPACE_ROLES), default="member", show_default=True)
@operator_command
async def add_member(at: Direct, out: Output, slug: str, user: str, account_id: UUID, role: str) -> None:
    """Make a user (name, e-mail address or id) a member, or change a member's role."""
    found = await at.tenants.workspaces.get(account_id, slug)
    person = await at.tenants.users.find(account_id, user)
    await at.tenants.workspaces.add_member(operator(account_id), found, person.id, role)
    if out.as_json:
        out.json({"workspace": found.slug, "user": person.id.hex, "role": role})
    else:
        out.line(f"{person.name} is {role} of {found.slug}")


@workspace.command("remove-member")
@click.argument("slug", metavar="SLUG|ID")
@click.argument("user", metavar="USER")
@account_option
@operator_command
async def remove_member(at: Direct, out: Output, slug: str, user: str, account_id: UUID) -> None:
    """Take a user out of a workspace."""
    found = await at.tenants.workspaces.get(account_id, slug)
    person = await at.tenants.users.find(account_id, user)
    await at.tenants.workspaces.remove_member(operator(account_id), found, person.id)
    if out.as_json:
        out.json({"workspace": found.slug, "user": person.id.hex})
    else:
        out.line(f"{person.name} is no member of {found.slug} any more")


def _shown(row: WorkspaceRow) -> dict[str, Any]:
    return {"id": row.id.hex, "slug": row.slug, "name": row.name, "created_on": iso(row.created_at)}


commands: list[click.Command] = [workspace]
