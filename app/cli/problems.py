"""What a user is told when a command fails for a reason outside the program: one line, and what to do about it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

import click

DOCTOR = "`millrace doctor` checks this machine and its services."
DATABASE = "Check MILLRACE_DATABASE_URL; `millrace doctor` tries it."
REDIS = "Check MILLRACE_REDIS_URL; `millrace doctor` tries it."


@dataclass(frozen=True, slots=True)
class Told:
    """An error as a person reads it. `details` are further lines."""

    message: str
    hint: str
    details: tuple[str, ...] = ()


class CommandFailed(click.ClickException):
    """A command could not do what it was asked; one sentence, and what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


# By full name of the class, so that telling an error does not import the library it came from.
_HINTS = {
    "app.settings.SettingsError": "`millrace config` lists the settings.",
    "app.schema_errors.SchemaDiffers": "Nothing was changed: Millrace deletes no data on its own account.",
    "app.schema_errors.SchemaTooNew": "Upgrade Millrace, or point it at another database.",
    "app.embedded.errors.EmbeddedError": DOCTOR,
    "app.cli.installation.InstallationError": DOCTOR,
    "app.cli.listening.CannotListen": "--port 0 takes any free port.",
    "app.cli.supervisor.ChildFailed": "The log has the details; `millrace doctor` checks the machine.",
    "app.errors.MillraceError": "`--help` shows what the command takes.",
    "asyncpg.exceptions.UndefinedTableError": "Run `millrace migrate`.",
    "asyncpg.exceptions.UndefinedFunctionError": "Run `millrace migrate`.",
    "asyncpg.exceptions.UndefinedColumnError": "Run `millrace migrate`.",
    "asyncpg.exceptions.UndefinedObjectError": "Run `millrace migrate`.",
    "asyncpg.exceptions._base.PostgresError": DATABASE,
    "asyncpg.exceptions._base.InterfaceError": DATABASE,
    "redis.exceptions.RedisError": REDIS,
    "httpx.HTTPError": "Check --url and whether the server runs.",
}


def describe(error: Exception) -> Told | None:
    """How to tell `error`; None for one that is nobody's fault but the program's."""
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    if "app.cli.client.ApiError" in names:
        return _api_error(error)
    for name in names:
        if name in _HINTS:
            problems = tuple(getattr(problem, "message", str(problem)) for problem in getattr(error, "problems", ()))
            return Told(_one_line(error), _HINTS[name], problems)
    if isinstance(error, OSError):
        return _os_error(error)
    return None


def report(message: str, hint: str, details: tuple[str, ...] = ()) -> None:
    """Print an error and its hint on stderr; coloured on a terminal, unless NO_COLOR is set."""
    colour = None if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else False
    click.echo(f"{click.style('error:', fg='red', bold=True)} {message}", err=True, color=colour)
    for line in details:
        click.echo(f"  {line}", err=True, color=colour)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan')} {hint}", err=True, color=colour)


def _api_error(error: Exception) -> Told:
    faults = getattr(error, "faults", ())
    code = getattr(error, "code", 0)
    details = tuple(fault.message for fault in faults[1:])
    request_id = getattr(error, "request_id", "")
    if getattr(error, "status", 0) >= 500 and request_id:
        details += (f"request id: {request_id}",)
    return Told(f"{error}" + (f" ({code})" if code else ""), getattr(error, "hint", ""), details)


def _os_error(error: OSError) -> Told:
    if isinstance(error, ConnectionError):
        return Told(f"cannot connect: {_one_line(error)}", DOCTOR)
    what = error.strerror or _one_line(error)
    where = f"{error.filename}: " if error.filename else ""
    return Told(f"{where}{what}", "Check the path and its permissions." if where else DOCTOR)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text or type(error).__name__
