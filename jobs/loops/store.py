"""The one question of a worker that has nothing to do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from tenants.database import Database

Duty = Literal["termination", "schedules", "retention", "webhook_events", "webhook_deliveries"]
"""What has to be done about when it is due."""

# The order makes the planner take the index on `retain_until` even while it knows nothing about the table.
_DUTIES_DUE = """
select array_remove(array[
  case when exists (select from termination_job where finished_at is null) then 'termination' end,
  case when exists (select from schedule where next_at <= $1) then 'schedules' end,
  case when (select true from instance where retain_until <= $1 order by retain_until limit 1) then 'retention' end,
  case when exists (select from webhook where active) then 'webhook_events' end,
  case when exists (select from webhook where active and due_at <= $1) then 'webhook_deliveries' end
], null)
"""


async def duties_due(db: Database, now: datetime) -> Sequence[Duty]:
    """Which duties have something to do at `now`."""
    return await db.engine.fetchval(_DUTIES_DUE, now)
