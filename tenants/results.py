"""The Cloudflare-shaped envelope every answer of that face comes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tenants.paging import Page


class Envelope(msgspec.Struct, kw_only=True):
    """`{success, errors, messages, result, result_info?}`. `result` may be, or hold, `msgspec.Raw` JSON text.

    `errors` and `messages` hold objects with `code` (a number), `message`, and optionally `source.pointer`.
    """

    success: bool = True
    errors: list[dict[str, Any]] = []
    messages: list[dict[str, Any]] = []
    result: Any = None
    result_info: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


def ok(result: Any, *, info: dict[str, Any] | None = None, messages: Sequence[dict[str, Any]] = ()) -> Envelope:
    """A successful answer; `info` becomes `result_info` and is left out when None.

    >>> msgspec.json.encode(ok({"id": 1})).decode()
    '{"success":true,"errors":[],"messages":[],"result":{"id":1}}'
    """
    return Envelope(result=result, result_info=msgspec.UNSET if info is None else info, messages=list(messages))


def listed(rows: list[Any], page: Page, total: int) -> Envelope:
    """A page of a list that has `total` rows."""
    return ok(rows, info=page.info(len(rows), total))
