"""What `from workers import …` and `from workers.workflows import …` give."""

from __future__ import annotations

import sys
import types

from entry import DurableObject, WorkerEntrypoint, WorkflowEntrypoint, env
from values import NonRetryableError
from web import Headers, Request, Response, fetch


def _seen_as(module: str, *things: type) -> None:
    for thing in things:
        thing.__module__ = module


def install() -> None:
    """Make the package."""
    workers = types.ModuleType("workers", "The platform's own.")
    workflows = types.ModuleType("workers.workflows", "The platform's own, for workflows.")
    workers.__path__ = []
    workers.__dict__.update(
        WorkflowEntrypoint=WorkflowEntrypoint,
        WorkerEntrypoint=WorkerEntrypoint,
        DurableObject=DurableObject,
        Headers=Headers,
        Request=Request,
        Response=Response,
        fetch=fetch,
        env=env,
        workflows=workflows,
    )
    workflows.__dict__["NonRetryableError"] = NonRetryableError
    _seen_as("workers", WorkflowEntrypoint, WorkerEntrypoint, DurableObject, Headers, Request, Response)
    _seen_as("workers.workflows", NonRetryableError)
    sys.modules["workers"] = workers
    sys.modules["workers.workflows"] = workflows
