"""What is wanted of a run from outside, and how it ends.

Commands raise the run's signal and state a want; the run hears of it with its next commit and carries it out: it pauses
when no attempt is in flight, or rolls back. Being released by its worker and being lost to another are no commands.
"""

from __future__ import annotations

import msgspec

from instances.engine.journal_writer import Next
from instances.engine.runs.clock import RunClock
from instances.engine.runs.endings import TERMINATED
from instances.engine.runs.failures import encode_failure
from instances.engine.runs.recorded import Recorded
from instances.engine.runs.unit_of_work import UnitOfWork
from instances.lifecycle import Kind, Want
from instances.runtimes.protocol import (
    BeginRollback,
    EndRollback,
    Fail,
    Failure,
    Finish,
    Raw,
    RollbackRequested,
    StopRollback,
)


class Control:
    """Pauses, rollbacks, release and end of one run."""

    def __init__(self, want: int, past: Recorded, clock: RunClock, work: UnitOfWork) -> None:
        self._clock = clock
        self._work = work
        self.want = Want(want)
        """What commands ask for."""
        self._rolling_back = past.rolling_back
        self._rollback_stopped = past.rollback_stopped
        self._rollback_ended = past.rollback_ended
        self._rollback_begins = False
        self._releasing = False
        self._hurried = False
        self.final: Finish | Fail | None = None
        """How the run ends; None while it goes on."""
        self.rollback: Raw | None = None
        """What became of the rollback: `{outcome, error}`."""

    # --- what is wanted ------------------------------------------------------------------------------------------

    def hear(self, want: int) -> None:
        """What the answer to a commit said."""
        if want != self.want:
            self.want = Want(want)

    def release(self, *, hurry: bool) -> None:
        """The worker is leaving. `hurry`: attempts in flight are not waited for either."""
        self._releasing = True
        self._hurried = self._hurried or hurry

    @property
    def pausing(self) -> bool:
        """A pause is wanted; compensations are not paused."""
        return self.want is Want.PAUSE and not self._rolling_back

    @property
    def held_back(self) -> bool:
        """No new step may start."""
        return self.pausing or self._releasing

    @property
    def rolling_back(self) -> bool:
        """By itself, or because that was asked for."""
        return self._rolling_back

    @property
    def terminating(self) -> bool:
        return self.want in (Want.ROLL_BACK, Want.STOP_ROLLBACK)

    def lets_go(self, running: int) -> bool:
        """Whether the run is to leave memory for another worker now, with `running` attempts in flight."""
        return self._releasing and (self._hurried or not running)

    def request_rollback(self) -> bool:
        """Tell the session to roll back, if that is wanted and was not said before; whether it is."""
        if not self.terminating or self._rolling_back:
            return False
        self._rolling_back = True
        self.final = None
        message = RollbackRequested(TERMINATED, self._clock.now())
        self._work.write(Kind.ROLLBACK_STARTED, payload=encode_failure(TERMINATED, requested=True), then=message)
        return True

    def request_stop(self) -> None:
        """Tell the session to begin no further compensation, if that is wanted and was not said before."""
        if self.want is Want.STOP_ROLLBACK and not self._rollback_stopped:
            self._rollback_stopped = True
            self._work.write(Kind.ROLLBACK_STOPPED, then=StopRollback(self._clock.now()))

    # --- what the session says -----------------------------------------------------------------------------------

    def begin_rollback(self, command: BeginRollback) -> None:
        if not self._rolling_back:
            self._rolling_back = self._rollback_begins = True
            self._work.write(Kind.ROLLBACK_STARTED, payload=encode_failure(command.failure))

    def end_rollback(self, command: EndRollback) -> None:
        complete = command.complete and not self._rollback_stopped
        error = None if command.failure is None else _named(command.failure)
        outcome = {"outcome": "complete" if complete else "failed", "error": error}
        self.rollback = msgspec.json.encode(outcome).decode()
        if not self._rollback_ended:
            self._rollback_ended = True
            self._work.write(Kind.ROLLBACK_ENDED, payload=self.rollback)
        if self.terminating:
            self.final = Fail(TERMINATED)

    def end(self, command: Finish | Fail) -> None:
        """The session is through; the first word counts."""
        if self.final is None:
            self.final = command

    # --- transitions ---------------------------------------------------------------------------------------------

    def transition(self) -> Next:
        """What the next commit of a run that goes on asks for."""
        begins, self._rollback_begins = self._rollback_begins, False
        return Next.ROLL_BACK if begins else Next.KEEP

    def ending(self) -> tuple[Next, Raw | None]:
        """What the commit that ends the run asks for, and its output or error."""
        assert self.final is not None
        if self.terminating:
            return Next.TERMINATED, None
        if isinstance(self.final, Finish):
            return Next.COMPLETE, self.final.output
        return Next.ERRORED, msgspec.json.encode(_named(self.final.failure)).decode()


def _named(failure: Failure) -> dict[str, str]:
    return {"name": failure.name, "message": failure.message}
