"""Piccolo's view of this package's tables, for plain reads and writes.

The tables themselves are made by the migration: every primary key begins with `account_id`, which Piccolo cannot say,
so the rest of it is declared the key here and every query still filters by account (row-level security checks that it
did).
"""

from __future__ import annotations

from piccolo.columns import UUID, Array, BigInt, Boolean, DoublePrecision, Integer, SmallInt, Text, Timestamptz
from piccolo.table import Table


class Script(Table, tablename="script"):
    """One upload of a script; those that versions point at are kept."""

    account_id = UUID()
    id = UUID(primary_key=True)
    name = Text()
    workspace_id = UUID()
    number = Integer()
    metadata = Text()
    modules = Text()
    bindings = Text()
    secrets = Text()
    etag = Text()
    size_bytes = BigInt()
    source = Text()
    author = Text(null=True, default=None)
    deployed_at = Timestamptz(null=True, default=None)
    deleted_at = Timestamptz(null=True, default=None)
    created_at = Timestamptz()


class ScriptDeployment(Table, tablename="script_deployment"):
    """That an upload of a script was deployed."""

    account_id = UUID()
    id = UUID(primary_key=True)
    name = Text()
    script_id = UUID()
    source = Text()
    author = Text(null=True, default=None)
    annotations = Text()
    created_at = Timestamptz()


class ScriptSetting(Table, tablename="script_setting"):
    """What holds for a script whichever upload of it is deployed."""

    account_id = UUID()
    name = Text(primary_key=True)
    settings = Text()


class Workflow(Table, tablename="workflow"):
    """A workflow; its settings and its code are those of its current version."""

    account_id = UUID()
    workflow_key = UUID(primary_key=True)
    handle = Text()
    display_name = Text()
    description = Text()
    workspace_id = UUID()
    status = Text()
    tags = Text()
    metadata = Text()
    script_name = Text()
    class_name = Text()
    current_version = UUID(null=True, default=None)
    events = Array(base_column=Text())
    concurrency = Integer(null=True, default=None)
    created_at = Timestamptz()
    modified_at = Timestamptz()
    deleted_at = Timestamptz(null=True, default=None)


class Version(Table, tablename="version"):
    """What a workflow runs, as of one PUT. Never changes."""

    account_id = UUID()
    version_key = UUID(primary_key=True)
    workflow_key = UUID()
    no = Integer()
    language = Text()
    runtime = SmallInt()
    class_name = Text()
    script_id = UUID(null=True, default=None)
    source = Text()
    source_hash = Text()
    graph = Text(null=True, default=None)
    settings = Text()
    dialect = Text()
    original = Text(null=True, default=None)
    step_limit = Integer()
    success_retention_ms = BigInt(null=True, default=None)
    error_retention_ms = BigInt(null=True, default=None)
    created_by = Text(null=True, default=None)
    created_at = Timestamptz()


class Schedule(Table, tablename="schedule"):
    """When a workflow starts by itself. `next_at` is the truth about the next firing; null: never again."""

    account_id = UUID()
    id = UUID(primary_key=True)
    workflow_key = UUID()
    cron = Text(null=True, default=None)
    interval_ms = BigInt(null=True, default=None)
    timezone = Text()
    overlap = Boolean()
    max_runs = Integer(null=True, default=None)
    runs = Integer()
    input = Text(null=True, default=None)
    next_at = Timestamptz(null=True, default=None)
    last_key = UUID(null=True, default=None)
    created_at = Timestamptz()


class NodeStatistics(Table, tablename="node_statistics"):
    """How long a node takes on average, over the finished instances of a workflow."""

    account_id = UUID()
    workflow_key = UUID()
    node = Text(primary_key=True)
    runs = BigInt()
    mean_ms = DoublePrecision()
