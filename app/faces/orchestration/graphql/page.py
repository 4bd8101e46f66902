"""A page to write operations on, for browsers. It comes from here alone: nothing of it is fetched from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import re

PAGE = (importlib.resources.files(__package__ or "") / "page.html").read_bytes()


def _hash_of(tag: bytes) -> str:
    """What a policy calls the page's own inline script or style by."""
    match = re.search(rb"<%s>(.*?)</%s>" % (tag, tag), PAGE, re.DOTALL)
    assert match is not None
    return f"'sha256-{base64.b64encode(hashlib.sha256(match[1]).digest()).decode()}'"


PAGE_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src {_hash_of(b'script')}; style-src {_hash_of(b'style')}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
