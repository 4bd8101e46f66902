"""Steps as this face shows them: objects by their paths in a tree, and the definition the tree was made of."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from app.faces.medusa.states import StepState, compensate_of, invoke_of
from instances.projections.execution_steps import Compensation, ExecutionStep, Forward
from instances.projections.history import History
from instances.projections.steps import Outcome
from tenants.spellings import ulid_text
from versions.document import Node

ROOT = "_root"
TREE_DEPTH = 100
"""Steps one below the other that the definition shows as a tree; `steps` has all of them."""


def path_of(step: ExecutionStep) -> str:
    """`_root.a.b`; the last part is the step's name."""
    return ".".join((ROOT, *step.path))


def name_of(step: ExecutionStep) -> str:
    """What the step is called in the execution's context."""
    return step.path[-1]


def epoch_ms(moment: datetime | None) -> int | None:
    """Epoch milliseconds."""
    return None if moment is None else round(moment.timestamp() * 1000)


def steps(
    all: Sequence[ExecutionStep], history: History, definitions: Sequence[dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Every step by its path, and the root. `definitions` are those of the steps, by position."""
    found = {ROOT: {"id": ROOT, "next": [path_of(step) for step in all if step.depth == 1]}}
    for step, definition in zip(all, definitions, strict=True):
        told = step_object(step, all, history, definition)
        found[told["id"]] = told
    return found


def step_object(
    step: ExecutionStep, all: Sequence[ExecutionStep], history: History, definition: dict[str, Any]
) -> dict[str, Any]:
    """One step. Attempts and failures are those of its current half, going forward or being undone."""
    back = step.compensation is not Compensation.DORMANT
    phase = step.compensate if back else step.invoke
    return {
        "id": path_of(step),
        "uuid": definition["uuid"],
        "depth": step.depth,
        "definition": definition,
        "saveResponse": step.node is None or step.node.save_output,
        "invoke": _half(invoke_of(step)),
        "compensate": _half(compensate_of(step)),
        "attempts": phase.attempts,
        "failures": phase.failures,
        "lastAttempt": epoch_ms(phase.last_attempt_at),
        "startedAt": epoch_ms(step.invoke.started_at),
        "stepFailed": back,
        "hasScheduledRetry": phase.next_attempt_at is not None,
        "retryRescheduledAt": None,
        "temporaryFailedAt": epoch_ms(failed_at(step, history)),
        "timedOutAt": epoch_ms(step.invoke.ended_at) if step.state is Forward.TIMED_OUT else None,
        "next": [path_of(all[child]) for child in step.children],
        "_v": 0,
    }


def _half(told: StepState) -> dict[str, str]:
    return {"state": told.state, "status": told.status}


def failed_at(step: ExecutionStep, history: History) -> datetime | None:
    """When the last attempt of a step failed that has another one."""
    if step.state is not Forward.RETRYING or step.key is None:
        return None
    runs = [run for run in history.steps.values() if run.family is step.key.kind and run.name == step.key.name]
    failed = [
        attempt.ended_at
        for run in runs
        for attempt in run.counted_attempts
        if attempt.outcome is Outcome.FAILED and attempt.ended_at is not None
    ]
    return max(failed, default=None)


def definition_of(step: ExecutionStep, version_key: UUID) -> dict[str, Any]:
    """What a step was defined as; options that are not set are left out, times are seconds."""
    told: dict[str, Any] = {
        "uuid": _uuid(version_key, step.id),
        "action": name_of(step),
        "store": True,
        "noCompensation": step.no_compensation,
    }
    if step.node is None:
        return told | ({"async": True} if step.type == "waitForEvent" else {})
    return told | _options(step.node)


def _options(node: Node) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if node.async_:
        told["async"] = True
    if node.compensate is not None and node.compensate.async_:
        told["compensateAsync"] = True
    if node.retries.limit:
        told["maxRetries"] = node.retries.limit
        told["retryInterval"] = seconds(node.retries.delay)
    if node.total_timeout is not None:
        told["timeout"] = seconds(node.total_timeout)
    if node.on_error == "continue":
        told["continueOnPermanentFailure"] = True
    elif node.on_error in ("skip", "skip_to"):
        told["skipOnPermanentFailure"] = node.skip_to or True
    if not node.save_output:
        told["saveResponse"] = False
    if node.type == "workflow":
        told["nested"] = True
    return told


def tree(all: Sequence[ExecutionStep], definitions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The definition as a tree: the first step, with what follows in `next`; several first steps in a `next`.

    `definitions` are those of the steps, by position. Below `TREE_DEPTH` steps what follows is left out: readers of
    JSON go no deeper.
    """
    top = [_subtree(step, all, definitions) for step in all if step.depth == 1]
    if len(top) == 1:
        return top[0]
    return {"next": top} if top else {}


def _subtree(
    step: ExecutionStep, all: Sequence[ExecutionStep], definitions: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    told = definitions[step.position]
    if step.depth >= TREE_DEPTH:
        return told
    following = [_subtree(all[child], all, definitions) for child in step.children]
    if not following:
        return told
    return told | {"next": following[0] if len(following) == 1 else following}


def seconds(milliseconds: float) -> float:
    """Whole seconds as a whole number."""
    value = milliseconds / 1000
    return int(value) if value == int(value) else value


@functools.lru_cache(maxsize=10_000)
def _uuid(version_key: UUID, id: str) -> str:
    """The same for a step of a version, always."""
    return ulid_text(UUID(bytes=hashlib.sha256(version_key.bytes + id.encode()).digest()[:16]))
