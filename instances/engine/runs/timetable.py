"""The timers of one run: what is due next, and what happens then."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable

Fire = Callable[[], None]


class Timetable:
    """Named timers in epoch milliseconds. Setting a name again moves it."""

    __slots__ = ("_heap", "_order", "_timers")

    def __init__(self) -> None:
        self._timers: dict[Hashable, tuple[int, Fire, bool]] = {}
        self._heap: list[tuple[int, int, Hashable]] = []
        self._order = 0

    def set(self, name: Hashable, due: int, fire: Fire, *, ends_a_wait: bool = False) -> None:
        """Have `fire` called when `due` has come, unless the name is cleared or set anew before.

        `ends_a_wait`: not before it is known that what is waited for has not come until then, see :meth:`fire_due`.
        """
        self._order += 1
        self._timers[name] = due, fire, ends_a_wait
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

    def fire_due(self, now: int, looked_at: int) -> bool:
        """Fire what is due at `now`, earliest first. What this makes due is left for the next time.

        What ends a wait after `looked_at`, since when facts from outside may have come unseen, is left, and what is due
        after it. False: there is such a one, so look, and call again.
        """
        fires: list[Fire] = []
        seen = True
        while (due := self.next_due()) is not None and due <= now:
            name = self._heap[0][2]
            _, fire, ends_a_wait = self._timers[name]
            seen = not ends_a_wait or due <= looked_at
            if not seen:
                break
            heapq.heappop(self._heap)
            del self._timers[name]
            fires.append(fire)
        for fire in fires:
            fire()
        return seen
