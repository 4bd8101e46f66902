"""`millrace config`: every setting, its value, and where it comes from."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import os
import re
import textwrap
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click

from app.cli.output import Output
from app.settings import SECRET_FIELDS, Settings, load_settings

MASK = "********"


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON.")
def config(as_json: bool) -> None:
    """Show every setting: its variable, its value (secrets masked), where it comes from, and what it is for."""
    out = Output(as_json=as_json)
    rows = settings_shown(load_settings())
    if as_json:
        out.json(rows)
    else:
        out.table(
            ["variable", "value", "from", "meaning"],
            [[row["variable"], _plain(row["value"]), row["source"], row["description"]] for row in rows],
        )


def settings_shown(settings: Settings) -> list[dict[str, Any]]:
    """One row per setting: variable, value, source (`environment` or `default`), description."""
    descriptions = field_descriptions()
    rows = []
    for field in dataclasses.fields(settings):
        variable = f"MILLRACE_{field.name.upper()}"
        rows.append(
            {
                "variable": variable,
                "value": masked(field.name, getattr(settings, field.name)),
                "source": "environment" if variable in os.environ else "default",
                "description": descriptions.get(field.name, ""),
            }
        )
    return rows


def masked(name: str, value: Any) -> Any:
    """`value` as it may be shown: a secret not at all, an address without its password."""
    if isinstance(value, Path):
        return str(value)
    if name not in SECRET_FIELDS or not value:
        return value
    if not name.endswith("_url"):
        return MASK
    parts = urlsplit(value)
    address = parts.netloc.rpartition("@")
    query = re.sub(r"(?i)(password=)[^&]*", rf"\g<1>{MASK}", parts.query)
    user = address[0].partition(":")
    shown = f"{user[0]}:{MASK}@{address[2]}" if user[1] else parts.netloc
    return urlunsplit(parts._replace(netloc=shown, query=query))


def field_descriptions() -> dict[str, str]:
    """The texts that follow the fields of :class:`Settings` in its source."""
    body = ast.parse(textwrap.dedent(inspect.getsource(Settings))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def _plain(value: Any) -> Any:
    text = ", ".join(value) if isinstance(value, tuple) else value
    return "-" if text in ("", None) else text


commands: list[click.Command] = [config]
