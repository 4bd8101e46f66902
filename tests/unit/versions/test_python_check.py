"""What is wrong with uploads of Python, found without running them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from versions.errors import ScriptInvalid
from versions.python.check import LIBRARY, check_modules

RULE = "scripts may import the modules uploaded with them, workers and a part of the standard library"
CHILD = Path(__file__).parents[3] / "instances/runtimes/python/child/library.py"


@pytest.mark.parametrize(
    ("modules", "problem"),
    [
        ({"entry.py": "x = 1\ndef f(:\n  pass"}, "entry.py:2:7: SyntaxError: invalid syntax"),
        ({"entry.py": "if x:\nprint()"}, "entry.py:2:1: IndentationError: expected an indented block"),
        ({"entry.py": "", "lib/a.py": "return ("}, "lib/a.py:1:8: SyntaxError: '(' was never closed"),
        ({"entry.py": "x = '\0'"}, "SyntaxError: source code string cannot contain null bytes"),
        ({"entry.py": "import json, socket"}, "entry.py:1:1: ModuleNotFoundError: No module named 'socket'"),
        (
            {"entry.py": "def f():\n    from numpy.linalg import inv"},
            "entry.py:2:5: ModuleNotFoundError: No module named 'numpy.linalg'",
        ),
        ({"entry.py": "try:\n  import x\nexcept ValueError: pass"}, "entry.py:2:3: ModuleNotFoundError"),
        ({"entry.py": "try:\n  pass\nexcept ImportError:\n  import x"}, "entry.py:4:3: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_and_where(modules: dict[str, str], problem: str) -> None:
    with pytest.raises(ScriptInvalid) as raised:
        check_modules(list(modules.items()))
    assert problem in raised.value.message
    if "ModuleNotFound" in problem:
        assert raised.value.message.endswith(RULE)


@pytest.mark.parametrize(
    "modules",
    [
        {"entry.py": "import json, asyncio\nfrom workers.workflows import NonRetryableError\nfrom . import x"},
        {"./src/entry.py": "import src.other\nfrom src import other", "src/other.py": ""},
        {"entry.py": "try:\n  import orjson\nexcept ImportError:\n  orjson = None"},
        {"entry.py": "try:\n  import orjson\nexcept (KeyError, ModuleNotFoundError): pass"},
        {"entry.py": "try:\n  import orjson\nexcept: pass"},
        {"entry.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import pandas"},
        {"entry.py": "import vendored", "python_modules/vendored/__init__.py": "import socket"},
        {"entry.py": "x = '\\d'"},
        {"entry.py": "-" * 100_000 + "1"},
        {"entry.py": "import socket\n" + "#" * 600_000},
    ],
)
def test_what_is_right_or_left_to_the_sandbox(modules: dict[str, str]) -> None:
    check_modules(list(modules.items()))


def test_the_list_is_the_runtimes() -> None:
    """The sandbox's side stands alone, so the list is there twice."""
    for node in ast.parse(CHILD.read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "ALLOWED":
            assert isinstance(node.value, ast.Call)
            assert frozenset(ast.literal_eval(node.value.args[0])) == LIBRARY
            return
    raise AssertionError("the runtime has no list")
