"""What graphs are drawn with: of documents, and of workflow classes of either language."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

GRAPH_VERSION = 1
DEFAULT_RETRIES = {"limit": 5, "delay": 10_000, "backoff": "exponential"}
DEFAULT_TIMEOUT = "10 minutes"
DEFAULT_EVENT_TIMEOUT = "24 hours"
MAX_DEPTH = 60
"""Syntax nested deeper than this is left out."""

Drawn = dict[str, Any]
"""A node of a graph."""


@dataclass(frozen=True, slots=True)
class ClassGraph:
    """`graph`: `{version, workflow}`. `calls_steps`: whether `run` does anything at all with its steps."""

    graph: dict[str, Any]
    calls_steps: bool


def class_drawn(
    name: str, functions: Mapping[str, Drawn], nodes: list[Drawn], payload: Drawn | None, *, calls_steps: bool
) -> ClassGraph:
    """The graph of the class exported as `name`; `functions` are those its nodes call."""
    workflow: dict[str, Any] = {"class_name": name, "functions": functions, "nodes": nodes}
    if payload is not None:
        workflow["payload"] = payload
    return ClassGraph({"version": GRAPH_VERSION, "workflow": workflow}, calls_steps)


def payload_of(fields: Iterable[str]) -> Drawn | None:
    """The payload of which `run` reads these fields."""
    known = {name: {"type": "unknown"} for name in fields}
    return {"type": "object", "fields": known} if known else None


def step_config(given: Any) -> Drawn:
    """The configuration of a step, with the defaults of what is not given or not known."""
    given = given if isinstance(given, Mapping) else {}
    retries = given.get("retries")
    return {
        "retries": {**DEFAULT_RETRIES, **(retries if isinstance(retries, Mapping) else {})},
        "timeout": given.get("timeout", DEFAULT_TIMEOUT),
    }


def steps_in(nodes: Iterable[Drawn]) -> bool:
    """Whether there is more than ways out."""
    return any(node["type"] != "break" for node in nodes)


def branching(branches: Iterable[Drawn]) -> bool:
    """Whether anything is in any of the branches."""
    return any(branch["nodes"] for branch in branches)
