"""Limits: patterns at their boundaries, profiles, and what an operator may set."""

from __future__ import annotations

import pytest

from app.errors import InvalidRequest
from tenants.limits import (
    ADDRESSABLE_INSTANCE_ID,
    DAY_MS,
    DISPLAY_NAME,
    EMAIL,
    EVENT_TYPE,
    IDEMPOTENCY_KEY,
    INSTANCE_ID,
    PASSWORD,
    PAYLOAD_BYTES,
    PROFILES,
    STEP_NAME,
    TOKEN_NAME,
    WORKFLOW_NAME,
    WORKSPACE_SLUG,
    Limits,
    TextRule,
    limits_from,
    reserved_instance_id,
)

NO_NAMES = ["", None, float("nan"), 7, b"abc", " ", "   ", "\n\nhello", "hello\n", "#1231231!!!!", "a.b", "a b", "é"]


@pytest.mark.parametrize("value", [*NO_NAMES, "a" * 65, "-badName"])
def test_a_workflow_name_is_refused(value):
    assert not WORKFLOW_NAME.holds(value)


@pytest.mark.parametrize("value", ["abc", "NAME_123-hello", "a-valid-string", "a" * 64, "_x", "0"])
def test_a_workflow_name_is_accepted(value):
    assert WORKFLOW_NAME.holds(value)


@pytest.mark.parametrize("value", [*NO_NAMES, "a" * 101])
def test_an_instance_id_is_refused_at_create(value):
    assert not INSTANCE_ID.holds(value)
    assert not EVENT_TYPE.holds(value)


@pytest.mark.parametrize("value", ["abc", "NAME_123-hello", "a-valid-string", "a" * 100])
def test_an_instance_id_is_accepted_at_create(value):
    assert INSTANCE_ID.holds(value)
    assert EVENT_TYPE.holds(value)


@pytest.mark.parametrize("value", ["", None, 7, "a" * 272, "invalid!", "what?", "a\nb", "a\x00"])
def test_an_addressable_id_is_refused(value):
    assert not ADDRESSABLE_INSTANCE_ID.holds(value)


@pytest.mark.parametrize(
    "value", ["abc", "*/30 * * * *-1786001400000", "0 18 * * 6#2,3-1", "NAME_123-/cron", "-x", "a" * 271]
)
def test_an_addressable_id_is_accepted(value):
    assert ADDRESSABLE_INSTANCE_ID.holds(value)


def test_ids_of_routes_and_of_the_platform_are_reserved():
    for reserved in ("batch", "terminate", "terminateAll", "cf_" + "0a" * 32):
        assert INSTANCE_ID.holds(reserved)
        assert reserved_instance_id(reserved)
    for free in ("batch1", "Terminate", "cf_" + "0a" * 31, "cf_" + "0A" * 32):
        assert not reserved_instance_id(free)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (STEP_NAME, ["", "a step", "é" * 256], ["a\x00b", "a\nb", "x" * 257]),
        (DISPLAY_NAME, ["x", "a b é" * 51], ["", "x" * 256, "a\x7f", "\ud800"]),
        (TOKEN_NAME, ["x" * 120], ["", "x" * 121]),
        (WORKSPACE_SLUG, ["a", "a-b", "0" * 64], ["", "-a", "a-", "A", "a_b", "x" * 65, "a\n"]),
        (EMAIL, ["a@b", "x" * 252 + "@b"], ["a", "@b", "a@", "a@b@c", "a b@c", "x" * 253 + "@b", "a@b\n"]),
        (IDEMPOTENCY_KEY, ["k", "k" * 255, "~!"], ["", "k" * 256, "a b", "é", "a\n"]),
        (PASSWORD, ["12345678", "x" * 1024], ["1234567", "x" * 1025, "1234567\x00"]),
    ],
)
def test_other_texts_have_their_boundaries(rule: TextRule, good, bad):
    assert [value for value in good if not rule.holds(value)] == []
    assert [value for value in bad if rule.holds(value)] == []


def test_a_rule_names_the_field_and_itself():
    with pytest.raises(InvalidRequest, match="workflow_name must be a text of 1 to 64 characters: letters"):
        WORKFLOW_NAME.check("-", "workflow_name")
    assert WORKFLOW_NAME.check("fine", "workflow_name") == "fine"


def test_the_default_profile_is_open():
    limits = limits_from("open", {})
    assert limits == Limits()
    assert (limits.concurrency, limits.queued, limits.creations_per_second) == (None, None, None)
    assert (limits.steps, limits.retention_ms, limits.streams) == (25_000, 30 * DAY_MS, 20)


def test_the_profiles_are_cloudflares():
    free, paid = PROFILES["cloudflare-free"], PROFILES["cloudflare-paid"]
    assert (free.concurrency, free.queued, free.steps, free.steps_max) == (100, 100_000, 1_024, 1_024)
    assert (free.creations_per_second, free.creations_per_day, free.schedules) == (100, 100_000, 0)
    assert (free.retention_ms, free.retention_max_ms) == (3 * DAY_MS, 3 * DAY_MS)
    assert (paid.concurrency, paid.queued, paid.steps, paid.steps_max) == (50_000, 2_000_000, 10_000, 25_000)
    assert (paid.creations_per_second, paid.workflow_creations_per_second, paid.schedules) == (300, 100, 100)
    assert (paid.retention_ms, paid.retention_max_ms) == (7 * DAY_MS, 30 * DAY_MS)


def test_single_limits_replace_the_profiles():
    limits = limits_from("cloudflare-free", {"concurrency": None, "steps": 7})
    assert (limits.concurrency, limits.steps, limits.scripts) == (None, 7, 100)


@pytest.mark.parametrize(
    ("profile", "overrides", "message"),
    [
        ("gold", {}, "profile must be one of open, cloudflare-free, cloudflare-paid"),
        ("open", {"speed": 1}, "there is no limit 'speed'"),
        ("open", {"concurrency": -1}, "concurrency must be a whole number from 0 to 2147483647, or none$"),
        ("open", {"concurrency": 2**31}, "concurrency must be"),
        ("open", {"concurrency": 1.5}, "concurrency must be a whole number"),
        ("open", {"concurrency": True}, "concurrency must be"),
        ("open", {"creations_per_second": float("nan")}, "creations_per_second must be"),
        ("open", {"payload_bytes": PAYLOAD_BYTES + 1}, "payload_bytes must be"),
        ("open", {"payload_bytes": None}, "payload_bytes must be a whole number from 1 to 1048576$"),
        ("open", {"creations_per_day": "5"}, "creations_per_day must be"),
        ("open", {"creations_per_second": 0}, "creations_per_second must be a number from 0.001 to 1000000, or none$"),
        ("open", {"steps_max": 10}, "steps must not exceed steps_max"),
        ("cloudflare-free", {"retention_ms": 4 * DAY_MS}, "retention_ms must not exceed retention_max_ms"),
    ],
)
def test_a_limit_that_cannot_be_is_refused_by_name(profile, overrides, message):
    with pytest.raises(InvalidRequest, match=message):
        limits_from(profile, overrides)
