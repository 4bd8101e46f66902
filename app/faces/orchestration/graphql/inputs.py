"""Inputs of mutations, and how they become the bodies services take."""

from __future__ import annotations

import dataclasses
from enum import Enum
from typing import Any

import strawberry
from strawberry.types.base import has_object_definition
from strawberry.utils.str_converters import to_camel_case

from app.faces.orchestration.graphql.scalars import JSON, WebhookFormat


@strawberry.input
class CustomResourceInput:
    name: str
    value: str


@strawberry.input
class ResourceRequirementsInput:
    cpu: float | None = strawberry.UNSET
    memory: int | None = strawberry.UNSET
    storage: int | None = strawberry.UNSET
    custom: list[CustomResourceInput] | None = strawberry.UNSET


@strawberry.input
class RetryPolicyInput:
    max_retries: int
    backoff_multiplier: float | None = 2.0
    max_backoff: int | None = 60000


@strawberry.input
class TaskDefinitionInput:
    id: strawberry.ID | None = strawberry.UNSET
    name: str
    description: str | None = strawberry.UNSET
    dependencies: list[strawberry.ID] | None = strawberry.UNSET
    resource_requirements: ResourceRequirementsInput | None = strawberry.UNSET
    timeout: int | None = strawberry.UNSET
    retry_policy: RetryPolicyInput | None = strawberry.UNSET
    type: str | None = strawberry.UNSET
    config: JSON | None = strawberry.UNSET


@strawberry.input
class SynchronizationPointInput:
    name: str
    description: str | None = strawberry.UNSET
    required_tasks: list[strawberry.ID]
    timeout: int | None = strawberry.UNSET


@strawberry.input
class CreateWorkflowDefinitionInput:
    name: str
    description: str | None = strawberry.UNSET
    tasks: list[TaskDefinitionInput] = strawberry.field(default_factory=list)
    synchronization_points: list[SynchronizationPointInput] = strawberry.field(default_factory=list)


@strawberry.input(description="Fields left out stay as they are; null clears description, and is an error elsewhere.")
class UpdateWorkflowDefinitionInput:
    name: str | None = strawberry.UNSET
    description: str | None = strawberry.UNSET
    tasks: list[TaskDefinitionInput] | None = strawberry.UNSET
    synchronization_points: list[SynchronizationPointInput] | None = strawberry.UNSET


@strawberry.input
class StartWorkflowExecutionInput:
    workflow_definition_id: strawberry.ID
    initial_context: str | None = strawberry.field(default=strawberry.UNSET, description="JSON text of an object.")
    idempotency_key: str | None = strawberry.UNSET


@strawberry.input
class RegisterWebhookInput:
    url: str
    events: list[str]
    secret: str | None = strawberry.UNSET
    active: bool | None = True
    format: WebhookFormat | None = WebhookFormat.STANDARD


@strawberry.input
class UpdateWebhookInput:
    url: str | None = strawberry.UNSET
    events: list[str] | None = strawberry.UNSET
    secret: str | None = strawberry.UNSET
    active: bool | None = strawberry.UNSET
    format: WebhookFormat | None = strawberry.UNSET


@strawberry.input
class TestWebhookInput:
    __test__ = False  # not one of pytest's

    url: str
    event: str
    payload: JSON
    secret: str | None = strawberry.UNSET


def said(value: Any) -> Any:
    """An input as the JSON a client of REST would have sent: what was left out is left out."""
    if isinstance(value, list):
        return [said(one) for one in value]
    if isinstance(value, Enum):
        return value.value
    if not has_object_definition(value):
        return value
    members = ((to_camel_case(field.name), getattr(value, field.name)) for field in dataclasses.fields(value))  # type: ignore[arg-type]
    return {name: said(member) for name, member in members if member is not strawberry.UNSET}
