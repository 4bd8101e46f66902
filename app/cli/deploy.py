"""`millrace deploy FILE`: make a definition document the current version of a workflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from app.cli.api_options import api_command
from app.cli.client import Api, ApiError, Fault
from app.cli.output import Output
from tenants.limits import WORKFLOW_NAME
from versions.names import slug

_SETTINGS = ("limits", "concurrency", "schedules", "default_retention")


class _PlainLoader(yaml.SafeLoader):
    """YAML as JSON has it: a date stays a text."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@click.command("deploy")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Name of the workflow in paths. Default: made from the document's name.")
@api_command
def deploy(api: Api, out: Output, file: Path, name: str | None) -> None:
    """Deploy the definition document in FILE (.yaml, .yml or .json) as a new version.

    FILE holds the document itself, or an object with `definition` and, beside it, any of limits, concurrency, schedules
    and default_retention. Deploying the same again changes nothing.
    """
    body = request_body(read_document(file))
    name = name or handle_of(body["definition"], file)
    before = _current_version(api, name)
    try:
        result = api.put("workflows", name, body=body).result
    except ApiError as error:
        raise _located(error, file) from None
    if out.as_json:
        out.json(result)
        return
    changed = "unchanged" if before == result["version_id"] else "deployed" if before is None else "updated"
    out.line(f"{changed} {result['name']}, version {result['version_id']}")
    out.note(f"start an instance: millrace instances trigger {result['name']} --params '{{}}'")


def read_document(file: Path) -> dict[str, Any]:
    """The object in a YAML or JSON file. Raises :class:`click.ClickException` saying where it is not one."""
    try:
        text = file.read_text(encoding="utf-8")
        value = msgspec.json.decode(text) if file.suffix == ".json" else yaml.load(text, Loader=_PlainLoader)  # noqa: S506
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8 text") from None
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{file} is not JSON: {error}") from None
    except yaml.YAMLError as error:
        raise click.ClickException(f"{file} is not YAML: {error}") from None
    if not isinstance(value, dict):
        raise click.ClickException(f"{file} must hold an object, the definition document")
    return value


def request_body(content: dict[str, Any]) -> dict[str, Any]:
    """What to PUT for a file's content, be it a document or an object that has one under `definition`."""
    if "definition" not in content:
        return {"definition": content}
    if unknown := sorted(set(content) - {"definition", *_SETTINGS}):
        raise click.ClickException(f"beside `definition` there may be {', '.join(_SETTINGS)}, not {unknown[0]}")
    return content


def handle_of(definition: Any, file: Path) -> str:
    """The name in paths for a document: its name (or its file's), in lower case, with `-` for what is not allowed."""
    title = definition.get("name") if isinstance(definition, dict) else None
    handle = slug(title if isinstance(title, str) else file.stem)[: WORKFLOW_NAME.maximum].strip("-")
    if not handle:
        raise click.UsageError("the document's name has no letters or digits to make a name from; give one with --name")
    return handle


def _current_version(api: Api, name: str) -> str | None:
    try:
        versions = api.get("workflows", name, "versions", per_page=1).result
    except ApiError as error:
        if error.status == 404:
            return None
        raise
    return versions[0]["id"] if versions else None


def _located(error: ApiError, file: Path) -> ApiError:
    """The same refusal with every problem's place in the file."""
    located = [fault for fault in error.faults if fault.pointer is not None]
    if not located:
        return error
    placed = tuple(
        Fault(fault.code, f"{(fault.pointer or '').removeprefix('/definition') or '/'}: {fault.message}")
        for fault in located
    )
    head = Fault(error.code, f"{file} has {len(placed)} problem{'s' if len(placed) > 1 else ''}")
    return ApiError(head.message, status=error.status, faults=(head, *placed), hint="Nothing was deployed.")


commands: list[click.Command] = [deploy]
