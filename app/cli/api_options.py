"""What every command that talks to the API has in common: where to, as whom, and how to print."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import augment_usage_errors

from app.cli.client import Api
from app.cli.connection import find_connection
from app.cli.output import Output


def api_command(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--url`, `--account`, `--token` and `--json`, and call `function(api, out, …)` with what they make.

    What the API refuses ends the command as :class:`app.cli.client.ApiError`, which `app.cli.main` knows how to tell.
    """

    @click.option("--url", help="Address of the server [MILLRACE_URL, or the running `millrace dev`].")
    @click.option("--account", "account_id", help="Account id, 32 hex characters [MILLRACE_ACCOUNT_ID].")
    @click.option("--token", help="API token, sk_… [MILLRACE_TOKEN].")
    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
    def command(url: str | None, account_id: str | None, token: str | None, as_json: bool, **options: Any) -> None:
        with augment_usage_errors(click.get_current_context()):
            connection = find_connection(url=url, account_id=account_id, token=token)
            with Api(connection.base_url, connection.account_id, connection.token) as api:
                function(api, Output(as_json=as_json), **options)

    return functools.update_wrapper(command, function)


class JsonValue(click.ParamType):
    """A JSON value on the command line, in a file (`@path`) or on standard input (`-`)."""

    name = "json|@file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = self._read(value, param, ctx)
        try:
            return msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            self.fail(f"is not JSON: {error}. A text needs quotes of its own: '\"text\"'.", param, ctx)

    def _read(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value == "-":
            return sys.stdin.read()
        if not value.startswith("@"):
            return value
        try:
            return Path(value[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"cannot read {value[1:]}: {error}", param, ctx)


JSON = JsonValue()
