"""`millrace account …`: make accounts, limit them, see what they use and what was done in them."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

import click
import msgspec

from app.cli.environment import Direct
from app.cli.operator_options import ACCOUNT, Text, operator_command
from app.cli.output import Output
from instances.lifecycle import Status
from tenants.auth import operator
from tenants.clock import iso
from tenants.ids import account_hex
from tenants.limits import ACCOUNT_NAME, PROFILES, Limits
from tenants.schemas import AccountRow


class Setting(click.ParamType):
    """`NAME=VALUE` of one limit; `none` lifts it."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if name not in Limits.__struct_fields__ or not equals:
            names = ", ".join(Limits.__struct_fields__)
            self.fail(f"{value!r} must be NAME=VALUE with one of these names: {names}", param, ctx)
        if text == "none":
            return name, None
        try:
            return name, int(text)
        except ValueError:
            pass
        try:
            return name, float(text)
        except ValueError:
            self.fail(f"{name} must be a number, or none", param, ctx)


@click.group("account")
def account() -> None:
    """Accounts of this installation. Works on the database directly."""


@account.command("create")
@click.argument("name", type=Text(ACCOUNT_NAME))
@click.option("--id", "account_id", type=ACCOUNT, help="Take this id instead of a random one.")
@operator_command
async def create(at: Direct, out: Output, name: str, account_id: UUID | None) -> None:
    """Create an account and its default workspace."""
    row = await at.tenants.accounts.create(name, account_id=account_id)
    shown = {"id": account_hex(row.account_id), "name": row.name}
    if out.as_json:
        out.json(shown)
        return
    out.fields(list(shown.items()))
    out.note(f"Next: millrace token create --account {shown['id']} --name NAME")


@account.command("list")
@operator_command
async def list_accounts(at: Direct, out: Output) -> None:
    """List accounts, the oldest first."""
    rows = [_shown(row) for row in await at.tenants.accounts.all(limit=100_000)]
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ("ID", "NAME", "PROFILE", "STATUS", "CREATED"),
        [tuple(row[key] for key in ("id", "name", "profile", "status", "created_on")) for row in rows],
        empty="No accounts yet. Create one: millrace account create NAME",
    )


@account.command("limits")
@click.argument("account_id", metavar="ID", type=ACCOUNT)
@click.option("--profile", type=click.Choice(list(PROFILES)), help="Choose a set of limits; drops single ones.")
@click.option("--set", "settings", type=Setting(), multiple=True, help="Set one limit; `none` lifts it.")
@operator_command
async def limits(
    at: Direct, out: Output, account_id: UUID, profile: str | None, settings: tuple[tuple[str, Any], ...]
) -> None:
    """Show an account's limits, after changing them if asked to. Takes effect within a second."""
    accounts = at.tenants.accounts
    if profile is not None or settings:
        await accounts.set_limits(operator(account_id), profile=profile, changes=dict(settings))
    row = await accounts.get(account_id)
    shown = {"id": account_hex(account_id), "profile": row.profile}
    values = msgspec.to_builtins(await accounts.limits(account_id))
    if out.as_json:
        out.json(shown | {"overrides": msgspec.Raw(row.limits.encode()), "limits": values})
        return
    out.fields([*shown.items(), *((name, "none" if value is None else value) for name, value in values.items())])


@account.command("settings")
@click.argument("account_id", metavar="ID", type=ACCOUNT)
@click.option(
    "--untyped-tasks",
    type=click.Choice(["noop", "external"]),
    help="What tasks without a type do in versions made from now on: nothing, or wait to be completed from outside.",
)
@operator_command
async def settings(
    at: Direct, out: Output, account_id: UUID, untyped_tasks: Literal["noop", "external"] | None
) -> None:
    """Show what an account set for itself, after changing it if asked to."""
    accounts = at.tenants.accounts
    if untyped_tasks is not None:
        await accounts.set_untyped_tasks(operator(account_id), untyped_tasks)
    shown = msgspec.structs.asdict(await accounts.settings(account_id))
    if out.as_json:
        out.json(shown)
        return
    out.fields([(name, "default" if value is None else value) for name, value in shown.items()])


@account.command("usage")
@click.argument("account_id", metavar="ID", type=ACCOUNT)
@operator_command
async def usage(at: Direct, out: Output, account_id: UUID) -> None:
    """Count what an account has: workflows, scripts, instances by status, tokens, users."""
    shown = msgspec.structs.asdict(await at.tenants.accounts.usage(account_id))
    for group in ("unfinished", "finished"):
        shown[group] = {Status(status).wire: count for status, count in sorted(shown[group].items())}
    if out.as_json:
        out.json(shown)
        return
    instances = [*shown.pop("unfinished").items(), *shown.pop("finished").items()]
    out.fields([*shown.items(), *((f"instances {status}", count) for status, count in instances)])


@account.command("disable")
@click.argument("account_id", metavar="ID", type=ACCOUNT)
@operator_command
async def disable(at: Direct, out: Output, account_id: UUID) -> None:
    """Refuse all credentials of an account, within a second. What runs goes on running."""
    await _set_disabled(at, out, account_id, disabled=True)


@account.command("enable")
@click.argument("account_id", metavar="ID", type=ACCOUNT)
@operator_command
async def enable(at: Direct, out: Output, account_id: UUID) -> None:
    """Accept the credentials of a disabled account again."""
    await _set_disabled(at, out, account_id, disabled=False)


async def _set_disabled(at: Direct, out: Output, account_id: UUID, *, disabled: bool) -> None:
    await at.tenants.accounts.disable(operator(account_id), disabled=disabled)
    shown = _shown(await at.tenants.accounts.get(account_id))
    if out.as_json:
        out.json(shown)
    else:
        out.fields(list(shown.items()))


@account.command("audit")
@click.argument("account_id", metavar="ID", type=ACCOUNT)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@operator_command
async def audit(at: Direct, out: Output, account_id: UUID, limit: int) -> None:
    """Show who changed what in an account, the newest change first."""
    await at.tenants.accounts.get(account_id)
    rows = [
        {
            "at": iso(line.at),
            "actor": line.actor,
            "action": line.action,
            "target": line.target,
            "address": line.address,
            "request_id": line.request_id,
            "detail": None if line.detail is None else msgspec.json.decode(line.detail),
        }
        for line in await at.tenants.accounts.audit_lines(account_id, limit=limit)
    ]
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ("AT", "WHO", "WHAT", "TARGET", "FROM", "DETAIL"),
        [tuple(row[key] for key in ("at", "actor", "action", "target", "address", "detail")) for row in rows],
    )


def _shown(row: AccountRow) -> dict[str, Any]:
    return {
        "id": account_hex(row.account_id),
        "name": row.name,
        "profile": row.profile,
        "status": "active" if row.disabled_at is None else "disabled",
        "created_on": iso(row.created_at),
    }


commands: list[click.Command] = [account]
