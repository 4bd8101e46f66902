"""One attempt of a step: its time limit, and what its end means."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import structlog
from prometheus_client import Histogram

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


def limit(do: Do) -> float | None:
    """Seconds an attempt may take; one that is completed from outside has its limit there."""
    return None if do.external or do.timeout is None else do.timeout / 1000


async def run(work: Coroutine[Any, Any, Raw | None], do: Do, held: Held) -> Outcome:
    """Run an attempt within its time limit. Raises :class:`SessionLost`."""
    scope = asyncio.timeout(limit(do))
    began, result = time.perf_counter(), "failed"
    try:
        async with scope:
            output = await work
        _passed(do)
        result = "completed"
        return output
    except StepFailure as error:
        return Failed(error.failure)
    except SessionLost:
        raise
    except TimeoutError as error:
        return timed_out(do.timeout) if scope.expired() else Failed(Failure("TimeoutError", str(error) or "timed out"))
    except Exception as error:
        return _broken(error, do, held)
    finally:
        _seconds(held.language, result).observe(time.perf_counter() - began)


def count(work: asyncio.Future[Raw | None], held: Held, began: float) -> None:
    """Count the time of an attempt that was only waited for; `work` is done, `began` by `perf_counter`."""
    failed = work.cancelled() or work.exception() is not None
    _seconds(held.language, "failed" if failed else "completed").observe(time.perf_counter() - began)


def outcome_of(work: asyncio.Future[Raw | None], do: Do, held: Held) -> Outcome:
    """What an attempt that was only waited for came to; `work` is done and was not cancelled.

    Raises :class:`SessionLost`.
    """
    error = work.exception()
    if error is None:
        _passed(do)
        return work.result()
    if isinstance(error, StepFailure):
        return Failed(error.failure)
    if isinstance(error, SessionLost):
        raise error
    return _broken(error, do, held)


def _passed(do: Do) -> None:
    faults.point("compensation-not-journaled" if do.key.kind is StepKind.ROLLBACK else "step-not-journaled")


def _broken(error: BaseException, do: Do, held: Held) -> Failed:
    log.error("a step broke the engine", exc_info=error, step=do.key.counted, **held.log_fields)
    return Failed(Failure("WorkflowInternalError", f"internal error: {type(error).__name__}"))


@lru_cache(maxsize=64)
def _seconds(language: str, result: str) -> Histogram:
    """Where the time of attempts is counted."""
    return metrics.STEP_SECONDS.labels(language, result)
