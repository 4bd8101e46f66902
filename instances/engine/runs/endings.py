"""How a run ends without its session's consent."""

from __future__ import annotations

from instances.runtimes.protocol import MAX_DEATHS, Failure

SUSPECT_AFTER = 2
"""A run that outlived this many workers without writing an entry is opened alone."""
MAX_DEATHS_ALONE = 2
"""One with which this many workers died while it was opened alone is ended."""
SUSPECTED, CLEARED = "suspected", "cleared"
"""Names of the notes that a run is opened alone, and that its worker has survived that."""

POISON = Failure("WorkflowInternalError", "The instance ended every worker that opened it and was stopped")
DEADLY = Failure("WorkflowInternalError", f"The code outside steps ended {MAX_DEATHS} sandboxes and was stopped")
UNSTORABLE = Failure("WorkflowInternalError", "The run wrote something that cannot be stored")
STUCK = Failure("WorkflowInternalError", "The run has nothing left to wait for")
TERMINATED = Failure("Terminated", "Instance terminated during rollback")


class RunLost(Exception):
    """The run belongs to somebody else now: stop, write nothing."""


class RunFailed(Exception):
    """The run cannot go on, and no code of the workflow gets to catch it."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.message)
