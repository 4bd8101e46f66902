"""The timers of one run: which of its waits is due next."""

from __future__ import annotations

import heapq
from collections.abc import Hashable


class Timetable:
    """Named timers in epoch milliseconds. Setting a name again moves it."""

    __slots__ = ("_dues", "_heap", "_order")

    def __init__(self) -> None:
        self._dues: dict[Hashable, int] = {}
        self._heap: list[tuple[int, int, Hashable]] = []
        self._order = 0

    def set(self, name: Hashable, due: int) -> None:
        self._order += 1
        self._dues[name] = due
        heapq.heappush(self._heap, (due, self._order, name))

    def clear(self, name: Hashable) -> None:
        self._dues.pop(name, None)

    def next_due(self) -> int | None:
        """The earliest moment anything is due."""
        while self._heap:
            due, _, name = self._heap[0]
            if self._dues.get(name) == due:
                return due
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: int) -> list[Hashable]:
        """Names due at `now`, earliest first; they are cleared."""
        names: list[Hashable] = []
        while (due := self.next_due()) is not None and due <= now:
            _, _, name = heapq.heappop(self._heap)
            del self._dues[name]
            names.append(name)
        return names
