"""YAML bodies say what JSON can say, and nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest
from versions.yaml_body import decode_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("{}", {}),
        ("- 1\n- -2.5\n- 1e3\n- .5", [1, -2.5, 1000.0, 0.5]),
        ("[true, False, null, ~, yes, on, NO]", [True, False, None, None, "yes", "on", "NO"]),
        ("[2026-01-01, 1:30, 0o7, 0x1F, 1_000, .inf, .nan]",
         ["2026-01-01", "1:30", "0o7", "0x1F", "1_000", ".inf", ".nan"]),
        ("['1', \"true\", !!str 5, !!int '7']", ["1", "true", "5", 7]),
        ("a: |\n  two\n  lines\nb: >\n  one\n  line\n", {"a": "two\nlines\n", "b": "one line\n"}),
        ("1: x\ntrue: y\nnull_: z", {"1": "x", "true": "y", "null_": "z"}),
        ("a:\n- b:\n  - c", {"a": [{"b": ["c"]}]}),
        ("'<<': 1", {"<<": 1}),
    ],
)  # fmt: skip
def test_values(text: str, value: Any) -> None:
    assert decode_yaml(text.encode()) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a: &x [1]\nb: *x", "anchors"),
        (b"a: 1\nb: 2\na: 3", "'a' twice (line 3, column 1)"),
        (b"<<: {a: 1}", "merge"),
        (b"? [a]\n: 1", "keys"),
        (b"~: 1", "keys"),
        (b"--- 1\n--- 2", "one document"),
        (b"a: !!python/object/apply:os.system [x]", "tag"),
        (b"a: !!binary aGk=", "tag"),
        (b"a: [", "valid YAML"),
        (b"a: 'x", "valid YAML"),
        (b"\tx: 1", "valid YAML"),
        (b"\xff", "UTF-8"),
        (b"a: \x00", "valid YAML"),
        (b"[" * 100_000, "nested"),
        (b"{a: " * 100_000, "nested"),
        (b"- " * 100_000, "nested"),
    ],
)
def test_refused(text: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_yaml(text)
    assert words in caught.value.message


@given(st.binary(max_size=60))
def test_any_bytes_get_an_answer(body: bytes) -> None:
    try:
        decode_yaml(body)
    except InvalidRequest as error:
        assert error.message
