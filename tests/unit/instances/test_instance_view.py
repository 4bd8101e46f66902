"""The instance as the Cloudflare face shows it."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from cloudflare.types.workflows import InstanceGetResponse

from instances.lifecycle import Kind, Status
from instances.projections.fold import fold
from instances.projections.instance_view import InstanceFacts, instance_view
from instances.projections.values import StoredStream
from tenants.clock import iso
from tests.support.journal import CONFIG, START, Journal

VERSION = UUID("0b9d0000-0000-7000-8000-000000000001")


def view(journal: Journal, status: Status = Status.RUNNING, *, newest_first=False, simple=False, **facts: Any) -> Any:
    known = InstanceFacts(
        key=UUID(int=2),
        instance_id="i",
        workflow_key=UUID(int=1),
        handle="orders",
        no=1,
        run=journal.run,
        version_key=VERSION,
        status=status,
        created_at=START,
        modified_at=START,
        ended_at=journal.now if status.finished else None,
        **{"trigger_source": 1, "input": '{"order":7}'} | facts,
    )
    shown = instance_view(known, fold(journal.entries), newest_first=newest_first, simple=simple)
    result = json.loads(msgspec.json.encode(shown))
    InstanceGetResponse.model_validate(result | ({"output": ""} if not isinstance(result["output"], str) else {}))
    return result


def test_worked_example():
    """The example of the API reference: a retried step, a sleep that is over, a wait that lasts."""
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "reserve", {"config": CONFIG}, attempt=1)
    journal.add(Kind.ATTEMPT_FAILED, "reserve", {"name": "Error", "message": "busy", "delay": 10000}, attempt=1)
    journal.add(Kind.ATTEMPT_STARTED, "reserve", attempt=2, after=10)
    journal.add(Kind.STEP_COMPLETED, "reserve", {"id": 1}, attempt=2)
    journal.add(Kind.SLEEP_STARTED, "cool down", {"due": journal.due(5)})
    journal.add(Kind.SLEEP_COMPLETED, "cool down", after=5)
    journal.add(Kind.WAIT_STARTED, "approval", {"due": journal.due(86400), "type": "approved"})
    assert view(journal) == {
        "status": "running",
        "success": None,
        "error": None,
        "output": None,
        "rollback": None,
        "params": {"order": 7},
        "trigger": {"source": "api"},
        "versionId": str(VERSION),
        "queued": "2026-10-01T08:00:00.000Z",
        "start": "2026-10-01T08:00:00.120Z",
        "end": None,
        "step_count": 3,
        "steps": [
            {
                "type": "step",
                "name": "reserve-1",
                "start": "2026-10-01T08:00:01.120Z",
                "end": "2026-10-01T08:00:13.120Z",
                "success": True,
                "output": '{"id":1}',
                "config": CONFIG,
                "attempts": [
                    {
                        "start": "2026-10-01T08:00:01.120Z",
                        "end": "2026-10-01T08:00:02.120Z",
                        "success": False,
                        "error": {"name": "Error", "message": "busy"},
                    },
                    {
                        "start": "2026-10-01T08:00:12.120Z",
                        "end": "2026-10-01T08:00:13.120Z",
                        "success": True,
                        "error": None,
                    },
                ],
            },
            {
                "type": "sleep",
                "name": "cool down-1",
                "start": "2026-10-01T08:00:14.120Z",
                "end": "2026-10-01T08:00:19.120Z",
                "finished": True,
                "error": None,
            },
            {
                "type": "waitForEvent",
                "name": "approval-1",
                "start": "2026-10-01T08:00:20.120Z",
                "end": "2026-10-02T08:00:20.120Z",
                "finished": False,
                "error": None,
                "event_type": "approved",
            },
        ],
    }


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (None, None),
        ("null", None),
        ("3", "3"),
        ("0", "0"),
        ("false", "false"),
        ('""', '""'),
        ('"Ada"', '"Ada"'),
        ('{"a":[1,2]}', '{"a":[1,2]}'),
        ("[" + "1," * 600 + "1]", "[" + "1," * 511 + "1[truncated output]"),
        (' {"$t":"u"}', None),
        (' {"$t":"d","v":0}', '"1970-01-01T00:00:00.000Z"'),
        (StoredStream("a", 1, 1, 1, 2, "hi").stored(), "hi"),
        (StoredStream("a", 1, 1, 1, 0, "").stored(), ""),
        (StoredStream("a", 1, 1, 1, 1024, "x" * 1024).stored(), "x" * 1024),
        (StoredStream("a", 1, 1, 1, 9999, "x" * 1025).stored(), "x" * 1024 + "[truncated output]"),
        (StoredStream("a", 1, 1, 1, 1).stored(), "[ReadableStream (binary): 1 bytes]"),
    ],
)
def test_output_of_a_step_is_json_text(output: str | None, shown: str | None):
    journal = Journal().begin()
    journal.step("a", output)
    assert view(journal)["steps"][0]["output"] == shown


def test_sensitive_output_is_redacted_and_errors_are_not():
    journal = Journal().begin()
    journal.step("a", '"secret"', sensitive=True)
    journal.add(Kind.STEP_STARTED, "b", {"config": CONFIG | {"sensitive": "output"}, "sensitive": True}, attempt=1)
    journal.add(Kind.STEP_FAILED, "b", {"name": "Error", "message": "seen", "output": "secret"})
    first, second = view(journal)["steps"]
    assert first["output"] == "[REDACTED]"
    assert (second["output"], second["success"]) == (None, False)
    assert second["attempts"][0]["error"]["message"] == "seen"
    assert second["config"]["sensitive"] == "output"


def test_running_step():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
    (step,) = view(journal)["steps"]
    assert (step["end"], step["success"], step["output"]) == (None, None, None)
    assert step["attempts"] == [{"start": step["start"], "end": None, "success": None, "error": None}]


def test_step_without_config_still_has_what_clients_read():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"config": {}}, attempt=1)
    journal.add(Kind.STEP_STARTED, "b", None, attempt=1)
    for step in view(journal)["steps"]:
        assert step["config"] == {"retries": {"limit": 0, "delay": 0, "backoff": "constant"}, "timeout": 0}
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "a", {"config": {"retries": CONFIG["retries"]}}, attempt=1)
    assert view(journal)["steps"][0]["config"] == {"retries": CONFIG["retries"], "timeout": 0}


def test_counted_names_and_order():
    journal = Journal().begin()
    journal.step("a")
    journal.step("a", count=2)
    journal.step("b")
    assert [s["name"] for s in view(journal)["steps"]] == ["a-1", "a-2", "b-1"]
    assert [s["name"] for s in view(journal, newest_first=True)["steps"]] == ["b-1", "a-2", "a-1"]


def test_simple_counts_steps_without_listing_them():
    journal = Journal().begin()
    journal.step("a")
    journal.add(Kind.SLEEP_STARTED, "s", {"due": journal.due(1)})
    shown = view(journal, simple=True)
    assert (shown["steps"], shown["step_count"]) == ([], 2)


def test_wait_that_got_its_event():
    journal = Journal().begin()
    journal.add(Kind.WAIT_STARTED, "ok", {"due": journal.due(10), "type": "go"})
    event = '{"payload":{"by":"Ada"},"timestamp":"2026-10-01T08:00:02.000Z","type":"go"}'
    journal.add(Kind.WAIT_COMPLETED, "ok", event)
    (wait,) = view(journal)["steps"]
    assert (wait["finished"], wait["output"], wait["end"]) == (True, event, "2026-10-01T08:00:02.120Z")


def test_wait_that_timed_out():
    journal = Journal().begin()
    journal.add(Kind.WAIT_STARTED, "ok", {"due": journal.due(10), "type": "go"})
    journal.add(
        Kind.WAIT_TIMED_OUT, "ok", {"name": "WorkflowTimeoutError", "message": "Execution timed out after 10ms"}
    )
    (wait,) = view(journal)["steps"]
    assert wait["finished"] is True
    assert wait["error"] == {"name": "WorkflowTimeoutError", "message": "Execution timed out after 10ms"}
    assert "output" not in wait


def test_sleep_that_was_cut_off_keeps_its_planned_end():
    journal = Journal().begin()
    journal.add(Kind.SLEEP_STARTED, "s", {"due": journal.due(3600)})
    journal.add(Kind.TERMINATED)
    shown = view(journal, Status.TERMINATED)
    sleep, termination = shown["steps"]
    assert (sleep["finished"], sleep["end"]) == (False, "2026-10-01T09:00:01.120Z")
    assert termination == {"type": "termination", "trigger": {"source": "api"}}
    assert (shown["step_count"], shown["success"], shown["end"]) == (1, False, "2026-10-01T08:00:02.120Z")


def test_steps_that_the_end_of_the_instance_cut_off_have_ended_with_it():
    journal = Journal().begin()
    journal.add(Kind.STEP_STARTED, "in flight", {"config": CONFIG}, attempt=1)
    journal.add(Kind.STEP_STARTED, "retrying", {"config": CONFIG}, attempt=1)
    journal.add(Kind.ATTEMPT_FAILED, "retrying", {"name": "Error", "message": "busy", "delay": 10000}, attempt=1)
    failed_at = journal.now
    assert [step["end"] for step in view(journal)["steps"]] == [None, None]
    journal.add(Kind.TERMINATED, after=5)
    shown = view(journal, Status.TERMINATED)
    in_flight, retrying, _ = shown["steps"]
    for step in (in_flight, retrying):
        assert (step["end"], step["success"], step["output"]) == (shown["end"], False, None)
    assert in_flight["attempts"] == [
        {"start": in_flight["start"], "end": shown["end"], "success": False, "error": None},
    ]
    assert retrying["attempts"] == [
        {
            "start": retrying["start"],
            "end": iso(failed_at),
            "success": False,
            "error": {"name": "Error", "message": "busy"},
        },
    ]


def test_steps_of_documents():
    journal = Journal().begin()
    journal.step("pause", type="wait")
    journal.step("ask", '{"ok":true}', type="external")
    journal.add(Kind.STEP_STARTED, "open", {"config": CONFIG, "type": "external"}, attempt=1)
    journal.add(Kind.STEP_WAITING, "open", {"until": journal.due(60)})
    journal.add(Kind.STEP_STARTED, "endless", {"config": CONFIG, "type": "external"}, attempt=1)
    journal.add(Kind.STEP_WAITING, "endless")
    journal.step("call", type="call_api")
    journal.add(Kind.STEP_SKIPPED, "never", {"reason": "condition"})
    shown = view(journal)
    assert [(s["type"], s["name"]) for s in shown["steps"]] == [
        ("sleep", "pause-1"),
        ("waitForEvent", "ask-1"),
        ("waitForEvent", "open-1"),
        ("waitForEvent", "endless-1"),
        ("step", "call-1"),
    ]
    assert shown["steps"][1]["output"] == '{"ok":true}'
    assert shown["steps"][2]["event_type"] == "step:open"
    assert shown["steps"][2]["end"] == "2026-10-01T08:01:06.120Z"
    assert shown["steps"][3]["end"] == shown["steps"][3]["start"]
    assert shown["step_count"] == 5


def test_rollback():
    journal = Journal().begin()
    journal.step("a", 1)
    journal.add(Kind.ROLLBACK_STARTED, payload={"name": "Error", "message": "boom"})
    journal.add(Kind.ROLLBACK_STEP_STARTED, "a", {"config": CONFIG}, attempt=1)
    shown = view(journal, Status.ROLLING_BACK)
    assert (shown["status"], shown["rollback"], shown["success"]) == ("rollingBack", None, None)
    journal.add(Kind.ROLLBACK_STEP_COMPLETED, "a", '"undone"')
    journal.add(Kind.ROLLBACK_ENDED, payload={"outcome": "complete", "error": None})
    journal.add(Kind.ERRORED, payload={"name": "Error", "message": "boom"})
    shown = view(journal, Status.ERRORED, error='{"name":"Error","message":"boom","code":"X"}')
    assert [(s["type"], s["name"]) for s in shown["steps"]] == [("step", "a-1"), ("rollback", "a-1")]
    assert shown["step_count"] == 1
    assert shown["rollback"] == {"outcome": "complete", "error": None}
    assert shown["error"] == {"name": "Error", "message": "boom"}
    assert shown["success"] is False


def test_a_rollback_that_had_nothing_to_undo_is_none():
    journal = Journal().begin()
    journal.step("a", 1)
    journal.add(Kind.ROLLBACK_STARTED, payload={"name": "Error", "message": "boom"})
    journal.add(Kind.ROLLBACK_ENDED, payload={"outcome": "complete", "error": None})
    row = '{"outcome":"complete","error":null}'
    assert view(journal, Status.ERRORED, rollback=row)["rollback"] is None
    journal = Journal().begin()
    journal.add(Kind.ROLLBACK_STARTED, payload={"name": "Error", "message": "boom"})
    journal.add(
        Kind.ROLLBACK_ENDED, payload={"outcome": "failed", "error": {"name": "RollbackMissing", "message": "m"}}
    )
    shown = view(journal, Status.ERRORED)
    assert shown["rollback"] == {"outcome": "failed", "error": {"name": "RollbackMissing", "message": "m"}}


def test_rollback_known_from_the_instance_row_alone():
    row = '{"outcome":"failed","error":{"name":"RollbackMissing","message":"m"}}'
    shown = view(Journal(), Status.TERMINATED, rollback=row)
    assert shown["rollback"] == {"outcome": "failed", "error": {"name": "RollbackMissing", "message": "m"}}


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        (None, None),
        ("3", 3),
        ('{"big":12345678901234567890}', {"big": 12345678901234567890}),
        (' {"$t":"i","v":"5"}', "5"),
    ],
)
def test_output_of_the_instance_is_the_value_itself(output: str | None, shown: Any):
    result = view(Journal().begin(), Status.COMPLETE, output=output)
    assert (result["output"], result["success"], result["status"]) == (shown, True, "complete")


def test_params_of_any_shape_are_passed_through():
    assert view(Journal(), input=r'{"a":"\ud800\u0000"}')["params"] == {"a": "\ud800\x00"}
    assert view(Journal(), input=None)["params"] is None


def test_times_without_a_journal_come_from_the_rows():
    shown = view(Journal(), Status.QUEUED, started_at=START + timedelta(seconds=1))
    assert (shown["queued"], shown["start"]) == ("2026-10-01T08:00:00.000Z", "2026-10-01T08:00:01.000Z")


def test_start_is_the_one_that_lists_show():
    started_at = START + timedelta(milliseconds=7)
    assert view(Journal().begin(), started_at=started_at)["start"] == iso(started_at)


def test_schedule():
    detail = '{"cron":"*/30 * * * *","scheduledTime":1786001400000}'
    shown = view(Journal(), trigger_source=4, trigger_detail=detail)
    assert shown["trigger"] == {"source": "cron"}
    assert shown["schedule"] == {"cron": "*/30 * * * *", "scheduledTime": 1786001400000}
    assert "schedule" not in view(Journal(), trigger_source=1)
    interval = view(Journal(), trigger_source=4, trigger_detail='{"scheduledTime":1786001400000}')
    assert interval["trigger"] == {"source": "cron"}
    assert "schedule" not in interval  # clients count on `cron` in it
