"""`millrace account|token|user|workspace`, on a real database."""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import sys
import warnings
from typing import Any

import pytest

from app.cli import main as command_line

HEX = re.compile(r"[0-9a-f]{32}")


@pytest.fixture
def millrace(dsn, monkeypatch, capsys, tmp_path):
    """`millrace("account", "list", "--json")`: what it printed, decoded; `fails=` is the expected exit code."""
    for name in list(os.environ):
        if name.startswith("MILLRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MILLRACE_DATABASE_URL", dsn)
    monkeypatch.setenv("MILLRACE_SECRET", "of the command's tests, and long enough")

    def run(*arguments: str, stdin: str = "", fails: int = 0) -> Any:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), "utf-8"))
        code = command_line.run(list(arguments))
        said = capsys.readouterr()
        assert code == fails, said.err
        if fails:
            assert said.out == ""
            assert "hint: " in said.err
            return said.err
        return json.loads(said.out) if "--json" in arguments else said.out

    return run


@pytest.fixture
def account_id(millrace) -> str:
    return millrace("account", "create", "Ada's", "--json")["id"]


def test_an_account_is_made_shown_limited_and_disabled(millrace):
    made = millrace("account", "create", "Ada's", "--json")
    assert set(made) == {"id", "name"}
    assert HEX.fullmatch(made["id"])
    assert made["name"] == "Ada's"
    [listed] = millrace("account", "list", "--json")
    assert listed | made == listed
    assert (listed["profile"], listed["status"]) == ("open", "active")

    shown = millrace("account", "limits", made["id"], "--json")
    assert (shown["limits"]["concurrency"], shown["overrides"]) == (None, {})
    shown = millrace("account", "limits", made["id"], "--profile", "cloudflare-free", "--set", "steps=7", "--json")
    assert (shown["profile"], shown["limits"]["steps"], shown["limits"]["concurrency"]) == ("cloudflare-free", 7, 100)
    shown = millrace("account", "limits", made["id"], "--set", "concurrency=none", "--json")
    assert shown["overrides"] == {"steps": 7, "concurrency": None}

    assert millrace("account", "settings", made["id"], "--json")["untyped_tasks"] == "noop"
    shown = millrace("account", "settings", made["id"], "--untyped-tasks", "external", "--json")
    assert shown == {"success_retention_ms": None, "error_retention_ms": None, "untyped_tasks": "external"}
    assert "external" in millrace("account", "settings", made["id"])

    usage = millrace("account", "usage", made["id"], "--json")
    assert (usage["workspaces"], usage["unfinished"], usage["finished"]) == (1, {}, {})
    assert millrace("account", "disable", made["id"], "--json")["status"] == "disabled"
    assert millrace("account", "enable", made["id"], "--json")["status"] == "active"
    actions = [line["action"] for line in millrace("account", "audit", made["id"], "--json")]
    assert actions == [
        "account.enable", "account.disable", "account.settings", "account.limits", "account.limits", "account.create"
    ]  # fmt: skip
    assert made["id"] in millrace("account", "list")


def test_an_account_id_can_be_chosen(millrace):
    chosen = "0123456789abcdef0123456789abcdef"
    assert millrace("account", "create", "x", "--id", chosen, "--json")["id"] == chosen
    assert "exists already" in millrace("account", "create", "x", "--id", chosen, fails=1)


def test_a_token_is_made_listed_and_revoked(millrace, account_id):
    made = millrace("token", "create", "--account", account_id, "--name", "ci", "--json")
    assert set(made) == {"id", "token"}
    assert re.fullmatch(r"sk_[0-9A-Za-z]{37,77}", made["token"])
    limited = millrace(
        *("token", "create", "--account", account_id, "--name", "x", "--json"),
        *("--scopes", "executions:write, workflows:read", "--expires", "30d", "--not-before", "2020-01-01"),
    )
    rows = {row["id"]: row for row in millrace("token", "list", "--account", account_id, "--json")}
    assert set(rows) == {made["id"], limited["id"]}
    assert (rows[made["id"]]["scopes"], rows[made["id"]]["role"]) == (["admin"], "admin")
    assert rows[limited["id"]]["scopes"] == ["executions:write", "workflows:read"]
    assert (rows[limited["id"]]["role"], rows[limited["id"]]["not_before"]) == ("operator", "2020-01-01T00:00:00.000Z")
    assert made["token"] not in millrace("token", "list", "--account", account_id)
    assert millrace("token", "revoke", made["id"], "--account", account_id, "--json") == {"id": made["id"]}
    assert "no such token" in millrace("token", "revoke", made["id"], "--account", account_id, fails=1)


def test_a_token_without_scopes_may_do_what_its_role_or_its_user_may(millrace, account_id):
    at = ("--account", account_id, "--name", "t", "--json")
    millrace("user", "create", "eve", "--account", account_id, "--role", "viewer")
    for options, role, some in (
        (("--role", "operator"), "operator", "executions:write"),
        (("--user", "eve"), "viewer", "workflows:read"),
        (("--user", "eve", "--role", "operator"), "operator", "executions:write"),
        (("--user", "eve", "--scopes", "webhooks:write"), "integration-manager", "webhooks:write"),
        ((), "admin", "admin"),
        (("--role", "admin"), "admin", "admin"),
    ):
        made = millrace("token", "create", *at, *options)["id"]
        row = next(row for row in millrace("token", "list", "--account", account_id, "--json") if row["id"] == made)
        assert row["role"] == role
        assert some in row["scopes"]
        assert (role == "admin") == ("admin" in row["scopes"])


def test_a_span_beyond_the_calendar_is_wrong_usage(millrace, account_id):
    at = ("--account", account_id, "--name", "t")
    assert "more than a century" in millrace("token", "create", *at, "--expires", "999999w", fails=2)


def test_a_password_is_not_asked_for_without_a_terminal(millrace, account_id, monkeypatch):
    def no_terminal(prompt: str, stream: Any = None) -> str:
        warnings.warn("Can not control echo on the terminal.", getpass.GetPassWarning, stacklevel=2)
        return "shown to all"

    monkeypatch.setattr("getpass.getpass", no_terminal)
    millrace("user", "create", "eve", "--account", account_id, "--role", "viewer")
    assert "--password-stdin" in millrace("user", "password", "eve", "--account", account_id, fails=1)


def test_a_token_can_belong_to_a_user_and_a_workspace(millrace, account_id):
    at = ("--account", account_id)
    user = millrace("user", "create", "ada", *at, "--role", "viewer", "--json")
    team = millrace("workspace", "create", "team", *at, "--name", "The team", "--json")
    token = millrace("token", "create", *at, "--name", "t", "--user", "ada", "--workspace", "team", "--json")
    [row] = millrace("token", "list", *at, "--json")
    assert (row["id"], row["user_id"], row["workspace_id"]) == (token["id"], user["id"], team["id"])


def test_a_user_is_made_listed_and_changed(millrace, account_id):
    at = ("--account", account_id)
    made = millrace(
        *("user", "create", "Ada", *at, "--role", "admin", "--email", "ada@example.org", "--password-stdin", "--json"),
        stdin="correct horse\n",
    )
    assert set(made) == {"id"}
    [row] = millrace("user", "list", *at, "--json")
    assert (row["id"], row["name"], row["email"], row["role"]) == (made["id"], "Ada", "ada@example.org", "admin")
    assert "horse" not in millrace("user", "list", *at)
    assert millrace("user", "disable", "ada@example.org", *at, "--json")["status"] == "disabled"
    assert millrace("user", "enable", made["id"], *at, "--json")["status"] == "active"
    assert millrace("user", "role", "Ada", "viewer", *at, "--json")["role"] == "viewer"
    millrace("user", "password", "Ada", *at, "--password-stdin", stdin="battery staple")
    assert "name or e-mail address already" in millrace("user", "create", "Ada", *at, "--role", "admin", fails=1)


def test_a_user_is_one_person_with_a_user_of_another_account(millrace, account_id):
    other = millrace("account", "create", "other", "--json")["id"]
    for account in (account_id, other):
        millrace("user", "create", "ada", "--account", account, "--role", "viewer")
    link = ("user", "link", "ada", "--account", other, "--to-account", account_id, "--to-user")
    assert millrace(*link, "ada", "--json")["name"] == "ada"
    assert "no such user" in millrace(*link, "bob", fails=1)
    millrace("user", "create", "eve", "--account", other, "--role", "viewer")
    taken = millrace("user", "link", "eve", *link[3:], "ada", fails=1)
    assert "another user of this account already" in taken
    assert millrace("user", "logout", "ada", "--account", other, "--json")["status"] == "active"


def test_a_workspace_and_its_members(millrace, account_id):
    at = ("--account", account_id)
    made = millrace("workspace", "create", "team", *at, "--json")
    assert [row["slug"] for row in millrace("workspace", "list", *at, "--json")] == ["default", "team"]
    millrace("user", "create", "ada", *at, "--role", "operator")
    millrace("workspace", "add-member", "team", "ada", *at)
    millrace("workspace", "add-member", made["id"], "ada", *at, "--role", "admin")
    [member] = millrace("workspace", "members", "team", *at, "--json")
    assert (member["name"], member["role"]) == ("ada", "admin")
    millrace("workspace", "remove-member", "team", "ada", *at)
    assert millrace("workspace", "members", "team", *at, "--json") == []
    assert "no member" in millrace("workspace", "remove-member", "team", "ada", *at, fails=1)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        ("account create", "Missing argument 'NAME'", 2),
        ("account create {long}", "must be a text of 1 to 255 characters", 2),
        ("account create \udcff", "must be a text of 1 to 255 characters", 2),
        ("account create x --id 7", "is no account id", 2),
        ("account limits x", "is no account id", 2),
        ("account limits {nobody}", "there is no account 0000", 1),
        ("account settings {nobody}", "there is no account 0000", 1),
        ("account settings {account} --untyped-tasks fly", "is not one of 'noop'", 2),
        ("account usage {nobody}", "there is no account 0000", 1),
        ("account audit {nobody}", "there is no account 0000", 1),
        ("account disable {nobody}", "there is no account 0000", 1),
        ("account limits {account} --profile gold", "is not one of 'open'", 2),
        ("account limits {account} --set speed=1", "must be NAME=VALUE with one of these names: concurrency", 2),
        ("account limits {account} --set concurrency", "must be NAME=VALUE", 2),
        ("account limits {account} --set concurrency=many", "concurrency must be a number, or none", 2),
        ("account limits {account} --set concurrency=-1", "concurrency must be a whole number from 0", 1),
        ("account limits {account} --set steps=nan", "steps must be a whole number", 1),
        ("token create --name x", "Missing option '--account'", 2),
        ("token create --account {account}", "Missing option '--name'", 2),
        ("token create --account {nobody} --name x", "there is no account 0000", 1),
        ("token create --account {account} --name {long}", "must be a text of 1 to 120 characters", 2),
        ("token create --account {account} --name x --scopes fly", "'fly' is no scope; the scopes are", 2),
        ("token create --account {account} --name x --scopes ,", "names no scope", 2),
        ("token create --account {account} --name x --expires soon", "neither a time", 2),
        ("token create --account {account} --name x --expires 2020-01-01", "expires_on must be in the future", 1),
        ("token create --account {account} --name x --workspace nowhere", "no such workspace", 1),
        ("token create --account {account} --name x --user nobody", "no such user", 1),
        ("token revoke x --account {account}", "is no id", 2),
        ("token list --account {nobody}", "there is no account 0000", 1),
        ("user create x --account {account} --role king", "is not one of 'admin'", 2),
        ("user create x --account {account} --role admin --email nowhere", "must be a text of 3 to 254", 2),
        ("user create x --account {account} --role admin --password-stdin", "the password must be a text of 8", 2),
        ("user create x --account {nobody} --role admin", "there is no account 0000", 1),
        ("user disable nobody --account {account}", "no such user", 1),
        ("user list --account {nobody}", "there is no account 0000", 1),
        ("workspace create A_b --account {account}", "lowercase letters", 2),
        ("workspace create new --account {account}", "slug must not be new or settings", 1),
        ("workspace create default --account {account}", "a workspace 'default' already", 1),
        ("workspace members nowhere --account {account}", "no such workspace", 1),
        ("workspace list --account {nobody}", "there is no account 0000", 1),
    ],
)
def test_mistakes_are_told_with_a_hint(millrace, account_id, arguments, message, code):
    texts = {"account": account_id, "nobody": "0" * 32, "long": "x" * 300}
    said = millrace(*(part.format(**texts) for part in arguments.split()), fails=code)
    assert message in said
    assert "Traceback" not in said


def test_a_database_without_a_schema_is_told_so(empty_dsn, millrace, monkeypatch):
    monkeypatch.setenv("MILLRACE_DATABASE_URL", empty_dsn)
    said = millrace("account", "list", fails=1)
    assert "millrace migrate" in said or "doctor" in said


def test_without_a_secret_or_with_a_strange_one_nothing_is_made(millrace, account_id, monkeypatch):
    create = ("token", "create", "--account", account_id, "--name", "x")
    millrace(*create)
    monkeypatch.setenv("MILLRACE_SECRET", "another secret, long enough as well")
    assert "not the secret this database was set up with" in millrace(*create, fails=1)
    assert "not confirmed" in millrace("token", "reset-secret", stdin="n\n", fails=1)
    millrace("token", "reset-secret", "--yes")
    millrace(*create)
    monkeypatch.setenv("MILLRACE_SECRET", "short")
    assert "MILLRACE_SECRET must be at least 32 bytes" in millrace(*create, fails=1)
