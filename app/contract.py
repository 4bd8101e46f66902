"""`openapi.yaml`, the contract of all API faces, served as it is and as JSON. No credentials needed."""

from __future__ import annotations

import functools
import importlib.resources
from pathlib import Path
from typing import Any

import msgspec
import yaml
from litestar import Response, get
from litestar.di import NamedDependency

from app.settings import Settings

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def contract_text() -> str:
    """The contract: packaged inside `app`, or at the root of a source tree."""
    packaged = importlib.resources.files("app") / "openapi.yaml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parent.parent / "openapi.yaml").read_text(encoding="utf-8")


@functools.cache
def contract() -> dict[str, Any]:
    """The contract, parsed. Do not change it: it is shared."""
    return yaml.load(contract_text(), Loader=_LOADER)  # noqa: S506  (a safe loader)


@functools.cache
def _for_address(public_url: str) -> tuple[bytes, bytes]:
    """The contract as YAML and as JSON, with `public_url` as its server when there is one."""
    if not public_url:
        return contract_text().encode(), msgspec.json.encode(contract())
    document = {**contract(), "servers": [{"url": f"{public_url.rstrip('/')}/client/v4"}]}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode(), msgspec.json.encode(document)


@get("/openapi.yaml", include_in_schema=False, sync_to_thread=True)
def openapi_yaml(settings: NamedDependency[Settings]) -> Response[bytes]:
    """The contract as YAML."""
    return Response(_for_address(settings.public_url)[0], media_type="application/yaml")


@get("/openapi.json", include_in_schema=False, sync_to_thread=True)
def openapi_json(settings: NamedDependency[Settings]) -> Response[bytes]:
    """The contract as JSON."""
    return Response(_for_address(settings.public_url)[1], media_type="application/json")


route_handlers = [openapi_yaml, openapi_json]
