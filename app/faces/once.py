"""Creating something once under an `Idempotency-Key`, for every face that takes one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from litestar import MediaType, Request, Response

from tenants.auth import Caller
from tenants.idempotency import HELD_REPEATABLE, Answer, Claim
from tenants.service import TenantService


async def once(
    request: Request[Any, Any, Any],
    tenants: TenantService,
    caller: Caller,
    operation: str,
    body: bytes,
    work: Callable[[Claim], Awaitable[Answer]],
) -> Answer:
    """What `work` answers; under a key once, and repeats get the first answer.

    `operation` names method and route, with the object in it; what `work` creates must follow from the claim's ids. A
    caller restricted to a workspace does not get answers that were given outside. Raises `IdempotencyKeyReused`,
    `IdempotencyInFlight`, `InvalidRequest` for a bad key, and what `work` raises.
    """
    if caller.workspace_id is not None:
        operation = f"{operation} in {caller.workspace_id}"
    key = request.headers.get("idempotency-key")
    sent = operation.encode() + b"\n" + body
    return await tenants.idempotency.run(caller.account_id, operation, key, sent, work, HELD_REPEATABLE)


def response(answer: Answer, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """The answer over HTTP; a repeated one says so."""
    told = {**(headers or {}), **({"idempotent-replayed": "true"} if answer.replayed else {})}
    return Response(answer.body.encode(), status_code=answer.status, headers=told, media_type=MediaType.JSON)
