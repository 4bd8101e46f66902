"""Commands named in the documentation exist, and `docs/cli.md` names every one."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from app.cli.main import cli
from tests.support.docs import blocks, page, pages, words


def commands(group: click.Group, path: str = "millrace") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(cli))


def options(command: click.Command) -> set[str]:
    return {name for option in command.params for name in option.opts} | {"--help"}


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_is_in_the_overview(path: str) -> None:
    assert re.search(rf"`{path}[ `]", page("cli.md"))


def test_every_option_in_the_overview_exists() -> None:
    known = set().union(*map(options, COMMANDS.values()))
    assert set(re.findall(r"--[a-z][a-z-]*", page("cli.md"))) - known == set()


def shown_commands() -> Iterator[tuple[str, str]]:
    """Every line of a shell block, and every inline code, that begins with `millrace`, and where."""
    for block in blocks("sh"):
        for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
            for part in re.split(r"&&|\|\||[;|(]\s", line):
                if part.strip().startswith("millrace "):
                    yield block.place, part.split(" #")[0].strip()
    for file in pages():
        for word in words(file.read_text(encoding="utf-8")):
            if word.startswith("millrace ") and "…" not in word:
                yield file.name, word


@pytest.mark.parametrize(("place", "line"), sorted(set(shown_commands())))
def test_commands_shown_anywhere_exist_with_their_options(place: str, line: str) -> None:
    if line in ("millrace --help",):
        return
    path = next((path for path in COMMANDS if re.match(rf"{path}(?![\w-])", line)), None)
    if path is None:  # a group, spoken of as such
        assert any(known.startswith(f"{line} ") for known in COMMANDS), f"{place}: {line}"
        return
    without_values = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
    unknown = set(re.findall(r"(?<!\S)--?[a-z][a-z-]*", without_values)) - options(COMMANDS[path])
    assert not unknown, f"{place}: {line}"
