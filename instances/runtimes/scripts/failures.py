"""Errors of scripts by name and message (Cloudflare Workflows, as measured), and what code is told of them."""

from __future__ import annotations

from instances.runtimes.protocol import Failure
from instances.runtimes.scripts.messages import Error

UNSERIALISABLE = "UNSERIALISABLE"
INVALID_STREAM = "INVALID_STREAM"
NON_RETRYABLE = "NON_RETRYABLE"
NON_DETERMINISTIC = "NonDeterministicError"
KEEPS_MESSAGE = "workflows_preserve_non_retryable_error_message"
"""Compatibility flag: a NonRetryableError keeps its name and message."""
OVER = Failure("Error", "The attempt is over: its stream is not stored.")
"""What the sandbox is told that stores more of a stream than anybody waits for."""
DELAY_MS = 5_000
"""What a delay function may take."""

CPU = Failure("Error", "Worker exceeded CPU time limit.")
ROLLBACK_MISSING = Failure("RollbackMissing", "Rollback function not available in registry")
TIMED_OUT = Failure("EXECUTION_TIMEOUT", "the instance did not finish in time", "EXECUTION_TIMEOUT")
SUBREQUESTS = Failure("Error", "Too many subrequests.")

_UNHANDLED = (
    "The execution of the Workflow instance was terminated, as a step threw an NonRetryableError and it was not handled"
)


def thrown_in_step(error: Error, flags: frozenset[str]) -> Failure:
    """What an attempt failed with."""
    if not error.permanent:
        return Failure(error.name, error.message)
    if KEEPS_MESSAGE in flags:
        return Failure("NonRetryableError", error.message, NON_RETRYABLE, permanent=True)
    text = f'Step threw a NonRetryableError with message "{error.message}"'
    return Failure("WorkflowFatalError", text, NON_RETRYABLE, permanent=True)


def told_to_code(failure: Failure, flags: frozenset[str]) -> Failure:
    """What the code that awaits the step catches."""
    if failure.code == NON_RETRYABLE and KEEPS_MESSAGE not in flags:
        return Failure("WorkflowFatalError", _UNHANDLED)
    return failure


def unserialisable(step: str) -> Failure:
    """What a run ends with when a step returned what cannot be stored."""
    text = (
        f'The execution of the Workflow instance was terminated, as the step "{step}" returned a value which is not'
        " serialisable"
    )
    return Failure("WorkflowFatalError", text)


def invalid_stream(step: str) -> Failure:
    """What a run ends with when a step returned a stream that cannot be stored."""
    text = (
        f'The execution of the Workflow instance was terminated, as the step "{step}" returned an invalid'
        " ReadableStream output"
    )
    return Failure("WorkflowFatalError", text)


def storage_exceeded(failure: Failure) -> Failure:
    """What a run ends with when a step returned a stream that does not fit."""
    return Failure("WorkflowFatalError", failure.message)


def output_too_large() -> Failure:
    return Failure("WorkflowInternalError", "The output of the instance is too large. Maximum allowed size is 1MiB.")


def delay_failure(step: str, what: str) -> Failure:
    """A delay function did not do its job: the step fails at once. `step` is the counted name."""
    return Failure("NonRetryableDelayError", f'The delay function for step "{step}" {what}', permanent=True)
