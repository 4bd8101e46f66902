"""Secrets in headers of definitions, kept from those who may not change these."""

from __future__ import annotations

from typing import Any

REDACTED = "[REDACTED]"
_SECRET = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})


def redacted(value: Any) -> Any:
    """`value` with the values of secret headers replaced, wherever an object has `headers`; the rest is shared.

    >>> redacted({"config": {"headers": {"Cookie": "a=1", "Accept": "*/*"}}})
    {'config': {'headers': {'Cookie': '[REDACTED]', 'Accept': '*/*'}}}
    """
    if isinstance(value, list):
        return [redacted(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _headers(inner) if key == "headers" and isinstance(inner, dict) else redacted(inner)
        for key, inner in value.items()
    }


def _headers(headers: dict[str, Any]) -> dict[str, Any]:
    return {name: REDACTED if name.strip().lower() in _SECRET else redacted(value) for name, value in headers.items()}
