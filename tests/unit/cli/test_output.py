"""What commands print on a terminal and in a pipe."""

from __future__ import annotations

import pytest

from app.cli.output import Output

ROWS = [("0123456789abcdef0123456789abcdef", "a name", "2026-01-01T00:00:00.000Z")]


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Output:
    """One that is 20 characters wide and has no colours."""
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "dumb"), ("COLUMNS", "20")):
        monkeypatch.setenv(name, value)
    out = Output()
    assert out.interactive
    return out


def test_a_narrow_terminal_cuts_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = on_a_terminal(monkeypatch)
    out.table(("ID", "NAME", "CREATED"), ROWS)
    heading, row = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ID", "NAME", "CREATED"]
    assert row.split() == ["0123456789abcdef0123456789abcdef", "a", "name", "2026-01-01T00:00:00.000Z"]


def test_a_pipe_gets_bare_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("ID", "NAME", "CREATED"), ROWS)
    assert capsys.readouterr().out == "\t".join(ROWS[0]) + "\n"


def test_what_users_write_is_no_markup(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    out = on_a_terminal(monkeypatch)
    out.table(("NAME",), [("[red]x[/red]",)])
    out.fields([("name", "[/]"), ("empty", ""), ("none", None)])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()[1:]] == ["[red]x[/red]", "name  [/]"]
