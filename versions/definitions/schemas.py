"""Definitions as the service hands them out, and what may be said of a workflow besides its definition."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.errors import InvalidRequest, Problem
from tenants.auth import Caller
from tenants.limits import KIB
from versions.document import Document, decode_document
from versions.document.model import Node
from versions.forms import FORMS, redacted
from versions.names import semver
from versions.schemas import STATUSES, WorkflowRow

TAGS = 50
TAG_LENGTH = 64
METADATA_BYTES = 16 * KIB
STEP_TYPE = "step"
"""The type of what a script's steps are shown as."""


class KnownStep(msgspec.Struct, frozen=True):
    """A step a script has run, for faces that show what a workflow consists of."""

    id: str
    name: str


class Named(msgspec.Struct, frozen=True):
    """Which workflow a reference means."""

    workflow_key: UUID
    handle: str


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow and one version of it, the current one unless another was asked for.

    `source` (a document when `language` is `document`), `settings` and `original` are JSON text; `last_execution_at`
    and `executions` are None unless asked for.
    """

    workflow: WorkflowRow
    version_key: UUID
    no: int
    language: str
    runtime: int
    class_name: str
    source: str
    settings: str
    dialect: str
    original: str | None
    created_by: str | None
    version_created_at: datetime
    last_execution_at: datetime | None = None
    executions: int | None = None
    retired: bool = False
    """Whether the workflow was deleted. Only those asked for by version can be."""

    @property
    def semver(self) -> str:
        """The version as `1.0.<n>`."""
        return semver(self.no)

    @property
    def is_document(self) -> bool:
        """Whether it is a document, not a script."""
        return self.language == "document"

    def document(self, steps: Sequence[KnownStep] = ()) -> Document:
        """The document; of a script, one of the steps it is known to have."""
        if self.is_document:
            return decode_document(self.source)
        nodes = tuple(
            Node(id=step.id, name=step.name, type=STEP_TYPE, position=position) for position, step in enumerate(steps)
        )
        workflow = self.workflow
        return Document(name=workflow.display_name, description=workflow.description, nodes=nodes)

    def said(self) -> Any:
        """What its author wrote, None for scripts."""
        return None if self.original is None else msgspec.json.decode(self.original)

    def shown(self, dialect: str, caller: Caller, steps: Sequence[KnownStep] = ()) -> dict[str, Any]:
        """`{name, description, …}` as the form of `dialect` has it. `steps`: those a script is known to have.

        Secret headers are redacted for callers who may not change workflows. An empty description is null unless it
        was given so.
        """
        form = FORMS[dialect]
        original = self.said() if self.dialect == dialect else None
        document = self.document(steps)
        description = document.description or (None if original is None else original.get("description"))
        body = {"name": document.name, "description": description, **form.show(document, original)}
        return body if caller.allows("workflows:write") else redacted(body)


class Defined(msgspec.Struct, frozen=True):
    """What a change came to. `changed`: whether there is a new version; `warnings`: of the definition."""

    definition: Definition
    changed: bool
    warnings: tuple[Problem, ...] = ()


class Verdict(msgspec.Struct, frozen=True):
    """What is wrong with a definition, and what merely looks like a mistake."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


class NodeFigure(msgspec.Struct, frozen=True):
    """How long a node takes: the mean of about its last fifty runs, in milliseconds, and how many there were."""

    runs: int
    mean_ms: float


class Profile(msgspec.Struct, frozen=True):
    """What is said of a workflow without making a version of it; None leaves things as they are."""

    status: str | None = None
    tags: list[str] | None = None
    metadata: dict[str, Any] | None = None

    def checked(self) -> Profile:
        """Itself. Raises :class:`InvalidRequest` naming the field and the rule."""
        if self.status is not None and self.status not in STATUSES:
            raise InvalidRequest(f"status must be one of {', '.join(STATUSES)}", pointer="/status")
        tags = self.tags or []
        if len(tags) > TAGS:
            raise InvalidRequest(f"tags must have at most {TAGS} elements", pointer="/tags")
        for position, tag in enumerate(tags):
            if not isinstance(tag, str) or not 1 <= len(tag) <= TAG_LENGTH or "\0" in tag:
                rule = f"must be a text of 1 to {TAG_LENGTH} characters"
                raise InvalidRequest(f"tags/{position} {rule}", pointer=f"/tags/{position}")
        if self.metadata is not None and len(msgspec.json.encode(self.metadata)) > METADATA_BYTES:
            raise InvalidRequest(f"metadata must not be larger than {METADATA_BYTES} bytes", pointer="/metadata")
        return self

    def texts(self) -> tuple[str | None, str | None, str | None]:
        """Status, tags and metadata as they are stored."""
        return self.status, _text(self.tags), _text(self.metadata)


def _text(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
