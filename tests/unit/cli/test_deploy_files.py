"""Files `millrace deploy` reads."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from app.cli.deploy import read_document
from app.cli.problems import CommandFailed


def read(tmp_path: Path, text: str):
    file = tmp_path / "workflow.yaml"
    file.write_text(text, encoding="utf-8")
    return read_document(file)


def test_yaml_is_read_as_json_has_it(tmp_path):
    text = "no: yes\non: [off, y, n, true, False, ~]\nday: 2026-01-01\nat: 2026-01-01T10:00:00Z\nnumber: 1.5"
    assert read(tmp_path, text) == {
        "no": "yes",
        "on": ["off", "y", "n", True, False, None],
        "day": "2026-01-01",
        "at": "2026-01-01T10:00:00Z",
        "number": 1.5,
    }


def test_anchors_may_be_used(tmp_path):
    assert read(tmp_path, "a: &x {b: 1}\nc: *x") == {"a": {"b": 1}, "c": {"b": 1}}


def test_an_alias_of_what_it_is_in_ends(tmp_path):
    assert read(tmp_path, "a: &x [*x]")["a"][0][0]


@pytest.mark.parametrize(
    ("text", "where"),
    [("a: [", r"line 1, column 5"), ("a: b: c", r"line 1, column 5"), ("\x01", "is not YAML"), ("[" * 5000, "deep")],
)
def test_what_is_not_yaml_is_told_in_one_line(tmp_path, text, where):
    with pytest.raises(CommandFailed, match=where) as raised:
        read(tmp_path, text)
    assert "\n" not in raised.value.message
    assert raised.value.hint


@pytest.mark.parametrize("text", ["a: [{1: x}]", "true: x", "a: {~: x}"])
def test_keys_are_texts(tmp_path, text):
    with pytest.raises(click.ClickException, match="is no text"):
        read(tmp_path, text)
