"""What an instance has used of what its account allows it."""

from __future__ import annotations

from instances.lifecycle import Kind
from instances.runtimes.protocol import STREAM_STORAGE, Failure, Raw, RunContext
from tenants.limits import MIB, STREAM_BYTES

VALUES = frozenset(
    {
        Kind.STEP_COMPLETED,
        Kind.ROLLBACK_STEP_COMPLETED,
        Kind.COMPENSATE_INPUT,
        Kind.STEP_RESULT,
        Kind.SLEEP_COMPLETED,
        Kind.WAIT_COMPLETED,
    }
)
"""Kinds whose payload is a value of the run's; those of the others are the engine's own."""


def size_of(payload: Raw | None) -> int:
    """Bytes of a payload as UTF-8."""
    if payload is None or payload.isascii():
        return len(payload or "")
    return len(payload.encode("utf-8", "surrogatepass"))


class Usage:
    """Bytes stored, requests made and steps begun by one instance. All of it follows from the journal."""

    def __init__(self, run: RunContext, stored: int, streamed: int = 0) -> None:
        """`stored`: bytes of values the journal has; `streamed`: of streams."""
        self._run = run
        self._stored = stored + streamed + size_of(run.input)
        self._streamed = streamed
        self._requests = 0
        self._steps = 0

    def store(self, payload: Raw | None) -> None:
        self._stored += size_of(payload)

    def refuse_value(self, payload: Raw | None) -> Failure | None:
        """Why the instance may not store this value, too."""
        limit = self._run.state_limit
        if limit is None or self._stored + size_of(payload) <= limit:
            return None
        return _used_up(f"the output does not fit: the instance may store {limit} bytes")

    def refuse_piece(self, size: int) -> Failure | None:
        """Count a piece of a stream; why it may not be stored, if the instance has stored all it may."""
        limit = self._run.state_limit
        room = STREAM_BYTES - self._streamed
        if limit is not None:
            room = min(room, limit - self._stored)
        if size > room:
            shown = f"{STREAM_BYTES // MIB}MiB" if limit is None or limit > STREAM_BYTES else f"{limit} bytes"
            message = f"The instance has exceeded the {shown} storage limit"
            return Failure("WorkflowFatalError", message, STREAM_STORAGE, permanent=True)
        self._stored += size
        self._streamed += size
        return None

    def return_pieces(self, size: int) -> None:
        """Pieces counted before are deleted."""
        self._stored -= size
        self._streamed -= size

    def made_requests(self, n: int) -> None:
        """Earlier lives of the run did."""
        self._requests += n

    def refuse_request(self) -> Failure | None:
        """Count a request; why it may not be made, if the instance has made all it may."""
        limit = self._run.request_limit
        if limit is not None and self._requests >= limit:
            return _used_up(f"the instance has made its {limit} outgoing requests")
        self._requests += 1
        return None

    def refuse_step(self) -> Failure | None:
        """Count a step; why it may not be made, if the instance has made all it may."""
        limit = self._run.step_limit
        self._steps += 1
        if self._steps <= limit:
            return None
        hint = "This limit can be changed in your worker configuration."
        return Failure("WorkflowFatalError", f"The limit of {limit} steps has been reached. {hint}")


def _used_up(message: str) -> Failure:
    """The account's limit for an instance is reached, so that trying again does not help."""
    return Failure("LIMIT_EXCEEDED", message, "LIMIT_EXCEEDED", permanent=True)
