"""Two action handlers. A handler is a function of an action and a context, awaited when it is asynchronous."""

from __future__ import annotations

from typing import Any

POINTS = {"enterprise": 50, "business": 20}


def score_lead(action: dict[str, Any], context: Any) -> dict[str, Any]:
    """Points for the lead in the trigger data; `config` may ask for a minimum."""
    lead = context.triggerData
    if "plan" not in lead:
        # Trying again would not help: "permanent" fails the action without the retries of `onError: retry`.
        return {"success": False, "error": "the lead has no plan", "permanent": True}
    points = POINTS.get(lead["plan"], 0) + 10 * lead.get("seats", 0)
    context.log(f"{points} points in attempt {context.attempt}")
    return {"success": True, "output": {"points": points, "hot": points >= action["config"].get("minimum", 100)}}


# What `config` must look like (JSON Schema): checked before the handler is called.
score_lead.schema = {  # type: ignore[attr-defined]
    "type": "object",
    "properties": {"minimum": {"type": "integer"}},
    "additionalProperties": False,
}


async def assign_lead(action: dict[str, Any], context: Any) -> dict[str, Any]:
    """Somebody for the lead, by what the action before this one found."""
    score = context.previousStepResults[-1]["output"]
    team = action["config"]["hot" if score["hot"] else "cold"]
    # The key is the same in every attempt: a system that is told of the assignment can tell a repeat by it.
    return {"success": True, "output": {"assignedTo": team, "by": context.userId, "key": context.idempotencyKey}}
