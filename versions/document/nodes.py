"""Reading one node: its fields, its config by type, its retries and its compensation.

What a node says about other nodes (edges, gates, `skip_to`, mentions in expressions) is collected here and resolved
by `versions.document.links` once all nodes are known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import msgspec

from tenants.limits import FOR_EACH_ITEMS, MAX_PARALLEL, NODE_CONFIG_BYTES, NODE_META_BYTES, RETRIES
from versions.document.model import Compensate, Defaults, Node, Retries
from versions.document.reading import Path, Problems, Reader, json_size
from versions.document.scanning import Mention, check_condition, check_templates
from versions.document.types import NODE_TYPES, REGISTERED, ConfigReader, NodeType, UrlRule, condition_of, node_type
from versions.durations import MAX_ATTEMPT, MAX_WAIT, SECOND
from versions.expressions import ExpressionSyntaxError, compile_template

_BACKOFFS = ("constant", "linear", "exponential")
_SHORTHAND = Retries(limit=3, delay=SECOND, backoff="exponential")
"""What `on_error: retry` stands for."""

Reference = tuple[str, Path]
"""An id or name as the user wrote it, and where."""


@dataclasses.dataclass(slots=True)
class Draft:
    """A node whose references are not resolved yet."""

    node: Node
    path: Path
    depends_on: list[Reference]
    skip_to: Reference | None = None
    then: list[Reference] = dataclasses.field(default_factory=list)
    otherwise: list[Reference] = dataclasses.field(default_factory=list)
    mentions: list[Mention] = dataclasses.field(default_factory=list)
    """By what runs before or with the node: they should name ancestors."""
    late_mentions: list[Mention] = dataclasses.field(default_factory=list)
    """By its compensation: any node may have run by then."""


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What reading a node needs to know of the document and the installation."""

    problems: Problems
    handlers: Collection[str] = ()
    check_url: UrlRule | None = None
    defaults: Defaults = dataclasses.field(default_factory=Defaults)
    max_parallel: int = 32


def references(problems: Problems, values: list[Any], path: Path) -> list[Reference]:
    """The texts among `values`; anything else is noted."""
    found: list[Reference] = []
    for position, value in enumerate(values):
        if isinstance(value, str) and value:
            found.append((value, (*path, position)))
        else:
            problems.add("INVALID_FIELD", (*path, position), "must be the id of a node")
    return found


def read_node(around: Surroundings, value: Any, position: int) -> Draft | None:
    """The node at `position`; None when it has no usable id."""
    reader = Reader(around.problems, value, ("nodes", position))
    id_ = reader.identifier()
    type_name, kind = _read_type(around, reader)
    for_each = reader.take("for_each")
    if for_each is not None and not kind.repeats:
        reader.wrong("for_each", f"cannot be used with type {type_name}")
    config, checked_as = _config_of(reader, kind)
    async_ = _read_async(reader, type_name, kind)
    waits = kind.waits or async_
    on_error, skip_to = _read_on_error(reader, around.defaults)
    retries = _read_retries(reader)
    retries = retries or (_SHORTHAND if on_error == "retry" else None)
    retries = retries or around.defaults.retries or Retries()
    timeout = reader.duration("timeout", 1, MAX_WAIT if waits else MAX_ATTEMPT)
    if "timeout" not in reader and not waits:
        timeout = around.defaults.timeout
    draft = Draft(
        node=Node(
            id=id_ or "",
            name=reader.text("name", "", least=1) or id_ or "",
            position=position,
            type=type_name,
            description=reader.text("description", most=4096),
            config=config,
            handler=_handler_of(type_name, config),
            join=reader.choice("join", "all", ("all", "any", "all_done")),
            when=reader.take("when"),
            on_error="stop" if on_error == "retry" else on_error,
            retries=retries,
            timeout=timeout,
            total_timeout=reader.duration("total_timeout", 1, MAX_WAIT),
            async_=async_,
            compensate=_read_compensate(around, reader, retries),
            outputs=reader.object("outputs"),
            save_output=reader.flag("save_output", True),
            resources=_read_resources(reader),
            for_each=for_each,
            parallel=around.max_parallel,
            meta=_sized(reader, "meta", NODE_META_BYTES),
        ),
        path=reader.path,
        depends_on=references(around.problems, reader.array("depends_on"), reader.at("depends_on")),
        skip_to=(skip_to, (*reader.at("on_error"), "skip_to")) if skip_to else None,
    )
    _read_config(around, draft, checked_as)
    _scan(around.problems, draft, reader, kind)
    reader.done()
    return draft if id_ else None


def _read_type(around: Surroundings, reader: Reader) -> tuple[str, NodeType]:
    name = reader.text("type", "noop", least=1)
    if name not in NODE_TYPES and name not in around.handlers:
        known = ", ".join([*NODE_TYPES, *sorted(around.handlers)])
        reader.wrong("type", f'"{name}" is not a node type; known are: {known}', "UNKNOWN_TYPE")
    return name, node_type(name)


def _config_of(reader: Reader, kind: NodeType) -> tuple[dict[str, Any], NodeType]:
    """The config, and the type that checks it: none does if it is no object, of which enough has been said then."""
    config = reader.object("config")
    malformed = config is None and reader.value.get("config") is not None
    return config or {}, REGISTERED if malformed else kind


def _read_async(reader: Reader, type_name: str, kind: NodeType) -> bool:
    async_ = reader.flag("async", False)
    if async_ and not kind.answered:
        reader.wrong("async", f"cannot be used with type {type_name}, which nothing from outside can complete")
    return async_ or type_name == "external"


def _handler_of(type_name: str, config: dict[str, Any]) -> str | None:
    if type_name == "handler":
        name = config.get("handler")
        return name if isinstance(name, str) else None
    return None if type_name in NODE_TYPES else type_name


def _read_on_error(reader: Reader, defaults: Defaults) -> tuple[Any, str | None]:
    value = reader.take("on_error")
    if value is None:
        return defaults.on_error, None
    if isinstance(value, dict):
        target = value.get("skip_to")
        if set(value) == {"skip_to"} and isinstance(target, str) and target:
            return "skip_to", target
        reader.wrong("on_error", 'must be {"skip_to": id} when it is an object')
        return "stop", None
    return reader.choice("on_error", "stop", ("stop", "continue", "retry", "skip")), None


def read_defaults(problems: Problems, value: Any) -> Defaults:
    """The document's `defaults`."""
    if value is None:
        return Defaults()
    reader = Reader(problems, value, ("defaults",))
    on_error = reader.choice("on_error", "stop", ("stop", "continue", "retry", "skip"))
    retries = _read_retries(reader) or (_SHORTHAND if on_error == "retry" else None)
    defaults = Defaults(
        on_error="stop" if on_error == "retry" else on_error,
        retries=retries,
        timeout=reader.duration("timeout", 1, MAX_ATTEMPT),
    )
    reader.done()
    return defaults


def _read_retries(reader: Reader) -> Retries | None:
    """The object's `retries`; None when it says nothing. An explicit null means no retries."""
    value = reader.take("retries")
    if value is None:
        return Retries() if "retries" in reader else None
    inner = Reader(reader.problems, value, reader.at("retries"))
    delay = inner.duration("delay", 0, MAX_WAIT)
    longest = inner.duration("max_delay", 0, MAX_WAIT)
    standard = Retries()
    retries = Retries(
        limit=inner.integer("limit", 0, 0, RETRIES),
        delay=standard.delay if delay is None else delay,
        backoff=inner.choice("backoff", standard.backoff, _BACKOFFS),
        multiplier=inner.number("multiplier", standard.multiplier, 1, 100),
        max_delay=max(standard.max_delay, delay or 0) if longest is None else longest,
        jitter=inner.number("jitter", 0.0, 0, 1),
        when=inner.take("when"),
    )
    if retries.when is not None:
        check_condition(reader.problems, retries.when, inner.at("when"))
    inner.done()
    return retries


def _read_compensate(around: Surroundings, reader: Reader, node_retries: Retries) -> Compensate | None:
    value = reader.take("compensate")
    if value is None:
        return None
    inner = Reader(around.problems, value, reader.at("compensate"))
    type_name, kind = _read_type(around, inner)
    if not kind.undoes:
        known = ", ".join(name for name, known_type in NODE_TYPES.items() if known_type.undoes)
        inner.wrong("type", f'"{type_name}" cannot undo anything; use one of {known} or a registered handler')
    config, checked_as = _config_of(inner, kind)
    async_ = _read_async(inner, type_name, kind)
    compensate = Compensate(
        type=type_name,
        config=config,
        handler=_handler_of(type_name, config),
        input=inner.take("input"),
        retries=_read_retries(inner) or node_retries,
        timeout=inner.duration("timeout", 1, MAX_WAIT if kind.waits or async_ else MAX_ATTEMPT),
        async_=async_,
    )
    _check_config(around, config, inner.at("config"), checked_as, repeated=False)
    inner.done()
    return compensate


def _read_config(around: Surroundings, draft: Draft, kind: NodeType) -> None:
    """Check the config and take out of it what concerns other nodes."""
    node, path = draft.node, (*draft.path, "config")
    reader = _check_config(around, node.config, path, kind, repeated=node.for_each is not None)
    if node.for_each is not None and node.config.get("parallel") is not None:
        parallel = reader.integer("parallel", around.max_parallel, 1, MAX_PARALLEL)
        draft.node = msgspec.structs.replace(node, parallel=parallel)
    if node.type == "condition":
        draft.node = msgspec.structs.replace(node, on_false=_on_false(node.config))
        draft.then = _targets(around.problems, node.config, "then", path)
        draft.otherwise = _targets(around.problems, node.config, "else", path)
        if condition := condition_of(node.config):
            draft.mentions += check_condition(around.problems, condition, path)
    if node.type == "wait_for_event" and node.config.get("match") is not None:
        draft.mentions += check_condition(around.problems, node.config["match"], (*path, "match"))


def _check_config(
    around: Surroundings, config: dict[str, Any], path: Path, kind: NodeType, *, repeated: bool
) -> ConfigReader:
    reader = ConfigReader(around.problems, config, path, around.check_url)
    if repeated:
        reader.take("parallel")
    kind.check(reader)
    if kind is NODE_TYPES["handler"]:
        name = config.get("handler")
        if isinstance(name, str) and name and name not in around.handlers:
            reader.wrong("handler", f'"{name}" is not a registered handler')
    if not kind.open:
        reader.done()
    if (size := json_size(config)) > NODE_CONFIG_BYTES:
        around.problems.add("LIMIT_EXCEEDED", path, f"must not be larger than {NODE_CONFIG_BYTES} bytes; it has {size}")
    return reader


def _on_false(config: dict[str, Any]) -> Any:
    said = config.get("onFalse")
    if said in ("stop", "continue", "fail"):
        return said
    return "continue" if config.get("then") or config.get("else") else "stop"


def _targets(problems: Problems, config: dict[str, Any], key: str, path: Path) -> list[Reference]:
    values = config.get(key)
    return references(problems, values, (*path, key)) if isinstance(values, list) else []


def _scan(problems: Problems, draft: Draft, reader: Reader, kind: NodeType) -> None:
    """Check the syntax of everything a node has templated, and note which nodes it mentions."""
    node, path = draft.node, draft.path
    if node.when is not None:
        draft.mentions += check_condition(problems, node.when, reader.at("when"))
    templates = kind.templates_of(node.config, repeated=node.for_each is not None)
    draft.mentions += check_templates(problems, templates, (*path, "config"))
    if node.for_each is not None:
        draft.mentions += check_templates(problems, node.for_each, (*path, "for_each"))
        _check_for_each(reader, node.for_each)
    if node.outputs is not None:
        own = check_templates(problems, node.outputs, (*path, "outputs"))
        draft.mentions += [mention for mention in own if mention[0] != node.id]
    if (undo := node.compensate) is not None:
        templates = node_type(undo.type).templates_of(undo.config, repeated=False)
        draft.late_mentions += check_templates(problems, templates, (*path, "compensate", "config"))
        draft.late_mentions += check_templates(problems, undo.input, (*path, "compensate", "input"))


def _check_for_each(reader: Reader, value: Any) -> None:
    """Whether it can give an array; mistakes in the syntax of its templates were noted before."""
    if isinstance(value, list):
        if len(value) > FOR_EACH_ITEMS:
            reader.wrong("for_each", f"must have at most {FOR_EACH_ITEMS} items, not {len(value)}", "LIMIT_EXCEEDED")
        return
    mistakes: list[ExpressionSyntaxError] = []
    if not isinstance(value, str) or not (compile_template(value, mistakes).typed or mistakes):
        reader.wrong("for_each", "must be one {{ expression }} that gives an array and nothing around it, or an array")


def _read_resources(reader: Reader) -> dict[str, Any] | None:
    value = reader.take("resources")
    if value is None:
        return None
    inner = Reader(reader.problems, value, reader.at("resources"))
    inner.number("cpu", 0, 0, 1_000_000)
    inner.integer("memory", 0, 0, 2**53)
    inner.integer("storage", 0, 0, 2**53)
    for position, item in enumerate(inner.array("custom", 100)):
        custom = Reader(reader.problems, item, (*inner.at("custom"), position))
        if custom.required("name"):
            custom.text("name", least=1)
        custom.take("value")
        custom.done()
    inner.done()
    return value if isinstance(value, dict) else None


def _sized(reader: Reader, key: str, limit: int) -> dict[str, Any] | None:
    value = reader.object(key)
    if value is not None and (size := json_size(value)) > limit:
        reader.wrong(key, f"must not be larger than {limit} bytes; it has {size}", "LIMIT_EXCEEDED")
    return value
