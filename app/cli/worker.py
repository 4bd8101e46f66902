"""`millrace worker`: one worker process."""

from __future__ import annotations

import click

from app.cli.child import follow_supervisor, tell_ready
from app.cli.environment import process_settings
from app.cli.event_loop import run_async
from app.cli.garbage import spare_what_stands
from app.migrations import check_schema
from app.observability.logging import configure_logging
from app.observability.metrics import observed
from app.worker import run_worker


@click.command("worker")
def worker() -> None:
    """Run workflows until SIGTERM. Run as many as needed, on any number of machines.

    At SIGTERM nothing new is taken and running steps get MILLRACE_DRAIN_SECONDS; what is not done by then goes on in
    other workers. A second SIGTERM does not wait.
    """
    follow_supervisor()
    run_async(_work())


async def _work() -> None:
    async with process_settings() as settings:
        configure_logging(settings)
        await check_schema(settings.database_url)
        async with observed(settings):
            await run_worker(settings, on_ready=_ready)


def _ready() -> None:
    spare_what_stands()
    tell_ready()


commands: list[click.Command] = [worker]
