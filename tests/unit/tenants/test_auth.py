"""Scopes, roles and credentials in headers."""

from __future__ import annotations

import base64
from uuid import UUID

import pytest

from app.errors import NoRoute, NotAllowed
from tenants.auth import ROLE_SCOPES, SCOPES, Caller, credentials_in, expand, operator, role_for

ACCOUNT = UUID(int=7)


def caller(*scopes: str, **values) -> Caller:
    return Caller(ACCOUNT, UUID(int=1), None, "t", expand(scopes), "operator", **values)


def test_writing_includes_reading_and_admin_everything():
    assert expand(["workflows:write"]) == {"workflows:write", "workflows:read"}
    assert expand(["admin"]) == SCOPES
    assert expand(["nonsense"]) == frozenset()


def test_a_missing_scope_is_named():
    one = caller("executions:write")
    one.require("executions:read")
    one.require("workflows:write", "executions:write")
    with pytest.raises(NotAllowed, match="lacks the scope workflows:write"):
        one.require("workflows:write")


@pytest.mark.parametrize("text", ["", "0" * 32, "7", f"{ACCOUNT}", ACCOUNT.hex.upper() + "x", "\x00" * 32])
def test_another_account_in_the_path_is_no_route(text):
    assert caller().owns(ACCOUNT.hex) == ACCOUNT
    with pytest.raises(NoRoute):
        caller().owns(text)


def test_roles_grow_from_viewer_to_admin():
    assert ROLE_SCOPES["viewer"] < ROLE_SCOPES["operator"] < ROLE_SCOPES["workflow-designer"] < ROLE_SCOPES["admin"]
    assert all(scopes <= SCOPES and expand(scopes) == scopes for scopes in ROLE_SCOPES.values())
    for role, scopes in ROLE_SCOPES.items():
        assert role_for(scopes) == role


def test_audit_lines_name_the_token_the_user_or_the_operator():
    assert caller().actor == f"token:{UUID(int=1).hex}"
    assert Caller(ACCOUNT, None, UUID(int=2), "u", frozenset(), "viewer").actor == f"user:{UUID(int=2).hex}"
    assert operator(ACCOUNT).actor == "operator"


def test_who_is_a_member_of_every_workspace():
    assert caller().member_everywhere
    assert operator(ACCOUNT).member_everywhere
    assert Caller(ACCOUNT, UUID(int=1), UUID(int=2), "t", frozenset(), "viewer").member_everywhere
    assert not caller(workspace_id=UUID(int=3)).member_everywhere
    assert Caller(ACCOUNT, None, UUID(int=2), "u", SCOPES, "admin").member_everywhere
    assert not Caller(ACCOUNT, None, UUID(int=2), "u", frozenset(), "operator").member_everywhere


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, []),
        ({"authorization": "Bearer sk_a"}, ["sk_a"]),
        ({"authorization": "bearer   sk_a "}, ["sk_a"]),
        ({"authorization": "Basic sk_a"}, ["sk_a"]),
        ({"authorization": "Basic " + base64.b64encode(b"sk_a:").decode()}, ["sk_a"]),
        ({"authorization": "Basic " + base64.b64encode(b"user:pass").decode()}, []),
        ({"authorization": "Basic %%%"}, []),
        ({"authorization": "Basic " + base64.b64encode(b"\xff\xfe").decode()}, []),
        ({"authorization": "Digest x"}, []),
        ({"authorization": "Bearer"}, []),
        ({"x-auth-email": "a@b", "x-auth-key": "sk_k"}, ["sk_k"]),
        ({"x-auth-email": "a@b"}, []),
        ({"authorization": "Bearer sk_a", "x-auth-key": "sk_k"}, ["sk_a", "sk_k"]),
        ({"authorization": "Bearer sk_a", "x-auth-key": "sk_a"}, ["sk_a"]),
    ],
)
def test_credentials_are_found_in_headers(headers, found):
    assert credentials_in(headers) == found
