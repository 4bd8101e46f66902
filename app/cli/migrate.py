"""`millrace migrate`: bring the database to this release's schema."""

from __future__ import annotations

import asyncio

import click

from app.cli.environment import process_settings
from app.cli.output import Output
from app.migrations import FUNCTIONS, pending
from app.migrations import migrate as bring_up_to_date


@click.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 when migrations are missing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def migrate(ctx: click.Context, check: bool, as_json: bool) -> None:
    """Bring the database to this release's schema.

    Safe to run from several machines at once: one migrates, the others wait for it.
    """
    out = Output(as_json=as_json)
    with out.waiting("looking" if check else "migrating"):
        ids = asyncio.run(_run(check))
    if as_json:
        out.json({"pending" if check else "applied": ids})
    elif check:
        for name in ids:
            out.line(name)
        out.note(f"missing: {described(ids)}" if ids else "the schema is up to date")
    else:
        out.line(f"applied {described(ids)}" if ids else "the schema is up to date")
    if check and ids:
        ctx.exit(1)


def described(ids: list[str]) -> str:
    """What `app.migrations` named, in words."""
    count = len(ids) - (FUNCTIONS in ids)
    parts = [f"{count} migration{'s' if count > 1 else ''}"] if count else []
    return " and ".join([*parts, *(["the engine's functions"] if FUNCTIONS in ids else [])])


async def _run(check: bool) -> list[str]:
    async with process_settings(redis=False) as settings:
        return await (pending if check else bring_up_to_date)(settings.database_url)


commands: list[click.Command] = [migrate]
