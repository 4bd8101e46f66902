"""What the sandbox is told, in its words. What it says is in `messages`."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import msgspec

from instances.runtimes.protocol import Failure, Raw, RunContext


def start(run: RunContext, number: int, class_name: str, at: datetime) -> dict[str, Any]:
    """The message a run begins with. `number` is the sandbox's for the run."""
    event: dict[str, Any] = {
        "payload": value(run.input if run.input is not None else "{}"),
        "timestamp": millis(run.created_at),
        "instanceId": run.instance_id,
        "workflowName": run.workflow,
    }
    if "cron" in run.trigger:
        event["schedule"] = {"cron": run.trigger["cron"], "scheduledTime": run.trigger["scheduledTime"]}
    # What a retry took over from another instance must come about as it did there.
    life = run.trigger.get("seed") if run.run == 1 else None
    seed = hashlib.sha256((life or f"{run.key}/{run.run}").encode()).hexdigest()
    message = {"op": "start", "r": number, "cls": class_name, "event": event, "seed": seed}
    return message | {"now": millis(at), "workflow": run.workflow}


def value(text: Raw | None) -> dict[str, Any]:
    """A stored value: `v` plain, `x` tagged, nothing for undefined."""
    if text is None:
        return {}
    return {"x" if text.startswith(" ") else "v": msgspec.Raw(text.encode("utf-8", "surrogatepass"))}


def error(failure: Failure) -> dict[str, str]:
    """A failure as the code sees it."""
    return {"name": failure.name, "message": failure.message}


def millis(moment: datetime) -> int:
    """Epoch milliseconds."""
    return int(moment.timestamp() * 1000)
