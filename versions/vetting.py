"""Compiling a definition whose URLs are looked at twice: as they are written, and where their names lead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeVar
from uuid import UUID

from versions.document.types import UrlRule
from versions.errors import DocumentInvalid

Compiled = TypeVar("Compiled")


class UrlVet(Protocol):
    """Why a URL may not be called, its name resolved ("must …"), or None: :data:`UrlRule`'s slower brother.

    Answers within seconds; what cannot be found out by then passes. `lane`: the account that asks.
    """

    async def __call__(self, url: str, *, lane: UUID) -> str | None: ...


async def vetted(
    compile: Callable[[UrlRule], Compiled], check_url: UrlRule, vet_url: UrlVet, account_id: UUID
) -> Compiled:
    """What `compile` makes with a rule for the URLs it comes across. Raises :class:`DocumentInvalid` as it does.

    It runs in a thread (a document of a thousand nodes takes tenths of a second), and once more if a name leads where
    no call may go: then the rule knows, and each such URL is a problem in its place, beside all others.
    """
    urls: dict[str, None] = {}

    def noting(url: str) -> str | None:
        rule = check_url(url)
        if rule is None:
            urls[url] = None
        return rule

    async def compiled(rule: UrlRule) -> Compiled | DocumentInvalid:
        try:
            return await asyncio.to_thread(compile, rule)
        except DocumentInvalid as error:
            return error

    made = await compiled(noting)
    async with asyncio.TaskGroup() as vetting:
        rules = {url: vetting.create_task(vet_url(url, lane=account_id)) for url in urls}
    refused = {url: rule for url, task in rules.items() if (rule := task.result()) is not None}
    if refused:
        made = await compiled(lambda url: refused.get(url) or check_url(url))
    if isinstance(made, DocumentInvalid):
        raise made
    return made
