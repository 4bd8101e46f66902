"""`millrace doctor`: look at everything Millrace needs on this machine, and say what to do where it is missing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import asyncpg
import click
import redis.asyncio

from app.cli.environment import find_installation, opened, own_data
from app.cli.installation import SYSTEM_DIRECTORY, Installation, InstallationError
from app.cli.migrate import described
from app.cli.output import Output
from app.cli.problems import describe
from app.embedded.binaries import OLDEST_POSTGRES, find_postgres, find_redis
from app.embedded.errors import EmbeddedError
from app.embedded.service_user import ServiceUser
from app.migrations import pending, this_build
from app.schema_errors import SchemaUnusable
from app.settings import Settings, SettingsError, load_settings
from instances.sandbox import examination
from versions.scripts import ScriptService

CONNECT_SECONDS = 5.0
OLDEST_REDIS = (6, 2)
FREE_BYTES = 1 << 30
NAMED = 10
"""Tokens named in a hint at most."""

HINTS = {
    "database": "Check MILLRACE_DATABASE_URL, and that the server is up and reachable from here.",
    "redis": "Check MILLRACE_REDIS_URL, and that the server is up and reachable from here.",
    "postgres server": "Or set MILLRACE_DATABASE_URL to a server you have.",
    "redis server": "Or set MILLRACE_REDIS_URL to a server you have.",
}
"""Where the hint of the error itself would send the reader back to the doctor."""

MARKS = {"ok": "✓", "warning": "!", "failed": "✗"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `hint` says what to do, unless it is ok."""

    check: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    hint: str = ""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Check this machine and its services. Exits with 1 when something that is needed is missing."""
    out = Output(as_json=as_json)
    with out.waiting("looking"):
        findings = asyncio.run(examine())
    if as_json:
        out.json([{name: getattr(finding, name) for name in Finding.__slots__} for finding in findings])
    else:
        for finding in findings:
            out.line(f"{MARKS[finding.state]} {finding.check:<16} {finding.detail}")
            if finding.hint:
                out.line(f"  hint: {finding.hint}", style="dim")
    if any(finding.state == "failed" for finding in findings):
        ctx.exit(1)


async def examine() -> list[Finding]:
    """All checks, in the order they depend on each other."""
    findings = [_python(), _machine(), await _sandbox()]
    try:
        settings = load_settings()
        installation = find_installation(settings)
    except Exception as error:
        return [*findings, _failure("settings", error)]
    secret = _secret(settings, installation)
    findings += [_installation(installation), secret, _space(installation), *_orphans()]
    database_url = settings.database_url or (installation.marker.database_url if installation else None)
    redis_url = settings.redis_url or (installation.marker.redis_url if installation else None)
    owner = None
    if not database_url:
        findings.append(_binaries("postgres server", _postgres_binaries))
        database_url, owner = _running_postgres(installation), installation
    if not redis_url:
        findings.append(_binaries("redis server", _redis_binaries))
        redis_url = _running_redis(installation)
    if database_url:
        findings.append(await _tried("database", functools.partial(_database, owner), database_url))
        if findings[-1].state == secret.state == "ok":
            text = settings.secret or (installation.secret() if installation else "")
            findings += await _secret_use(dataclasses.replace(settings, database_url=database_url, secret=text))
    if redis_url:
        findings.append(await _tried("redis", _redis, redis_url))
    return findings


def _python() -> Finding:
    detail = f"{this_build()}, on Python {platform.python_version()} ({sys.executable})"
    return Finding("millrace", "ok", detail)


def _machine() -> Finding:
    detail = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} CPUs"
    if sys.platform == "win32":
        return Finding(
            "machine", "warning", detail, "There are no embedded services on Windows; use WSL or external ones."
        )
    return Finding("machine", "ok", detail)


async def _sandbox() -> Finding:
    """Whether tenants' code could be locked up here. Documents run without."""
    found = await examination.examine()
    if found.reason:
        return Finding("sandbox", "warning", found.reason, "Scripts cannot run here; documents can.")
    landlock = f"Landlock {found.facts['landlock']}" if found.facts["landlock"] else "without Landlock"
    return Finding("sandbox", "ok", f"seccomp, {landlock}, as user {found.facts['uid']}; nothing gets out")


def _installation(installation: Installation | None) -> Finding:
    if installation is None:
        return Finding("data folder", "ok", "none here; `millrace dev` makes one")
    ready = installation.read_ready()
    state = f"serving {ready.base_url}" if ready else "not running"
    return Finding("data folder", "ok", f"{installation.directory}, {state}")


def _secret(settings: Settings, installation: Installation | None) -> Finding:
    try:
        settings.previous_secret()
        if settings.secret:
            settings.require_secret()
            return Finding("secret", "ok", "from MILLRACE_SECRET")
    except SettingsError as error:
        return _failure("secret", error)
    if installation is None:
        hint = "`millrace serve` and `millrace worker` need one: openssl rand -hex 32"
        return Finding("secret", "warning", "MILLRACE_SECRET is not set", hint)
    try:
        installation.secret()
    except Exception as error:
        return _failure("secret", error)
    return Finding("secret", "ok", "from the data folder")


def _space(installation: Installation | None) -> Finding:
    place = installation.services_home() if installation else Path.cwd()
    free = shutil.disk_usage(place).free
    detail = f"{free / (1 << 30):.1f} GiB free in {place}"
    if free < FREE_BYTES:
        return Finding("disk", "warning", detail, "Make room: PostgreSQL stops when its disk is full.")
    return Finding("disk", "ok", detail)


def _orphans() -> list[Finding]:
    """Services' data outside the data folder it belonged to, when that is gone."""
    findings = []
    for home in SYSTEM_DIRECTORY.glob("*/belongs-to") if os.access(SYSTEM_DIRECTORY, os.R_OK) else ():
        owner = Path(home.read_text().strip())
        try:
            kept = Installation.open(owner).marker.id == home.parent.name
        except InstallationError:
            kept = False
        if not kept:
            detail = f"{home.parent} holds the data of {owner}, which is gone"
            findings.append(Finding("left over", "warning", detail, f"When nobody needs it: rm -r {home.parent}"))
    return findings


def _binaries(check: str, find: Callable[[ServiceUser, Path], str]) -> Finding:
    try:
        user = ServiceUser.choose()
        with tempfile.TemporaryDirectory() as copies:
            detail = find(user, Path(copies))
        return Finding(check, "ok", f"{detail}, would run as {user.name}")
    except EmbeddedError as error:
        return _failure(check, error)


def _postgres_binaries(user: ServiceUser, copies: Path) -> str:
    _, major = find_postgres(None, user, copies)
    return f"server {major} installed"


def _redis_binaries(user: ServiceUser, copies: Path) -> str:
    return f"{find_redis(user, copies).name} installed"


def _running_postgres(installation: Installation | None) -> str | None:
    postgres = installation.postgres() if installation else None
    return postgres.dsn("millrace") if postgres is not None and postgres.running() else None


def _running_redis(installation: Installation | None) -> str | None:
    valkey = installation.valkey() if installation else None
    return valkey.url() if valkey is not None and valkey.running() else None


async def _tried(check: str, look: Callable[[str], Awaitable[Finding]], url: str) -> Finding:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await look(url)
    except TimeoutError:
        return Finding(
            check, "failed", f"no answer within {CONNECT_SECONDS:.0f} s", "Is it up, and reachable from here?"
        )
    except Exception as error:
        return _failure(check, error)


async def _database(owner: Installation | None, url: str) -> Finding:
    """How the database is; `owner` is the installation it belongs to, if it does."""
    connection = await asyncpg.connect(url)
    try:
        version = str(await connection.fetchval("show server_version")).split()[0]
        major = int(str(await connection.fetchval("show server_version_num"))) // 10_000
    finally:
        await connection.close()
    detail = f"PostgreSQL {version}"
    if major < OLDEST_POSTGRES:
        return Finding("database", "failed", detail, f"Millrace needs PostgreSQL {OLDEST_POSTGRES} or newer.")
    try:
        with own_data(owner) if owner else contextlib.nullcontext():
            missing = await pending(url)
    except SchemaUnusable as error:
        return Finding("database", "failed", f"{detail}, but {error}", _failure("schema", error).hint)
    if missing:
        return Finding("database", "failed", f"{detail}, without {described(missing)}", "Run `millrace migrate`.")
    return Finding("database", "ok", f"{detail}, schema up to date")


async def _redis(url: str) -> Finding:
    async with redis.asyncio.from_url(url) as client:
        info = await client.info("server")
        memory = await client.info("memory")
    version = str(info["redis_version"])
    name = "Valkey" if "valkey_version" in info else "Redis"
    detail = f"{name} {info.get('valkey_version', version)}"
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        return Finding("redis", "failed", detail, "Millrace needs Redis 6.2 or newer, or Valkey.")
    if memory.get("maxmemory_policy", "noeviction") != "noeviction":
        policy = memory["maxmemory_policy"]
        return Finding("redis", "warning", f"{detail}, evicts ({policy})", "Set maxmemory-policy to noeviction.")
    return Finding("redis", "ok", detail)


async def _secret_use(settings: Settings) -> list[Finding]:
    """Whether the secret is the database's, and what still needs the previous one or one that is gone."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS), opened(settings) as at:
            await at.tenants.check_secret(accept=False)
            current, *previous = at.tenants.keys.key_ids
            tokens = await at.tenants.tokens_by_key()
            outdated = await at.tenants.tokens_of_keys([key for key in tokens if key != current], NAMED)
            sealed = await ScriptService(at.db, at.clock, at.ids, at.tenants).secrets_by_key()
    except Exception as error:
        return [_failure("tokens", error)]
    names = ", ".join(f"{token.name} ({token.id.hex} of account {token.account_id.hex})" for token in outdated)
    renewed = "A token is stored anew when it is used, and the rest stop working without the previous secret"
    return [
        _keyed("tokens", tokens, current, previous, f"{renewed}: {names}.", f"Revoke them and make others: {names}."),
        _keyed(
            "script secrets", sealed, current, previous, "A worker encrypts them anew.", "Upload the scripts again."
        ),
    ]


def _keyed(
    check: str, counts: Mapping[bytes, int], current: bytes, previous: list[bytes], renewed: str, lost: str
) -> Finding:
    """How many things need which secret; `renewed` and `lost` say what becomes of those of an earlier one."""
    total, waiting = sum(counts.values()), sum(counts.get(key, 0) for key in previous)
    gone = total - waiting - counts.get(current, 0)
    if gone:
        hint = f"If you have it, set it as MILLRACE_SECRET_PREVIOUS. {lost}"
        return Finding(check, "warning", f"{gone} of {total} were made with a secret that is gone", hint)
    if waiting:
        return Finding(check, "warning", f"{waiting} of {total} still need MILLRACE_SECRET_PREVIOUS", renewed)
    return Finding(check, "ok", f"{total}, all under the current secret")


def _failure(check: str, error: Exception) -> Finding:
    told = describe(error)
    if told is None:
        return Finding(check, "failed", f"{type(error).__name__}: {error}")
    return Finding(check, "failed", told.message, HINTS.get(check, told.hint))


commands: list[click.Command] = [doctor]
