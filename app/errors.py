"""The root of every error a caller can cause, and what each API face needs to render one.

A package's own errors live in its `errors.py` and derive from :class:`MillraceError`; a face turns them into its
own shape. Anything that is not a `MillraceError` is a bug and becomes the face's internal error, without detail.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a request. `pointer` is a JSON pointer into what the user sent."""

    message: str
    pointer: str | None = None
    code: int | None = None
    kind: str | None = None
    """Symbolic code, for example `UNKNOWN_REFERENCE`."""


class MillraceError(Exception):
    """Base class. Class attributes are the defaults of one error type.

    `code` is the Cloudflare-style number, `key` the dotted message text of `workflows.api.error.<key>` (empty: the
    message itself is sent), `status` the HTTP status, `retry` what `x-should-retry` says (None: header left out).
    """

    code: int = 10001
    key: str = "internal_server"
    status: int = 500
    retry: bool | None = None

    def __init__(
        self,
        message: str = "",
        *,
        pointer: str | None = None,
        problems: tuple[Problem, ...] | list[Problem] = (),
        retry_after: float | None = None,
    ) -> None:
        self.message = message or (f"workflows.api.error.{self.key}" if self.key else type(self).__name__)
        self.pointer = pointer
        self.problems = tuple(problems)
        self.retry_after = retry_after
        super().__init__(self.message)


class InvalidRequest(MillraceError):
    """400: a body, parameter or header failed validation; the message names the field and the rule."""

    code, key, status = 10002, "body", 400


class PayloadTooLarge(MillraceError):
    """413: a body or payload is over its limit."""

    code, key, status = 10458, "payload_too_large", 413


class NotAuthenticated(MillraceError):
    """401: credentials missing or not accepted."""

    code, key, status = 10000, "", 401

    def __init__(self, message: str = "Authentication error") -> None:
        super().__init__(message)


class NotAllowed(MillraceError):
    """403: the credential lacks the scope. `required` names the scopes of which it would have needed one."""

    code, key, status = 10000, "", 403

    def __init__(
        self,
        message: str = "Authentication error: the token lacks the permission this needs",
        *,
        required: tuple[str, ...] = (),
    ) -> None:
        self.required = required
        super().__init__(message)


class NoRoute(MillraceError):
    """404: unknown route, malformed object id, or an account the credential does not belong to."""

    code, key, status = 7003, "", 404

    def __init__(self, message: str = "Could not route to the requested path or object") -> None:
        super().__init__(message)


class MethodNotAllowed(MillraceError):
    """405: the path exists, but not for this method. `allowed` names those it has, sorted."""

    code, key, status = 7001, "", 405

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed
        super().__init__("This method is not available for that URI.")


class UnsupportedMediaType(MillraceError):
    """415: the route does not read bodies of this content type."""

    code, key, status = 10470, "", 415

    def __init__(self, message: str = "") -> None:
        super().__init__(message or "Unsupported media type")


class InternalError(MillraceError):
    """500: a bug; what happened is in the log, and the caller gets a fixed message."""


class TooManyRequests(MillraceError):
    """429: a rate or quantity limit; `retry_after` says when waiting helps."""

    code, key, status, retry = 10457, "rate_limit.workflow_instance_creation", 429, True


class Unavailable(MillraceError):
    """503: a dependency is away or the outcome is unknown. Not retried by clients unless repeating is safe."""

    code, key, status, retry = 10459, "unavailable", 503, False
