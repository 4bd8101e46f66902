"""Turns at something there is only so much of, shared fairly between lanes (one per account)."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable


class Lanes:
    """`total` turns at a time, at most `each` of one lane; who finds none waits, first come first served in the lane.

    A lane may also hold no more turns than are free. So one lane alone gets up to half of them, two a third each, and
    so on: whoever comes last always finds some, however slowly the others give theirs back.
    """

    def __init__(self, total: int, each: int) -> None:
        self._total = total
        self._each = each
        self._free = total
        self._lanes: dict[Hashable, _Lane] = {}
        self._waiting: OrderedDict[Hashable, _Lane] = OrderedDict()
        """Lanes somebody waits in; the one that was served longest ago comes first."""

    def __len__(self) -> int:
        """Turns taken."""
        return self._total - self._free

    async def enter(self, key: Hashable) -> None:
        """Take a turn, waiting for one if need be; each is given back with :meth:`leave`."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane()
        if self._has_room(lane):  # then nobody waits in it: turns given back are given away at once
            self._admit(lane)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lane.waiting.append(turn)
        self._waiting.setdefault(key, lane)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                lane.waiting.remove(turn)
                self._tidy(key, lane)
            else:  # admitted and cancelled in the same moment
                self.leave(key)
            raise

    def leave(self, key: Hashable) -> None:
        """Give a turn back."""
        lane = self._lanes[key]
        lane.inside -= 1
        self._free += 1
        self._tidy(key, lane)
        for next_key, next_lane in list(self._waiting.items()):
            if not self._free:
                break
            self._serve(next_key, next_lane)

    def _serve(self, key: Hashable, lane: _Lane) -> None:
        """Admit the first that waits in a lane, if there is room."""
        turn = next((turn for turn in lane.waiting if not turn.done()), None)
        if turn is not None and self._has_room(lane):
            lane.waiting.remove(turn)
            turn.set_result(None)
            self._admit(lane)
            self._waiting.move_to_end(key)
        self._tidy(key, lane)

    def _has_room(self, lane: _Lane) -> bool:
        return lane.inside < self._each and lane.inside < self._free

    def _admit(self, lane: _Lane) -> None:
        lane.inside += 1
        self._free -= 1

    def _tidy(self, key: Hashable, lane: _Lane) -> None:
        if not lane.waiting:
            self._waiting.pop(key, None)
            if not lane.inside:
                self._lanes.pop(key, None)


class _Lane:
    __slots__ = ("inside", "waiting")

    def __init__(self) -> None:
        self.inside = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
