"""The log of an instance on a terminal, read page by page or followed live."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from app.cli.client import Api, ApiError
from app.cli.output import Output

PAGE = 1000
RECONNECT_SECONDS = 1.0
_STYLES = {"debug": "dim", "info": "", "warn": "yellow", "error": "red"}


def print_lines(api: Api, path: tuple[str, ...], out: Output) -> None:
    """Every line there is now."""
    for line in api.pages(*path, per_page=PAGE):
        _print(line, out)


def follow(api: Api, path: tuple[str, ...], out: Output) -> None:
    """Every line from the first on, and new ones as they come, until the instance has ended.

    A broken connection is taken up again behind the last line; it is an error when that fails three times in a row.
    """
    cursor, failures = "", 0
    while True:
        try:
            for event in api.stream(*path, last_event_id=cursor):
                failures = 0
                cursor = event.id or cursor
                if event.event == "end":
                    return
                if event.event == "log":
                    _print(msgspec.json.decode(event.data), out)
        except ApiError as error:
            failures += 1
            if error.status or failures > 3:
                raise
        time.sleep(RECONNECT_SECONDS)


def _print(line: dict[str, Any], out: Output) -> None:
    if out.as_json:
        out.json_line(line)
        return
    step = f" [{line['step']}]" if line.get("step") else ""
    data = f" {msgspec.json.encode(line['data']).decode()}" if "data" in line else ""
    text = f"{line['timestamp']} {line['level']:<5}{step} {line['message']}{data}"
    out.line(text, style=_STYLES.get(line["level"], ""))
