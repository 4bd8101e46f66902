"""Which server the commands that use the API talk to, and as whom."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import click

from app.cli.installation import Installation, InstallationError, Ready, data_directory

_ACCOUNT = re.compile(r"[0-9a-f]{32}")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_API = "/client/v4"
"""Clients of Cloudflare's API have it in their base address; ours is without."""


@dataclass(frozen=True, slots=True)
class Connection:
    """`base_url` without path and trailing slash; `account_id` as 32 hex characters."""

    base_url: str
    account_id: str
    token: str


def find_connection(*, url: str | None = None, account_id: str | None = None, token: str | None = None) -> Connection:
    """Options win over MILLRACE_URL, MILLRACE_ACCOUNT_ID and MILLRACE_TOKEN, those over the running `millrace dev`.

    The dev server's token is sent to no other address. Raises :class:`click.UsageError` saying what is missing, or
    cannot be meant.
    """
    url = url or os.environ.get("MILLRACE_URL") or None
    account_id = account_id or os.environ.get("MILLRACE_ACCOUNT_ID") or None
    token = token or os.environ.get("MILLRACE_TOKEN") or None
    ready = _dev_server() if url is None or account_id is None or token is None else None
    if ready is not None and url in (None, ready.base_url, f"{ready.base_url}/"):
        url = ready.base_url
        if token is None and account_id in (None, ready.account_id):
            token = ready.api_token
        account_id = account_id or ready.account_id
    if url is None:
        raise click.UsageError(
            "Which server? No `millrace dev` runs here; start one, or give --url, --account and --token "
            "(or MILLRACE_URL, MILLRACE_ACCOUNT_ID and MILLRACE_TOKEN)."
        )
    if account_id is None:
        raise click.UsageError("Which account? Give --account or set MILLRACE_ACCOUNT_ID.")
    if token is None:
        raise click.UsageError("No token: give --token or set MILLRACE_TOKEN.")
    return Connection(_checked_url(url), _checked_account(account_id), _checked_token(token))


def _checked_url(url: str) -> str:
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query:
            return url.rstrip("/").removesuffix(_API)
    raise click.UsageError(f"{url!r} is no address of a server: those look like http://127.0.0.1:8484.")


def _checked_account(account_id: str) -> str:
    if not _ACCOUNT.fullmatch(account_id):
        raise click.UsageError(f"{account_id!r} is no account id: those are 32 of 0-9 and a-f.")
    return account_id


def _checked_token(token: str) -> str:
    if not _VISIBLE.fullmatch(token):
        raise click.UsageError("This is no API token: those are visible ASCII and begin with sk_.")
    return token


def _dev_server() -> Ready | None:
    try:
        return Installation.open(data_directory(None)).read_ready()
    except InstallationError:
        return None
