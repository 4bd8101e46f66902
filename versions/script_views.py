"""How an uploaded script is shown: its entry in lists, the answer to an upload, its content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from app.errors import InvalidRequest
from tenants.clock import iso
from versions.schemas import ScriptRow, ShownScript, UploadedScript
from versions.uploads import SOURCE_MAP, Metadata, Module, find_module


def shown_script(row: ScriptRow) -> ShownScript:
    return ShownScript(**_shown(row))


def uploaded_script(row: ScriptRow) -> UploadedScript:
    """The deployment's id is the upload's: uploads are deployed at once."""
    return UploadedScript(
        **_shown(row),
        startup_time_ms=0,  # nothing runs at upload
        deployment_id=row.id.hex,
        pipeline_hash=None,
        mutable_pipeline_id=None,
    )


def _shown(row: ScriptRow) -> dict[str, Any]:
    metadata = msgspec.json.decode(row.metadata, type=Metadata)
    settings: dict[str, Any] = msgspec.json.decode(row.settings or b"{}")
    return {
        "id": row.name,
        "created_on": iso(row.first_created_at),
        "modified_on": iso(row.created_at),
        "etag": row.etag,
        "tag": row.id.hex,
        "tags": settings.get("tags") or [],
        "handlers": [],
        "named_handlers": [],
        "has_modules": metadata.main_module is not None,
        "has_assets": False,
        "compatibility_date": metadata.compatibility_date,
        "compatibility_flags": metadata.compatibility_flags,
        "logpush": bool(settings.get("logpush")),
        "usage_model": "standard",
        "last_deployed_from": row.source,
    }


def tagged(scripts: list[ShownScript], wanted: str | None) -> list[ShownScript]:
    """Scripts with every tag of `<tag>:yes` and none of `<tag>:no` in the comma-separated `wanted`.

    Raises :class:`InvalidRequest`.
    """
    if not wanted:
        return scripts
    rules: list[tuple[str, bool]] = []
    for rule in wanted.split(","):
        tag, colon, verdict = rule.strip().rpartition(":")
        if not colon or verdict not in ("yes", "no"):
            raise InvalidRequest("tags must be a list of <tag>:yes or <tag>:no, separated by commas")
        rules.append((tag, verdict == "yes"))
    return [script for script in scripts if all((tag in script.tags) is present for tag, present in rules)]


def script_content(row: ScriptRow, modules: Sequence[Module]) -> tuple[bytes, str]:
    """A script as it was uploaded, and its media type: the module when there is one, a multipart body of several."""
    code = [module for module in modules if module.type != SOURCE_MAP]
    if len(code) == 1:
        return code[0].data, _media_type(code[0])
    metadata = msgspec.json.decode(row.metadata, type=Metadata)
    main = find_module(code, metadata.main_module or metadata.body_part or "")
    ordered = [module for module in code if module is main] + [module for module in code if module is not main]
    boundary = hashlib.sha256(row.id.bytes + row.etag.encode()).hexdigest()[:32]
    parts = [_part(module, boundary) for module in ordered]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), f"multipart/form-data; boundary={boundary}"


def _part(module: Module, boundary: str) -> bytes:
    name = module.name.replace('"', "%22")
    head = (
        f"--{boundary}\r\n"
        f'Content-Disposition: form-data; name="{name}"; filename="{name}"\r\n'
        f"Content-Type: {_media_type(module)}\r\n\r\n"
    )
    return head.encode() + module.data + b"\r\n"


# A stranger's upload must not come back as something a browser runs in this origin.
_SERVED = frozenset(
    {
        "application/javascript",
        "application/javascript+module",
        "application/wasm",
        "text/javascript",
        "text/javascript+module",
        "text/plain",
        "text/x-python",
        "text/x-python-requirement",
    }
)


def _media_type(module: Module) -> str:
    return module.type if module.type in _SERVED else "application/octet-stream"
