"""The `millrace` command. Sub-commands live in sibling modules and are imported when they are asked for.

Exit codes: 0 done, 1 it did not work, 2 the command line was wrong. Errors a user can cause are one line and a hint.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from typing import Any

import click

from app import __version__
from app.cli.problems import CommandFailed, describe, report


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a sub-command lives and what `millrace --help` says of it without importing it."""

    module: str
    help: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Run": {
        "dev": Entry("dev", "Run everything on this machine: PostgreSQL, Valkey, API and worker."),
        "serve": Entry("serve", "Serve the API."),
        "worker": Entry("worker", "Run workflows."),
        "migrate": Entry("migrate", "Bring the database to this release's schema."),
    },
    "Use": {
        "deploy": Entry("deploy", "Deploy a definition document or a script."),
        "workflows": Entry("workflows", "List, show and delete workflows."),
        "instances": Entry("instances", "Create, watch and steer instances."),
    },
    "Operate": {
        "account": Entry("account", "Create accounts and set their limits."),
        "token": Entry("token", "Create, list and revoke API tokens."),
        "user": Entry("user", "Create users."),
        "workspace": Entry("workspace", "Create workspaces and manage their members."),
        "config": Entry("config", "Show every setting and where it comes from."),
        "doctor": Entry("doctor", "Check this machine and its services."),
        "health": Entry("health", "Say whether the API or worker of this container works."),
        "completion": Entry("completion", "Print a completion script for bash, zsh or fish."),
    },
}


class Millrace(click.Group):
    """The top group: knows its commands by name and imports one only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for entries in SECTIONS.values() for name, entry in entries.items() if _exists(entry.module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = next((entries[cmd_name] for entries in SECTIONS.values() if cmd_name in entries), None)
        if entry is None or not _exists(entry.module):
            return None
        commands: list[click.Command] = importlib.import_module(f"app.cli.{entry.module}").commands
        return next((command for command in commands if command.name == cmd_name), None)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not close:
                raise
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {close[0]!r}?", ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, entries in SECTIONS.items():
            rows = [(name, entry.help) for name, entry in entries.items() if _exists(entry.module)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(f"app.cli.{module}") is not None


@click.group(cls=Millrace, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="millrace", message="%(prog)s %(version)s")
def cli() -> None:
    """Millrace: durable workflows on your own machines.

    Settings are MILLRACE_* variables; `millrace config` lists them.
    """


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and leave the process with its exit code."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit code."""
    try:
        result: Any = cli.main(args=arguments, prog_name="millrace", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as asked:
        click.echo(asked.format_message())
        return 2
    except click.Abort:
        report("interrupted", "Nothing is undone; repeat the command to go on.")
        return 1
    except BrokenPipeError:
        # Whoever read our output has seen enough. Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.ClickException as error:
        report(error.format_message(), _hint(error))
        return error.exit_code
    except Exception as error:
        problem = describe(error)
        if problem is None:
            raise
        report(problem.message, problem.hint, problem.details)
        return 1


def _hint(error: click.ClickException) -> str:
    if isinstance(error, CommandFailed):
        return error.hint
    path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "millrace"
    return f"`{path} --help` shows what it takes."


if __name__ == "__main__":
    main()
