"""What events are about, as this face shows it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.faces.orchestration import views
from instances.projections.execution import Blocker, MilestoneState, SyncPointState
from instances.projections.execution_steps import ExecutionStep
from instances.search.executions import Shown
from tenants.auth import Caller
from tenants.clock import iso
from versions.definitions.schemas import Definition


class WebhookPayloads:
    """The data of each kind of event (`jobs.webhooks.envelope.Payloads`)."""

    def execution(self, shown: Shown) -> dict[str, Any]:
        """The execution without its tasks; of its context only which version it has; its error, if it failed."""
        told = views.execution_head(shown, views.status_of(shown.execution.facet), shown.execution.ended_at)
        told["context"] = {"id": told["id"], "version": shown.execution.context_version}
        if shown.execution.error is not None:
            told["error"] = shown.execution.error.message
        return told

    def task(self, shown: Shown, step: ExecutionStep) -> dict[str, Any]:
        return views.task(shown, step) | {
            "workflowExecutionId": views.execution_id(shown),
            "workflowDefinitionId": str(shown.row.workflow_no),
        }

    def progress(self, shown: Shown, means_ms: Mapping[str, float], now: datetime) -> dict[str, Any]:
        return views.progress(shown, means_ms, now)

    def blocker(self, shown: Shown, blocker: Blocker) -> dict[str, Any]:
        return views.shown_blocker(shown, blocker) | {"workflowExecutionId": views.execution_id(shown)}

    def milestone(self, shown: Shown, milestone: MilestoneState) -> dict[str, Any]:
        return views.shown_milestone(milestone) | {"workflowExecutionId": views.execution_id(shown)}

    def sync_point(self, shown: Shown, point: SyncPointState) -> dict[str, Any]:
        moment = point.ended_at or point.reached_at
        return {
            "id": point.id,
            "name": point.name,
            "state": point.state,
            "at": None if moment is None else iso(moment),
            "workflowExecutionId": views.execution_id(shown),
        }

    def definition(self, found: Definition, caller: Caller) -> dict[str, Any]:
        return views.definition(found, caller)

    def definition_id(self, workflow_no: int) -> str:
        return str(workflow_no)
