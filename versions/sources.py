"""What a PUT deploys, ready to be stored: a compiled document, or a class of a script."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from app.errors import InvalidRequest, Problem
from tenants.limits import DOCUMENT_PROBLEMS
from versions.compilation import PYTHON, RUNTIMES, CompiledScript
from versions.document import Document, check_document, document_hash, encode_document, validate_input
from versions.document.model import NO_INPUT
from versions.document.types import UrlRule
from versions.errors import DocumentInvalid, InvalidInput, ScriptInvalid
from versions.forms import FORMS, Form, Installation, Untyped
from versions.graph import CLASS_NAME, document_graph
from versions.javascript.graph import class_graph as javascript_graph
from versions.python.graph import class_graph as python_graph
from versions.schedules import of_document
from versions.schemas import ScheduleRow, ScriptRow
from versions.uploads import Module, find_module

RUNTIME_DOCUMENT = 0
"""Number of the document runtime, as `instances.runtimes.protocol` has it."""
LANGUAGE_DOCUMENT = "document"
DEFAULT_DIALECT = "003"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The code of a version. `graph`, `source` and `original` are JSON text; retention is in milliseconds."""

    language: str
    runtime: int
    class_name: str
    script_name: str
    script_id: UUID | None = None
    workspace_id: UUID | None = None
    """The script's, where only workflows of that workspace run it; None: those of any do."""
    source: str
    source_hash: str
    graph: str | None
    display_name: str
    description: str = ""
    dialect: str = DEFAULT_DIALECT
    original: str | None = None
    retention_ms: int | None = None
    schedules: list[ScheduleRow] = []
    events: tuple[str, ...] = ()
    """Published events that start it."""
    input_needed: str = ""
    """Why an instance without input breaks the code's own rules; empty: it does not."""
    warnings: tuple[Problem, ...] = ()


def document_source(
    definition: Any,
    handle: str,
    now: datetime,
    *,
    known_handlers: Collection[str],
    check_url: UrlRule | None,
    dialect: str = DEFAULT_DIALECT,
    original: Any = None,
    noun: str = "node",
    pointer: str = "",
    locate: Callable[..., Any] | None = None,
) -> Source:
    """Compile a definition. Raises :class:`DocumentInvalid` with every problem.

    `dialect` and `original` say what the user wrote when the definition was compiled from it; `noun`, `pointer` and
    `locate` are :func:`versions.document.check_document`'s.
    """
    checked = check_document(
        definition,
        known_handlers=known_handlers,
        check_url=check_url,
        default_name=handle,
        noun=noun,
        pointer=pointer,
        locate=locate,
    )
    if checked.document is None:
        raise DocumentInvalid(checked.problems)
    said = _said(definition) if original is None else original
    claimed = checked.document.dialect or dialect
    # What it says it was made from was not read: only `native_source` makes versions that are shown in their own form.
    dialect = DEFAULT_DIALECT if claimed in FORMS else claimed
    return _source_of(checked.document, checked.warnings, handle, now, dialect, said)


def native_source(
    form: Form,
    body: Mapping[str, Any],
    handle: str,
    now: datetime,
    *,
    known_handlers: Collection[str],
    check_url: UrlRule | None,
    untyped: Untyped = "noop",
) -> Source:
    """Compile a body of a native form. Raises :class:`DocumentInvalid` with every problem, located in `body`.

    Two bodies that are shown alike are the same version, whatever their spelling; `body` is kept as it is.
    """
    body = form.part(body)
    translated = form.translate(body, Installation(known_handlers, untyped))
    if translated.definition is None:
        raise DocumentInvalid(translated.problems)
    checked = check_document(
        translated.definition,
        known_handlers=known_handlers,
        check_url=check_url,
        noun=form.noun,
        locate=translated.locate,
    )
    problems = (*translated.problems, *checked.problems)[:DOCUMENT_PROBLEMS]
    if problems or checked.document is None:
        raise DocumentInvalid(problems)
    source = _source_of(checked.document, checked.warnings, handle, now, form.dialect, body)
    shown = msgspec.json.encode([source.source_hash, form.show(checked.document, body)], order="sorted")
    return msgspec.structs.replace(source, source_hash=hashlib.sha256(shown).hexdigest())


def _source_of(
    document: Document, warnings: tuple[Problem, ...], handle: str, now: datetime, dialect: str, original: Any
) -> Source:
    return Source(
        language=LANGUAGE_DOCUMENT,
        runtime=RUNTIME_DOCUMENT,
        class_name=CLASS_NAME,
        script_name=handle,
        source=encode_document(document),
        source_hash=document_hash(document),
        graph=_text(document_graph(document)),
        display_name=document.name,
        description=document.description,
        dialect=dialect,
        original=_text(original),
        retention_ms=document.retention,
        schedules=of_document(document, now),
        events=tuple(dict.fromkeys(one.event for one in document.triggers if one.type == "event" and one.event)),
        input_needed=_why_input_is_needed(document),
        warnings=warnings,
    )


def _said(definition: dict[str, Any]) -> Any:
    """What its author wrote: the definition, unless it was made from another form and brings that along."""
    source = definition.get("source") or {}
    return source.get("original") or definition


def _why_input_is_needed(document: Document) -> str:
    """Why an instance without input breaks the document's `input_schema`; empty when it does not."""
    try:
        validate_input(document, NO_INPUT)
    except InvalidInput as error:
        return error.message
    return ""


def script_source(
    script: ScriptRow, compiled: CompiledScript, modules: Sequence[Module], class_name: str, handle: str
) -> Source:
    """Make a class of an uploaded script the code of a workflow. Raises :class:`ScriptInvalid`."""
    if compiled.exports.get(class_name) != "workflow":
        found = ", ".join(sorted(name for name, kind in compiled.exports.items() if kind == "workflow")) or "none"
        rule = f"script {script.name!r} exports no class {class_name!r} that extends WorkflowEntrypoint"
        raise ScriptInvalid(f"{rule}; those it exports: {found}")
    return Source(
        language=compiled.language,
        runtime=RUNTIMES[compiled.language],
        class_name=class_name,
        script_name=script.name,
        script_id=script.id,
        workspace_id=script.workspace_id,
        source="",
        source_hash=script.etag,
        graph=script_graph(compiled, modules, class_name),
        display_name=handle,
    )


def script_graph(compiled: CompiledScript, modules: Sequence[Module], class_name: str) -> str | None:
    """The graph of a class of the main module as JSON text, None when it cannot be seen from the text.

    Raises :class:`ScriptInvalid` when the class calls no step.
    """
    main = find_module(modules, compiled.main)
    if main is None:
        return None
    if compiled.language == PYTHON:
        code = [(module.name, module.text) for module in compiled.code]
        found = python_graph(code, compiled.main, class_name)
    else:
        text = compiled.stripped.get(compiled.main) or main.data.decode()
        found = javascript_graph(text, class_name)
    if found is None:
        return None
    if not found.calls_steps:
        raise ScriptInvalid(f"{main.name}: class {class_name!r} calls no step: a workflow must have at least one")
    return _text(found.graph)


def require_class(class_name: str | None, script_name: str | None) -> tuple[str, str]:
    """Both names, which a PUT without a definition must have. Raises :class:`InvalidRequest`."""
    for field, value in (("class_name", class_name), ("script_name", script_name)):
        if value is None:
            raise InvalidRequest(
                f"{field} is required (or definition, for a workflow that is a document)", pointer=f"/{field}"
            )
    return class_name or "", script_name or ""


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
