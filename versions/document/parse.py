"""From what a user sent to a compiled :class:`Document`, or to everything that is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from app.errors import Problem
from tenants.limits import (
    DOCUMENT_MILESTONES,
    DOCUMENT_NODES,
    DOCUMENT_SYNC_POINTS,
    DOCUMENT_TRIGGERS,
    EVENT_NAME,
    MAX_ATTEMPTS,
    MAX_PARALLEL,
    SCHEDULE_INTERVAL_MIN_MS,
)
from versions.cron import CronError, parse_cron
from versions.document.assembly import SyncDraft, assemble
from versions.document.input_schema import check_schema, validate_input
from versions.document.model import NO_INPUT, SPEC, Document, Limits, Milestone, SyncPoint, Trigger
from versions.document.nodes import Reference, Surroundings, read_defaults, read_node, references
from versions.document.reading import Path, Problems, Reader, check_json
from versions.document.scanning import check_condition, check_templates
from versions.document.types import UrlRule
from versions.durations import MAX_WAIT
from versions.errors import DocumentInvalid, InvalidInput

MAX_RETENTION_MS = 100 * 366 * 86_400_000
"""Sanity bound; what an account may really keep is its limit."""
_FLAT_INPUT_DIALECT = "001"


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """What came of a definition: the document (None when there are problems), the problems, the warnings."""

    document: Document | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def parse_document(
    definition: object,
    *,
    known_handlers: Collection[str] = (),
    check_url: UrlRule | None = None,
    default_name: str = "",
) -> Document:
    """The compiled document. Raises :class:`DocumentInvalid` with all problems found (up to 50)."""
    checked = check_document(definition, known_handlers=known_handlers, check_url=check_url, default_name=default_name)
    if checked.document is None:
        raise DocumentInvalid(checked.problems)
    return checked.document


def check_document(
    definition: object,
    *,
    known_handlers: Collection[str] = (),
    check_url: UrlRule | None = None,
    default_name: str = "",
    noun: str = "node",
    pointer: str = "",
    locate: Callable[[Path], Path] | None = None,
) -> Checked:
    """Compile `definition`, collecting problems instead of raising.

    `known_handlers`: names of registered action handlers. `check_url`: the egress rule for `call_api`.
    `default_name`: for a document without a name of its own. The rest serves faces whose users wrote another form:
    `noun` is what messages call a node ("task"), `pointer` where the form stands in the request body, `locate` turns
    a path in the document into one in that form.
    """
    problems = Problems(locate, pointer)
    if not check_json(definition, problems):
        return Checked(None, tuple(problems.errors), ())
    document = _read_document(problems, definition, known_handlers, check_url, default_name, noun)
    return Checked(None if problems else document, tuple(problems.errors), tuple(problems.warnings))


def _read_document(
    problems: Problems,
    definition: object,
    handlers: Collection[str],
    check_url: UrlRule | None,
    default_name: str,
    noun: str,
) -> Document | None:
    reader = Reader(problems, definition, ())
    if problems:
        return None
    if reader.required("spec") and reader.take("spec") != SPEC:
        reader.wrong("spec", f'must be "{SPEC}"')
    defaults = read_defaults(problems, reader.take("defaults"))
    limits = _read_limits(problems, reader.take("limits"))
    around = Surroundings(problems, handlers, check_url, defaults, limits.max_parallel)
    drafts = [read_node(around, value, at) for at, value in enumerate(reader.array("nodes", DOCUMENT_NODES))]
    syncs = [
        _read_sync(problems, value, at) for at, value in enumerate(reader.array("sync_points", DOCUMENT_SYNC_POINTS))
    ]
    milestones = [
        _read_milestone(problems, value, at) for at, value in enumerate(reader.array("milestones", DOCUMENT_MILESTONES))
    ]
    dialect = _read_source(problems, reader.take("source"))
    document = Document(
        name=reader.text("name", default_name, least=1),
        description=reader.text("description", most=4096),
        input_schema=reader.take("input_schema"),
        vars=reader.object("vars") or {},
        outputs=reader.object("outputs"),
        defaults=defaults,
        limits=limits,
        rollback=reader.choice("rollback", "auto", ("auto", "always", "never")),
        triggers=_read_triggers(problems, reader),
        idempotent=reader.flag("idempotent", False),
        retention=reader.duration("retention", 0, MAX_RETENTION_MS),
        dialect=dialect,
        flat_input=dialect == _FLAT_INPUT_DIALECT,
    )
    if document.input_schema is not None and check_schema(problems, document.input_schema, ("input_schema",)):
        _check_scheduled_inputs(problems, document)
    mentions = check_templates(problems, document.outputs, ("outputs",))
    reader.done()
    return assemble(
        problems,
        document,
        [draft for draft in drafts if draft is not None],
        [sync for sync in syncs if sync is not None],
        [milestone for milestone in milestones if milestone is not None],
        mentions,
        noun,
    )


def _read_limits(problems: Problems, value: Any) -> Limits:
    if value is None:
        return Limits()
    reader = Reader(problems, value, ("limits",))
    standard = Limits()
    limits = Limits(
        timeout=reader.duration("timeout", 1, MAX_WAIT),
        max_parallel=reader.integer("max_parallel", standard.max_parallel, 1, MAX_PARALLEL),
        max_steps=reader.integer("max_steps", standard.max_steps, 1, MAX_ATTEMPTS),
    )
    reader.done()
    return limits


def _read_sync(problems: Problems, value: Any, position: int) -> SyncDraft | None:
    reader = Reader(problems, value, ("sync_points", position))
    id_ = reader.identifier()
    required = _named(problems, reader, "required", "a node")
    point = SyncPoint(
        id=id_ or "",
        name=reader.text("name", "", least=1) or id_ or "",
        position=position,
        description=reader.text("description", most=4096),
        timeout=reader.duration("timeout", 1, MAX_WAIT),
        on_timeout=reader.choice("on_timeout", "fail", ("fail", "continue")),
    )
    reader.done()
    return SyncDraft(point, reader.path, required) if id_ else None


def _named(problems: Problems, reader: Reader, key: str, what: str) -> list[Reference]:
    """A list of references that must not be empty."""
    if not reader.required(key):
        return []
    if reader.value[key] == []:
        reader.wrong(key, f"must name {what}")
    return references(problems, reader.array(key), reader.at(key))


def _read_milestone(problems: Problems, value: Any, position: int) -> tuple[Milestone, Path, list[Reference]] | None:
    reader = Reader(problems, value, ("milestones", position))
    id_ = reader.identifier()
    after = _named(problems, reader, "after", "a node or sync point")
    milestone = Milestone(
        id=id_ or "",
        name=reader.text("name", "", least=1) or id_ or "",
        description=reader.text("description", most=4096),
    )
    reader.done()
    return (milestone, reader.path, after) if id_ else None


def _read_source(problems: Problems, value: Any) -> str | None:
    """The dialect the document was compiled from. The verbatim original is kept by whoever stores the version."""
    if value is None:
        return None
    reader = Reader(problems, value, ("source",))
    dialect = reader.text("dialect", least=1, most=64) if reader.required("dialect") else None
    reader.take("original")
    reader.done()
    return dialect


def _read_triggers(problems: Problems, reader: Reader) -> tuple[Trigger, ...]:
    values = reader.array("triggers", DOCUMENT_TRIGGERS)
    return tuple(_read_trigger(problems, value, position) for position, value in enumerate(values))


def _read_trigger(problems: Problems, value: Any, position: int) -> Trigger:
    reader = Reader(problems, value, ("triggers", position))
    kind = reader.choice("type", "manual", ("manual", "webhook", "schedule", "event"))
    reader.required("type")
    if kind in ("manual", "schedule") and reader.value.get("condition") is not None:
        reader.wrong("condition", "is for triggers of type webhook and event")
    trigger = Trigger(
        type=kind,
        name=reader.text("name"),
        condition=reader.take("condition"),
        config=reader.object("config") or {},
    )
    if kind == "schedule":
        trigger = _read_schedule(reader, trigger)
    elif kind == "event" and reader.required("event"):
        event = reader.text("event", least=1, most=100)
        if event and not EVENT_NAME.holds(event):
            reader.wrong("event", f"must be {EVENT_NAME.rule}")
        trigger = msgspec.structs.replace(trigger, event=event)
    if trigger.condition is not None:
        check_condition(problems, trigger.condition, reader.at("condition"))
    reader.done()
    return trigger


def _read_schedule(reader: Reader, trigger: Trigger) -> Trigger:
    cron = reader.text("cron", least=1, most=256) or None
    interval = reader.duration("interval", SCHEDULE_INTERVAL_MIN_MS, MAX_WAIT)
    given = [key for key in ("cron", "interval") if reader.value.get(key) is not None]
    if not given:
        reader.wrong("cron", "or interval is required")
    elif len(given) > 1:
        reader.wrong("cron", "must not be given together with interval")
    if cron is not None:
        try:
            parse_cron(cron)
        except CronError as error:
            reader.wrong("cron", f"is not valid: {error}")
    timezone = reader.text("timezone", "UTC", least=1, most=64)
    if not is_timezone(timezone):
        reader.wrong("timezone", "must be the name of an IANA time zone, like Europe/Berlin")
    return msgspec.structs.replace(
        trigger,
        cron=cron,
        interval=interval,
        concurrency=reader.choice("concurrency", "forbid", ("forbid", "allow")),
        max_runs=None if reader.take("max_runs") is None else reader.integer("max_runs", 1, 1, 2**31 - 1),
        timezone=timezone,
        input=reader.take("input"),
    )


def _check_scheduled_inputs(problems: Problems, document: Document) -> None:
    """What schedules will create must pass the schema like anything else; nobody would see it refused."""
    for position, trigger in enumerate(document.triggers):
        if trigger.type != "schedule":
            continue
        try:
            validate_input(document, NO_INPUT if trigger.input is None else trigger.input)
        except InvalidInput as error:
            rule = "is required, and must" if trigger.input is None else "must"
            path = ("triggers", position, "input")
            problems.add("INVALID_FIELD", path, f"{rule} match input_schema: {error.message}")


def is_timezone(name: str) -> bool:
    """Whether `name` is an IANA time zone."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, not a relative path, a directory of the database
        return False
    return True
