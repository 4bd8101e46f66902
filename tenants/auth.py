"""Who is calling: scopes, roles, and the :class:`Caller` every handler gets."""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from app.errors import InvalidRequest, NoRoute, NotAllowed
from tenants.ids import parse_account_id

ADMIN = "admin"
"""The scope and the role that include all others."""

_IMPLIED: dict[str, tuple[str, ...]] = {
    "workflows:read": (),
    "workflows:write": ("workflows:read",),
    "workflows:delete": ("workflows:read",),
    "executions:read": (),
    "executions:write": ("executions:read",),
    "executions:delete": ("executions:read",),
    "scripts:read": (),
    "scripts:write": ("scripts:read",),
    "webhooks:read": (),
    "webhooks:write": ("webhooks:read",),
    "tokens:read": (),
    "tokens:write": ("tokens:read",),
    "account:read": (),
    "account:write": ("account:read",),
    ADMIN: (),
}

SCOPES = frozenset(_IMPLIED)
"""Every scope there is. Deploying a workflow is `workflows:write`; starting, steering and ending instances and sending
them events is `executions:write`; deleting their records `executions:delete`; uploading scripts `scripts:write`."""

_READS = frozenset({"workflows:read", "executions:read", "scripts:read", "account:read"})
_EXECUTIONS = frozenset({"executions:read", "executions:write", "executions:delete"})

ROLE_SCOPES: dict[str, frozenset[str]] = {
    ADMIN: SCOPES,
    "workflow-designer": _READS | _EXECUTIONS | {"workflows:write", "scripts:write"},
    "integration-manager": _READS | _EXECUTIONS | {"webhooks:read", "webhooks:write"},
    "operator": _READS | _EXECUTIONS,
    "viewer": _READS,
}
"""What a user of each role may do, the strongest first."""

WORKSPACE_ROLES = ("admin", "member")
_MEMBER = _EXECUTIONS | {"workflows:read"}
WORKSPACE_SCOPES: dict[str, frozenset[str]] = {"admin": _MEMBER | {"workflows:write"}, "member": _MEMBER}
"""What a person may do in a workspace, by the role there."""


@dataclasses.dataclass(frozen=True, slots=True)
class Caller:
    """The account a request acts in, and in whose name. `scopes` holds implied ones, too.

    `token_id` and `user_id` are both None for the operator's own commands; `token_id` alone is None for a person who
    logged in, whose `login_id` names that login (`tenants.logins`). A `workspace_id` restricts the caller to the
    objects of that workspace. From `expires_at` on, the credential is no longer accepted (None: no such time).
    """

    account_id: UUID
    token_id: UUID | None
    user_id: UUID | None
    name: str
    scopes: frozenset[str]
    role: str
    workspace_id: UUID | None = None
    login_id: UUID | None = None
    expires_at: datetime | None = None
    via: str | None = None
    """What acts where nobody presented a credential, as audit lines name it."""

    @property
    def credential_id(self) -> UUID:
        """What limits per credential are counted by: the token, else the user (all logins together)."""
        return self.token_id or self.user_id or self.account_id

    @property
    def actor(self) -> str:
        """How audit lines name the caller: `token:<hex>`, `user:<hex>`, `via`, or `operator`."""
        if self.via is not None:
            return self.via
        if self.token_id is not None:
            return f"token:{self.token_id.hex}"
        return f"user:{self.user_id.hex}" if self.user_id is not None else "operator"

    @property
    def member_everywhere(self) -> bool:
        """Whether the caller counts as a member of every workspace of the account, without being listed as one."""
        by_password = self.token_id is None and self.user_id is not None
        return self.workspace_id is None and (not by_password or self.role == ADMIN)

    def allows(self, scope: str) -> bool:
        """Whether the caller has `scope`, itself or by implication."""
        return scope in self.scopes

    def require(self, *scopes: str) -> None:
        """Return if the caller has at least one of `scopes`; else raise :class:`NotAllowed` naming them."""
        if not any(scope in self.scopes for scope in scopes):
            raise NotAllowed(f"Authentication error: the token lacks the scope {' or '.join(scopes)}", required=scopes)

    def owns(self, account_id: str) -> UUID:
        """The account named in a path, if it is the caller's. Raises :class:`NoRoute` for any other, or a bad id."""
        if parse_account_id(account_id) != self.account_id:
            raise NoRoute()
        return self.account_id


def expand(scopes: Iterable[str]) -> frozenset[str]:
    """`scopes` with those they imply; unknown ones are dropped.

    >>> sorted(expand(["tokens:write", "gone"]))
    ['tokens:read', 'tokens:write']
    """
    found = {scope for scope in scopes if scope in SCOPES}
    if ADMIN in found:
        return SCOPES
    return frozenset(found.union(*(_IMPLIED[scope] for scope in found)))


_ROLE_MARKS = (
    (ADMIN, ADMIN),
    ("workflows:write", "workflow-designer"),
    ("webhooks:write", "integration-manager"),
    ("executions:write", "operator"),
)


def role_for(scopes: frozenset[str]) -> str:
    """The role a token counts as when it was made from scopes: that of its strongest scope."""
    return next((role for scope, role in _ROLE_MARKS if scope in scopes), "viewer")


def operator(account_id: UUID) -> Caller:
    """The caller of commands that talk to the database directly: everything is allowed, audit lines say `operator`."""
    return Caller(account_id, None, None, "operator", SCOPES, ADMIN)


def require_one_account(callers: Iterable[Caller]) -> None:
    """Raises :class:`InvalidRequest` when the callers of one request belong to different accounts."""
    if len({caller.account_id for caller in callers}) > 1:
        raise InvalidRequest("the request carries credentials of two different accounts; send one")


def credentials_in(headers: Mapping[str, str]) -> list[str]:
    """Bearer credentials of a request, the preferred one first, repeats dropped. `headers` has lower-case names.

    `Authorization` may be `Bearer <credential>` or `Basic` with the token itself or base64 of `token:`; the pair
    `X-Auth-Email` and `X-Auth-Key` carries an API token as the key, whatever the e-mail says.
    """
    found = [_authorization(headers.get("authorization", "")), headers.get("x-auth-key", "").strip()]
    return list(dict.fromkeys(text for text in found if text))


def _authorization(header: str) -> str:
    scheme, _, rest = header.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest
    if scheme.lower() != "basic":
        return ""
    if rest.startswith("sk_"):
        return rest.removesuffix(":")
    try:
        decoded = base64.b64decode(rest, validate=True).decode("ascii").removesuffix(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return decoded if decoded.startswith("sk_") else ""
