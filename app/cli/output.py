"""What commands print: tables and colours on a terminal, plain columns in a pipe, JSON when asked for.

Results go to stdout, everything for the eye only (progress, notes, errors) to stderr.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.table import Table

from app.cli.problems import CommandFailed

STATUS_STYLES = {
    "queued": "cyan",
    "running": "blue",
    "waiting": "yellow",
    "paused": "magenta",
    "waitingForPause": "magenta",
    "rollingBack": "yellow",
    "complete": "green",
    "errored": "red",
    "terminated": "bright_black",
}


UNCUT = 100_000
"""Columns a table may take: ids that are cut to fit the window are of no use, and the terminal breaks lines itself."""


class Output:
    """Where one command's results go."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True, emoji=False, width=UNCUT)
        self._notes = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

    @property
    def interactive(self) -> bool:
        """Whether a person looks at the results."""
        return self._console.is_terminal and not self.as_json

    def json(self, value: Any) -> None:
        """`value` as JSON: indented for a terminal, one line in a pipe."""
        text = msgspec.json.encode(value)
        click.echo(msgspec.json.format(text, indent=2 if self._console.is_terminal else 0))

    def json_line(self, value: Any) -> None:
        """`value` as one line of JSON."""
        click.echo(msgspec.json.encode(value))

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, empty: str = "nothing here") -> None:
        """Rows under headings; in a pipe tab-separated without headings. A note when there are none."""
        if not rows:
            self.note(empty)
        elif not self.interactive:
            for row in rows:
                click.echo("\t".join(_text(cell) for cell in row))
        else:
            table = Table(*columns, box=None, header_style="bold", pad_edge=False)
            for row in rows:
                table.add_row(*(styled(_text(cell)) for cell in row))
            self._console.print(table)

    def fields(self, pairs: Sequence[tuple[str, Any]]) -> None:
        """Names and values, one pair per line; pairs without a value are left out."""
        shown = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            self._console.print(f"[bold]{name:<{width}}[/bold]  {styled(_text(value))}")

    def line(self, text: str, *, style: str = "") -> None:
        """`text` as it is, coloured on a terminal."""
        if style and self._console.is_terminal:
            self._console.print(text, style=style, markup=False)
        else:
            click.echo(text)

    def note(self, text: str) -> None:
        """For the eye only, on stderr; nothing when the results are JSON."""
        if not self.as_json:
            self._notes.print(text, style="dim", markup=False)

    def confirm(self, question: str) -> None:
        """Return if the user agrees. Raises :class:`CommandFailed` when not, or when nobody can answer."""
        try:
            agreed = click.confirm(question, err=True)
        except click.Abort:
            agreed = False
        if not agreed:
            raise CommandFailed("not confirmed, so nothing was done", "--yes agrees in advance.")

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner while something takes its time; on a terminal only."""
        if self._notes.is_terminal and not self.as_json:
            with self._notes.status(text):
                yield
        else:
            yield


def styled(text: str) -> str:
    """A status in its colour; any other text as it is (and never read as markup)."""
    escaped = text.replace("[", "\\[")
    style = STATUS_STYLES.get(text)
    return f"[{style}]{escaped}[/{style}]" if style else escaped


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict | list):
        return msgspec.json.encode(value).decode()
    return str(value)
