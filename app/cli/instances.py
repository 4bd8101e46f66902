"""`millrace instances …`: start, watch, steer and end instances of a workflow."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec

from app.cli.api_options import JSON, api_command
from app.cli.client import Api
from app.cli.instance_view import print_instance, watch
from app.cli.log_lines import follow, print_lines
from app.cli.output import Output
from app.cli.problems import CommandFailed

BATCH = 100
"""Instances the API creates or deletes in one request."""
FINISHED = frozenset({"complete", "errored", "terminated"})
STATUSES = (
    "queued",
    "running",
    "waiting",
    "paused",
    "waitingForPause",
    "rollingBack",
    "complete",
    "errored",
    "terminated",
)


@click.group("instances")
def instances() -> None:
    """Instances of a workflow. Where an instance id is expected, `latest` names the newest one."""


def _in_batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def _path(workflow: str, *rest: str) -> tuple[str, ...]:
    return ("workflows", workflow, "instances", *rest)


def _id(api: Api, workflow: str, instance_id: str) -> str:
    if instance_id != "latest":
        return instance_id
    newest = api.get(*_path(workflow), per_page=1).result
    if not newest:
        raise CommandFailed(f"{workflow} has no instances", f"Start one: millrace instances trigger {workflow}")
    return newest[0]["id"]


@instances.command("list")
@click.argument("workflow")
@click.option("--status", type=click.Choice(STATUSES))
@click.option("--since", metavar="TIME", help="Created at or after this time (RFC 3339).")
@click.option("--until", metavar="TIME", help="Created at or before this time.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@api_command
def list_instances(
    api: Api, out: Output, workflow: str, status: str | None, since: str | None, until: str | None, limit: int
) -> None:
    """List instances, newest first."""
    pages = api.pages(*_path(workflow), per_page=min(limit, 100), status=status, date_start=since, date_end=until)
    rows = list(itertools.islice(pages, limit))
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ("ID", "STATUS", "CREATED", "STARTED", "ENDED"),
        [(row["id"], row["status"], row["created_on"], row["started_on"], row["ended_on"]) for row in rows],
        empty=f"No instances. Start one: millrace instances trigger {workflow}",
    )


@instances.command("describe")
@click.argument("workflow")
@click.argument("instance_id", metavar="ID", default="latest")
@click.option("--watch", "watching", is_flag=True, help="Keep showing it until it has finished.")
@api_command
def describe(api: Api, out: Output, workflow: str, instance_id: str, watching: bool) -> None:
    """Show an instance with its steps."""
    path = _path(workflow, _id(api, workflow, instance_id))
    if watching:
        watch(lambda: api.get(*path).result, path[-1], out)
        return
    instance = api.get(*path).result
    if out.as_json:
        out.json(instance)
    else:
        print_instance(instance, path[-1], out)


@instances.command("trigger")
@click.argument("workflow")
@click.option("--params", type=JSON, help="Input of the instance.")
@click.option("--id", "instance_id", help="Id of the instance (with --batch: what the ids begin with).")
@click.option("--batch", type=click.IntRange(1, 100_000), help="Create this many instances.")
@click.option("--wait", "waiting", is_flag=True, help="Wait for the end and print the output.")
@api_command
def trigger(
    api: Api, out: Output, workflow: str, params: Any, instance_id: str | None, batch: int | None, waiting: bool
) -> None:
    """Create an instance, or many."""
    if batch is not None:
        if waiting:
            raise click.UsageError("--wait works for a single instance")
        _trigger_many(api, out, workflow, params, instance_id, batch)
        return
    body = {
        name: value for name, value in (("instance_id", instance_id), ("params", _as_sent(params))) if value is not None
    }
    created = api.post(*_path(workflow), body=body, once=True).result
    if waiting:
        _wait_for_end(api, out, workflow, created["id"])
    elif out.as_json:
        out.json(created)
    else:
        out.line(f"created {created['id']} ({created['status']})")


def _as_sent(params: Any) -> Any:
    """The API reads a text in `params` as JSON text when it can, so a text is sent as the JSON text of itself."""
    return msgspec.json.encode(params).decode() if isinstance(params, str) else params


def _trigger_many(api: Api, out: Output, workflow: str, params: Any, prefix: str | None, count: int) -> None:
    created: list[Any] = []
    started = time.perf_counter()
    with out.waiting(f"creating {count} instances"):
        for numbers in _in_batches(range(1, count + 1)):
            body: list[dict[str, Any]] = []
            for number in numbers:
                item = {} if params is None else {"params": _as_sent(params)}
                body.append({**item, "instance_id": f"{prefix}-{number}"} if prefix else item)
            answer = api.post(*_path(workflow, "batch"), body=body, once=True)
            created += answer.result
            for message in answer.messages:
                out.note(message["message"])
    if out.as_json:
        out.json(created)
        return
    seconds = time.perf_counter() - started
    out.line(f"created {len(created)} instances in {seconds:.2f} s")


def _wait_for_end(api: Api, out: Output, workflow: str, instance_id: str) -> None:
    with out.waiting(f"waiting for {instance_id}"):
        pauses = itertools.chain((0.02, 0.05, 0.1, 0.2), itertools.repeat(0.5))
        while (instance := api.get(*_path(workflow, instance_id), simple="true").result)["status"] not in FINISHED:
            time.sleep(next(pauses))
    complete = instance["status"] == "complete"
    if out.as_json:
        out.json({"id": instance_id, **instance})
    elif complete:
        out.json(instance["output"])
    if not complete:
        error = f": {instance['error']['name']}: {instance['error']['message']}" if instance["error"] else ""
        hint = f"`millrace instances describe {workflow} {instance_id}` shows its steps."
        raise CommandFailed(f"{instance_id} is {instance['status']}{error}", hint)


@instances.command("send-event")
@click.argument("workflow")
@click.argument("instance_id", metavar="ID")
@click.option("--type", "event_type", required=True, help="Type of the event.")
@click.option("--payload", type=JSON, default="{}", help="Payload of the event.", show_default=True)
@api_command
def send_event(api: Api, out: Output, workflow: str, instance_id: str, event_type: str, payload: Any) -> None:
    """Send an event to an instance; it is kept until the instance waits for it."""
    path = _path(workflow, _id(api, workflow, instance_id), "events", event_type)
    result = api.post(*path, body=payload).result
    if out.as_json:
        out.json(result)
    else:
        out.line(f"sent {event_type} to {path[3]}")


def _change(api: Api, out: Output, workflow: str, instance_id: str, body: dict[str, Any]) -> None:
    instance_id = _id(api, workflow, instance_id)
    result = api.patch(*_path(workflow, instance_id, "status"), body=body).result
    if out.as_json:
        out.json(result)
    else:
        out.line(f"{instance_id} is {result['status']}")


@instances.command("pause")
@click.argument("workflow")
@click.argument("instance_id", metavar="ID")
@api_command
def pause(api: Api, out: Output, workflow: str, instance_id: str) -> None:
    """Pause an instance; a step that runs finishes first."""
    _change(api, out, workflow, instance_id, {"status": "pause"})


@instances.command("resume")
@click.argument("workflow")
@click.argument("instance_id", metavar="ID")
@api_command
def resume(api: Api, out: Output, workflow: str, instance_id: str) -> None:
    """Let a paused instance go on."""
    _change(api, out, workflow, instance_id, {"status": "resume"})


@instances.command("restart")
@click.argument("workflow")
@click.argument("instance_id", metavar="ID")
@click.option("--from-step", help="Keep everything before this step (its name without the counter).")
@click.option("--from-count", type=click.IntRange(1), help="Which of several steps of that name.")
@click.option("--from-type", type=click.Choice(["do", "sleep", "waitForEvent"]))
@api_command
def restart(
    api: Api,
    out: Output,
    workflow: str,
    instance_id: str,
    from_step: str | None,
    from_count: int | None,
    from_type: str | None,
) -> None:
    """Run an instance again, from the beginning or from a step."""
    if from_step is None and (from_count or from_type):
        raise click.UsageError("--from-count and --from-type go with --from-step")
    body: dict[str, Any] = {"status": "restart"}
    if from_step is not None:
        given = {"name": from_step, "count": from_count, "type": from_type}
        body["from"] = {name: value for name, value in given.items() if value is not None}
    _change(api, out, workflow, instance_id, body)


@instances.command("terminate")
@click.argument("workflow")
@click.argument("instance_id", metavar="ID")
@click.option("--rollback", is_flag=True, help="Undo finished steps first.")
@api_command
def terminate(api: Api, out: Output, workflow: str, instance_id: str, rollback: bool) -> None:
    """End an instance now."""
    _change(api, out, workflow, instance_id, {"status": "terminate", **({"rollback": True} if rollback else {})})


@instances.command("delete")
@click.argument("workflow")
@click.argument("instance_ids", metavar="ID...", nargs=-1, required=True)
@api_command
def delete(api: Api, out: Output, workflow: str, instance_ids: tuple[str, ...]) -> None:
    """Delete instances, ending unfinished ones first."""
    wanted = [_id(api, workflow, each) for each in instance_ids]
    deleted: list[Any] = []
    errors: list[Any] = []
    for some in _in_batches(wanted):
        result = api.post(*_path(workflow, "batch", "delete"), body={"instances": some}).result
        deleted += result["deleted"]
        errors += result["errors"]
    if out.as_json:
        out.json({"deleted": deleted, "errors": errors})
    else:
        for one in deleted:
            out.line(f"deleted {one['id']}")
    if errors:
        problems = "; ".join(f"{each['id']}: {each['message']}" for each in errors)
        raise CommandFailed(problems, f"`millrace instances list {workflow}` shows what there is.")


@instances.command("logs")
@click.argument("workflow")
@click.argument("instance_id", metavar="ID", default="latest")
@click.option("-f", "--follow", "following", is_flag=True, help="Keep printing what happens, until the end.")
@api_command
def logs(api: Api, out: Output, workflow: str, instance_id: str, following: bool) -> None:
    """Print what happened in an instance, oldest first."""
    path = _path(workflow, _id(api, workflow, instance_id), "logs")
    if following:
        follow(api, path, out)
    else:
        print_lines(api, path, out)


commands: list[click.Command] = [instances]
