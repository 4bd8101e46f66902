"""`millrace` with the action handlers of these tests, in a process that was forked for it.

Handlers append one line per execution to the file `CRASH_TEST_LOG` names, before they return: what really ran.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.cli.main import main
from instances.engine import faults
from instances.runtimes.document import register_action_handler
from instances.runtimes.document.handlers import ActionContext

LOG = "CRASH_TEST_LOG"
GATE = "CRASH_TEST_GATE"


async def mark(action: dict[str, Any], context: ActionContext) -> dict[str, Any]:
    """Runs at once."""
    ran = {
        "instance": context.executionId,
        "step": action["id"],
        "undo": context.compensation is not None,
        "attempt": context.attempt,
        "pid": os.getpid(),
    }
    file = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, json.dumps(ran).encode() + b"\n")
    os.close(file)
    return {"success": True, "output": {"attempt": context.attempt, "pid": os.getpid()}}


async def hold(action: dict[str, Any], context: ActionContext) -> dict[str, Any]:
    """Runs until the file of this process is there: `CRASH_TEST_GATE`, a hyphen and the process's id."""
    answer = await mark(action, context)
    gate = Path(f"{os.environ[GATE]}-{os.getpid()}")
    while not gate.exists():
        await asyncio.sleep(0.01)
    return answer


async def mend(action: dict[str, Any], context: ActionContext) -> dict[str, Any]:
    """Fails, for good, until the file `CRASH_TEST_GATE` is there."""
    answer = await mark(action, context)
    return answer if Path(os.environ[GATE]).exists() else {"success": False, "error": "not mended", "permanent": True}


HANDLERS = {"mark": mark, "hold": hold, "mend": mend}


def register() -> None:
    for name, handler in HANDLERS.items():
        register_action_handler(name, handler)


def run(command: Sequence[str], environment: dict[str, str], output: Path) -> None:
    """Be `millrace <command>` in this environment; what it writes goes to the file `output`."""
    os.environ.clear()
    os.environ.update(environment)
    importlib.reload(faults)  # reads the environment
    file = os.open(output, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    register()
    main([*command])
