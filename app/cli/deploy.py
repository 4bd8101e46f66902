"""`millrace deploy FILE`: make a definition document, or the classes of a script, current versions of workflows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import msgspec
import yaml

from app.cli.api_options import api_command
from app.cli.client import Api, ApiError, Fault
from app.cli.output import Output
from app.cli.problems import CommandFailed
from app.cli.scripts import (
    NOTHING_DEPLOYED,
    is_script,
    secret_bindings,
    upload_parts,
    variable_bindings,
    workflow_classes,
)
from tenants.limits import WORKFLOW_NAME
from versions.names import slug

_SETTINGS = ("limits", "concurrency", "schedules", "default_retention")


class _PlainLoader(yaml.SafeLoader):
    """YAML as JSON has it: a date stays a text, and so do `yes`, `no`, `on` and `off`."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("timestamp", "bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)


@click.command("deploy")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", help="Name of the workflow in paths. Default: made from the document's or the class's name.")
@click.option("--script", help="Name of the script when FILE is one. Default: made from the file's name.")
@click.option("--class", "classes", multiple=True, help="Class to deploy when FILE is a script. Default: all in it.")
@click.option("--var", "variables", multiple=True, metavar="NAME=VALUE", help="A variable the script finds in its env.")
@click.option(
    "--secret-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Secrets for the script, as NAME=VALUE lines or a JSON object. Others it has stay.",
)
@api_command
def deploy(
    api: Api,
    out: Output,
    file: Path,
    name: str | None,
    script: str | None,
    classes: tuple[str, ...],
    variables: tuple[str, ...],
    secret_file: Path | None,
) -> None:
    """Deploy a definition document or a script as a new version.

    A document (.yaml, .yml, .json) is FILE itself, or stands under `definition` in it, beside any of limits,
    concurrency, schedules and default_retention. Deploying the same document again changes nothing.

    A script (.js, .mjs, .py) is uploaded, and each of its classes that extend WorkflowEntrypoint becomes the current
    version of a workflow. Variables are those given here, secrets the script has stay. For projects of several files
    and for TypeScript there is wrangler: docs/wrangler.md.
    """
    if is_script(file):
        bindings = [*variable_bindings(variables), *secret_bindings(secret_file)]
        _deploy_script(api, out, file, name, script, list(classes) or workflow_classes(file), bindings)
        return
    if script or classes or variables or secret_file:
        raise click.UsageError("--script, --class, --var and --secret-file are for scripts")
    body = request_body(read_document(file))
    try:
        _put(api, out, name or handle_of(body["definition"], file), body)
    except ApiError as error:
        raise _located(error, file) from None


def _deploy_script(
    api: Api,
    out: Output,
    file: Path,
    name: str | None,
    script: str | None,
    classes: list[str],
    bindings: list[dict[str, str]],
) -> None:
    if not classes:
        raise click.UsageError(f"no class in {file} extends WorkflowEntrypoint; name one with --class")
    if name and len(classes) > 1:
        raise click.UsageError(f"--name goes with one class, {file} has {', '.join(classes)}; choose with --class")
    script = script or slug(file.stem)
    metadata, module = upload_parts(file, bindings)
    with out.waiting(f"uploading {file}"):
        api.upload("workers", "scripts", script, metadata=metadata, modules=[module])
    for each in classes:
        _put(api, out, name or slug(each), {"script_name": script, "class_name": each})


def _put(api: Api, out: Output, name: str, body: dict[str, Any]) -> None:
    before = _current_version(api, name)
    result = api.put("workflows", name, body=body).result
    if out.as_json:
        out.json(result)
        return
    changed = "unchanged" if before == result["version_id"] else "deployed" if before is None else "updated"
    out.line(f"{changed} {result['name']}, version {result['version_id']}")
    out.note(f"start an instance: millrace instances trigger {result['name']} --params '{{}}'")


def read_document(file: Path) -> dict[str, Any]:
    """The object in a YAML or JSON file. Raises :class:`CommandFailed` saying where it is not one.

    Unlike the server, which reads what others send, this expands anchors: the file is the user's own.
    """
    try:
        text = file.read_text(encoding="utf-8")
        value = msgspec.json.decode(text) if file.suffix == ".json" else yaml.load(text, Loader=_PlainLoader)  # noqa: S506
    except UnicodeDecodeError:
        raise CommandFailed(f"{file} is not UTF-8 text", NOTHING_DEPLOYED) from None
    except msgspec.DecodeError as error:
        raise CommandFailed(f"{file} is not JSON: {error}", NOTHING_DEPLOYED) from None
    except (yaml.YAMLError, ValueError) as error:
        raise CommandFailed(f"{file} is not YAML: {_yaml_problem(error)}", NOTHING_DEPLOYED) from None
    except RecursionError:
        raise CommandFailed(f"{file} is nested too deeply", NOTHING_DEPLOYED) from None
    if not isinstance(value, dict):
        raise CommandFailed(f"{file} must hold an object, the definition document", NOTHING_DEPLOYED)
    if (key := _strange_key(value)) is not None:
        raise CommandFailed(f"{file} has a key that is no text: {key[0]}", "Put it in quotes.")
    return value


def _yaml_problem(error: Exception) -> str:
    """What is wrong, and where, in one line."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"{getattr(error, 'problem', None) or 'syntax error'} (line {mark.line + 1}, column {mark.column + 1})"
    return " ".join(str(error).split())


def _strange_key(value: Any) -> tuple[Any] | None:
    """A key JSON cannot have, if there is one inside `value`. What an alias repeats is looked at once."""
    stack, seen = [value], set[int]()
    while stack:
        inner = stack.pop()
        if id(inner) in seen:
            continue
        seen.add(id(inner))
        if isinstance(inner, dict):
            for key in inner:
                if not isinstance(key, str):
                    return (key,)
            stack.extend(inner.values())
        elif isinstance(inner, list):
            stack.extend(inner)
    return None


def request_body(content: dict[str, Any]) -> dict[str, Any]:
    """What to PUT for a file's content, be it a document or an object that has one under `definition`."""
    if "definition" not in content:
        return {"definition": content}
    if unknown := sorted(set(content) - {"definition", *_SETTINGS}):
        message = f"beside `definition` there may be {', '.join(_SETTINGS)}, not {unknown[0]}"
        raise CommandFailed(message, NOTHING_DEPLOYED)
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
    return ApiError(head.message, status=error.status, faults=(head, *placed), hint=NOTHING_DEPLOYED)


commands: list[click.Command] = [deploy]
