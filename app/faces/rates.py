"""How a credential stands with its request limit, as headers; none when it has no limit or nobody was recognised."""

from __future__ import annotations

import math
from typing import Any

from app.authentication import rate_of


def seconds_to_go(scope: Any) -> dict[str, str]:
    """`RateLimit-*`, with the reset in seconds from now."""
    rate = rate_of(scope)
    if rate is None:
        return {}
    return {
        "ratelimit-limit": str(rate.limit),
        "ratelimit-remaining": str(rate.remaining),
        "ratelimit-reset": str(math.ceil(rate.reset_after)),
    }
