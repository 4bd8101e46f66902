"""The compiled definition document: what a version stores and the document runtime runs.

Nothing in here needs defaults or look-ups any more: durations are milliseconds, retries are normalised, references are
ids, edges are known in both directions. Values that hold templates (`config`, `outputs`, `for_each`, `input`) and
conditions (`when`, `match`) stay as the user wrote them, syntax already checked; `versions.expressions` compiles them.

Every field is written out when a document is stored, defaults too: a later release may change a default, never the
meaning of a stored version.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec

SPEC = "workflow/1"
NO_INPUT: dict[str, Any] = {}
"""The input of an instance that was started without one."""
INITIALIZATION = "Initialization"
COMPLETION = "Completion"

Join = Literal["all", "any", "all_done"]
OnError = Literal["stop", "continue", "skip", "skip_to"]
OnFalse = Literal["stop", "continue", "fail"]
Backoff = Literal["constant", "linear", "exponential"]


class Retries(msgspec.Struct, frozen=True, kw_only=True):
    """`limit` retries after the first attempt; waits are milliseconds before jitter.

    Wait before retry n: constant d; linear d*n; exponential d*multiplier^(n-1); never above `max_delay`; then up to
    the fraction `jitter` more, at random.
    """

    limit: int = 0
    delay: int = 1_000
    backoff: Backoff = "exponential"
    multiplier: float = 2.0
    max_delay: int = 3_600_000
    jitter: float = 0.0
    when: Any = None
    """Condition on `error`; false: no retry. None: always."""


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    """The node runs only if the condition node `condition` came to `verdict` (`config.then` / `config.else`)."""

    condition: str
    verdict: bool


class Compensate(msgspec.Struct, frozen=True, kw_only=True):
    """How a node's effect is undone. Without retries of its own it has the node's, already filled in."""

    type: str
    config: dict[str, Any] = {}
    handler: str | None = None
    """Name of the registered handler when the type is one, or is `handler`."""
    input: Any = None
    """Template of `compensation.input`. None: what the step set as its compensate input, else its output."""
    retries: Retries = Retries()
    timeout: int | None = None
    """Milliseconds per attempt."""
    async_: bool = msgspec.field(name="async", default=False)


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One node. `depends_on` and `dependents` name nodes and sync points."""

    id: str
    name: str
    position: int
    """Index in the document's `nodes`."""
    type: str = "noop"
    description: str = ""
    config: dict[str, Any] = {}
    handler: str | None = None
    """Name of the registered handler when the type is one, or is `handler`."""
    depends_on: tuple[str, ...] = ()
    dependents: tuple[str, ...] = ()
    """In document order, sync points last."""
    depth: int = 1
    """1 + the greatest depth among the dependencies; the order of compensation."""
    parent: str | None = None
    """Parent in the tree view: the node dependency of greatest depth, the one defined last among equals; a sync
    point stands for what it requires. None: the root."""
    join: Join = "all"
    gates: tuple[Gate, ...] = ()
    when: Any = None
    on_false: OnFalse = "continue"
    """Of a condition node: what becomes of the run when it is false. Its `config.onFalse`, else `stop`, or `continue`
    where `then` or `else` say what runs."""
    on_error: OnError = "stop"
    skip_to: str | None = None
    """Set exactly when `on_error` is `skip_to`: a descendant."""
    retries: Retries = Retries()
    timeout: int | None = None
    """Milliseconds per attempt (per wait for an answer when `async`). None: no limit."""
    total_timeout: int | None = None
    """Milliseconds from the first start to the end."""
    async_: bool = msgspec.field(name="async", default=False)
    """Completed from outside. Always true for type `external`."""
    compensate: Compensate | None = None
    outputs: dict[str, Any] | None = None
    save_output: bool = True
    resources: dict[str, Any] | None = None
    for_each: Any = None
    """Template (or literal array) giving the items; one child run per item. None: an ordinary node."""
    parallel: int = 1
    """How many children of a `for_each` run at once: `config.parallel`, else the document's `max_parallel`."""
    meta: dict[str, Any] | None = None


class SyncPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A barrier: complete when all `required` are complete or skipped, reached when the first of them finishes."""

    id: str
    name: str
    position: int
    description: str = ""
    required: tuple[str, ...] = ()
    """Ids of nodes."""
    dependents: tuple[str, ...] = ()
    depth: int = 1
    timeout: int | None = None
    """Milliseconds, counted from the start of the first required node."""
    on_timeout: Literal["fail", "continue"] = "fail"


class Milestone(msgspec.Struct, frozen=True, kw_only=True):
    """Achieved when all of `after` (nodes, sync points) are complete or skipped.

    `start` marks the first one, achieved when the instance starts; `end` the automatic last one, achieved when the
    instance completes. `after` is empty for both.
    """

    id: str
    name: str
    description: str = ""
    after: tuple[str, ...] = ()
    start: bool = False
    end: bool = False


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """The document's `defaults`, normalised. Already applied to the nodes; kept for display."""

    on_error: OnError = "stop"
    retries: Retries | None = None
    timeout: int | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What an instance of the document may take."""

    timeout: int | None = None
    """Deadline of the instance in milliseconds from its start."""
    max_parallel: int = 32
    """Nodes running at once."""
    max_steps: int = 10_000
    """Attempts of one instance in all."""


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What may start instances. For `schedule` exactly one of `cron` and `interval` (ms) is set."""

    type: Literal["manual", "webhook", "schedule", "event"]
    name: str = ""
    cron: str | None = None
    interval: int | None = None
    concurrency: Literal["forbid", "allow"] = "forbid"
    """`forbid`: a firing is left out while an instance of the schedule is unfinished."""
    max_runs: int | None = None
    timezone: str = "UTC"
    input: Any = None
    """Input of the instances a schedule creates."""
    event: str | None = None
    condition: Any = None
    config: dict[str, Any] = {}
    """Opaque to the platform."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A whole definition, valid by construction (`versions.document.parse_document`)."""

    name: str
    spec: Literal["workflow/1"] = SPEC
    description: str = ""
    input_schema: dict[str, Any] | bool | None = None
    vars: dict[str, Any] = {}
    nodes: tuple[Node, ...] = ()
    """In the user's order."""
    sync_points: tuple[SyncPoint, ...] = ()
    milestones: tuple[Milestone, ...] = ()
    """`Initialization` first; never empty."""
    order: tuple[str, ...] = ()
    """Ids of nodes and sync points such that dependencies come first; by position where free."""
    outputs: dict[str, Any] | None = None
    """Templates. None: see `sinks`."""
    sinks: tuple[str, ...] = ()
    """Nodes no other node depends on. One: its output is the instance's; several: `{id: output}`; none: `{}`."""
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    rollback: Literal["auto", "always", "never"] = "auto"
    triggers: tuple[Trigger, ...] = ()
    idempotent: bool = False
    retention: int | None = None
    """Milliseconds to keep an instance after its end; None: the account's default."""
    flat_input: bool = False
    """The input's top-level keys are also names of the scope's root (reserved names win): documents of dialect 001."""
    dialect: str | None = None
    """Dialect the document was compiled from (`source.dialect`); the verbatim original is kept beside the version."""


_DECODER = msgspec.json.Decoder(Document)


def encode_document(document: Document) -> str:
    """The JSON text stored as a version's source. Keeps the order of the user's keys: they show in outputs."""
    return msgspec.json.encode(document).decode()


def decode_document(text: str) -> Document:
    """The document of a stored version. Raises `msgspec.ValidationError` if `text` is not one."""
    return _DECODER.decode(text)


def document_hash(document: Document) -> str:
    """SHA-256 (hex) of the canonical JSON: the same for documents that differ in the order of keys only."""
    return hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()
