"""After each flush: which instances of which account have grown. Live streams wait for it instead of polling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from instances.live_feed import channel
from jobs.channels import Publisher
from jobs.redis_clients import quick


class FeedPublisher(Publisher):
    """Publishes the keys of grown instances on their account's channel, `millrace:feed:<account hex>`."""

    @classmethod
    def at(cls, redis_url: str) -> FeedPublisher:
        return cls(quick(redis_url), "feed")

    def publish(self, grown: Sequence[tuple[UUID, UUID]]) -> None:
        """Have `grown` (account, key) told; returns at once and never raises."""
        by_account: defaultdict[UUID, list[bytes]] = defaultdict(list)
        for account_id, key in grown:
            by_account[account_id].append(key.bytes)
        for account_id, keys in by_account.items():
            self.post(channel(account_id), keys)
