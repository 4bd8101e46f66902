"""Sandboxes for tests, with an engine that runs whatever Python it is sent."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from instances.sandbox import zygote
from instances.sandbox.options import SandboxOptions
from instances.sandbox.process import SandboxProcess

HERE = Path(__file__).parent
ENGINE = HERE / "hostile_engine.py"
CHILD = Path(__file__).parents[3] / "instances" / "sandbox" / "child"


def hostile(**more: Any) -> SandboxOptions:
    """Options of the engine that does what the test says."""
    return SandboxOptions(engine=ENGINE, **more)


async def do(child: SandboxProcess, *sources: str, deadline: float = 20.0) -> list[Any]:
    """Run each source (an expression, or statements that set `result`) as one part of a frame.

    An answer is the value, or `[name of the exception, errno or text]`.
    """
    return json.loads(await child.exchange([source.encode() for source in sources], deadline))


def weakened(folder: Path, monkeypatch: pytest.MonkeyPatch, *holes: tuple[str, str, str]) -> None:
    """Let zygotes run a copy of the sandbox's side with holes: `(file, what it says, what it says instead)`."""
    copy = shutil.copytree(CHILD, folder / "child", ignore=shutil.ignore_patterns("__pycache__"))
    for file, before, after in holes:
        text = (copy / file).read_text()
        assert before in text
        (copy / file).write_text(text.replace(before, after, 1))
    monkeypatch.setattr(zygote, "BOOT", copy / "boot.py")


def exists(pid: int) -> bool:
    """Whether the process is there (a zombie is not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def await_death(pids: list[int], seconds: float = 20.0) -> bool:
    """Whether all these processes end within that time. They need not be children of this one."""
    ended = select.poll()
    waiting: set[int] = set()
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(pid)
            ended.register(descriptor, select.POLLIN)
            waiting.add(descriptor)
    deadline = time.monotonic() + seconds
    try:
        while waiting and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in ended.poll(left * 1000):
                ended.unregister(descriptor)
                os.close(descriptor)
                waiting.discard(descriptor)
        return not waiting
    finally:
        for descriptor in waiting:
            os.close(descriptor)
