"""One attempt of a step: the call into the session, its time limit, and what its end means."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog

from instances.engine import faults
from instances.engine.runs.held import Held
from instances.runtimes.protocol import Attempt, Do, Failure, Raw, Session, SessionLost, StepFailure, StepKind
from tenants import metrics

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Failed:
    """The attempt failed."""

    failure: Failure
    timed_out: bool = False


Outcome = Raw | Failed | None
"""The output as JSON text, or the failure."""


def timed_out(timeout: int | None) -> Failed:
    """An attempt, or a wait for completion from outside, took longer than `timeout` ms."""
    return Failed(Failure("WorkflowTimeoutError", f"Execution timed out after {timeout}ms", "STEP_TIMEOUT"), True)


def run_in_place(session: Session, do: Do, attempt: Attempt) -> Outcome:
    """Run an immediate step. It is pure: its coroutine ends at the first send, so it needs no task."""
    work = session.execute(do, attempt)
    try:
        work.send(None)  # type: ignore[attr-defined]
    except StopIteration as done:
        return done.value
    except StepFailure as error:
        return Failed(error.failure)
    raise RuntimeError(f"immediate step {do.key.counted} suspended")


async def run(session: Session, do: Do, attempt: Attempt, held: Held) -> Outcome:
    """Run an attempt within its time limit (one that is completed from outside has its limit there).

    Raises :class:`SessionLost`.
    """
    timeout = None if do.external else do.timeout
    scope = asyncio.timeout(None if timeout is None else timeout / 1000)
    began, result = time.perf_counter(), "failed"
    try:
        async with scope:
            output = await session.execute(do, attempt)
        faults.point("compensation-not-journaled" if do.key.kind is StepKind.ROLLBACK else "step-not-journaled")
        result = "completed"
        return output
    except StepFailure as error:
        return Failed(error.failure)
    except SessionLost:
        raise
    except TimeoutError as error:
        return timed_out(timeout) if scope.expired() else Failed(Failure("TimeoutError", str(error) or "timed out"))
    except Exception as error:
        log.exception("a step broke the engine", step=do.key.counted, **held.log_fields)
        return Failed(Failure("WorkflowInternalError", f"internal error: {type(error).__name__}"))
    finally:
        metrics.STEP_SECONDS.labels(held.language, result).observe(time.perf_counter() - began)
