"""Notifications and tasks as the service hands them out."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

TODO, IN_PROGRESS, DONE, CANCELLED = TASK_STATUSES = ("TODO", "IN_PROGRESS", "DONE", "CANCELLED")
"""What a task may be. A done or cancelled one may be taken up again."""


class Notification(msgspec.Struct, frozen=True):
    """A message an action sent. `recipient` is whatever the action named; `read_at` is None until it was read."""

    id: UUID
    workspace_id: UUID | None
    instance_key: UUID
    node: str
    recipient: str | None
    message: str
    read_at: datetime | None
    created_at: datetime


class Task(msgspec.Struct, frozen=True):
    """Something an action asked somebody to do. `done_at` is None unless its status is DONE."""

    id: UUID
    workspace_id: UUID | None
    instance_key: UUID
    node: str
    title: str
    description: str
    priority: str
    assigned_to: str | None
    status: str
    created_at: datetime
    done_at: datetime | None
