"""Failures the document runtime makes itself. Their name is the code of the rule that was broken."""

from __future__ import annotations

import dataclasses

from instances.runtimes.protocol import Failure, StepFailure
from tenants.limits import PAYLOAD_BYTES

EXPRESSION_ERROR = "EXPRESSION_ERROR"
INVALID_CONFIG = "INVALID_CONFIG"
INVALID_INPUT = "INVALID_INPUT"
LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
EXECUTION_TIMEOUT = "EXECUTION_TIMEOUT"
STEP_TIMEOUT = "STEP_TIMEOUT"
EVENT_TIMEOUT = "EVENT_TIMEOUT"
SYNC_POINT_TIMEOUT = "SYNC_POINT_TIMEOUT"
CONDITION_FAILED = "CONDITION_FAILED"
UNKNOWN_ACTION = "UNKNOWN_ACTION"
API_CALL_FAILED = "API_CALL_FAILED"

CANCELLED = Failure("Cancelled", "given up because the instance failed")

OVER_TIME = Failure(STEP_TIMEOUT, "given up because the instance's time was over", STEP_TIMEOUT)

_TIMEOUTS = frozenset({STEP_TIMEOUT, EVENT_TIMEOUT})


def rule(code: str, message: str, *, permanent: bool = True) -> Failure:
    """A failure named by its code."""
    return Failure(code, message, code, permanent=permanent)


def named(failure: Failure) -> Failure:
    """A timeout under its code's name; every other failure as it is."""
    return dataclasses.replace(failure, name=failure.code) if failure.code in _TIMEOUTS else failure


def printable(text: str) -> str:
    """Text the database can hold: NUL and lone surrogates replaced."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def fits(output: str) -> bool:
    """Whether JSON text is not too large for an output."""
    return len(output) <= PAYLOAD_BYTES // 4 or len(output.encode("utf-8", "surrogatepass")) <= PAYLOAD_BYTES


class ConfigError(StepFailure):
    """A rendered config does not fit its node type."""

    def __init__(self, message: str) -> None:
        super().__init__(rule(INVALID_CONFIG, printable(message)))
