"""Workflows made, changed, shown and retired in native forms."""

import asyncio
import dataclasses
from typing import Any
from uuid import UUID

import msgspec
import pytest

from app.errors import InvalidRequest, NotAllowed
from tenants.auth import Caller, expand
from tenants.limits import Limits
from tenants.spellings import WORKFLOW, spell
from versions.definitions.schemas import KnownStep, Profile
from versions.errors import DocumentInvalid, OtherForm, TooManyWorkflows, VersionNotFound, WorkflowNotFound
from versions.schemas import WorkflowBody
from versions.service import VersionService

SAMPLE = {
    "name": "Sample Workflow",
    "description": "A sample workflow definition",
    "tasks": [{"name": "Task 1"}, {"name": "Task 2", "dependencies": ["task-1"]}],
    "synchronizationPoints": [{"name": "All", "requiredTasks": ["task-1", "task-2"]}],
}
SECRET = {"url": "https://api.example.com", "headers": {"Authorization": "Bearer token", "Accept": "*/*"}}
ACTIONS = {"name": "Welcome", "actions": [{"type": "call_api", "config": SECRET, "onError": "continue"}]}


@pytest.fixture
def definitions(versions: VersionService) -> Any:
    return versions.definitions


def reader(boss: Caller, **changes: Any) -> Caller:
    return dataclasses.replace(boss, scopes=expand(["workflows:read"]), role="viewer", **changes)


async def schedules(admin: Any) -> list[Any]:
    return [row["next_at"] for row in await admin.fetch("select next_at from schedule order by created_at, id")]


async def test_a_workflow_is_made_and_found_by_all_its_names(definitions, boss):
    made = await definitions.create(boss, "002", SAMPLE)
    workflow = made.definition.workflow
    assert made.changed
    assert (workflow.handle, workflow.display_name, workflow.status) == ("sample-workflow", "Sample Workflow", "active")
    assert (made.definition.semver, made.definition.dialect, made.definition.created_by) == ("1.0.0", "002", "operator")
    key = workflow.workflow_key
    for reference in (spell(WORKFLOW, key), str(key), key.hex, key.hex.upper(), "sample-workflow"):
        assert (await definitions.get(boss, reference)).workflow.workflow_key == key
    assert (await definitions.get(boss, str(workflow.no), decimal=True)).workflow == workflow
    for reference in (str(workflow.no), "nobody", "", "wf_", "a b", "\0", "9" * 40, "999999"):
        with pytest.raises(WorkflowNotFound):
            await definitions.get(boss, reference)


async def test_whoever_sees_executions_may_ask_which_workflow_is_meant(definitions, boss):
    workflow = (await definitions.create(boss, "002", SAMPLE)).definition.workflow
    reader = dataclasses.replace(boss, scopes=frozenset({"executions:read"}))
    for reference in ("sample-workflow", str(workflow.workflow_key)):
        named = await definitions.named(reader, reference)
        assert (named.workflow_key, named.handle) == (workflow.workflow_key, "sample-workflow")
    with pytest.raises(WorkflowNotFound):
        await definitions.named(reader, "nobody")
    with pytest.raises(WorkflowNotFound):
        await definitions.named(dataclasses.replace(reader, account_id=UUID(int=1)), "sample-workflow")
    with pytest.raises(NotAllowed):
        await definitions.named(dataclasses.replace(boss, scopes=frozenset({"account:read"})), "sample-workflow")


async def test_a_number_goes_before_a_name(definitions, boss, versions):
    numbered = (await definitions.create(boss, "002", SAMPLE)).definition.workflow
    digits = str(numbered.no)
    await versions.put(boss, digits, WorkflowBody(definition={"spec": "workflow/1"}))
    assert (await definitions.get(boss, digits, decimal=True)).workflow == numbered
    assert (await definitions.get(boss, digits)).workflow.handle == digits
    await definitions.delete(boss, "sample-workflow")
    assert (await definitions.get(boss, digits, decimal=True)).workflow.handle == digits


async def test_equal_names_get_handles_of_their_own(definitions, boss):
    made = await asyncio.gather(*[definitions.create(boss, "002", SAMPLE) for _ in range(5)])
    assert sorted(each.definition.workflow.handle for each in made) == [
        "sample-workflow", "sample-workflow-2", "sample-workflow-3", "sample-workflow-4", "sample-workflow-5"
    ]  # fmt: skip
    long = [await definitions.create(boss, "002", {**SAMPLE, "name": "x" * 255}) for _ in range(3)]
    assert [len(each.definition.workflow.handle) for each in long] == [64, 64, 64]
    reserved = await definitions.create(boss, "002", {"name": "Executions"})
    assert reserved.definition.workflow.handle == "executions-2"


async def test_an_update_makes_the_next_version_and_the_same_again_none(definitions, boss, clock):
    key = str((await definitions.create(boss, "002", SAMPLE)).definition.workflow.workflow_key)
    clock.advance(5)
    done = await definitions.update(boss, "002", key, {"description": "Updated"})
    assert (done.changed, done.definition.semver) == (True, "1.0.1")
    moved = done.definition.workflow.modified_at
    assert moved > done.definition.workflow.created_at
    assert done.definition.shown("002", boss)["description"] == "Updated"
    assert len(done.definition.shown("002", boss)["tasks"]) == 2
    clock.advance(5)
    same = await definitions.update(boss, "002", key, {**SAMPLE, "description": "Updated", "version": "7.0.0"})
    assert (same.changed, same.definition.semver) == (False, "1.0.1")
    assert same.definition.workflow.modified_at == moved
    assert [each.semver for each in await definitions.versions(boss, key, limit=10)] == ["1.0.1", "1.0.0"]
    first = await definitions.version(boss, key, "1.0.0")
    assert first.shown("002", boss)["description"] == "A sample workflow definition"
    for wrong in ("1.0.2", "2.0.0", "1", "1.0.01"):
        with pytest.raises(VersionNotFound):
            await definitions.version(boss, key, wrong)


async def test_updates_at_the_same_time_are_all_kept(definitions, boss):
    key = str((await definitions.create(boss, "002", SAMPLE)).definition.workflow.workflow_key)
    changes = [
        {"description": "Another"},
        {"name": "Renamed"},
        {"tasks": [{"name": "Task 1"}, {"name": "Task 2"}, {"name": "Three"}]},
    ]
    await asyncio.gather(*[definitions.update(boss, "002", key, change) for change in changes])
    found = await definitions.get(boss, key)
    shown = found.shown("002", boss)
    assert (shown["name"], shown["description"], len(shown["tasks"])) == ("Renamed", "Another", 3)
    assert shown["synchronizationPoints"][0]["requiredTasks"] == ["task-1", "task-2"]
    assert found.semver == "1.0.3"


async def test_what_is_wrong_changes_nothing(definitions, boss, admin):
    with pytest.raises(DocumentInvalid) as refused:
        await definitions.create(boss, "002", {"name": "x", "tasks": [{"name": "a", "dependencies": ["b"]}, {}]})
    assert [problem.pointer for problem in refused.value.problems] == ["/tasks/1/name", "/tasks/0/dependencies/0"]
    assert await admin.fetchval("select count(*) from workflow") == 0
    key = str((await definitions.create(boss, "002", SAMPLE)).definition.workflow.workflow_key)
    with pytest.raises(DocumentInvalid):
        await definitions.update(boss, "002", key, {"tasks": [{"name": "only"}]})  # the sync point needs two
    with pytest.raises(InvalidRequest, match="tasks must not be null"):
        await definitions.update(boss, "002", key, {"tasks": None})
    assert (await definitions.get(boss, key)).semver == "1.0.0"


async def test_a_workflow_of_another_face_keeps_its_form_when_it_is_renamed(definitions, boss, versions):
    made = (await definitions.create(boss, "004", ACTIONS)).definition.workflow
    done = await definitions.update(boss, "002", str(made.no), {"name": "Hello", "description": "x"}, decimal=True)
    assert (done.definition.dialect, done.definition.workflow.display_name) == ("004", "Hello")
    assert done.definition.shown("004", boss)["actions"][0]["onError"] == "continue"
    assert done.definition.workflow.handle == "welcome"
    document = {"spec": "workflow/1", "nodes": [{"id": "a"}], "vars": {"n": 1}}
    await versions.put(boss, "orders", WorkflowBody(definition=document, concurrency=None))
    done = await definitions.update(boss, "001", "orders", {"name": "Orders"})
    assert (done.definition.semver, done.definition.dialect) == ("1.0.1", "003")
    assert done.definition.document().vars == {"n": 1}


async def test_a_change_in_another_form_must_be_whole(definitions, boss):
    made = (await definitions.create(boss, "004", ACTIONS)).definition.workflow
    with pytest.raises(OtherForm, match="give tasks too"):
        await definitions.update(boss, "002", made.handle, {"synchronizationPoints": []})
    done = await definitions.update(boss, "002", made.handle, {"tasks": [{"name": "Only"}]})
    assert (done.definition.dialect, done.definition.semver) == ("002", "1.0.1")
    assert [task["name"] for task in done.definition.shown("002", boss)["tasks"]] == ["Only"]


async def test_settings_of_a_deployment_survive_an_update(definitions, boss, versions):
    body = {"definition": {"spec": "workflow/1"}, "concurrency": {"limit": 3}, "schedules": [{"cron": "0 * * * *"}]}
    body |= {"default_retention": {"success_retention": "1 day"}, "limits": {"steps": 7}}
    await versions.put(boss, "orders", msgspec.convert(body, WorkflowBody))
    done = await definitions.update(boss, "002", "orders", {"name": "x", "tasks": [{"name": "a"}]})
    assert done.definition.workflow.concurrency == 3
    assert msgspec.json.decode(done.definition.settings) == {
        "concurrency": {"limit": 3}, "default_retention": {"success_retention": 86_400_000}, "limits": {"steps": 7},
        "schedules": ["0 * * * *"],
    }  # fmt: skip
    triggers = [{"type": "schedule", "config": {"cron": "5 5 * * *"}}]
    done = await definitions.update(boss, "001", "orders", {"definition": {}, "triggers": triggers})
    assert "schedules" not in msgspec.json.decode(done.definition.settings)


async def test_secrets_are_for_those_who_may_change_them(definitions, boss):
    made = await definitions.create(boss, "004", ACTIONS)
    for dialect, place in (("004", "actions"), ("002", "tasks")):
        [mine] = made.definition.shown(dialect, boss)[place]
        [theirs] = made.definition.shown(dialect, reader(boss))[place]
        assert mine["config"]["headers"]["Authorization"] == "Bearer token"
        assert theirs["config"]["headers"] == {"Authorization": "[REDACTED]", "Accept": "*/*"}


async def test_scopes(definitions, boss):
    made = (await definitions.create(boss, "002", SAMPLE)).definition.workflow
    weak = reader(boss)
    assert (await definitions.get(weak, made.handle)).workflow == made
    for attempt in (
        definitions.create(weak, "002", SAMPLE),
        definitions.update(weak, "002", made.handle, {}),
        definitions.delete(weak, made.handle),
        definitions.duplicate(weak, made.handle),
        definitions.set_status(weak, made.handle, "inactive"),
    ):
        with pytest.raises(NotAllowed):
            await attempt
    nobody = dataclasses.replace(boss, scopes=frozenset(), role="viewer")
    for attempt in (definitions.get(nobody, made.handle), definitions.page(nobody, limit=1, offset=0)):
        with pytest.raises(NotAllowed):
            await attempt


async def test_another_account_sees_nothing(definitions, boss, stranger):
    made = (await definitions.create(boss, "002", SAMPLE)).definition.workflow
    for reference in (made.handle, str(made.workflow_key), spell(WORKFLOW, made.workflow_key)):
        with pytest.raises(WorkflowNotFound):
            await definitions.get(stranger, reference)
    for attempt in (
        definitions.get(stranger, str(made.no), decimal=True),
        definitions.update(stranger, "002", made.handle, {"name": "mine"}),
        definitions.delete(stranger, made.handle),
        definitions.versions(stranger, made.handle, limit=1),
        definitions.set_status(stranger, made.handle, "inactive"),
    ):
        with pytest.raises(WorkflowNotFound):
            await attempt
    assert await definitions.page(stranger, limit=10, offset=0) == ([], 0)
    assert await definitions.node_figures(stranger.account_id, made.workflow_key) == {}


async def test_workspaces(definitions, boss, tenants):
    here = await tenants.workspaces.create(boss, "here")
    there = await tenants.workspaces.create(boss, "there")
    default = await tenants.workspaces.get(boss.account_id, "default")
    inside = (await definitions.create(boss, "004", ACTIONS, workspace_id=here.id)).definition.workflow
    plain = (await definitions.create(boss, "002", SAMPLE)).definition.workflow
    assert (inside.workspace_id, plain.workspace_id) == (here.id, default.id)
    assert (await definitions.get(boss, "welcome", workspace_id=here.id)).workflow == inside
    restricted = dataclasses.replace(boss, workspace_id=there.id)
    for attempt in (
        definitions.get(boss, "welcome", workspace_id=there.id),
        definitions.get(restricted, "welcome"),
        definitions.get(restricted, "welcome", workspace_id=here.id),
        definitions.update(boss, "004", "welcome", {}, workspace_id=there.id),
        definitions.delete(boss, "welcome", workspace_id=there.id),
        definitions.delete(restricted, "welcome"),
        definitions.create(restricted, "004", ACTIONS, workspace_id=here.id),
    ):
        with pytest.raises(WorkflowNotFound):
            await attempt
    rows, total = await definitions.page(boss, limit=10, offset=0, workspace_id=here.id)
    assert ([row.workflow.handle for row in rows], total) == (["welcome"], 1)
    made = (await definitions.create(restricted, "004", ACTIONS)).definition.workflow
    assert (made.workspace_id, made.handle) == (there.id, "welcome-2")


async def test_pages(definitions, boss, clock):
    for number in range(5):
        clock.advance(1)
        await definitions.create(boss, "002", {"name": f"Flow {number}"}, profile=Profile(
            status="draft" if number == 2 else None))  # fmt: skip
    rows, total = await definitions.page(boss, limit=2, offset=1)
    assert ([row.workflow.display_name for row in rows], total) == (["Flow 3", "Flow 2"], 5)
    rows, total = await definitions.page(boss, limit=9, offset=0, statuses=["draft"])
    assert ([row.workflow.display_name for row in rows], total) == (["Flow 2"], 1)
    rows, total = await definitions.page(boss, limit=9, offset=0, search="FLOW 4", counted=True)
    assert [(row.workflow.display_name, row.executions, row.last_execution_at) for row in rows] == [("Flow 4", 0, None)]


async def test_profiles(definitions, boss, clock):
    profile = Profile(status="draft", tags=["a", "b"], metadata={"k": [1]})
    made = (await definitions.create(boss, "004", ACTIONS, profile=profile)).definition.workflow
    assert (made.status, made.tags, made.metadata) == ("draft", '["a","b"]', '{"k":[1]}')
    clock.advance(1)
    done = await definitions.update(boss, "004", made.handle, {}, profile=Profile(tags=[]))
    assert (done.changed, done.definition.semver) == (False, "1.0.0")
    assert (done.definition.workflow.status, done.definition.workflow.tags) == ("draft", "[]")
    assert done.definition.workflow.modified_at > made.modified_at


@pytest.mark.parametrize(
    ("profile", "pointer"),
    [
        (Profile(status="gone"), "/status"),
        (Profile(tags=["x"] * 51), "/tags"),
        (Profile(tags=["ok", ""]), "/tags/1"),
        (Profile(metadata={"x": "y" * 17_000}), "/metadata"),
    ],
)
async def test_bad_profiles(definitions, boss, profile: Profile, pointer: str):
    with pytest.raises(InvalidRequest) as refused:
        await definitions.create(boss, "004", ACTIONS, profile=profile)
    assert refused.value.pointer == pointer


async def test_schedules_of_what_is_not_active_rest(definitions, boss, admin, clock, versions):
    body = {**ACTIONS, "trigger": {"type": "scheduled", "config": {"cron": "0 * * * *"}}}
    handle = (await definitions.create(boss, "004", body)).definition.workflow.handle
    [due] = await schedules(admin)
    assert due is not None
    assert (await definitions.set_status(boss, handle, "inactive")).workflow.status == "inactive"
    assert await schedules(admin) == [None]
    both = {"type": "scheduled", "config": {"cron": "30 * * * *"}}
    await definitions.update(boss, "004", handle, {"trigger": both})
    assert await schedules(admin) == [None]
    clock.advance(3600)
    await definitions.set_status(boss, handle, "active")
    [due] = await schedules(admin)
    assert due > clock.now()
    await versions.put(boss, "plain", WorkflowBody(definition={"spec": "workflow/1"}))
    assert (await versions.workflow(boss.account_id, "plain")).status == "active"


async def test_deleting_retires_and_frees_the_name(definitions, boss, admin, versions):
    body = {**ACTIONS, "trigger": {"type": "scheduled", "config": {"cron": "0 * * * *"}}}
    first = (await definitions.create(boss, "004", body)).definition
    await definitions.delete(boss, "welcome")
    assert await schedules(admin) == []
    assert await admin.fetchval("select count(*) from termination_job") == 0
    with pytest.raises(WorkflowNotFound):
        await definitions.get(boss, "welcome")
    with pytest.raises(WorkflowNotFound):
        await definitions.delete(boss, "welcome")
    assert (await versions.load(boss.account_id, first.version_key)).handle == "welcome"
    second = (await definitions.create(boss, "004", body)).definition
    assert second.workflow.handle == "welcome"
    assert second.workflow.workflow_key != first.workflow.workflow_key


async def test_versions_are_found_by_their_keys_also_when_the_workflow_is_gone(definitions, boss, stranger):
    first = (await definitions.create(boss, "002", SAMPLE)).definition
    second = (await definitions.update(boss, "002", "sample-workflow", {"name": "New"})).definition
    await definitions.create(boss, "004", ACTIONS)
    keys = [first.version_key, second.version_key, UUID(int=1), first.version_key]
    found = await definitions.of_versions(boss, keys)
    assert {key: (each.semver, each.retired) for key, each in found.items()} == {
        first.version_key: ("1.0.0", False), second.version_key: ("1.0.1", False)
    }  # fmt: skip
    assert found[first.version_key].shown("002", boss)["name"] == "Sample Workflow"
    await definitions.delete(boss, "sample-workflow")
    assert [each.retired for each in (await definitions.of_versions(boss, keys)).values()] == [True, True]
    for caller in (stranger, dataclasses.replace(boss, workspace_id=UUID(int=3))):
        assert await definitions.of_versions(caller, keys) == {}


async def test_duplicates(definitions, boss):
    made = (await definitions.create(boss, "004", ACTIONS, profile=Profile(tags=["t"]))).definition
    copy = (await definitions.duplicate(boss, "welcome")).definition
    assert (copy.workflow.display_name, copy.workflow.handle) == ("Welcome (copy)", "welcome-copy")
    assert (copy.workflow.status, copy.workflow.tags, copy.semver) == ("draft", '["t"]', "1.0.0")
    assert copy.shown("004", boss)["actions"] == made.shown("004", boss)["actions"]
    named = (await definitions.duplicate(boss, "welcome", name="Other", status="active")).definition
    assert (named.workflow.display_name, named.workflow.status) == ("Other", "active")


async def test_validation_stores_nothing(definitions, boss, admin):
    good = await definitions.validate(boss, "001", {"name": "x", "definition": {"nodes": [
        {"id": "a", "type": "send_notification", "parameters": {"message": "{{ steps.zz.output }}"}}]}})  # fmt: skip
    assert (good.problems, [each.kind for each in good.warnings]) == ((), ["FORWARD_REFERENCE"])
    bad = await definitions.validate(boss, "001", {"definition": {"nodes": [{"id": "a", "type": "fly"}]}})
    assert [each.kind for each in bad.problems] == ["INVALID_FIELD", "UNKNOWN_TYPE"]
    assert await admin.fetchval("select count(*) from workflow") == 0


async def test_tasks_that_are_completed_from_outside(definitions, boss, tenants):
    first = (await definitions.create(boss, "002", {"name": "a", "tasks": [{"name": "x"}]})).definition
    await tenants.accounts.set_untyped_tasks(boss, "external")
    second = (await definitions.create(boss, "002", {"name": "b", "tasks": [{"name": "x"}]})).definition
    assert [each.document().nodes[0].type for each in (first, second)] == ["noop", "external"]
    handled = (await definitions.create(boss, "002", {"name": "c", "tasks": [{"name": "ship_order"}]})).definition
    assert handled.document().nodes[0].type == "ship_order"


async def test_what_a_definition_claims_to_be_made_from_is_not_believed(definitions, boss, versions):
    claimed = {"spec": "workflow/1", "nodes": [{"id": "a"}], "source": {"dialect": "002", "original": [1]}}
    await versions.put(boss, "claimed", WorkflowBody(definition=claimed))
    found = await definitions.get(boss, "claimed")
    assert [task["id"] for task in found.shown("002", boss)["tasks"]] == ["a"]


async def test_steps_of_a_script_are_shown_as_what_it_consists_of(definitions, boss, versions):
    await definitions.create(boss, "002", {"name": "Empty"})
    script = msgspec.structs.replace(await definitions.get(boss, "empty"), language="javascript", original=None)
    script = msgspec.structs.replace(script, dialect="003")
    assert script.shown("002", boss)["tasks"] == []
    steps = [KnownStep("fetch-1", "fetch")]
    assert [(task["id"], task["name"]) for task in script.shown("002", boss, steps)["tasks"]] == [("fetch-1", "fetch")]
    assert script.shown("001", boss, steps)["definition"]["nodes"][0]["id"] == "fetch-1"
    assert script.shown("004", boss, steps)["actions"][0]["type"] == "step"


async def test_limits(definitions, boss, tenants):
    await tenants.accounts.set_limits(boss, changes={"workflows": 1})
    assert (await tenants.limits(boss.account_id)) != Limits()
    await definitions.create(boss, "002", SAMPLE)
    with pytest.raises(TooManyWorkflows):
        await definitions.create(boss, "002", SAMPLE)
    with pytest.raises(TooManyWorkflows):
        await definitions.duplicate(boss, "sample-workflow")


async def test_changes_leave_audit_lines(definitions, boss, tenants):
    handle = (await definitions.create(boss, "002", SAMPLE)).definition.workflow.handle
    await definitions.update(boss, "002", handle, {"name": "New"})
    await definitions.set_status(boss, handle, "archived")
    await definitions.set_status(boss, handle, "archived")
    await definitions.delete(boss, handle)
    lines = [line.action for line in await tenants.accounts.audit_lines(boss.account_id)]
    assert lines[:4] == ["workflow.retire", "workflow.status", "workflow.update", "workflow.create"]


async def test_figures_of_nodes(definitions, boss, admin):
    made = (await definitions.create(boss, "002", SAMPLE)).definition.workflow
    await admin.execute(
        "insert into node_statistics (account_id, workflow_key, node, runs, mean_ms) values ($1, $2, 'task-1', 3, 1.5),"
        " ($1, $3, 'other', 1, 1)",
        boss.account_id, made.workflow_key, UUID(int=5),
    )  # fmt: skip
    found = await definitions.node_figures(boss.account_id, made.workflow_key)
    assert {node: (each.runs, each.mean_ms) for node, each in found.items()} == {"task-1": (3, 1.5)}
