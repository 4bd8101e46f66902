"""The command line: what it lists, how it fails, whom it connects to."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import click
import msgspec
import pytest

import app
from app.cli import main as command_line
from app.cli.connection import find_connection
from app.cli.doctor import Finding, examine
from app.cli.installation import FORMAT, Installation, InstallationError, Ready, write_private
from app.cli.output import Output
from app.cli.problems import CommandFailed, describe
from app.settings import Settings, SettingsError
from tenants.auth import operator
from tenants.service import TenantService
from tenants.tokens import TokenGrant
from tests.support.servers import CHECKOUT


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No setting of the developer, no data folder of the checkout."""
    for name in list(os.environ):
        if name.startswith("MILLRACE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("app.cli.installation.SYSTEM_DIRECTORY", tmp_path / "system")


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = command_line.run(list(arguments))
    said = capsys.readouterr()
    return code, said.out, said.err


class TestCommands:
    def test_help_lists_every_command_that_exists(self, capsys):
        code, out, _ = run(capsys, "--help")
        assert code == 0
        for entries in command_line.SECTIONS.values():
            for name in entries:
                assert f"  {name} " in out

    @pytest.mark.parametrize("name", [name for entries in command_line.SECTIONS.values() for name in entries])
    def test_every_command_explains_itself(self, capsys, name):
        code, out, _ = run(capsys, name, "--help")
        assert code == 0
        assert out.startswith(f"Usage: millrace {name}")

    def test_starting_imports_no_command(self):
        script = "import sys, app.cli.main; print([name for name in sys.modules if name.startswith('app.cli.')])"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=CHECKOUT, check=True)
        assert sorted(json.loads(done.stdout.replace("'", '"'))) == ["app.cli.main", "app.cli.problems"]

    def test_version(self, capsys):
        assert run(capsys, "--version")[1] == f"millrace {app.__version__}\n"
        assert f'version = "{app.__version__}"' in (CHECKOUT / "pyproject.toml").read_text()

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_completion(self, capsys, shell):
        code, out, _ = run(capsys, "completion", shell)
        assert code == 0
        assert "_MILLRACE_COMPLETE" in out


class TestErrors:
    def test_a_mistyped_command_is_a_usage_error_with_a_suggestion(self, capsys):
        code, _, err = run(capsys, "migrat")
        assert code == 2
        assert err.splitlines() == [
            "error: No such command 'migrat'. Did you mean 'migrate'?",
            "hint: `millrace --help` shows what it takes.",
        ]

    @pytest.mark.parametrize(
        "arguments",
        [["migrate", "--nonsense"], ["dev", "--port", "99999"], ["dev", "--account-id", "x"], ["completion"]],
    )
    def test_wrong_usage_exits_with_2_and_a_hint(self, capsys, arguments):
        code, out, err = run(capsys, *arguments)
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].startswith("hint: ")

    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            ({}, "No database: set MILLRACE_DATABASE_URL"),
            ({"MILLRACE_DATABASE_URL": "mysql://x"}, "MILLRACE_DATABASE_URL must begin with postgresql://"),
            ({"MILLRACE_DATABASE_URL": "postgresql://u:hidden@127.0.0.1:1/x"}, "cannot connect"),
            ({"MILLRACE_DATA_DIR": "/nonexistent"}, "/nonexistent is not a data folder"),
            ({"MILLRACE_DATABASE_URL": "postgresql://", "MILLRACE_DB_POOL_SIZE": "many"}, "must be a whole number"),
        ],
    )
    def test_a_database_that_cannot_be_used_is_told_in_two_lines(self, capsys, monkeypatch, variables, message):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        code, out, err = run(capsys, "migrate")
        assert (code, out) == (1, "")
        assert message in err.splitlines()[0]
        assert "hidden" not in err
        assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "hint"]

    @pytest.mark.parametrize(
        ("option", "value", "message"),
        [
            ("--url", "here", "no address of a server"),
            ("--url", "ftp://127.0.0.1", "no address of a server"),
            ("--url", "http://[::1", "no address of a server"),
            ("--url", "http://127.0.0.1:99999", "no address of a server"),
            ("--url", "http://", "no address of a server"),
            ("--account", "x", "no account id"),
            ("--token", "sk_\u00e4", "no API token"),
            ("--token", "sk_a\nb", "no API token"),
        ],
    )
    def test_what_cannot_be_meant_is_wrong_usage(self, capsys, option, value, message):
        given = {"--url": "http://127.0.0.1:1", "--account": "a" * 32, "--token": "sk_x", option: value}
        code, out, err = run(capsys, "workflows", "list", *(part for pair in given.items() for part in pair))
        assert (code, out) == (2, "")
        assert message in err
        assert err.splitlines()[-1] == "hint: `millrace workflows list --help` shows what it takes."

    def test_a_question_nobody_answers_is_a_no(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        with pytest.raises(CommandFailed, match="not confirmed"):
            Output().confirm("Go on?")
        monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
        with pytest.raises(CommandFailed, match="not confirmed") as raised:
            Output().confirm("Go on?")
        assert "--yes" in raised.value.hint
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        Output().confirm("Go on?")

    def test_a_bug_is_not_hidden(self):
        assert describe(KeyError("what")) is None

    def test_colour_is_left_out_when_asked(self, capsys, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        assert "\x1b[" in run(capsys, "migrat")[2]
        monkeypatch.setenv("NO_COLOR", "1")
        assert "\x1b[" not in run(capsys, "migrat")[2]
        monkeypatch.setenv("NO_COLOR", "")  # as the convention has it, this asks for nothing
        assert "\x1b[" in run(capsys, "migrat")[2]


class TestMigrate:
    async def test_brings_a_database_up_to_date(self, capsys, monkeypatch, empty_dsn):
        monkeypatch.setenv("MILLRACE_DATABASE_URL", empty_dsn)
        assert await millrace("migrate", "--check", env={"MILLRACE_DATABASE_URL": empty_dsn}) == 1
        assert await millrace("migrate", env={"MILLRACE_DATABASE_URL": empty_dsn}) == 0
        assert await millrace("migrate", "--check", env={"MILLRACE_DATABASE_URL": empty_dsn}) == 0


class TestConfig:
    def test_shows_every_setting_with_its_meaning(self, capsys):
        code, out, _ = run(capsys, "config", "--json")
        assert code == 0
        rows = {row["variable"]: row for row in json.loads(out)}
        assert set(rows) == {f"MILLRACE_{name.upper()}" for name in Settings.__dataclass_fields__}
        assert rows["MILLRACE_SECRET"]["description"].startswith("At least 32 bytes")

    def test_masks_secrets(self, capsys, monkeypatch):
        monkeypatch.setenv("MILLRACE_SECRET", "s3cret" * 10)
        monkeypatch.setenv("MILLRACE_DATABASE_URL", "postgresql://user:s3cret@host:5432/db?password=s3cret&x=1")
        monkeypatch.setenv("MILLRACE_REDIS_URL", "redis://:s3cret@host/0")
        for form in ([], ["--json"]):
            out = run(capsys, "config", *form)[1]
            assert "s3cret" not in out
            assert "user:********@host:5432/db" in out

    @pytest.mark.parametrize("url", ["postgresql://u:s3cret[@host/db", "postgresql://u:s3cret/s3cret@host/db"])
    def test_masks_what_is_no_address(self, capsys, monkeypatch, url):
        monkeypatch.setenv("MILLRACE_DATABASE_URL", url)
        code, out, _ = run(capsys, "config", "--json")
        assert code == 0
        assert "s3cret" not in out

    def test_shows_what_comes_from_the_data_folder(self, capsys, monkeypatch, tmp_path):
        installation = Installation.open(tmp_path / ".millrace", create=True)
        installation.marker.redis_url = "redis://:s3cret@host/0"
        installation.save()
        monkeypatch.setenv("MILLRACE_DATA_DIR", str(installation.directory))
        rows = {row["variable"]: row for row in json.loads(run(capsys, "config", "--json")[1])}
        shown = {
            name: (rows[f"MILLRACE_{name}"]["value"], rows[f"MILLRACE_{name}"]["source"])
            for name in ("SECRET", "DATABASE_URL", "REDIS_URL", "DATA_DIR", "BIND")
        }
        assert shown == {
            "SECRET": ("********", "data folder"),
            "DATABASE_URL": ("", "data folder"),
            "REDIS_URL": ("redis://:********@host/0", "data folder"),
            "DATA_DIR": (str(installation.directory), "environment"),
            "BIND": ("127.0.0.1:8484", "default"),
        }


class TestDoctor:
    async def test_finds_a_healthy_machine(self, dsn, redis_url):
        env = {"MILLRACE_DATABASE_URL": dsn, "MILLRACE_REDIS_URL": redis_url, "MILLRACE_SECRET": "s" * 32}
        assert await millrace("doctor", env=env) == 0

    def test_says_what_to_do(self, capsys, monkeypatch):
        monkeypatch.setenv("MILLRACE_DATABASE_URL", "postgresql://127.0.0.1:1/x")
        monkeypatch.setenv("MILLRACE_REDIS_URL", "redis://127.0.0.1:1")
        monkeypatch.setenv("MILLRACE_SECRET", "short")
        code, out, _ = run(capsys, "doctor", "--json")
        assert code == 1
        failed = {row["check"]: row for row in json.loads(out) if row["state"] == "failed"}
        assert set(failed) == {"secret", "database", "redis"}
        assert all(row["hint"] for row in failed.values())


class TestDoctorOnSecrets:
    """What `millrace doctor` says while MILLRACE_SECRET is being replaced."""

    OLD, NEW = "the old secret, long enough for all", "the new secret, long enough for all"

    @pytest.fixture
    def examined(self, monkeypatch, dsn):
        async def examined(**variables: str) -> dict[str, Finding]:
            monkeypatch.setenv("MILLRACE_DATABASE_URL", dsn)
            monkeypatch.setenv("MILLRACE_REDIS_URL", "redis://127.0.0.1:1")
            for name in ("SECRET", "SECRET_PREVIOUS"):
                monkeypatch.setenv(f"MILLRACE_{name}", variables.get(name, ""))
            return {finding.check: finding for finding in await examine()}

        return examined

    @pytest.fixture
    async def token(self, db, clock, ids):
        tenants = TenantService(db, clock, ids, Settings(secret=self.OLD))
        await tenants.check_secret()
        account = await tenants.accounts.create("ours")
        return await tenants.tokens.create(operator(account.account_id), TokenGrant(name="ci", scopes=["admin"]))

    async def test_before_it(self, examined, token):
        found = await examined(SECRET=self.OLD)
        assert (found["tokens"].state, found["tokens"].detail) == ("ok", "1, all under the current secret")
        assert (found["script secrets"].state, found["script secrets"].detail[:2]) == ("ok", "0,")

    async def test_while_it_lasts(self, examined, token, db, clock, ids):
        row, text = token
        found = await examined(SECRET=self.NEW, SECRET_PREVIOUS=self.OLD)
        assert found["tokens"].state == "warning"
        assert found["tokens"].detail == "1 of 1 still need MILLRACE_SECRET_PREVIOUS"
        assert f"ci ({row.id.hex} of account {row.account_id.hex})" in found["tokens"].hint
        both = TenantService(db, clock, ids, Settings(secret=self.NEW, secret_previous=self.OLD))
        await both.authenticate(text)
        await both.close()
        assert (await examined(SECRET=self.NEW, SECRET_PREVIOUS=self.OLD))["tokens"].state == "ok"

    async def test_after_it(self, examined, token):
        await examined(SECRET=self.NEW, SECRET_PREVIOUS=self.OLD)
        found = await examined(SECRET=self.NEW)
        assert (found["tokens"].state, "not the secret this database" in found["tokens"].detail) == ("failed", True)
        assert found["tokens"].hint

    async def test_when_it_is_lost(self, examined, token, db, clock, ids):
        await TenantService(db, clock, ids, Settings(secret=self.NEW)).reset_secret()
        found = await examined(SECRET=self.NEW)
        assert (found["tokens"].state, found["tokens"].detail) == (
            "warning",
            "1 of 1 were made with a secret that is gone",
        )
        assert "Revoke them and make others: ci (" in found["tokens"].hint


class TestConnection:
    ready = Ready(
        base_url="http://127.0.0.1:8484",
        account_id="a" * 32,
        api_token="sk_dev",
        pid=os.getpid(),
        postgres_dsn="postgresql://",
        redis_url="unix://",
    )

    @pytest.fixture
    def dev_server(self, tmp_path):
        installation = Installation.open(tmp_path / ".millrace", create=True)
        write_private(installation.directory / "ready.json", msgspec.json.encode(self.ready))
        return installation

    def test_the_running_dev_server_is_the_default(self, dev_server):
        found = find_connection()
        assert (found.base_url, found.account_id, found.token) == ("http://127.0.0.1:8484", "a" * 32, "sk_dev")

    def test_options_win_over_variables(self, monkeypatch):
        monkeypatch.setenv("MILLRACE_URL", "http://variable/")
        monkeypatch.setenv("MILLRACE_ACCOUNT_ID", "b" * 32)
        monkeypatch.setenv("MILLRACE_TOKEN", "sk_variable")
        assert find_connection().base_url == "http://variable"
        assert find_connection(url="http://option").base_url == "http://option"
        assert find_connection(url="https://m/client/v4/").base_url == "https://m"
        assert find_connection(token="sk_option").token == "sk_option"

    @pytest.mark.parametrize("given", [{"url": "https://elsewhere"}, {"account_id": "c" * 32}])
    def test_the_dev_servers_token_goes_nowhere_else(self, dev_server, given):
        with pytest.raises(click.UsageError):
            find_connection(**given)

    def test_a_server_that_is_gone_is_not_used(self, dev_server):
        gone = subprocess.Popen(["/bin/true"])
        gone.wait()
        dead = msgspec.structs.replace(self.ready, pid=gone.pid)
        write_private(dev_server.directory / "ready.json", msgspec.json.encode(dead))
        with pytest.raises(click.UsageError, match="Which server"):
            find_connection()


class TestInstallation:
    def test_keeps_its_secret_to_itself(self, tmp_path):
        installation = Installation.open(tmp_path / "data", create=True)
        assert len(installation.secret()) == 64
        assert Installation.open(tmp_path / "data").secret() == installation.secret()
        for name in ("secret", "millrace.json"):
            assert (tmp_path / "data" / name).stat().st_mode & 0o777 == 0o600

    def test_a_lost_secret_is_one_sentence(self, tmp_path):
        installation = Installation.open(tmp_path / "data", create=True)
        (tmp_path / "data" / "secret").unlink()
        with pytest.raises(InstallationError, match=r"secret is missing: restore it, or set MILLRACE_SECRET"):
            installation.secret()

    def test_a_first_start_that_was_killed_is_begun_anew(self, tmp_path):
        (tmp_path / "data").mkdir()
        for left in ("dev.lock", ".secret.x1", ".millrace.json.x2"):
            (tmp_path / "data" / left).touch()
        assert Installation.open(tmp_path / "data", create=True).secret()

    def test_a_newer_folder_is_refused(self, tmp_path):
        installation = Installation.open(tmp_path / "data", create=True)
        newer = {"format": FORMAT + 1, "release": "9.0.0", "something": "else"}
        write_private(installation.directory / "millrace.json", msgspec.json.encode(newer))
        with pytest.raises(InstallationError, match=r"was written by Millrace 9\.0\.0, which is newer"):
            Installation.open(tmp_path / "data")

    @pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": "x"}', b'{"format": 1, "id": 7}'])
    def test_a_damaged_folder_is_refused(self, tmp_path, content):
        installation = Installation.open(tmp_path / "data", create=True)
        (installation.directory / "millrace.json").write_bytes(content)
        with pytest.raises(InstallationError, match="is damaged"):
            Installation.open(tmp_path / "data")

    def test_somebody_elses_folder_is_left_alone(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("…")
        with pytest.raises(InstallationError, match="is not empty"):
            Installation.open(tmp_path, create=True)
        with pytest.raises(InstallationError, match="is not a folder"):
            Installation.open(tmp_path / "thesis.tex", create=True)


async def millrace(*arguments: str, env: dict[str, str]) -> int:
    """Run a command as its own process (it has an event loop of its own); its exit code."""
    import asyncio

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "app.cli.main", *arguments),
        env={"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"], **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return await process.wait()


def test_settings_errors_are_told(monkeypatch):
    told = describe(SettingsError("MILLRACE_X is wrong."))
    assert told is not None
    assert told.hint == "`millrace config` lists the settings."
