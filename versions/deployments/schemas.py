"""Rows about versions and deployments of scripts, and the bodies of requests about them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

SECRET_TEXT = "secret_text"  # noqa: S105 - a type of bindings


class UploadRow(msgspec.Struct, frozen=True):
    """A version of a script. `metadata`, `bindings` and `secrets` are JSON text; secrets are encrypted.

    `number` counts from 1 for each script; `deployed_at`: when it was deployed last.
    """

    id: UUID
    name: str
    metadata: str
    bindings: str
    secrets: str
    etag: str
    size_bytes: int
    source: str
    author: str | None
    created_at: datetime
    deployed_at: datetime | None
    number: int


class DeploymentRow(msgspec.Struct, frozen=True):
    """That a version was deployed. `annotations` is JSON text."""

    id: UUID
    script_id: UUID
    source: str
    author: str | None
    annotations: str
    created_at: datetime


# --- bodies ------------------------------------------------------------------------------------------------------

BindingName = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f]+$")]
Annotations = dict[str, Any] | None


class DeployedShare(msgspec.Struct, frozen=True):
    """How much of a deployment a version gets, in percent: one version all of it."""

    version_id: UUID
    percentage: float


class DeploymentBody(msgspec.Struct, frozen=True):
    """POST of a deployment. Other fields mean nothing here and are ignored."""

    versions: list[DeployedShare]
    strategy: str = "percentage"
    annotations: Annotations = None


class SecretBody(msgspec.Struct, frozen=True):
    """PUT of a secret."""

    name: BindingName
    text: str
    type: str = SECRET_TEXT


class SecretText(msgspec.Struct, frozen=True):
    """A secret's new value in a merge patch."""

    text: str
    type: str = SECRET_TEXT


class SecretsBody(msgspec.Struct, frozen=True):
    """Merge patch of secrets by name: null takes one away."""

    secrets: dict[BindingName, SecretText | None]


class VersionPatch(msgspec.Struct, frozen=True):
    """Merge patch of the newest version: secrets, by name, as a new version that is not deployed."""

    env: dict[BindingName, SecretText | None] = {}
    annotations: Annotations = None


class SettingsPatch(msgspec.Struct, frozen=True):
    """What is set for the script as a whole. Only fields that are there change."""

    tags: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    logpush: bool | msgspec.UnsetType | None = msgspec.UNSET
    observability: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET
    tail_consumers: list[Any] | msgspec.UnsetType | None = msgspec.UNSET


class VersionSettings(msgspec.Struct, frozen=True):
    """What a version is besides its code. Only fields that are there change."""

    bindings: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    compatibility_date: str | msgspec.UnsetType = msgspec.UNSET
    compatibility_flags: list[str] | msgspec.UnsetType = msgspec.UNSET
    limits: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class CronBody(msgspec.Struct, frozen=True):
    """A schedule as a request gives it."""

    cron: str


class SubdomainBody(msgspec.Struct, frozen=True):
    """Whether a script is to be reachable over HTTP."""

    enabled: bool = False
    previews_enabled: bool | None = None


class AccountSubdomainBody(msgspec.Struct, frozen=True):
    """The subdomain that an account's scripts would be under."""

    subdomain: str
