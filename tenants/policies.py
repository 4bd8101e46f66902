"""Token policies: Cloudflare's way to say which scopes a token has.

A policy allows permission groups on resources. The only resource here is the account the token belongs to, and the only
effect that can be enforced is `allow`; anything else is refused by name, because a token that quietly does more or less
than its policies say is a trap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from tenants.auth import expand
from tenants.errors import UnsupportedPolicy
from tenants.ids import account_hex
from tenants.limits import POLICIES_PER_TOKEN
from tenants.schemas import Policy

ACCOUNT_RESOURCE = "com.cloudflare.api.account"


@dataclasses.dataclass(frozen=True, slots=True)
class PermissionGroup:
    """A named set of scopes. Ids are part of the API: scripts and Terraform files hold them, so they never change."""

    id: str
    name: str
    scopes: tuple[str, ...]


_WORKERS_READ = ("workflows:read", "executions:read", "scripts:read")
_WORKERS_WRITE = (
    *("workflows:write", "workflows:delete", "executions:write", "executions:delete"),
    *("scripts:write", "webhooks:write"),
)

# The first six carry the ids these groups have at Cloudflare.
PERMISSION_GROUPS = (
    PermissionGroup("1a71c399035b4950a1bd1466bbe4f420", "Workers Scripts Read", _WORKERS_READ),
    PermissionGroup("e086da7e2179491d91ee5f35b3ca210a", "Workers Scripts Write", _WORKERS_WRITE),
    PermissionGroup("05880cd1bdc24d8bae0be2136972816b", "Workers Tail Read", ("workflows:read", "executions:read")),
    PermissionGroup("c1fde68c7bcc44588cbb6ddbc16d6480", "Account Settings Read", ("account:read",)),
    PermissionGroup("1af1fa2adc104452b74a9a3364202f20", "Account Settings Write", ("account:write",)),
    PermissionGroup("5bc3f8b21c554832afc660159ab75fa4", "Account API Tokens Write", ("tokens:write",)),
    PermissionGroup("6d696c6c000000000000000000000001", "Account API Tokens Read", ("tokens:read",)),
    PermissionGroup("6d696c6c000000000000000000000002", "Workflows Read", ("workflows:read",)),
    PermissionGroup("6d696c6c000000000000000000000003", "Workflows Write", ("workflows:write",)),
    PermissionGroup("6d696c6c000000000000000000000004", "Workflows Delete", ("workflows:delete",)),
    PermissionGroup("6d696c6c000000000000000000000005", "Workflow Executions Read", ("executions:read",)),
    PermissionGroup("6d696c6c000000000000000000000006", "Workflow Executions Write", ("executions:write",)),
    PermissionGroup("6d696c6c000000000000000000000007", "Workflow Executions Delete", ("executions:delete",)),
    PermissionGroup("6d696c6c000000000000000000000008", "Scripts Read", ("scripts:read",)),
    PermissionGroup("6d696c6c000000000000000000000009", "Scripts Write", ("scripts:write",)),
    PermissionGroup("6d696c6c00000000000000000000000a", "Webhooks Read", ("webhooks:read",)),
    PermissionGroup("6d696c6c00000000000000000000000b", "Webhooks Write", ("webhooks:write",)),
    PermissionGroup("6d696c6c00000000000000000000000c", "Account Administrator", ("admin",)),
)
_BY_ID = {group.id: group for group in PERMISSION_GROUPS}
# The group that stands for one scope alone.
_BY_SCOPE = {group.scopes[0]: group for group in PERMISSION_GROUPS if len(group.scopes) == 1}


def scopes_of(policies: Sequence[Policy], condition: Any, account_id: UUID) -> list[str]:
    """The scopes the policies grant, sorted. Raises :class:`UnsupportedPolicy` naming what cannot be enforced."""
    if condition not in (None, {}):
        names = ", ".join(f"condition.{key}" for key in condition) if isinstance(condition, dict) else "condition"
        raise _refuse(names, "conditions are not supported; leave them out", "/condition")
    if not 1 <= len(policies) <= POLICIES_PER_TOKEN:
        raise _refuse("policies", f"there must be 1 to {POLICIES_PER_TOKEN} of them", "/policies")
    scopes: set[str] = set()
    for index, policy in enumerate(policies):
        scopes |= _scopes_of_policy(policy, index, account_id)
    return sorted(scopes)


def _scopes_of_policy(policy: Policy, index: int, account_id: UUID) -> set[str]:
    where, pointer = f"policies[{index}]", f"/policies/{index}"
    if policy.effect != "allow":
        raise _refuse(f"{where}.effect", f'must be "allow", {policy.effect!r} is not supported', f"{pointer}/effect")
    own = f"{ACCOUNT_RESOURCE}.{account_hex(account_id)}"
    for resource, extent in policy.resources.items():
        if resource != own:
            message = f'{resource!r} is not supported; the only resource is "{own}"'
            raise _refuse(f"{where}.resources", message, f"{pointer}/resources")
        if extent != "*":
            raise _refuse(f"{where}.resources", f'"{own}" must be "*"', f"{pointer}/resources")
    if not policy.resources:
        raise _refuse(f"{where}.resources", f'must name "{own}"', f"{pointer}/resources")
    if not policy.permission_groups:
        raise _refuse(f"{where}.permission_groups", "must not be empty", f"{pointer}/permission_groups")
    scopes: set[str] = set()
    for position, reference in enumerate(policy.permission_groups):
        group = _BY_ID.get(reference.id)
        if group is None:
            message = f"there is no permission group {reference.id!r}; GET …/tokens/permission_groups lists them"
            raise _refuse(
                f"{where}.permission_groups[{position}]", message, f"{pointer}/permission_groups/{position}/id"
            )
        scopes.update(group.scopes)
    return scopes


def _refuse(field: str, problem: str, pointer: str) -> UnsupportedPolicy:
    return UnsupportedPolicy(f"{field}: {problem}", pointer=pointer)


def stored_policies(policies: Sequence[Policy]) -> str:
    """Policies as JSON text for the token's row: what they grant, without what clients may decorate them with."""
    kept = [{"groups": [group.id for group in policy.permission_groups]} for policy in policies]
    return msgspec.json.encode(kept).decode()


def shown_policies(stored: str | None, scopes: Iterable[str], token_id: UUID, account_id: UUID) -> list[dict[str, Any]]:
    """The policies of a token as the API shows them; a token made from scopes gets one that says the same."""
    if stored is None:
        groups = [[_BY_SCOPE[scope].id for scope in sorted(scopes) if scope in _BY_SCOPE]]
    else:
        groups = [policy["groups"] for policy in msgspec.json.decode(stored)]
    return [
        {
            "id": f"{token_id.int ^ (index + 1):032x}",
            "effect": "allow",
            "permission_groups": [{"id": id_, "name": _BY_ID[id_].name} for id_ in ids if id_ in _BY_ID],
            "resources": {f"{ACCOUNT_RESOURCE}.{account_hex(account_id)}": "*"},
        }
        for index, ids in enumerate(groups)
    ]


def granted_beyond(scopes: Iterable[str], held: frozenset[str]) -> list[str]:
    """Scopes, implied ones included, that somebody who holds `held` cannot give away."""
    return sorted(expand(scopes) - held)
