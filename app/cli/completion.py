"""`millrace completion`: completion for shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script for SHELL.

    bash: add `eval "$(millrace completion bash)"` to ~/.bashrc; zsh: the same in ~/.zshrc;
    fish: millrace completion fish > ~/.config/fish/completions/millrace.fish
    """
    from app.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "millrace", "_MILLRACE_COMPLETE").source())


commands: list[click.Command] = [completion]
