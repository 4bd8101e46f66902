"""`millrace token …`: API tokens, without a server or another token."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import click

from app.cli.environment import Direct
from app.cli.operator_options import MOMENT, OBJECT, Text, account_option, moment_from, operator_command
from app.cli.output import Output
from tenants.auth import ADMIN, ROLE_SCOPES, SCOPES, operator
from tenants.clock import iso
from tenants.limits import TOKEN_NAME
from tenants.schemas import TokenRow
from tenants.tokens import TokenGrant

ALL_TOKENS = 100_000


class Scopes(click.ParamType):
    """Scopes, separated by commas."""

    name = "scope,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        if isinstance(value, list):
            return value
        scopes = [scope.strip() for scope in value.split(",") if scope.strip()]
        known = f"the scopes are {', '.join(sorted(SCOPES))}"
        if not scopes:
            self.fail(f"names no scope; {known}", param, ctx)
        for scope in scopes:
            if scope not in SCOPES:
                self.fail(f"{scope!r} is no scope; {known}", param, ctx)
        return scopes


@click.group("token")
def token() -> None:
    """API tokens of an account. Works on the database directly."""


@token.command("create")
@account_option
@click.option("--name", required=True, type=Text(TOKEN_NAME), help="What the token is for.")
@click.option("--scopes", type=Scopes(), help="What it may do; what its role may, or everything, when left out.")
@click.option(
    "--role",
    type=click.Choice(list(ROLE_SCOPES)),
    help="Role it counts as; by its scopes, or its user's, when left out.",
)
@click.option("--workspace", help="Restrict it to this workspace (slug or id).")
@click.option("--user", help="Make it the token of this user (name, e-mail address or id).")
@click.option("--expires", type=MOMENT, help="When it stops working: a time, or a span such as 30d.")
@click.option("--not-before", type=MOMENT, help="When it begins to work: a time, or a span.")
@operator_command
async def create(
    at: Direct,
    out: Output,
    account_id: UUID,
    name: str,
    scopes: list[str] | None,
    role: str | None,
    workspace: str | None,
    user: str | None,
    expires: datetime | timedelta | None,
    not_before: datetime | timedelta | None,
) -> None:
    """Create a token and print it. It is not stored and cannot be shown again."""
    tenants = at.tenants
    await tenants.check_secret()
    await tenants.accounts.get(account_id)
    owner = await tenants.users.find(account_id, user) if user else None
    role = role or (owner.role if owner and not scopes else None)
    grant = TokenGrant(
        name=name,
        scopes=scopes or _scopes_of(role),
        role=role,
        workspace_id=(await tenants.workspaces.get(account_id, workspace)).id if workspace else None,
        user_id=owner.id if owner else None,
        expires_at=moment_from(expires, at),
        not_before=moment_from(not_before, at),
    )
    row, text = await tenants.tokens.create(operator(account_id), grant)
    if out.as_json:
        out.json({"id": row.id.hex, "token": text})
        return
    out.fields([("id", row.id.hex), ("token", text)])
    out.note("This is the only time the token is shown.")


def _scopes_of(role: str | None) -> list[str]:
    """What a token of this role may do; None: everything."""
    return [ADMIN] if role in (None, ADMIN) else sorted(ROLE_SCOPES[role])


@token.command("list")
@account_option
@click.option("--all", "include_expired", is_flag=True, help="Expired tokens, too.")
@operator_command
async def list_tokens(at: Direct, out: Output, account_id: UUID, include_expired: bool) -> None:
    """List tokens, the newest first."""
    await at.tenants.accounts.get(account_id)
    rows, _ = await at.tenants.tokens.page(operator(account_id), limit=ALL_TOKENS, include_expired=include_expired)
    shown = [_shown(row, at.clock.now()) for row in rows]
    if out.as_json:
        out.json(shown)
        return
    columns = ("id", "name", "status", "role", "scopes", "last_used_on", "expires_on")
    out.table(
        tuple(column.upper().replace("_", " ") for column in columns),
        [tuple(",".join(row[key]) if key == "scopes" else row[key] for key in columns) for row in shown],
        empty="No tokens yet. Create one: millrace token create",
    )


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=OBJECT)
@account_option
@operator_command
async def revoke(at: Direct, out: Output, token_id: UUID, account_id: UUID) -> None:
    """Delete a token. It stops working within a second."""
    await at.tenants.tokens.revoke(operator(account_id), token_id)
    if out.as_json:
        out.json({"id": token_id.hex})
    else:
        out.line(f"revoked {token_id.hex}")


@token.command("reset-secret")
@click.option("--yes", is_flag=True, help="Do not ask.")
@operator_command
async def reset_secret(at: Direct, out: Output, yes: bool) -> None:
    """Accept a new MILLRACE_SECRET although the old one is lost.

    Tokens and stored script secrets made with the old one stay unusable: create and store them again. While the old
    secret is still known, set it as MILLRACE_SECRET_PREVIOUS instead; then nothing is lost.
    """
    if not yes:
        out.confirm("Everything made with the old secret stays unusable. Go on?")
    await at.tenants.reset_secret()
    if out.as_json:
        out.json({"reset": True})
    else:
        out.line("the current secret is the only one accepted now")


def _shown(row: TokenRow, now: datetime) -> dict[str, Any]:
    moments = {"last_used_on": row.last_used_at, "expires_on": row.expires_at, "not_before": row.not_before}
    return {
        "id": row.id.hex,
        "name": row.name,
        "status": row.status(now),
        "role": row.role,
        "scopes": row.scopes,
        "workspace_id": row.workspace_id.hex if row.workspace_id else None,
        "user_id": row.user_id.hex if row.user_id else None,
        "issued_on": iso(row.created_at),
        **{name: None if moment is None else iso(moment) for name, moment in moments.items()},
    }


commands: list[click.Command] = [token]
