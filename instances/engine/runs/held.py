"""What a claim told about a run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from instances.runtimes.protocol import RunContext


@dataclass(frozen=True, slots=True)
class Held:
    """A run this worker may act for, as long as nobody draws a newer epoch."""

    context: RunContext
    epoch: int
    signal: int
    want: int
    takeovers: int
    parent_key: UUID | None
    claimed_at: datetime
    """When it was claimed or, if that is later, when it was due: what woke it is over, whatever the clock says."""
    language: str

    @property
    def log_fields(self) -> dict[str, object]:
        """What log lines about the run name it by."""
        return {
            "account": self.context.account_id.hex,
            "instance": self.context.instance_id,
            "run": self.context.run,
        }
