"""What `millrace deploy` makes of scripts and of what is given beside them."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from app.cli.problems import CommandFailed
from app.cli.scripts import secret_bindings, upload_parts, variable_bindings, workflow_classes


def secrets(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "secrets"
    file.write_text(text, encoding="utf-8")
    found = secret_bindings(file)
    assert {one["type"] for one in found} <= {"secret_text"}
    return {one["name"]: one["text"] for one in found}


def test_variables():
    assert variable_bindings(["A=1", "B=x=y", "C="]) == [
        {"type": "plain_text", "name": "A", "text": "1"},
        {"type": "plain_text", "name": "B", "text": "x=y"},
        {"type": "plain_text", "name": "C", "text": ""},
    ]
    for wrong in ("A", "=1", ""):
        with pytest.raises(click.UsageError, match="NAME=VALUE"):
            variable_bindings([wrong])


def test_secrets_in_lines(tmp_path):
    text = '# mine\n\nKEY=hunter2\n QUOTED = "a b" \nSINGLE=\'x\'\nODD="\nEMPTY=\nURL=https://a?b=c\n'
    assert secrets(tmp_path, text) == {
        "KEY": "hunter2",
        "QUOTED": "a b",
        "SINGLE": "x",
        "ODD": '"',
        "EMPTY": "",
        "URL": "https://a?b=c",
    }


def test_secrets_as_json(tmp_path):
    assert secrets(tmp_path, '{"KEY": "hunter2"}') == {"KEY": "hunter2"}
    assert secret_bindings(None) == []


@pytest.mark.parametrize("text", ["KEY=ok\nhunter2", '{"KEY": 5}', '{"KEY": "hunter2"', "=hunter2"])
def test_a_file_that_holds_something_else_is_not_told_about(tmp_path, text):
    with pytest.raises(CommandFailed) as raised:
        secrets(tmp_path, text)
    assert "hunter2" not in raised.value.message + raised.value.hint


def test_an_upload(tmp_path):
    file = tmp_path / "flow.mjs"
    file.write_text("export class A extends WorkflowEntrypoint {}\nclass B extends WorkflowEntrypoint {}\n")
    assert workflow_classes(file) == ["A"]
    metadata, module = upload_parts(file, variable_bindings(["A=1"]))
    assert metadata["main_module"] == "flow.mjs"
    assert metadata["bindings"] == [{"type": "plain_text", "name": "A", "text": "1"}]
    assert metadata["keep_bindings"] == ["secret_text", "secret_key"]
    assert module == ("flow.mjs", file.read_bytes(), "application/javascript+module")
