"""Handing a run's recorded results over again, and holding its session to what is recorded.

Results are handed over in the order of the journal, each only when its step has been called, and before anything new:
so parallel branches meet the same history in every life of a run. A result nobody calls for, and a step that differs
from the recorded one of its name, end the run; nothing is ever swapped in silence.

Steps called inside another step's attempt are out of that order: the attempt that calls them is made after the replay.
"""

from __future__ import annotations

import heapq
from collections import deque

from instances.engine.runs.endings import RunFailed
from instances.engine.runs.recorded import Recorded, Resolution
from instances.runtimes.protocol import Failure, Message, StepKey


class Replay:
    """The recorded results of one run that its session has not heard yet."""

    def __init__(self, past: Recorded) -> None:
        self._past = past
        self._results: deque[Resolution] = deque(past.resolutions)
        self._unheard: dict[StepKey | str, Message] = {result.id: result.message for result in past.resolutions}
        self._called: set[StepKey | str] = {"rollback", "stop"}  # commands from outside: nobody calls for these
        self._nested: list[Message] = []
        self._copies = {key: place for place, key in enumerate(past.copied)}
        """Where in the journal the results taken over from another instance stand."""
        self._given: list[tuple[int, Message]] = []
        """Those whose steps have been called, as a heap."""

    def calls(self, id: StepKey | str, fingerprint: str = "") -> bool:
        """The session calls a step, or a timer; whether that begins it, or goes on with what an earlier life began.

        False: the journal has its result, or says that it was given up. Raises :class:`RunFailed` when the recorded
        step of that name is another one.
        """
        self._called.add(id)
        recorded = self._past.fingerprints.get(id) if isinstance(id, StepKey) else None
        if recorded is not None and recorded != fingerprint:
            raise _not_deterministic(f'the step "{_shown(id)}" differs from the recorded one of that name')
        copied = self._past.copied.pop(id, None) if isinstance(id, StepKey) else None
        if copied is not None and isinstance(id, StepKey):
            heapq.heappush(self._given, (self._copies[id], copied))
            return False
        nested = self._past.nested.pop(id, None) if isinstance(id, StepKey) else None
        if nested is not None:
            self._nested.append(nested)
            return False
        return id not in self._unheard and id not in self._past.given_up

    def attempts_of(self, key: StepKey) -> int:
        """Attempts it took to come to the recorded outcome of a step; 0: there is none to be heard."""
        return getattr(self._unheard.get(key) or self._past.nested.get(key), "attempts", 0)

    @property
    def has_copies(self) -> bool:
        """Results taken over from another instance are left. While there are any, messages are to be handed over one by
        one, each followed by :meth:`given`: so every life of the run hears everything in the same order.
        """
        return bool(self._past.copied)

    def given(self) -> list[Message]:
        """Of the results taken over from another instance whose steps have been called: the earliest in the journal.

        What the session calls when it hears of that one may be the next.
        """
        return [heapq.heappop(self._given)[1]] if self._given else []

    def next_messages(self, *, over: bool) -> list[Message]:
        """Results whose steps have been called, in journal order, up to the first whose step has not.

        Raises :class:`RunFailed` when the first has not, unless the session is `over` and calls nothing any more.
        """
        messages: list[Message] = []
        while self._results and self._results[0].id in self._called:
            result = self._results.popleft()
            self._unheard.pop(result.id, None)
            messages.append(result.message)
        if not messages and self._results and not over:
            missing = _shown(self._results[0].id)
            raise _not_deterministic(f'the recorded step "{missing}" was not called on replay')
        if not messages:
            messages, self._nested = self._nested, []
        return messages

    def all_messages(self) -> list[Message]:
        """All results at once, in journal order: for a session that does itself what is done here."""
        messages = [*self._past.copied.values(), *(result.message for result in self._results)]
        self._unheard |= self._past.copied
        self._past.copied.clear()
        self._results.clear()
        return messages

    def stop(self) -> None:
        """Hand nothing more over."""
        self._results.clear()


def _shown(id: StepKey | str) -> str:
    return id.counted if isinstance(id, StepKey) else id


def _not_deterministic(message: str) -> RunFailed:
    return RunFailed(Failure("NonDeterministicError", message))
