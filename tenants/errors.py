"""Errors of this package that a caller can cause."""

from __future__ import annotations

from app.errors import (
    InvalidRequest,
    MillraceError,
    NoRoute,
    NotAllowed,
    NotAuthenticated,
    TooManyRequests,
    Unavailable,
)


class AccountNotFound(NoRoute):
    """404: no account of that id."""


class TokenNotFound(NoRoute):
    """404: no API token of that id in the account."""


class UserNotFound(NoRoute):
    """404: no user of that id or name in the account."""


class WorkspaceNotFound(NoRoute):
    """404: no workspace of that slug or id in the account."""


class NoUserDetails(NotAllowed):
    """403: the credential has no user, or no e-mail address to show. Clients know 9109 and go on without."""

    code = 9109


class AlreadyExists(MillraceError):
    """409: an account id, user name, e-mail address, workspace slug or token that is taken."""

    code, key, status, retry = 10460, "already_exists", 409, False


class LimitReached(MillraceError):
    """403: a quantity limit of the account, which waiting does not lift."""

    code, key, status, retry = 10461, "limit_reached", 403, False


class IdempotencyKeyReused(MillraceError):
    """409: the `Idempotency-Key` was used for a different request."""

    code, key, status, retry = 10462, "idempotency_key.reused", 409, False


class IdempotencyInFlight(MillraceError):
    """409: the first request of this `Idempotency-Key` has not been answered yet; repeat after `retry_after`."""

    code, key, status, retry = 10463, "idempotency_key.in_flight", 409, True


class CreationRateExceeded(TooManyRequests):
    """429: instances are created or restarted faster than the account's limit."""


class WrongLogin(NotAuthenticated):
    """401: unknown user, wrong password, disabled user or account; nobody learns which."""

    def __init__(self, message: str = "Authentication error: unknown user or wrong password") -> None:
        super().__init__(message)


class CrossSite(NotAllowed):
    """403: a request with a session cookie changes something and does not show that it comes from our own pages."""


class NotAMember(NotAllowed):
    """403: the caller is no member of the workspace."""


class RequestRateExceeded(TooManyRequests):
    """429: more requests than the credential's limit. `limit`, `remaining` and `reset` are in the request's rate."""

    code, key = 10467, "rate_limit.requests"


class LoginRateExceeded(TooManyRequests):
    """429: too many attempts to log in under this name from this address."""

    code, key = 10468, "rate_limit.logins"


class WebhookTestRateExceeded(TooManyRequests):
    """429: more test deliveries than the credential's limit."""

    code, key = 10469, "rate_limit.webhook_tests"


class UnsupportedPolicy(InvalidRequest):
    """400: a token policy asks for something that cannot be enforced; granting less silently would mislead."""

    key = "token.unsupported_policy"


class CannotDecrypt(Unavailable):
    """503: stored ciphertext needs a key this process does not have. The operator has to restore the secret."""
