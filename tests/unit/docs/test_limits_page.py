"""`docs/limits.md` against `tenants.limits`."""

from __future__ import annotations

import re

import msgspec
import pytest

from instances import listing
from instances.engine.runs import children, notes
from instances.logs import LONGEST
from tenants import limits
from tests.support.docs import page
from versions import durations

ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in page("limits.md").splitlines() if "|" in line]
ACCOUNT_ROWS = {row[0].strip("`"): row[1:4] for row in ROWS if len(row) == 5 and row[0].startswith("`")}
COMMON = {row[0]: row[1] for row in ROWS if len(row) == 2}
NAMES = {row[0]: row for row in ROWS if len(row) == 3}

MIB = 1 << 20
DAY = 86_400_000


def test_every_limit_of_an_account_is_there_in_order() -> None:
    assert list(ACCOUNT_ROWS) == list(limits.Limits.__struct_fields__)


@pytest.mark.parametrize(("column", "profile"), enumerate(("open", "cloudflare-free", "cloudflare-paid")))
def test_profiles_have_the_numbers_shown(column: int, profile: str) -> None:
    values = msgspec.to_builtins(limits.PROFILES[profile])
    shown = {name: cells[column] for name, cells in ACCOUNT_ROWS.items()}
    assert shown == {name: "none" if value is None else f"{value:.0f}" for name, value in values.items()}


def test_all_profiles_are_shown() -> None:
    header = next(row for row in ROWS if row[0] == "limit")
    assert {cell.strip("`") for cell in header[1:4]} == limits.PROFILES.keys()


@pytest.mark.parametrize(
    ("row", "value", "unit"),
    [
        ("a payload: parameters, an event, a step's output, an instance's output", limits.PAYLOAD_BYTES, MIB),
        ("request body: create one, send an event", limits.BODY_SINGLE_BYTES, MIB),
        ("request body: batch create", limits.BODY_BATCH_BYTES, MIB),
        ("request body: script upload", limits.BODY_UPLOAD_BYTES, MIB),
        ("request body: everything else", limits.BODY_BYTES, MIB),
        ("nesting of JSON", limits.JSON_DEPTH, 1),
        ("instances in a batch create, terminate or delete", limits.BATCH, 1),
        ("instances in a list: `per_page`", limits.ROWS_PER_PAGE_MAX, 1),
        ("instances reachable by `page` (further with `cursor`)", listing.REACHABLE_ROWS, 1),
        ("unread events of an instance", limits.UNREAD_EVENTS, 1),
        ("how long an `Idempotency-Key` is remembered", limits.IDEMPOTENCY_KEEP_MS, DAY // 24),
        ("how long audit lines are kept", limits.AUDIT_KEEP_MS, DAY),
        ("log lines of an instance, each time it is in a worker", notes.MAX_LOG_LINES, 1),
        ("a live stream", LONGEST.total_seconds(), 60),
        ("retries of a step", limits.RETRIES, 1),
        ("sleep, wait, `total_timeout`", limits.SLEEP_MAX_MS, DAY),
        ("timeout of an attempt", durations.MAX_ATTEMPT, DAY // 24),
        ("default timeout of a wait for an event", limits.EVENT_TIMEOUT_DEFAULT_MS, DAY // 24),
        ("retention", limits.RETENTION_MAX_MS, DAY),
        ("schedules of a workflow", limits.SCHEDULES_PER_WORKFLOW, 1),
        ("nesting of child workflows", children.MAX_DEPTH, 1),
        ("tokens of an account", limits.TOKENS_PER_ACCOUNT, 1),
    ],
)
def test_common_limits(row: str, value: float, unit: int) -> None:
    first = re.match(r"[\d,]+", COMMON[row])
    assert first is not None
    assert int(first[0].replace(",", "")) * unit == value


def test_second_numbers() -> None:
    assert "16 MiB" in COMMON["unread events of an instance"] and limits.UNREAD_EVENT_BYTES == 16 * MIB
    assert "1 MiB" in COMMON["log lines of an instance, each time it is in a worker"] and notes.MAX_LOG_BYTES == MIB
    assert f"the last {limits.WORKFLOW_VERSIONS_KEPT}," in COMMON["versions of a workflow that are kept"]
    assert f"the last {limits.SCRIPT_VERSIONS_KEPT}," in COMMON["versions of a script that are kept"]


@pytest.mark.parametrize(
    ("row", "rule"),
    [
        ("workflow", limits.WORKFLOW_NAME),
        ("instance id", limits.INSTANCE_ID),
        ("event type", limits.EVENT_TYPE),
        ("token name", limits.TOKEN_NAME),
        ("`Idempotency-Key`", limits.IDEMPOTENCY_KEY),
    ],
)
def test_names(row: str, rule: limits.TextRule) -> None:
    assert NAMES[row][1] == f"{rule.minimum}–{rule.maximum}"


def test_reserved_names() -> None:
    assert set(re.findall(r"`(\w+)`", NAMES["workflow"][2])) - {"_"} == limits.RESERVED_WORKFLOW_NAMES
    reserved = set(re.findall(r"`(\w+)`", NAMES["instance id"][2]))
    assert reserved and all(limits.reserved_instance_id(name) for name in reserved)
