"""After each flush: which instances of which account have grown. Live streams wait for it instead of polling."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from jobs.channels import Publisher, feed_channel
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
            self.post(feed_channel(account_id), keys)
