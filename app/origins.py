"""Origins whose pages may call: `MILLRACE_CORS_ORIGINS`, spelled as browsers send them."""

from __future__ import annotations

import functools
import re

EVERY = "*"

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?/?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@functools.lru_cache(maxsize=8)
def allowed_origins(named: tuple[str, ...]) -> frozenset[str]:
    """The origins that are named, each in the one spelling of the `Origin` header (RFC 6454, section 6.2); `*` stays.

    Raises :class:`ValueError` for what is no origin: it would match nothing, or, as a pattern, more than was meant.
    """
    return frozenset(EVERY if text == EVERY else _serialised(text) for text in named)


def _serialised(text: str) -> str:
    found = _ORIGIN.fullmatch(text.lower())
    if found is None:
        raise ValueError(
            f"{text!r} is no origin: write scheme://host or scheme://host:port, without a path and without wildcards"
            " (`*` alone lets all in); names that are not ASCII in Punycode"
        )
    scheme, host, port = found.groups()
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"
