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

from app.cli.environment import find_installation
from app.cli.installation import Installation
from app.cli.output import Output
from app.settings import SECRET_FIELDS, Settings, load_settings

MASK = "********"


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON.")
def config(as_json: bool) -> None:
    """Show every setting: its variable, its value (secrets masked), where it comes from, and what it is for.

    What comes from the data folder of a `millrace dev` is what commands here use of it.
    """
    out = Output(as_json=as_json)
    settings = load_settings()
    rows = settings_shown(settings, find_installation(settings))
    if as_json:
        out.json(rows)
    else:
        out.table(
            ["variable", "value", "from", "meaning"],
            [[row["variable"], _plain(row["value"]), row["source"], row["description"]] for row in rows],
        )


def settings_shown(settings: Settings, installation: Installation | None = None) -> list[dict[str, Any]]:
    """One row per setting: variable, value, source (`environment`, `data folder` or `default`), description."""
    descriptions = field_descriptions()
    kept = _of_installation(installation) if installation is not None else {}
    rows = []
    for field in dataclasses.fields(settings):
        variable, value = f"MILLRACE_{field.name.upper()}", getattr(settings, field.name)
        source = "environment" if variable in os.environ else "default"
        if not value and field.name in kept:
            value, source = kept[field.name], "data folder"
        rows.append(
            {
                "variable": variable,
                "value": masked(field.name, value),
                "source": source,
                "description": descriptions.get(field.name, ""),
            }
        )
    return rows


def _of_installation(installation: Installation) -> dict[str, Any]:
    """What commands take from a data folder; an empty address is that of the service it runs itself."""
    marker = installation.marker
    return {
        "database_url": marker.database_url or "",
        "redis_url": marker.redis_url or "",
        "secret": installation.secret(),
        "data_dir": installation.directory,
    }


def masked(name: str, value: Any) -> Any:
    """`value` as it may be shown: a secret not at all, an address without its password."""
    if isinstance(value, Path):
        return str(value)
    if name not in SECRET_FIELDS or not value:
        return value
    if not name.endswith("_url"):
        return MASK
    try:
        parts = urlsplit(value)
    except ValueError:
        return MASK
    if "@" in parts.path:  # part of a password with a slash, most likely
        return MASK
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
