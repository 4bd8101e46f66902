"""How versions and deployments of scripts are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from tenants.clock import iso
from tenants.ids import account_hex
from versions.deployments.schemas import DeploymentRow, UploadRow
from versions.uploads import Metadata, kept_annotations

ENVIRONMENT = "production"
"""The one environment a script has."""
NOT_SERVED = "scripts answer no HTTP requests here: workers.dev stays off"


def listed_version(row: UploadRow) -> dict[str, Any]:
    """A version in lists."""
    created = iso(row.created_at)
    return {
        "id": row.id,
        "number": row.number,
        "metadata": {
            "created_on": created,
            "modified_on": created,
            "source": row.source,
            "author_id": "",
            "author_email": row.author or "",
            "hasPreview": False,
        },
        "annotations": kept_annotations(msgspec.json.decode(row.metadata, type=Metadata).annotations),
    }


def shown_version(row: UploadRow) -> dict[str, Any]:
    """A version with what it consists of; secrets by name and type only."""
    metadata = msgspec.json.decode(row.metadata, type=Metadata)
    return listed_version(row) | {
        "startup_time_ms": 0,  # nothing runs at upload
        "resources": {
            "script": {
                "etag": row.etag,
                "handlers": [],
                "named_handlers": [],
                "last_deployed_from": row.source,
            },
            "script_runtime": {
                "compatibility_date": metadata.compatibility_date,
                "compatibility_flags": metadata.compatibility_flags,
                "usage_model": "standard",
                "limits": _limits(metadata),
            },
            "bindings": msgspec.json.decode(row.bindings),
        },
    }


def shown_deployment(row: DeploymentRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "created_on": iso(row.created_at),
        "source": row.source,
        "strategy": "percentage",
        "author_email": row.author or "",
        "annotations": msgspec.json.decode(row.annotations),
        "versions": [{"version_id": row.script_id, "percentage": 100}],
    }


def shown_secrets(row: UploadRow) -> list[dict[str, str]]:
    """Secrets by name; their values are never shown."""
    bindings: list[dict[str, Any]] = msgspec.json.decode(row.bindings)
    return [
        {"name": binding["name"], "type": binding["type"]}
        for binding in sorted(bindings, key=lambda binding: binding["name"])
        if binding["type"] == "secret_text"
    ]


def shown_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for the script whichever version is deployed."""
    return {
        "logpush": bool(settings.get("logpush")),
        "observability": settings.get("observability") or {"enabled": False},
        "tags": settings.get("tags") or [],
        "tail_consumers": settings.get("tail_consumers") or [],
    }


def version_settings(row: UploadRow, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the deployed version and the script are set to."""
    metadata = msgspec.json.decode(row.metadata, type=Metadata)
    return shown_settings(settings) | {
        "bindings": msgspec.json.decode(row.bindings),
        "compatibility_date": metadata.compatibility_date,
        "compatibility_flags": metadata.compatibility_flags,
        "limits": _limits(metadata),
        "placement": {},
        "usage_model": "standard",
    }


def shown_service(row: UploadRow, first: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A script as a service with one environment. `first`: when it was uploaded first."""
    modified = iso(row.created_at)
    script = {
        "id": row.name,
        "etag": row.etag,
        "tag": row.id.hex,
        "tags": settings.get("tags") or [],
        "created_on": first,
        "modified_on": modified,
        "last_deployed_from": row.source,
        "usage_model": "standard",
        "handlers": [],
    }
    environment = {"environment": ENVIRONMENT, "created_on": first, "modified_on": modified, "script": script}
    return {
        "id": row.name,
        "created_on": first,
        "modified_on": modified,
        "default_environment": environment,
        "environments": [{"environment": ENVIRONMENT, "created_on": first, "modified_on": modified}],
    }


def shown_worker(row: UploadRow, first: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A script as the newer resource `workers`."""
    return shown_settings(settings) | {
        "id": row.id.hex,
        "name": row.name,
        "created_on": first,
        "updated_on": iso(row.created_at),
        "subdomain": {"enabled": False, "previews_enabled": False},
        "references": {},
    }


def subdomain(account_id: UUID) -> str:
    """The account's subdomain: it never changes, and nothing is served there."""
    return f"millrace-{account_hex(account_id)[:12]}"


def _limits(metadata: Metadata) -> dict[str, int]:
    return {key: value for key, value in msgspec.structs.asdict(metadata.limits).items() if value is not None}
