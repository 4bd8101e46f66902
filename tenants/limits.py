"""Every limit of the platform, in one place.

Constants are the same for all accounts. :class:`Limits` holds what an operator may set per account; `PROFILES` names
sets of them (`open`, and the two plans of Cloudflare Workflows as published in June 2026). A size is in bytes, a time
in milliseconds, None means no limit.
"""

from __future__ import annotations

import dataclasses
import re
from types import NoneType
from typing import Any, get_args, get_type_hints

import msgspec

from app.errors import InvalidRequest, MillraceError

KIB = 1024
MIB = 1024 * KIB
SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# ---- sizes of requests and payloads
PAYLOAD_BYTES = 1 * MIB
"""Parameters, a step's output, an event: measured on the compact UTF-8 JSON of the value."""
STREAM_BYTES = 1024 * MIB
"""What the streams that steps of one instance returned may hold together, where `state_bytes` is not lower."""
BODY_BYTES = 1 * MIB
"""Any request body that has no limit of its own."""
BODY_SINGLE_BYTES = 3 * MIB
"""Create one instance, send one event: a payload of 1 MiB may be escaped once more as JSON text."""
BODY_BATCH_BYTES = 16 * MIB
BODY_UPLOAD_BYTES = 16 * MIB
BODY_OPERATION_BYTES = 100 * KIB
"""A GraphQL operation, as a body or as a message of a WebSocket."""
JSON_DEPTH = 64
SAFE_INTEGER = 2**53
"""Integers the platform reads must not exceed this: beyond it, JavaScript clients no longer tell neighbours apart."""

# ---- quantities
BATCH = 100
"""Instances per batch create, terminate or delete."""
SCRIPT_VERSIONS_KEPT = 100
"""Versions of a script, and deployments, that are kept whatever becomes of them; see `versions.deployments.pruning`."""
WORKFLOW_VERSIONS_KEPT = 100
"""Versions of a workflow that are kept whatever becomes of them; see `jobs.retention.workflows`."""
UNREAD_EVENTS = 1_000
UNREAD_EVENT_BYTES = 16 * MIB
"""Events one instance may hold that no step has waited for yet."""
RETRIES = 10_000
STEPS = 25_000
"""Steps of one instance; sleeps and retries are not counted."""
TOKENS_PER_ACCOUNT = 1_000
POLICIES_PER_TOKEN = 100

# ---- definition documents
DOCUMENT_BYTES = 1 * MIB
DOCUMENT_NODES = 1_000
DOCUMENT_EDGES = 10_000
DOCUMENT_SYNC_POINTS = 100
DOCUMENT_MILESTONES = 100
DOCUMENT_TRIGGERS = 100
DOCUMENT_EXPRESSIONS = 20_000
"""In all templates and conditions of a document together; compiling one takes up to a millisecond."""
DOCUMENT_PROBLEMS = 50
"""Problems reported together; later ones are found once the first are mended."""
NODE_CONFIG_BYTES = 128 * KIB
NODE_META_BYTES = 8 * KIB
INPUT_SCHEMA_BYTES = 64 * KIB
FOR_EACH_ITEMS = 10_000
"""Runs of one `for_each` node."""
OUTPUTS_CHARACTERS = 100 * MIB
"""Outputs of one document instance together, as JSON text: they are in a worker's memory while it runs."""
VARIABLES_CHARACTERS = 8 * MIB
"""What the `set` nodes of one instance may make together, as JSON text."""
MAX_PARALLEL = 256
"""Nodes of one instance that may run at once."""
MAX_ATTEMPTS = 1_000_000
"""The highest `limits.max_steps`: attempts of one instance."""
SCHEDULE_INTERVAL_MIN_MS = 1_000
SCHEDULES_PER_WORKFLOW = 200
EVENT_LISTENERS = 100
"""Workflows one published event may start."""

# ---- times
SLEEP_MAX_MS = 365 * DAY_MS
EVENT_TIMEOUT_MAX_MS = 365 * DAY_MS
EVENT_TIMEOUT_DEFAULT_MS = 24 * HOUR_MS
RETENTION_MAX_MS = 30 * DAY_MS
IDEMPOTENCY_KEEP_MS = 24 * HOUR_MS
AUDIT_KEEP_MS = 400 * DAY_MS

# ---- lists
WORKFLOWS_PER_PAGE = 10
ROWS_PER_PAGE = 50
ROWS_PER_PAGE_MAX = 100
ACCOUNT_ROWS_PER_PAGE = 20
ACCOUNT_ROWS_PER_PAGE_MIN = 5
ACCOUNT_ROWS_PER_PAGE_MAX = 50


@dataclasses.dataclass(frozen=True, slots=True)
class TextRule:
    """What a name or id may look like: `minimum` to `maximum` characters that match `pattern` from end to end."""

    pattern: re.Pattern[str]
    minimum: int
    maximum: int
    description: str

    def holds(self, value: object) -> bool:
        """Whether `value` is a text that keeps the rule."""
        return (
            isinstance(value, str)
            and self.minimum <= len(value) <= self.maximum
            and self.pattern.fullmatch(value) is not None
        )

    def check(self, value: object, field: str, error: type[MillraceError] = InvalidRequest) -> str:
        """`value`, if it keeps the rule; else raises `error` with a message that names `field` and the rule."""
        if self.holds(value):
            return value  # type: ignore[return-value]
        raise error(f"{field} must be {self.rule}")

    @property
    def rule(self) -> str:
        """The rule in words, to follow "must be"."""
        return f"a text of {self.minimum} to {self.maximum} characters: {self.description}"


_NAME = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_-]*")
_NAME_WORDS = "letters, digits, '_' and '-', not beginning with '-'"
# Lone surrogates cannot be stored as UTF-8 and NUL cannot be stored by PostgreSQL.
_TEXT = re.compile(r"[^\x00\ud800-\udfff]*")
_LINE = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]*")

WORKFLOW_NAME = TextRule(_NAME, 1, 64, _NAME_WORDS)
INSTANCE_ID = TextRule(_NAME, 1, 100, _NAME_WORDS)
"""An instance id given at create; :func:`reserved_instance_id` takes some away."""
TRANSACTION_ID = TextRule(_LINE, 1, 255, "no control characters")
RESERVED_TRANSACTION_IDS = frozenset({"run", "steps", "subscribe"})
"""They are segments of paths where a transaction id might stand."""
EXECUTION_TIMEOUT_MAX_MS = 365 * DAY_MS
"""The longest deadline an instance may be given."""
ADDRESSABLE_INSTANCE_ID = TextRule(
    re.compile(r"[a-zA-Z0-9, */#_-]+"), 1, 271, "letters, digits, spaces and any of , * / # _ -"
)
"""An instance id in a path or a list: cron-made ids, which nobody may choose, are addressed this way, too."""
EVENT_TYPE = TextRule(_NAME, 1, 100, _NAME_WORDS)
STEP_NAME = TextRule(re.compile(r"[^\x00-\x1f]*"), 0, 256, "no control characters")
CLASS_NAME = TextRule(_LINE, 1, 255, "no control characters")
SCRIPT_NAME = TextRule(_LINE, 1, 255, "no control characters")
DISPLAY_NAME = TextRule(_LINE, 1, 255, "no control characters")
DESCRIPTION = TextRule(_TEXT, 0, 4096, "no NUL characters")
ACCOUNT_NAME = TextRule(_LINE, 1, 255, "no control characters")
USER_NAME = TextRule(_LINE, 1, 255, "no control characters")
TOKEN_NAME = TextRule(_LINE, 1, 120, "no control characters")
EMAIL = TextRule(re.compile(r"[^\x00-\x20\x7f@\ud800-\udfff]+@[^\x00-\x20\x7f@\ud800-\udfff]+"), 3, 254, "name@domain")
WORKSPACE_SLUG = TextRule(
    re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"),
    1,
    64,
    "lowercase letters, digits and '-', beginning and ending with a letter or digit",
)
EVENT_NAME = TextRule(re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]+"), 1, 100, "no control characters")
"""Of events that start workflows; those that instances wait for are `versions.names.EVENT_RULE`."""
IDEMPOTENCY_KEY = TextRule(re.compile(r"[\x21-\x7e]+"), 1, 255, "visible ASCII")
PASSWORD = TextRule(_TEXT, 8, 1024, "no NUL characters")

RESERVED_WORKFLOW_NAMES = frozenset({"executions", "validate", "metrics", "settings"})
RESERVED_WORKSPACE_SLUGS = frozenset({"new", "settings"})
_RESERVED_INSTANCE_IDS = frozenset({"batch", "terminate", "terminateAll"})
_PLATFORM_INSTANCE_ID = re.compile(r"cf_[0-9a-f]{64}")


def reserved_instance_id(instance_id: str) -> bool:
    """Whether no instance may be created under this id: a word of a route, or the platform's own `cf_…` form."""
    return instance_id in _RESERVED_INSTANCE_IDS or _PLATFORM_INSTANCE_ID.fullmatch(instance_id) is not None


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one account may use. The defaults are the profile `open`."""

    concurrency: int | None = None
    """Instances running at the same time; the rest queue."""
    queued: int | None = None
    """Instances one workflow may have queued."""
    creations_per_second: float | None = None
    """Instances created or restarted, all workflows together."""
    workflow_creations_per_second: float | None = None
    """The same, per workflow."""
    creations_per_day: int | None = None
    workflows: int | None = None
    scripts: int | None = None
    script_bytes: int | None = None
    """One uploaded script, all modules together; never more than the upload body."""
    schedules: int | None = None
    """Schedules of all workflows together, intervals of documents included; 0: they are not part of the plan."""
    payload_bytes: int = PAYLOAD_BYTES
    state_bytes: int | None = None
    """What one instance may store: parameters, outputs of steps, received events."""
    steps: int = STEPS
    """Steps of an instance whose workflow sets no limit of its own."""
    steps_max: int = STEPS
    """The most a workflow may set; versions that set more before are held to it, too."""
    step_cpu_ms: int | None = None
    """CPU time of one step of a script."""
    subrequests: int | None = None
    """Outgoing requests of one instance."""
    retention_ms: int = RETENTION_MAX_MS
    """How long a finished instance is kept when neither it, its workflow nor the account's settings say."""
    retention_max_ms: int = RETENTION_MAX_MS
    streams: int = 20
    """Event streams one credential may hold open."""
    requests_per_minute: int | None = None
    """Requests of one credential, whatever they ask for."""
    webhook_tests_per_minute: int | None = 60
    """Test deliveries one credential may ask for."""


DEFAULT_PROFILE = "open"
PROFILES: dict[str, Limits] = {
    DEFAULT_PROFILE: Limits(),
    "cloudflare-free": Limits(
        concurrency=100,
        queued=100_000,
        creations_per_second=100,
        creations_per_day=100_000,
        scripts=100,
        script_bytes=3_000_000,
        schedules=0,
        state_bytes=100_000_000,
        steps=1_024,
        steps_max=1_024,
        step_cpu_ms=10,
        subrequests=50,
        retention_ms=3 * DAY_MS,
        retention_max_ms=3 * DAY_MS,
    ),
    "cloudflare-paid": Limits(
        concurrency=50_000,
        queued=2_000_000,
        creations_per_second=300,
        workflow_creations_per_second=100,
        scripts=500,
        script_bytes=10_000_000,
        schedules=100,
        state_bytes=1_000_000_000,
        steps=10_000,
        step_cpu_ms=30 * SECOND_MS,
        subrequests=10_000,
        retention_ms=7 * DAY_MS,
    ),
}

# What an operator may set: (lowest, highest). Highest keeps a value inside its column and the platform's constants.
_BOUNDS: dict[str, tuple[float, float]] = {
    "concurrency": (0, 2**31 - 1),
    "queued": (0, 2**31 - 1),
    "creations_per_second": (0.001, 1_000_000),
    "workflow_creations_per_second": (0.001, 1_000_000),
    "creations_per_day": (1, 10**12),
    "workflows": (0, 2**31 - 1),
    "scripts": (0, 2**31 - 1),
    "script_bytes": (1, BODY_UPLOAD_BYTES),
    "schedules": (0, 2**31 - 1),
    "payload_bytes": (1, PAYLOAD_BYTES),
    "state_bytes": (1, SAFE_INTEGER),
    "steps": (1, STEPS),
    "steps_max": (1, STEPS),
    "step_cpu_ms": (1, 5 * MINUTE_MS),
    "subrequests": (0, 10_000_000),
    "retention_ms": (0, RETENTION_MAX_MS),
    "retention_max_ms": (0, RETENTION_MAX_MS),
    "streams": (0, 10_000),
    "requests_per_minute": (1, 10_000_000),
    "webhook_tests_per_minute": (1, 10_000),
}
_KINDS = get_type_hints(Limits)


def limits_from(profile: str, overrides: dict[str, Any]) -> Limits:
    """The limits of `profile` with single ones replaced. Raises :class:`InvalidRequest` naming the limit and rule."""
    if profile not in PROFILES:
        raise InvalidRequest(f"profile must be one of {', '.join(PROFILES)}")
    for name, value in overrides.items():
        _check_bounds(name, value)
    limits = msgspec.structs.replace(PROFILES[profile], **overrides)
    if limits.steps > limits.steps_max:
        raise InvalidRequest("steps must not exceed steps_max")
    if limits.retention_ms > limits.retention_max_ms:
        raise InvalidRequest("retention_ms must not exceed retention_max_ms")
    return limits


def _check_bounds(name: str, value: Any) -> None:
    if name not in _BOUNDS:
        raise InvalidRequest(f"there is no limit {name!r}; the limits are {', '.join(_BOUNDS)}")
    low, high = _BOUNDS[name]
    kinds = set(get_args(_KINDS[name])) or {_KINDS[name]}
    if type(value) not in (kinds | {int}) or (value is not None and not low <= value <= high):
        number = "number" if float in kinds else "whole number"
        none = ", or none" if NoneType in kinds else ""
        raise InvalidRequest(f"{name} must be a {number} from {low} to {high}{none}")
