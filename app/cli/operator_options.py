"""What every operator's command has in common: it works on the database directly and can print JSON."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import click
from click.core import augment_usage_errors

from app.cli.environment import Direct, direct
from app.cli.output import Output
from tenants.ids import parse_account_id
from tenants.limits import TextRule
from tenants.workspaces import uuid_of

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"([1-9][0-9]{0,5})([smhdw])")
_LONGEST = timedelta(days=100 * 365)


def operator_command(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Add `--json`, open the database and run `function(at, out, …)`; `at` has the services, `out` prints."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    def command(as_json: bool, **options: Any) -> None:
        with augment_usage_errors(click.get_current_context()):
            asyncio.run(_run(function, Output(as_json=as_json), options))

    return functools.update_wrapper(command, function)


async def _run(function: Callable[..., Awaitable[None]], out: Output, options: dict[str, Any]) -> None:
    async with direct() as at:
        await function(at, out, **options)


class AccountId(click.ParamType):
    """An account id, as 32 hexadecimal digits."""

    name = "account"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        found = parse_account_id(value) if isinstance(value, str) else value
        if found is None:
            self.fail(
                f"{value!r} is no account id: those are 32 of 0-9 and a-f. `millrace account list` shows them.",
                param,
                ctx,
            )
        return found


class ObjectId(click.ParamType):
    """The id of a token or user: a UUID with or without dashes."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        found = uuid_of(value) if isinstance(value, str) else value
        if found is None:
            self.fail(f"{value!r} is no id: those are 32 of 0-9 and a-f.", param, ctx)
        return found


class Text(click.ParamType):
    """A text that keeps a rule of `tenants.limits`."""

    name = "text"

    def __init__(self, rule: TextRule) -> None:
        self._rule = rule

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not self._rule.holds(value):
            self.fail(f"must be {self._rule.rule}", param, ctx)
        return value


class Moment(click.ParamType):
    """A time: RFC 3339, a date (midnight UTC), or a span from now (`90m`, `12h`, `30d`), which stays a timedelta."""

    name = "time|span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime | timedelta:
        if not isinstance(value, str):
            return value
        if span := _SPAN.fullmatch(value):
            length = timedelta(**{_UNITS[span[2]]: int(span[1])})
            if length > _LONGEST:
                self.fail(f"{value!r} is more than a century.", param, ctx)
            return length
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is neither a time (2027-01-31T12:00:00Z, 2027-01-31) nor a span (12h, 30d).", param, ctx
            )


ACCOUNT = AccountId()
OBJECT = ObjectId()
MOMENT = Moment()

account_option = click.option(
    "--account", "account_id", type=ACCOUNT, envvar="MILLRACE_ACCOUNT_ID", required=True, help="Account id."
)


def moment_from(value: datetime | timedelta | None, at: Direct) -> datetime | None:
    """What a :class:`Moment` means now."""
    return at.clock.now() + value if isinstance(value, timedelta) else value
