"""One instance on a terminal: what it is, and a line per step."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.output import STATUS_STYLES, Output

FINISHED = frozenset({"complete", "errored", "terminated"})
WATCH_SECONDS = 0.4
OUTPUT_WIDTH = 60


def print_instance(instance: dict[str, Any], instance_id: str, out: Output) -> None:
    """The instance's fields, then its steps."""
    error = instance["error"]
    rollback = instance.get("rollback")
    out.fields(
        [
            ("id", instance_id),
            ("status", instance["status"]),
            ("version", instance["versionId"]),
            ("trigger", instance["trigger"]["source"]),
            ("queued", instance["queued"]),
            ("start", instance["start"]),
            ("end", instance["end"]),
            ("error", f"{error['name']}: {error['message']}" if error else None),
            ("rollback", rollback["outcome"] if rollback else None),
            ("params", instance["params"]),
            ("output", instance["output"]),
        ]
    )
    rows = [_row(step) for step in instance["steps"]]
    if rows:
        out.line("")
        out.table(("STEP", "TYPE", "STATE", "TRIES", "TOOK", "OUTPUT"), rows)


def watch(fetch: Callable[[], dict[str, Any]], instance_id: str, out: Output) -> None:
    """Show the instance until it has finished: redrawn in place on a terminal, else a line per change of status."""
    if not out.interactive:
        _watch_lines(fetch, instance_id, out)
        return
    with Live(refresh_per_second=8, transient=True) as live:
        while True:
            instance = fetch()
            live.update(_drawing(instance, instance_id))
            if instance["status"] in FINISHED:
                break
            time.sleep(WATCH_SECONDS)
    print_instance(instance, instance_id, out)


def _watch_lines(fetch: Callable[[], dict[str, Any]], instance_id: str, out: Output) -> None:
    before = None
    while True:
        instance = fetch()
        if instance["status"] != before:
            before = instance["status"]
            if not out.as_json:
                out.line(f"{instance_id}\t{before}")
        if before in FINISHED:
            break
        time.sleep(WATCH_SECONDS)
    if out.as_json:
        out.json(instance)


def _drawing(instance: dict[str, Any], instance_id: str) -> Group:
    status = instance["status"]
    table = Table(box=None, show_header=False, pad_edge=False)
    for step in instance["steps"]:
        name, kind, state, tries, took, _ = _row(step)
        table.add_row(Text(str(name)), Text(str(kind), "dim"), Text(state, _STATE_STYLES.get(state, "")), tries, took)
    return Group(Text(f"{instance_id}  {status}", STATUS_STYLES.get(status, "")), table)


_STATE_STYLES = {"done": "green", "failed": "red", "running": "blue", "waiting": "yellow"}


def _row(step: dict[str, Any]) -> tuple[Any, ...]:
    kind = step["type"]
    if kind == "termination":
        return ("terminated", f"by {step['trigger']['source']}", "done", "", "", "")
    if "finished" in step:
        state = "failed" if step["error"] else "done" if step["finished"] else "waiting"
        return (step["name"], kind, state, "", _took(step) if step["finished"] else "", _short(step.get("output")))
    state = {True: "done", False: "failed", None: "running"}[step["success"]]
    shown = _short(step["output"]) if step["success"] else _short(_last_error(step))
    return (step["name"], kind, state, str(len(step["attempts"])), _took(step), shown)


def _last_error(step: dict[str, Any]) -> str:
    errors = [attempt["error"] for attempt in step["attempts"] if attempt["error"]]
    return f"{errors[-1]['name']}: {errors[-1]['message']}" if errors else ""


def _took(step: dict[str, Any]) -> str:
    if not step["end"] or not step["start"]:
        return ""
    seconds = (datetime.fromisoformat(step["end"]) - datetime.fromisoformat(step["start"])).total_seconds()
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _short(text: Any) -> str:
    text = "" if text is None else str(text)
    return text if len(text) <= OUTPUT_WIDTH else text[: OUTPUT_WIDTH - 1] + "…"
