"""`millrace user …`: the people of an account."""

from __future__ import annotations

import getpass
import sys
import warnings
from typing import Any
from uuid import UUID

import click

from app.cli.environment import Direct
from app.cli.operator_options import ACCOUNT, Text, account_option, operator_command
from app.cli.output import Output
from app.cli.problems import CommandFailed
from tenants.auth import ROLE_SCOPES, operator
from tenants.clock import iso
from tenants.limits import EMAIL, PASSWORD, USER_NAME
from tenants.schemas import UserRow

password_option = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")


@click.group("user")
def user() -> None:
    """Users of an account. Works on the database directly."""


@user.command("create")
@click.argument("name", type=Text(USER_NAME))
@account_option
@click.option("--role", required=True, type=click.Choice(list(ROLE_SCOPES)), help="What the user may do.")
@click.option("--email", type=Text(EMAIL), help="E-mail address; good for logging in, too.")
@password_option
@operator_command
async def create(
    at: Direct, out: Output, name: str, account_id: UUID, role: str, email: str | None, password_stdin: bool
) -> None:
    """Create a user. Without a password the user cannot log in, but can have tokens."""
    password = _read_password() if password_stdin else None
    await at.tenants.accounts.get(account_id)
    row = await at.tenants.users.create(operator(account_id), name, role=role, email=email, password=password)
    if out.as_json:
        out.json({"id": row.id.hex})
    else:
        out.fields([("id", row.id.hex), ("name", row.name), ("role", row.role)])


@user.command("list")
@account_option
@operator_command
async def list_users(at: Direct, out: Output, account_id: UUID) -> None:
    """List users by name."""
    await at.tenants.accounts.get(account_id)
    rows = [_shown(row) for row in await at.tenants.users.all(account_id)]
    if out.as_json:
        out.json(rows)
        return
    columns = ("id", "name", "email", "role", "status", "created_on")
    out.table(
        tuple(column.upper().replace("_", " ") for column in columns),
        [tuple(row[column] for column in columns) for row in rows],
        empty="No users yet. Create one: millrace user create NAME --role operator",
    )


@user.command("disable")
@click.argument("name", metavar="NAME|ID")
@account_option
@operator_command
async def disable(at: Direct, out: Output, name: str, account_id: UUID) -> None:
    """Refuse a user's logins and tokens, within a second."""
    await _set_disabled(at, out, account_id, name, disabled=True)


@user.command("enable")
@click.argument("name", metavar="NAME|ID")
@account_option
@operator_command
async def enable(at: Direct, out: Output, name: str, account_id: UUID) -> None:
    """Accept a disabled user's logins and tokens again."""
    await _set_disabled(at, out, account_id, name, disabled=False)


@user.command("role")
@click.argument("name", metavar="NAME|ID")
@click.argument("role", type=click.Choice(list(ROLE_SCOPES)))
@account_option
@operator_command
async def set_role(at: Direct, out: Output, name: str, role: str, account_id: UUID) -> None:
    """Change what a user may do. Tokens keep what they were made with."""
    row = await at.tenants.users.find(account_id, name)
    await at.tenants.users.set_role(operator(account_id), row.id, role)
    await _report(at, out, account_id, row.id)


@user.command("password")
@click.argument("name", metavar="NAME|ID")
@account_option
@password_option
@operator_command
async def set_password(at: Direct, out: Output, name: str, account_id: UUID, password_stdin: bool) -> None:
    """Replace a user's password, asked for here unless it comes from standard input."""
    row = await at.tenants.users.find(account_id, name)
    password = _read_password() if password_stdin else _ask_password()
    await at.tenants.users.set_password(operator(account_id), row.id, password)
    await _report(at, out, account_id, row.id)


@user.command("logout")
@click.argument("name", metavar="NAME|ID")
@account_option
@operator_command
async def logout(at: Direct, out: Output, name: str, account_id: UUID) -> None:
    """End all logins of a user, within a second. API tokens stay."""
    row = await at.tenants.users.find(account_id, name)
    await at.tenants.users.end_logins(operator(account_id), row.id)
    await _report(at, out, account_id, row.id)


@user.command("link")
@click.argument("name", metavar="NAME|ID")
@account_option
@click.option("--to-account", required=True, type=ACCOUNT, metavar="ID", help="The account of the other user.")
@click.option("--to-user", required=True, metavar="NAME|ID", help="The user there who is the same person.")
@operator_command
async def link(at: Direct, out: Output, name: str, account_id: UUID, to_account: UUID, to_user: str) -> None:
    """Say that users of two accounts are one person: who is logged in as one may act as the other."""
    row = await at.tenants.users.find(account_id, name)
    other = await at.tenants.users.find(to_account, to_user)
    await at.tenants.users.link(operator(account_id), row.id, to_account, other.id)
    await _report(at, out, account_id, row.id)


async def _set_disabled(at: Direct, out: Output, account_id: UUID, name: str, *, disabled: bool) -> None:
    row = await at.tenants.users.find(account_id, name)
    await at.tenants.users.disable(operator(account_id), row.id, disabled=disabled)
    await _report(at, out, account_id, row.id)


async def _report(at: Direct, out: Output, account_id: UUID, user_id: UUID) -> None:
    shown = _shown(await at.tenants.users.by_id(account_id, user_id))
    if out.as_json:
        out.json(shown)
    else:
        out.fields(list(shown.items()))


def _read_password() -> str:
    """The first line of standard input, without its end."""
    try:
        line = sys.stdin.readline(PASSWORD.maximum + 2)
    except UnicodeDecodeError:
        raise click.UsageError("the password on standard input is not UTF-8") from None
    return _checked(line.removesuffix("\n").removesuffix("\r"))


def _ask_password() -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)  # it would show what is typed
        try:
            return _checked(click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True))
        except getpass.GetPassWarning:
            raise CommandFailed("there is no terminal to ask for a password", "Use --password-stdin.") from None


def _checked(password: str) -> str:
    if not PASSWORD.holds(password):
        raise click.UsageError(f"the password must be {PASSWORD.rule}")
    return password


def _shown(row: UserRow) -> dict[str, Any]:
    return {
        "id": row.id.hex,
        "name": row.name,
        "email": row.email,
        "role": row.role,
        "status": "active" if row.disabled_at is None else "disabled",
        "created_on": iso(row.created_at),
    }


commands: list[click.Command] = [user]
