"""`.ci/run`: what it has make do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.servers import CHECKOUT

MAKE = shutil.which("make")
PYTEST = "exec .venv/bin/python -m pytest -n 7 --dist worksteal"

# Notes how it was called, and lets the real one say what it would do; `lint` fails when asked to.
STAND_IN = """#!/bin/sh
echo "$1 $2 $#" >> "$CALLS"
[ "$2" != lint ] || exit "${LINT:-0}"
exec "$MAKE" --dry-run "$@"
"""


@pytest.fixture
def ci(tmp_path: Path):
    """`ci("argument", …)`: exit code, what it said, and the calls of make."""
    if MAKE is None:
        pytest.skip("needs make")
    (tmp_path / "make").write_text(STAND_IN)
    (tmp_path / "make").chmod(0o755)

    def run(*arguments: str, **environment: str) -> tuple[int, str, list[str]]:
        calls = tmp_path / "calls"
        done = subprocess.run(
            [CHECKOUT / ".ci" / "run", *arguments],
            capture_output=True,
            text=True,
            env={
                "PATH": f"{tmp_path}:{os.environ['PATH']}",
                "CALLS": str(calls),
                "MAKE": MAKE,
                "TEST_PROCESSES": "7",
                **environment,
            },
            cwd="/",
        )
        return done.returncode, done.stdout, calls.read_text().splitlines()

    return run


def test_lint_then_the_suite(ci):
    code, said, calls = ci()
    assert code == 0
    assert [call.split()[1] for call in calls] == ["lint", "test"]
    assert said.splitlines()[-1] == f"{PYTEST} -v"


def test_no_suite_after_a_failed_lint(ci):
    code, _, calls = ci(LINT="2")
    assert code == 2
    assert len(calls) == 1


def test_arguments_arrive_whole(ci, tmp_path):
    given = ["tests/unit", "-k", "a or b's", "$HOME", "*", 'say "x"']
    _, said, _ = ci(*given)
    recipe = said.splitlines()[-1].replace(PYTEST, "printf '%s\\n'")
    done = subprocess.run(["sh", "-c", recipe], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["-v", *given]
