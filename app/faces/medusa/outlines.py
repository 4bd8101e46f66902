"""What is the same about steps in every execution of a version: their places in the tree, and what they were defined
as. Of documents it is made once, as the JSON that is shown.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from instances.projections.execution_steps import ExecutionStep, Situation
from instances.projections.execution_tree import document_steps
from instances.projections.history import History
from tenants.spellings import ulid_text
from versions.document import Document, Node
from versions.document.remembered import PerDocument

ROOT = "_root"
TREE_DEPTH = 100
"""Steps one below the other that the definition shows as a tree; `steps` has all of them."""


class StepOutline(msgspec.Struct, frozen=True):
    """Of one step. `id` is its path; `next` the paths of its children."""

    id: str
    uuid: str
    depth: int
    definition: msgspec.Raw
    save_output: bool
    next: msgspec.Raw


class Outline(msgspec.Struct, frozen=True):
    """Of all steps, by position, and of their root. `tree` is the definition as a tree."""

    steps: Sequence[StepOutline]
    root: msgspec.Raw
    tree: msgspec.Raw
    has_async: bool


def outline(all: Sequence[ExecutionStep], document: Document | None, version_key: UUID) -> Outline:
    """What stays the same of an execution with these steps."""
    if document is not None:
        return _of_document(document, version_key)
    steps = [_of_script(version_key, step.id, step.path, step.type, step.no_compensation) for step in all]
    return _outline(all, steps, [one.definition for one in steps])


@PerDocument
def _of_document(document: Document, version_key: UUID) -> Outline:
    all = document_steps(document, History(), Situation.FORWARD)
    steps = [step_outline(step, all, version_key) for step in all]
    return _outline(all, steps, [definition_of(step, version_key) for step in all])


@functools.lru_cache(maxsize=10_000)
def _of_script(version_key: UUID, id: str, path: tuple[str, ...], type: str, no_compensation: bool) -> StepOutline:
    step = ExecutionStep(id=id, name=id, position=0, path=path, type=type, no_compensation=no_compensation)
    return step_outline(step, [step], version_key)


def _outline(all: Sequence[ExecutionStep], steps: Sequence[StepOutline], definitions: Sequence[Any]) -> Outline:
    top = [path_of(step) for step in all if step.depth == 1]
    has_async = any(step.type == "waitForEvent" if step.node is None else step.node.async_ for step in all)
    return Outline(steps, _json({"id": ROOT, "next": top}), _json(tree(all, definitions)), has_async)


def step_outline(step: ExecutionStep, all: Sequence[ExecutionStep], version_key: UUID) -> StepOutline:
    """That of one step among `all`."""
    definition = definition_of(step, version_key)
    return StepOutline(
        path_of(step),
        definition["uuid"],
        step.depth,
        _json(definition),
        step.node is None or step.node.save_output,
        _json([path_of(all[child]) for child in step.children]),
    )


def _json(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def path_of(step: ExecutionStep) -> str:
    """`_root.a.b`; the last part is the step's name."""
    return ".".join((ROOT, *step.path))


def name_of(step: ExecutionStep) -> str:
    """What the step is called in the execution's context."""
    return step.path[-1]


# --- definitions -------------------------------------------------------------------------------------------------


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


def tree(all: Sequence[ExecutionStep], definitions: Sequence[Any]) -> Any:
    """The definition as a tree: the first step, with what follows in `next`; several first steps in a `next`.

    `definitions` are those of the steps, by position: objects, or JSON of steps that all hang from the root. Below
    `TREE_DEPTH` steps what follows is left out: readers of JSON go no deeper.
    """
    top = [_subtree(step, all, definitions) for step in all if step.depth == 1]
    if len(top) == 1:
        return top[0]
    return {"next": top} if top else {}


def _subtree(step: ExecutionStep, all: Sequence[ExecutionStep], definitions: Sequence[Any]) -> Any:
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
