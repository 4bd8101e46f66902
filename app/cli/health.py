"""`millrace health`: whether the process of this container works, for container health checks."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import click

from app.settings import load_settings

SECONDS = 4.0
READY = re.compile(r"^millrace_worker_ready\s+1(\.0)?$", re.MULTILINE)


@click.command("health")
@click.pass_context
def health(ctx: click.Context) -> None:
    """Exit with 0 when the API or the worker on this machine, at its configured addresses, can do its work.

    An API is asked for /readyz; where none listens, the metrics of a worker say whether it claims work.
    """
    settings = load_settings()
    state = _api(settings.bind)
    if state is None:
        state = _worker(settings.metrics_bind)
    click.echo(state or "ready")
    if state:
        ctx.exit(1)


def _api(bind: str) -> str | None:
    """Why the API is not ready, empty when it is; None when nothing listens there."""
    try:
        _get(f"http://{_local(bind)}/readyz")
    except urllib.error.HTTPError as error:
        return error.read(1000).decode(errors="replace") or f"status {error.code}"
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ConnectionRefusedError) else f"API: {error.reason}"
    except OSError as error:
        return f"API: {error}"
    return ""


def _worker(bind: str) -> str:
    """Why the worker is not ready, empty when it is."""
    if bind.rpartition(":")[2] in ("", "0"):
        return "no API answers, and a worker is asked at MILLRACE_METRICS_BIND, which names no fixed port"
    try:
        metrics = _get(f"http://{_local(bind)}/metrics")
    except OSError as error:
        return f"neither an API nor a worker answers: {error}"
    return "" if READY.search(metrics) else "the worker does not claim work"


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=SECONDS) as answer:
        return answer.read().decode()


def _local(bind: str) -> str:
    """The address under which this machine reaches a socket bound to `bind`."""
    host, _, port = bind.rpartition(":")
    everywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
    return f"{everywhere.get(host, host)}:{port}"


commands: list[click.Command] = [health]
