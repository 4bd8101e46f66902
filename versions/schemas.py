"""Rows as the services hand them out, and the bodies and results of the Cloudflare face."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

# --- rows --------------------------------------------------------------------------------------------------------


STATUSES = ("active", "inactive", "draft", "archived")
"""What a workflow may be. Only active ones are started, by callers and by schedules."""
ACTIVE = STATUSES[0]


class WorkflowRow(msgspec.Struct, frozen=True):
    """A workflow. `handle` never changes; `display_name` is the current version's. `tags` (an array of texts) and
    `metadata` (an object) are JSON text; `status` is one of `STATUSES`."""

    account_id: UUID
    workflow_key: UUID
    no: int
    handle: str
    display_name: str
    description: str
    workspace_id: UUID
    script_name: str
    class_name: str
    current_version: UUID | None
    concurrency: int | None
    created_at: datetime
    modified_at: datetime
    status: str = ACTIVE
    tags: str = "[]"
    metadata: str = "{}"


class WorkflowListed(msgspec.Struct, frozen=True):
    """A workflow with what the list shows of its instances and schedules.

    `counts`: instances by status number (`instances.lifecycle.Status`); `schedules`: (cron, next firing), UTC.
    `script_deleted` is None for workflows that are documents.
    """

    row: WorkflowRow
    triggered_at: datetime | None
    counts: dict[int, int]
    schedules: list[tuple[str, datetime]]
    script_deleted: bool | None


class VersionRow(msgspec.Struct, frozen=True):
    """An immutable version with everything the engine needs to run it. `source` and `settings` are JSON text."""

    account_id: UUID
    version_key: UUID
    workflow_key: UUID
    handle: str
    display_name: str
    workspace_id: UUID
    no: int
    language: str
    runtime: int
    class_name: str
    script_id: UUID | None
    source: str
    settings: str
    step_limit: int
    success_retention_ms: int | None
    error_retention_ms: int | None
    created_at: datetime


class VersionListed(msgspec.Struct, frozen=True):
    """A version without its source."""

    version_key: UUID
    workflow_key: UUID
    no: int
    language: str
    class_name: str
    settings: str
    has_graph: bool
    success_retention_ms: int | None
    error_retention_ms: int | None
    created_at: datetime


class VersionOrigin(msgspec.Struct, frozen=True):
    """What the user sent, for the face that wants to show it back: verbatim JSON text, None for scripts."""

    version_key: UUID
    dialect: str
    original: str | None


class SealedRow(msgspec.Struct, frozen=True):
    """An upload's secrets, encrypted: JSON text, by binding."""

    account_id: UUID
    id: UUID
    name: str
    secrets: str


class ScriptRow(msgspec.Struct, frozen=True):
    """One upload of a script. `metadata`, `bindings` and `secrets` are JSON text; secrets are encrypted."""

    account_id: UUID
    id: UUID
    name: str
    workspace_id: UUID
    metadata: str
    bindings: str
    secrets: str
    etag: str
    size_bytes: int
    source: str
    created_at: datetime
    first_created_at: datetime
    settings: str | None
    """What was set for the script whichever upload of it is deployed: JSON text."""


class ScheduleRow(msgspec.Struct, frozen=True):
    """When a workflow starts by itself: `cron` in `timezone`, or every `interval_ms`. `input` is JSON text."""

    id: UUID
    cron: str | None
    interval_ms: int | None
    timezone: str
    overlap: bool
    max_runs: int | None
    runs: int
    input: str | None
    next_at: datetime | None
    created_at: datetime


# --- bodies ------------------------------------------------------------------------------------------------------

AtLeastOne = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
Duration = int | float | str
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class StepLimit(msgspec.Struct, frozen=True):
    """Steps one instance may take; None: the account's limit."""

    steps: AtLeastOne | None = None


class ConcurrencyLimit(msgspec.Struct, frozen=True):
    """Instances of the workflow that may run at once; None: as many as the account's."""

    limit: AtLeastOne | None = None


class Retention(msgspec.Struct, frozen=True):
    """Milliseconds or `"<number> <unit>"`."""

    success_retention: Duration | None = None
    error_retention: Duration | None = None


class CronSchedule(msgspec.Struct, frozen=True):
    """A schedule as a request gives it."""

    cron: str


class WorkflowBody(msgspec.Struct, frozen=True):
    """PUT of a workflow: a document in `definition`, or the class of a script. Unknown fields are ignored."""

    definition: Any = None
    class_name: Name | None = None
    script_name: Name | None = None
    limits: StepLimit | None = None
    concurrency: ConcurrencyLimit | None = None
    default_retention: Retention | None = None
    schedules: list[CronSchedule] | None = None


class PatchedRetention(msgspec.Struct, frozen=True):
    """Only the fields that are there change; null goes back to the account's own."""

    success_retention: Duration | msgspec.UnsetType | None = msgspec.UNSET
    error_retention: Duration | msgspec.UnsetType | None = msgspec.UNSET


class SettingsBody(msgspec.Struct, frozen=True):
    """PATCH of an account's settings."""

    default_retention: PatchedRetention | None = None


# --- results -----------------------------------------------------------------------------------------------------


STATUS_NAMES = (
    "queued",
    "running",
    "waiting",
    "paused",
    "waitingForPause",
    "rollingBack",
    "complete",
    "errored",
    "terminated",
)
"""Instance statuses by number, as `instances.lifecycle.Status` has them."""


class ShownSchedule(msgspec.Struct, frozen=True):
    """A schedule, and when it fires next."""

    cron: str
    next_instance: str


class ShownWorkflow(msgspec.Struct, frozen=True, omit_defaults=True):
    """Element of the list of workflows, and the answer about one."""

    id: UUID
    name: str
    class_name: str
    script_name: str
    created_on: str
    modified_on: str
    triggered_on: str | None
    instances: dict[str, int]
    schedules: list[ShownSchedule] = []
    script_deleted: bool | None = None


class DeployedWorkflow(msgspec.Struct, frozen=True):
    """Answer to PUT. `is_deleted` and `terminator_running` are 0 or 1."""

    id: UUID
    name: str
    class_name: str
    script_name: str
    created_on: str
    modified_on: str
    triggered_on: str | None
    version_id: UUID
    is_deleted: int
    terminator_running: int


class DeletedWorkflow(msgspec.Struct, frozen=True):
    """Answer to DELETE."""

    status: str = "ok"
    success: bool = True


class ShownRetention(msgspec.Struct, frozen=True, omit_defaults=True):
    """Milliseconds."""

    success_retention: int | None = None
    error_retention: int | None = None


class ShownVersion(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version, in lists and alone."""

    id: UUID
    class_name: str
    created_on: str
    modified_on: str
    workflow_id: UUID
    has_dag: bool
    language: str
    limits: StepLimit | None = None
    concurrency: ConcurrencyLimit | None = None
    default_retention: ShownRetention | None = None


class ShownDag(msgspec.Struct, frozen=True):
    """Answer of `/dag`; the graph is JSON text spliced in."""

    id: UUID
    class_name: str
    created_on: str
    modified_on: str
    workflow_id: UUID
    dag: msgspec.Raw | None


class ShownGraph(msgspec.Struct, frozen=True):
    """Answer of `/graph`: under both names, for clients old and new."""

    id: UUID
    class_name: str
    created_on: str
    modified_on: str
    workflow_id: UUID
    graph: msgspec.Raw | None
    dag: msgspec.Raw | None


class ShownSettings(msgspec.Struct, frozen=True):
    """An account's settings."""

    default_retention: ShownRetention


class ShownScript(msgspec.Struct, frozen=True):
    """A script in lists and in the answer to an upload (which adds the last four)."""

    id: str
    created_on: str
    modified_on: str
    etag: str
    tag: str
    tags: list[str]
    handlers: list[str]
    named_handlers: list[dict[str, Any]]
    has_modules: bool
    has_assets: bool
    compatibility_date: str | None
    compatibility_flags: list[str]
    logpush: bool
    usage_model: str
    last_deployed_from: str


class UploadedScript(ShownScript, frozen=True):
    """Answer to an upload."""

    startup_time_ms: int
    deployment_id: str
    pipeline_hash: str | None
    mutable_pipeline_id: str | None
