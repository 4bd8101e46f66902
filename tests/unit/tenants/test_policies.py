"""Token policies: what is granted, and what is refused by name."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from tenants.auth import SCOPES, expand
from tenants.errors import UnsupportedPolicy
from tenants.policies import PERMISSION_GROUPS, granted_beyond, scopes_of, shown_policies, stored_policies
from tenants.schemas import Policy

ACCOUNT, TOKEN = UUID(int=7), UUID(int=0xABC)
OWN = {f"com.cloudflare.api.account.{ACCOUNT.hex}": "*"}
WRITE = "e086da7e2179491d91ee5f35b3ca210a"


def policy(**changes) -> Policy:
    return msgspec.convert(
        {"effect": "allow", "permission_groups": [{"id": WRITE}], "resources": OWN} | changes, Policy
    )


def test_the_ids_of_permission_groups_never_change():
    assert [(group.id, group.name) for group in PERMISSION_GROUPS][:8] == [
        ("1a71c399035b4950a1bd1466bbe4f420", "Workers Scripts Read"),
        ("e086da7e2179491d91ee5f35b3ca210a", "Workers Scripts Write"),
        ("05880cd1bdc24d8bae0be2136972816b", "Workers Tail Read"),
        ("c1fde68c7bcc44588cbb6ddbc16d6480", "Account Settings Read"),
        ("1af1fa2adc104452b74a9a3364202f20", "Account Settings Write"),
        ("5bc3f8b21c554832afc660159ab75fa4", "Account API Tokens Write"),
        ("6d696c6c000000000000000000000001", "Account API Tokens Read"),
        ("6d696c6c000000000000000000000002", "Workflows Read"),
    ]
    assert len({group.id for group in PERMISSION_GROUPS}) == len(PERMISSION_GROUPS) == 18


def test_groups_cover_every_scope_and_no_other():
    granted = {scope for group in PERMISSION_GROUPS for scope in group.scopes}
    assert granted == SCOPES


def test_policies_add_up():
    read_tokens = policy(permission_groups=[{"id": "6d696c6c000000000000000000000001", "name": "x", "meta": {}}])
    scopes = scopes_of([policy(), read_tokens], {}, ACCOUNT)
    assert {"workflows:write", "executions:write", "scripts:write", "tokens:read"} <= set(scopes)
    assert "tokens:write" not in scopes


@pytest.mark.parametrize(
    ("policies", "condition", "message"),
    [
        ([], None, "policies: there must be 1 to 100"),
        ([policy()] * 101, None, "policies: there must be 1 to 100"),
        ([policy(effect="deny")], None, r'policies\[0\]\.effect: must be "allow"'),
        ([policy(resources={})], None, r"policies\[0\]\.resources: must name"),
        ([policy(resources={"com.cloudflare.api.account.*": "*"})], None, r"account\.\*' is not supported"),
        ([policy(resources=OWN | {f"com.cloudflare.api.account.{TOKEN.hex}": "*"})], None, "is not supported"),
        ([policy(resources={"com.cloudflare.api.account.zone.1": "*"})], None, "zone.1' is not supported"),
        ([policy(resources={next(iter(OWN)): {"com.cloudflare.api.account.zone.*": "*"}})], None, r'must be "\*"'),
        ([policy(), policy(permission_groups=[])], None, r"policies\[1\]\.permission_groups: must not be empty"),
        ([policy(permission_groups=[{"id": "0" * 32}])], None, "no permission group '0000"),
        ([policy()], {"request_ip": {"in": ["10.0.0.0/8"]}}, r"condition\.request_ip: conditions are not supported"),
        ([policy()], "always", "condition: conditions are not supported"),
    ],
)
def test_what_cannot_be_enforced_is_refused_by_name(policies, condition, message):
    with pytest.raises(UnsupportedPolicy, match=message) as caught:
        scopes_of(policies, condition, ACCOUNT)
    assert caught.value.status == 400
    assert caught.value.pointer


def test_an_unknown_field_of_a_policy_is_refused():
    with pytest.raises(msgspec.ValidationError, match="unknown field `until`"):
        policy(until="tomorrow")


def test_policies_are_shown_so_that_they_can_be_sent_back():
    stored = stored_policies([policy(permission_groups=[{"id": WRITE, "meta": {"label": "x"}}])])
    [shown] = shown_policies(stored, [], TOKEN, ACCOUNT)
    assert shown["permission_groups"] == [{"id": WRITE, "name": "Workers Scripts Write"}]
    assert shown["resources"] == OWN
    again = scopes_of([msgspec.convert(shown, Policy)], None, ACCOUNT)
    assert again == scopes_of([policy()], None, ACCOUNT)


def test_a_token_made_from_scopes_shows_policies_that_say_the_same():
    for scopes in (["admin"], ["tokens:write", "executions:delete"], sorted(SCOPES)):
        shown = [msgspec.convert(each, Policy) for each in shown_policies(None, scopes, TOKEN, ACCOUNT)]
        assert expand(scopes_of(shown, None, ACCOUNT)) == expand(scopes)


def test_nobody_can_give_away_what_they_lack():
    assert granted_beyond(["admin"], expand(["tokens:write"])) == sorted(SCOPES - {"tokens:read", "tokens:write"})
    assert granted_beyond(["workflows:write"], frozenset({"workflows:write"})) == ["workflows:read"]
    assert granted_beyond(["tokens:read"], expand(["tokens:write"])) == []
