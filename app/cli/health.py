"""`millrace health`: whether the process of this container works, for container health checks."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request

import click

from app.cli.output import Output
from app.settings import load_settings

SECONDS = 4.0
READY = re.compile(r"^millrace_worker_ready\s+1(\.0)?$", re.MULTILINE)


@click.command("health")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def health(ctx: click.Context, as_json: bool) -> None:
    """Exit with 0 when the API or the worker on this machine, at its configured addresses, can do its work.

    An API is asked for /readyz; where none listens, the metrics of a worker say whether it claims work. Redis is left
    out of account: starting the container anew would not bring it back.
    """
    settings = load_settings()
    problem = _api(settings.bind)
    if problem is None:
        problem = _worker(settings.metrics_bind)
    if as_json:
        Output(as_json=True).json({"ready": not problem, "problem": problem or None})
    else:
        click.echo(problem or "ready")
    if problem:
        ctx.exit(1)


def _api(bind: str) -> str | None:
    """Why the API is not ready, empty when it is; None when nothing listens there."""
    try:
        _get(f"http://{_local(bind)}/readyz?exclude=redis")
    except urllib.error.HTTPError as error:
        return error.read(1000).decode(errors="replace") or f"status {error.code}"
    except urllib.error.URLError as error:
        return None if isinstance(error.reason, ConnectionRefusedError) else f"API: {error.reason}"
    except (OSError, http.client.HTTPException) as error:
        return f"API: {error or type(error).__name__}"
    return ""


def _worker(bind: str) -> str:
    """Why the worker is not ready, empty when it is."""
    if bind.rpartition(":")[2] in ("", "0"):
        return "no API answers, and a worker is asked at MILLRACE_METRICS_BIND, which names no fixed port"
    try:
        metrics = _get(f"http://{_local(bind)}/metrics")
    except (OSError, http.client.HTTPException) as error:
        return f"neither an API nor a worker answers: {error or type(error).__name__}"
    return "" if READY.search(metrics) else "the worker does not claim work"


def _get(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=SECONDS) as answer:
        return answer.read().decode(errors="replace")


def _local(bind: str) -> str:
    """The address under which this machine reaches a socket bound to `bind`."""
    host, _, port = bind.rpartition(":")
    everywhere = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104
    return f"{everywhere.get(host, host)}:{port}"


commands: list[click.Command] = [health]
