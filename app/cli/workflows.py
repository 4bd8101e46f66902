"""`millrace workflows …`: look at what is deployed, and delete it."""

from __future__ import annotations

from typing import Any

import click

from app.cli.api_options import api_command
from app.cli.client import Api
from app.cli.output import Output


@click.group("workflows")
def workflows() -> None:
    """Workflows of an account."""


@workflows.command("list")
@click.option("--search", help="Only names that contain this.")
@api_command
def list_workflows(api: Api, out: Output, search: str | None) -> None:
    """List workflows, newest first."""
    rows = list(api.pages("workflows", search=search))
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ("NAME", "SCRIPT", "CREATED", "LAST TRIGGERED", "INSTANCES"),
        [
            (row["name"], row["script_name"], row["created_on"], row["triggered_on"], _counts(row["instances"]))
            for row in rows
        ],
        empty="No workflows yet. Deploy one: millrace deploy examples/hello.yaml",
    )


@workflows.command("describe")
@click.argument("name")
@api_command
def describe_workflow(api: Api, out: Output, name: str) -> None:
    """Show a workflow, its instances by status, and its newest version."""
    workflow = api.get("workflows", name).result
    versions = api.get("workflows", name, "versions", per_page=1).result
    newest: dict[str, Any] = versions[0] if versions else {}
    if out.as_json:
        out.json({**workflow, "latest_version": newest or None})
        return
    out.fields(
        [
            ("name", workflow["name"]),
            ("id", workflow["id"]),
            ("script", workflow["script_name"]),
            ("class", workflow["class_name"]),
            ("created", workflow["created_on"]),
            ("modified", workflow["modified_on"]),
            ("triggered", workflow["triggered_on"]),
            ("instances", _counts(workflow["instances"])),
            ("version", newest.get("id")),
            ("language", newest.get("language")),
            *[
                ("schedule", f"{each['cron']}  next {each['next_instance']}")
                for each in workflow.get("schedules") or []
            ],
        ]
    )


@workflows.command("versions")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True)
@api_command
def list_versions(api: Api, out: Output, name: str, limit: int) -> None:
    """List versions of a workflow, newest first."""
    rows = api.get("workflows", name, "versions", per_page=limit).result
    if out.as_json:
        out.json(rows)
        return
    out.table(
        ("VERSION", "LANGUAGE", "CLASS", "CREATED", "GRAPH"),
        [(row["id"], row.get("language"), row["class_name"], row["created_on"], row["has_dag"]) for row in rows],
    )


@workflows.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@api_command
def delete_workflow(api: Api, out: Output, name: str, yes: bool) -> None:
    """Delete a workflow with all its instances, running ones included."""
    if not yes:
        unfinished = _unfinished(api.get("workflows", name).result["instances"])
        out.confirm(f"Delete {name} with all its instances ({unfinished} unfinished)?")
    result = api.delete("workflows", name).result
    if out.as_json:
        out.json(result)
    else:
        out.line(f"deleted {name}; its instances are being removed")


def _counts(instances: dict[str, int]) -> str:
    return ", ".join(f"{count} {status}" for status, count in instances.items() if count) or "none"


def _unfinished(instances: dict[str, int]) -> int:
    return sum(count for status, count in instances.items() if status not in ("complete", "errored", "terminated"))


commands: list[click.Command] = [workflows]
