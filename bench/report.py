"""The machine, the settings and the figures, for people."""

from __future__ import annotations

import os
import platform as host
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from bench.goals import GOALS
from bench.platform import Layout, Platform

SERVER_SETTINGS = ("server_version", "fsync", "synchronous_commit", "shared_buffers", "max_connections", "io_method")
SHOWN = {
    "per_second": "instances/s",
    "steps_per_second": "steps/s",
    "p50": "p50 ms",
    "p95": "p95 ms",
    "max": "max ms",
    "statistics_p95": "p95 ms of statistics",
    "cpu_ms": "CPU ms/instance",
    "cpu_us": "CPU µs/call",
    "rows_per_second": "journal rows/s",
    "rows_per_commit": "rows per commit",
    "of_floor": "× floor",
    "worker_mb": "worker MB",
    "per_instance_kb": "kB/instance",
    "resumed": "seconds until all resumed",
    "seconds": "seconds until all ended",
    "undisturbed_seconds": "seconds without a kill",
    "lost": "lost instances",
    "repeated_steps": "repeated steps",
    "percent": "CPU %",
    "told_per_second": "deliveries/s, from the instances",
    "told_cpu_ms": "CPU ms of the worker/delivery",
    "sent_per_second": "deliveries/s, sent only",
    "sent_cpu_ms": "CPU ms of the worker/delivery, sent only",
    "sent_to_one_per_second": "deliveries/s to one endpoint",
    "api_mb": "MB of the API process",
}


async def surroundings(platform: Platform, layout: Layout) -> list[str]:
    """Hardware and settings, a line each."""
    lines = [f"{_processor()}, {os.cpu_count()} cores, {_memory()}, {host.system()} {host.release()}"]
    lines.append(f"Python {host.python_version()}, {layout.api_processes} API, {layout.workers} worker processes")
    rows = await platform.admin.fetch("select name, setting || coalesce(unit, '') as value from pg_settings")
    values = {row["name"]: row["value"] for row in rows}
    lines.append("PostgreSQL " + ", ".join(f"{name} {values[name]}" for name in SERVER_SETTINGS if name in values))
    lines.append(f"load before: {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    return lines


def show(surroundings: list[str], rounds: dict[str, list[dict[str, float]]]) -> None:
    """Print medians over the rounds, with the spread and the goals."""
    console = Console(soft_wrap=True)
    for line in surroundings:
        console.print(line, highlight=False)
    table = Table("measurement", "figure", "median", "rounds", "goal", "")
    for name, measured in rounds.items():
        goals = {goal.figure: goal for goal in GOALS[name]}
        for position, figure in enumerate(measured[0]):
            values = [figures[figure] for figures in measured if figure in figures]
            goal, middle = goals.get(figure), median(values)
            table.add_row(
                name if position == 0 else "",
                SHOWN.get(figure, figure.replace("_", " ")),
                _number(middle),
                " ".join(_number(value) for value in values) if len(values) > 1 else "",
                str(goal) if goal else "",
                "" if goal is None else "[green]met[/]" if goal.met(middle) else "[red]missed[/]",
            )
        table.add_section()
    console.print(table)


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}".rstrip("0").rstrip(".")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return host.machine()


def _memory() -> str:
    total = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{total / 1e6:.0f} GB"
