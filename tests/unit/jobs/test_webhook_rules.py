"""Names of events, secrets and signatures, the schedule of attempts: what needs no database."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
import standardwebhooks

from app.errors import InvalidRequest
from jobs.webhooks import schedule
from jobs.webhooks.catalogue import EVENTS_MAX, KNOWN, checked_event, checked_events, wanted
from jobs.webhooks.signing import chosen_secret, generated, headers, keys_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_wildcards():
    assert wanted(["*"]) == frozenset(KNOWN)
    assert wanted(["task.*"]) == {name for name in KNOWN if name.startswith("task.")}
    assert wanted(["workflow.execution.started", "blocker.*"]) == {
        "workflow.execution.started",
        "blocker.detected",
        "blocker.resolved",
    }
    assert wanted(["resource.*", "system.started"]) == frozenset()


def test_repeats_collapse_and_names_of_other_catalogues_are_taken():
    asked = ["task.execution.*", "*", "task.execution.*", "resource.allocated", "system.*"]
    assert checked_events(asked) == ["task.execution.*", "*", "resource.allocated", "system.*"]


@pytest.mark.parametrize(
    "events",
    [
        None,
        [],
        "*",
        [1],
        ["unknown"],
        ["task.execution"],
        ["nothing.*"],
        ["task*"],
        ["**"],
        [""],
        ["resource."],
        [".*"],
        [f"resource.r{'a' * n}" for n in range(EVENTS_MAX + 1)],
        ["*"] * (EVENTS_MAX + 1),
    ],
)
def test_what_is_no_list_of_events(events):
    with pytest.raises(InvalidRequest) as refused:
        checked_events(events)
    assert refused.value.pointer == "/events"


def test_unknown_names_are_named_and_known_ones_listed():
    with pytest.raises(InvalidRequest, match=r"workflow\.execution\.started") as refused:
        checked_events(["*", "nonsense"])
    assert [one.pointer for one in refused.value.problems] == ["/events/1"]


def test_one_event():
    assert checked_event("webhook.test") == "webhook.test"
    for wrong in (None, "*", "task.*", "nonsense", 3):
        with pytest.raises(InvalidRequest):
            checked_event(wrong)


# --- signatures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [generated(b"k" * 32), "a-plain-secret-of-16-", "c2VjcmV0", "plaintext secret"])
def test_the_reference_verifier_takes_the_signature(secret):
    told = dict(headers("task.execution.started", "evt_1", b'{"a":"\xc3\xa9"}', [secret], datetime.now(UTC)))
    verifier = standardwebhooks.Webhook(secret)
    assert verifier.verify(b'{"a":"\xc3\xa9"}', told) == {"a": "é"}
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        verifier.verify(b'{"a":"e"}', told)


def test_the_first_signature_of_a_plain_secret_is_by_its_own_bytes():
    told = dict(headers("e", "evt_1", b"{}", ["plain"], NOW))
    expected = base64.b64encode(hmac.digest(b"plain", f"evt_1.{int(NOW.timestamp())}.{{}}".encode(), "sha256"))
    assert told["webhook-signature"].split(" ")[0] == f"v1,{expected.decode()}"
    assert told["X-Webhook-Signature"] == hmac.new(b"plain", b"{}", hashlib.sha256).hexdigest()
    assert told["X-Webhook-Timestamp"] == str(int(NOW.timestamp() * 1000)) and told["X-Webhook-Event"] == "e"


def test_a_secret_the_reference_verifier_cannot_read_is_signed_with_once():
    with pytest.raises(ValueError):
        standardwebhooks.Webhook("webhook-secret")
    assert keys_of("webhook-secret") == [b"webhook-secret"]


def test_two_secrets_sign_while_they_overlap():
    new, old = generated(b"n" * 32), generated(b"o" * 32)
    told = dict(headers("e", "evt_1", b"{}", [new, old], datetime.now(UTC)))
    for secret in (new, old):
        assert standardwebhooks.Webhook(secret).verify(b"{}", told) == {}


def test_without_a_secret_nothing_is_signed():
    told = dict(headers("e", "evt_1", b"{}", [], NOW))
    assert "webhook-signature" not in told and "X-Webhook-Signature" not in told


@pytest.mark.parametrize("secret", [0, 1, "x" * 7, "x" * 257, "line\nbreak", "whsec_", "whsec_not base64!", "\ud800"])
def test_what_is_no_secret(secret):
    with pytest.raises(InvalidRequest) as refused:
        chosen_secret(secret)
    assert refused.value.pointer == "/secret" and "x" * 257 not in refused.value.message


@pytest.mark.parametrize("secret", [None, "", "x" * 8, "x" * 256])
def test_a_secret_may_be_left_to_the_platform(secret):
    assert chosen_secret(secret) == (secret or None)


# --- the schedule --------------------------------------------------------------------------------------------------


def test_ten_attempts_over_about_75_hours():
    waits = [schedule.next_attempt(made, NOW, 0.5) for made in range(10)]
    seconds = [(moment - NOW).total_seconds() for moment in waits if moment is not None]
    assert seconds == [0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]
    assert schedule.next_attempt(10, NOW, 0.5) is None


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.999])
def test_each_delay_is_spread_by_a_fifth(chance):
    moment = schedule.next_attempt(3, NOW, chance)
    assert moment is not None
    assert 1800 * 0.8 <= (moment - NOW).total_seconds() <= 1800 * 1.2
    assert (moment - NOW).total_seconds() == pytest.approx(1800 * (0.8 + 0.4 * chance))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("99999999999999999999", 86400),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
        ("1.5", None),
        ("²", None),
        (None, None),
    ],
)
def test_retry_after(header, seconds):
    found = schedule.retry_after(header, NOW)
    assert found == (None if seconds is None else timedelta(seconds=seconds))


def test_retry_after_lengthens_a_delay_and_never_shortens_it():
    assert schedule.next_attempt(1, NOW, 0.5, timedelta(minutes=1)) == NOW + timedelta(minutes=1)
    assert schedule.next_attempt(2, NOW, 0.5, timedelta(minutes=1)) == NOW + timedelta(minutes=5)
    assert schedule.next_attempt(1, NOW, 0.5, timedelta(days=9)) == NOW + timedelta(hours=24)
