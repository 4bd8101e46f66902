"""The timers of one run: what is due next, and what happens then."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable

Fire = Callable[[], None]


class Timetable:
    """Named timers in epoch milliseconds. Setting a name again moves it."""

    __slots__ = ("_heap", "_order", "_timers")

    def __init__(self) -> None:
        self._timers: dict[Hashable, tuple[int, Fire]] = {}
        self._heap: list[tuple[int, int, Hashable]] = []
        self._order = 0

    def set(self, name: Hashable, due: int, fire: Fire) -> None:
        """Have `fire` called when `due` has come, unless the name is cleared or set anew before."""
        self._order += 1
        self._timers[name] = due, fire
        heapq.heappush(self._heap, (due, self._order, name))

    def clear(self, name: Hashable) -> None:
        self._timers.pop(name, None)

    def close(self) -> None:
        """Fire nothing more."""
        self._timers.clear()
        self._heap.clear()

    def next_due(self) -> int | None:
        """The earliest moment anything is due."""
        while self._heap:
            due, _, name = self._heap[0]
            timer = self._timers.get(name)
            if timer is not None and timer[0] == due:
                return due
            heapq.heappop(self._heap)
        return None

    def fire_due(self, now: int) -> None:
        """Fire what is due at `now`, earliest first. What this makes due is left for the next time."""
        fires: list[Fire] = []
        while (due := self.next_due()) is not None and due <= now:
            _, _, name = heapq.heappop(self._heap)
            fires.append(self._timers.pop(name)[1])
        for fire in fires:
            fire()
