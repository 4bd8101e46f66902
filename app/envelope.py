"""Errors as the Cloudflare face shows them: one envelope for everything that can go wrong with a request.

wrangler decides by the first error's `code`, the SDKs by the HTTP status and `x-should-retry`, and people read
`message`; so all three are always there. `messages` holds plain strings in failures, unlike in successes.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from app.errors import MethodNotAllowed, MillraceError, Problem
from app.faces.face import Answer


class ErrorSource(msgspec.Struct, frozen=True):
    """Where in the request the fault is: a JSON pointer into what the caller sent."""

    pointer: str


class ErrorEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One element of `errors`."""

    code: int
    message: str
    source: ErrorSource | None = None
    meta: dict[str, str] | None = None


class FailureBody(msgspec.Struct, frozen=True):
    """The failing form of the envelope."""

    success: bool
    errors: tuple[ErrorEntry, ...]
    messages: tuple[str, ...] = ()
    result: None = None


def refuse(error: MillraceError, scope: Any) -> Answer:
    """The answer to a request of this face, and of every path no face owns, that failed with `error`."""
    problems = error.problems or (Problem(error.message, error.pointer),)
    body = FailureBody(success=False, errors=tuple(_entry(problem, error.code) for problem in problems))
    return Answer(error.status, msgspec.json.encode(body), _headers(error, scope))


def _entry(problem: Problem, default_code: int) -> ErrorEntry:
    return ErrorEntry(
        code=problem.code or default_code,
        message=problem.message,
        source=ErrorSource(problem.pointer) if problem.pointer is not None else None,
        meta={"kind": problem.kind} if problem.kind else None,
    )


def _headers(error: MillraceError, scope: Any) -> dict[str, str]:
    headers: dict[str, str] = {}
    if error.retry is not None:
        headers["x-should-retry"] = "true" if error.retry else "false"
    if error.status == 503 and _is_safe_to_repeat(scope):
        headers["x-should-retry"] = "true"
    if error.retry_after is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    return headers


def _is_safe_to_repeat(scope: Any) -> bool:
    """Whether sending the request again cannot do anything twice."""
    return scope.get("method") == "GET" or any(name == b"idempotency-key" for name, _ in scope.get("headers", ()))
