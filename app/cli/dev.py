"""`millrace dev`: everything on this machine, from nothing to a running platform, kept in one data folder."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import click
import httpx
import msgspec

from app import tour
from app.cli.dev_credentials import first_account, first_token
from app.cli.environment import own_data, own_database, used
from app.cli.event_loop import run_async
from app.cli.installation import Installation, InstallationError, Ready, data_directory, write_private
from app.cli.listening import base_url, bind_address, listen
from app.cli.supervisor import Child, ChildFailed, Supervisor
from app.embedded.errors import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres
from app.embedded.service import Service
from app.embedded.valkey import EmbeddedValkey
from app.migrations import migrate
from app.settings import Settings, load_settings
from tenants.ids import account_hex

CHECK_SECONDS = 1.0
READY_SECONDS = 60.0
DRAIN_SECONDS = 5.0
"""Steps in flight get this long at Ctrl-C; MILLRACE_DRAIN_SECONDS overrides it."""
DEDICATED_CONNECTIONS = 6
"""Of a process, beside its two pools."""
SPARE_CONNECTIONS = 40
"""For commands, backups and PostgreSQL's own reserve."""
STOP_SECONDS = 10.0
"""On top of the drain, before children are killed."""


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of `millrace dev`."""

    host: str | None
    port: int | None
    directory: Path
    account_id: UUID | None
    token: str | None
    examples: bool
    ready_file: Path | None
    api_processes: int
    workers: int


class AccountId(click.ParamType):
    """32 hex characters."""

    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> UUID:
        text = str(value).lower()
        if not re.fullmatch(r"[0-9a-f]{32}", text):
            self.fail("an account id is 32 hex characters.", param, ctx)
        return UUID(hex=text)


@click.command("dev")
@click.option("--host", help="Address to listen on [127.0.0.1].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one [8484].")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for everything that is kept [MILLRACE_DATA_DIR, or .millrace here].",
)
@click.option("--account-id", type=AccountId(), help="Id of the first account. Default: a new one, then the same.")
@click.option("--token", help="API token to accept, sk_… Default: a new one, then the same.")
@click.option("--no-examples", is_flag=True, help="Do not deploy the examples and show them at the first start.")
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write address and credentials here, as JSON, when everything runs.",
)
@click.option("--api-processes", type=click.IntRange(1, 64), default=1, show_default=True, help="API processes.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Worker processes.")
def dev(
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    account_id: UUID | None,
    token: str | None,
    no_examples: bool,
    ready_file: Path | None,
    api_processes: int,
    workers: int,
) -> None:
    """Run everything on this machine until Ctrl-C: PostgreSQL, Valkey, API and worker.

    The first start makes the data folder, an account and a token; later ones find them again. With
    MILLRACE_DATABASE_URL or MILLRACE_REDIS_URL set, these are used instead of services of its own.
    """
    options = Options(
        host=host,
        port=port,
        directory=data_directory(data_dir),
        account_id=account_id,
        token=token,
        examples=not no_examples,
        ready_file=ready_file,
        api_processes=api_processes,
        workers=workers,
    )
    run_async(_until_told_to_stop(options))


def say(text: str) -> None:
    """A line for the person at the terminal. Standard output carries the one JSON line for programs."""
    click.echo(text, err=True)


async def _until_told_to_stop(options: Options) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP, whatever is going on when it comes, and take everything down."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    running = asyncio.create_task(_run(options))
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        say("Stopping …")
    for task in (running, stopped):
        task.cancel()
    results = await asyncio.gather(running, stopped, return_exceptions=True)
    if isinstance(results[0], Exception):
        raise results[0]


async def _run(options: Options) -> None:
    """Start everything in order, serve for ever; cancelling it takes everything down in the reverse order."""
    async with AsyncExitStack() as stack:
        installation = stack.enter_context(_own(options.directory))
        for path in _announcements(installation, options.ready_file):
            _make_way(path)
        settings = _settings(installation)
        host, port = bind_address(settings.bind, options.host, options.port)
        listener = stack.enter_context(contextlib.closing(listen(host, port)))
        services = _services(options, installation, settings)
        for service in services:
            say(f"Starting {service.title} …")
            await stack.enter_async_context(used(service))
        settings = await _addressed(installation, settings, services)
        with own_data(installation) if _own_database(services) else contextlib.nullcontext():
            await migrate(settings.database_url)
        account_id = await first_account(settings, installation, options.account_id)
        token = await first_token(settings, installation, account_id, options.token)
        url = base_url(host, listener)
        await stack.enter_async_context(_children(options, installation, settings, listener))
        await _await_ready(url)
        if options.examples and not installation.marker.toured:
            await _tour(installation, url, account_id, token)
        ready = Ready(
            base_url=url,
            account_id=account_hex(account_id),
            api_token=token,
            pid=os.getpid(),
            postgres_dsn=settings.database_url,
            redis_url=settings.redis_url,
        )
        stack.enter_context(_announced(ready, installation, options.ready_file))
        _greet(ready, installation)
        await _watch(services)


@contextlib.contextmanager
def _own(directory: Path) -> Iterator[Installation]:
    """The installation, for this process alone. Raises :class:`InstallationError` when another one runs it."""
    directory = directory.expanduser().resolve()
    with contextlib.suppress(OSError):  # told better by Installation.open
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    try:
        descriptor = os.open(directory / "dev.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InstallationError(
            f"{directory} cannot be used as data folder ({error.strerror}): choose another --data-dir."
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ready = Installation.open(directory).read_ready()
            where = f" at {ready.base_url}, process {ready.pid}" if ready else ""
            raise InstallationError(
                f"A `millrace dev` runs on {directory} already{where}: stop it, or choose another --data-dir."
            ) from None
        yield Installation.open(directory, create=True)
    finally:
        os.close(descriptor)


def _settings(installation: Installation) -> Settings:
    settings = load_settings()
    drain = settings.drain_seconds if "MILLRACE_DRAIN_SECONDS" in os.environ else DRAIN_SECONDS
    secret = settings.secret or installation.secret()
    return dataclasses.replace(settings, secret=secret, drain_seconds=drain, data_dir=installation.directory)


def _services(options: Options, installation: Installation, settings: Settings) -> list[Service]:
    """The services this installation has to run itself."""
    services: list[Service] = []
    if not settings.database_url:
        processes = options.api_processes + options.workers
        each = 2 * settings.db_pool_size + DEDICATED_CONNECTIONS
        services.append(installation.postgres(connections=processes * each + SPARE_CONNECTIONS))
    if not settings.redis_url:
        services.append(installation.valkey())
    return services


def _own_database(services: list[Service]) -> bool:
    return any(isinstance(service, EmbeddedPostgres) for service in services)


async def _addressed(installation: Installation, settings: Settings, services: list[Service]) -> Settings:
    """Settings with the addresses of the services that run now; external ones are noted for later commands."""
    marker = installation.marker
    marker.database_url, marker.redis_url = settings.database_url or None, settings.redis_url or None
    installation.save()
    for service in services:
        if isinstance(service, EmbeddedPostgres):
            settings = dataclasses.replace(settings, database_url=await own_database(service))
        elif isinstance(service, EmbeddedValkey):
            settings = dataclasses.replace(settings, redis_url=service.url())
    return settings


@asynccontextmanager
async def _children(
    options: Options, installation: Installation, settings: Settings, listener: socket.socket
) -> AsyncIterator[None]:
    environment = {name: value for name, value in os.environ.items() if name != "MILLRACE_DATA_DIR"} | {
        "MILLRACE_DATABASE_URL": settings.database_url,
        "MILLRACE_REDIS_URL": settings.redis_url,
        "MILLRACE_SECRET": settings.secret,
        "MILLRACE_DRAIN_SECONDS": str(settings.drain_seconds),
        "MILLRACE_LOG_FORMAT": os.environ.get("MILLRACE_LOG_FORMAT", "json"),
        "NO_COLOR": "1",  # their output goes to files
    }
    logs, descriptor = installation.logs(), listener.fileno()
    serve = ["serve", "--listener-fd", str(descriptor)]
    roles = [(f"API{number}", serve) for number in _numbers(options.api_processes)]
    roles += [(f"worker{number}", ["worker"]) for number in _numbers(options.workers)]
    children = [
        Child(
            title,
            arguments,
            environment | {"MILLRACE_METRICS_BIND": _metrics_bind(settings.metrics_bind, position)},
            logs / f"{title.lower()}.log",
            keep=[descriptor] if arguments is serve else [],
        )
        for position, (title, arguments) in enumerate(roles)
    ]
    supervisor = Supervisor(children, say)
    say("Starting the API and the worker …")
    try:
        await supervisor.start()
        yield
    finally:
        await supervisor.stop(settings.drain_seconds + STOP_SECONDS)


def _numbers(count: int) -> list[str]:
    """What distinguishes the processes of one kind in names: nothing when there is only one."""
    return [""] if count == 1 else [f"-{number}" for number in range(1, count + 1)]


def _metrics_bind(bind: str, position: int) -> str:
    """A fixed port is the first process's; the others count up from it."""
    host, _, port = bind.rpartition(":")
    return f"{host}:{int(port) + position}" if port.isdecimal() and int(port) else bind


async def _await_ready(url: str) -> None:
    """Wait until `/readyz` says yes. Raises :class:`ChildFailed` with its last reason when it does not in time."""
    reason = "no answer"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READY_SECONDS), httpx.AsyncClient(timeout=5, trust_env=False) as http:
            while True:
                try:
                    answer = await http.get(f"{url}/readyz")
                    if answer.status_code == 200:
                        return
                    reason = answer.text
                except httpx.HTTPError as error:
                    reason = str(error) or type(error).__name__
                await asyncio.sleep(0.1)
    raise ChildFailed(f"The API is not ready after {READY_SECONDS:.0f} s: {reason}")


async def _tour(installation: Installation, url: str, account_id: UUID, token: str) -> None:
    """Deploy the examples and show them. What goes wrong there does not keep the platform from running."""
    say("\nA short tour of the examples:\n")
    try:
        await tour.run(url, account_hex(account_id), token, say)
    except tour.TourFailed as failure:
        say(f"  The tour ended early: {failure}")
    installation.marker.toured = True
    installation.save()


@contextlib.contextmanager
def _announced(ready: Ready, installation: Installation, ready_file: Path | None) -> Iterator[None]:
    """Say on standard output, in the data folder and in the file asked for that everything runs, as long as it does."""
    content = msgspec.json.encode(ready) + b"\n"
    paths = _announcements(installation, ready_file)
    try:
        for path in paths:
            write_private(path, content)
        sys.stdout.write(content.decode())
        sys.stdout.flush()
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _make_way(path: Path) -> None:
    """Remove what an earlier start left. Raises :class:`InstallationError` when nothing could be written there."""
    try:
        path.unlink(missing_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise InstallationError(f"{path} cannot be written ({error.strerror}).") from None


def _announcements(installation: Installation, ready_file: Path | None) -> list[Path]:
    return [installation.directory / "ready.json", *([ready_file] if ready_file else [])]


def _greet(ready: Ready, installation: Installation) -> None:
    say(f"\nMillrace serves {ready.base_url}")
    say(f"  account  {ready.account_id}")
    say(f"  token    {ready.api_token}")
    say(f"  logs     {installation.directory / 'logs'}\n")
    if installation.marker.toured:
        for line in tour.curl_lines(ready.base_url, ready.account_id, ready.api_token):
            say(f"  {line}")
        say("")
    say("Ctrl-C stops it; the next start finds everything again.")


async def _watch(services: list[Service]) -> None:
    """For ever: start a service of ours again when it died."""
    failing: set[Service] = set()
    while True:
        await asyncio.sleep(CHECK_SECONDS)
        for service in services:
            try:
                if await asyncio.to_thread(service.revive):
                    say(f"{service.title} had died and was started again (log: {service.log_path}).")
                failing.discard(service)
            except EmbeddedError as error:
                if service not in failing:
                    say(f"{error} Trying again every second.")
                failing.add(service)


commands: list[click.Command] = [dev]
