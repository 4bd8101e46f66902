"""`millrace serve`: one API process."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import click
import uvicorn

from app.cli.child import follow_supervisor, tell_ready
from app.cli.environment import process_settings
from app.cli.event_loop import run_async
from app.cli.garbage import spare_what_stands
from app.cli.listening import base_url, bind_address, listen
from app.composition import Platform
from app.main import create_app
from app.migrations import check_schema
from app.observability.logging import configure_logging
from app.observability.metrics import observed
from app.settings import Settings
from tenants.limits import BODY_OPERATION_BYTES

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s of common load balancers, so that they, not we, close an idle connection."""


@click.command("serve")
@click.option("--host", help="Address to listen on [MILLRACE_BIND].")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes a free one [MILLRACE_BIND].")
@click.option("--listener-fd", type=int, hidden=True, help="A listening socket the supervisor opened.")
def serve(host: str | None, port: int | None, listener_fd: int | None) -> None:
    """Serve the API until SIGTERM. Run as many as needed, on any number of machines."""
    follow_supervisor()
    run_async(_serve(host, port, listener_fd))


async def _serve(host: str | None, port: int | None, listener_fd: int | None) -> None:
    async with process_settings() as settings:
        configure_logging(settings)
        await check_schema(settings.database_url)
        with _listener(settings, host, port, listener_fd) as (listener, address):
            async with observed(settings), Platform(settings).opened() as platform:
                await platform.tenants.check_secret()
                await ApiServer(settings, platform, address).serve(sockets=[listener])


@contextlib.contextmanager
def _listener(
    settings: Settings, host: str | None, port: int | None, descriptor: int | None
) -> Iterator[tuple[socket.socket, str]]:
    host, port = bind_address(settings.bind, host, port)
    listener = listen(host, port) if descriptor is None else socket.socket(fileno=descriptor)
    with contextlib.closing(listener):
        yield listener, base_url(host, listener)


class ApiServer(uvicorn.Server):
    """Uvicorn that tells readiness probes before it stops, and returns from `serve` when told to stop."""

    def __init__(self, settings: Settings, platform: Platform, address: str) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(settings, platform=platform),
                lifespan="off",  # the platform is open already
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                ws_max_size=BODY_OPERATION_BYTES,
                timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
            )
        )
        self._platform = platform
        self._address = address

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        spare_what_stands()
        click.echo(f"Serving on {self._address}", err=True)
        tell_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own would raise the signal again at the end, which kills the process before it has cleaned up."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT)
        for number in numbers:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        """The first signal lets requests in flight finish, the second does not."""
        self._platform.drain()
        self.force_exit = self.should_exit
        self.should_exit = True


commands: list[click.Command] = [serve]
