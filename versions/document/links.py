"""How nodes hang together: references to ids, cycles, depth, the tree view.

All of it is linear in nodes and edges, on positions instead of ids: 1,000 nodes with 10,000 edges take milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from versions.document.reading import Path, Problems
from versions.names import slug

SHOWN = 20
"""Candidates of an ambiguous reference that are named, besides the last."""


class Names:
    """Finds the node (or sync point) a user's text means.

    In this order: the exact id, the exact name, the name in any case, the slug of the name. More than one hit at a
    level is an error, not a guess. `noun` is what messages call a node.
    """

    def __init__(self, problems: Problems, entries: Sequence[tuple[str, str]], noun: str) -> None:
        """`entries` are (id, name)."""
        self._problems = problems
        self._noun = noun
        self._ids = {id_ for id_, _ in entries}
        self._levels: list[dict[str, list[str]]] = [{}, {}, {}]
        for id_, name in entries:
            for level, key in zip(self._levels, _keys(name), strict=True):
                if key and id_ not in (found := level.setdefault(key, [])):
                    found.append(id_)

    def find(self, text: str, path: Path, what: str) -> str | None:
        """The id meant by `text`; None when that is a problem, which is noted as `<what> unknown node "x"`."""
        if text in self._ids:
            return text
        for level, key in zip(self._levels, _keys(text), strict=True):
            hits = level.get(key, []) if key else []
            if len(hits) == 1:
                return hits[0]
            if hits:
                listed = f"{', '.join(hits[:-1][:SHOWN])} and {hits[-1]}"
                self._problems.say("AMBIGUOUS_REFERENCE", path, f'"{text[:255]}" names {self._noun}s {listed}')
                return None
        self._problems.say("UNKNOWN_REFERENCE", path, f'{what} unknown {self._noun} "{text[:255]}"')
        return None


def _keys(name: str) -> tuple[str, str, str]:
    return name, name.casefold(), slug(name)


def topological(edges: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Kahn's algorithm over `edges[i]` = what i depends on.

    Returns the order (lowest position first where free) and the positions left over, which lie on or behind a cycle.
    """
    waiting = [len(needs) for needs in edges]
    dependents: list[list[int]] = [[] for _ in edges]
    for position, needs in enumerate(edges):
        for need in needs:
            dependents[need].append(position)
    free = [position for position, count in enumerate(waiting) if not count]
    heapify(free)
    order: list[int] = []
    while free:
        position = heappop(free)
        order.append(position)
        for dependent in dependents[position]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heappush(free, dependent)
    return order, [position for position, count in enumerate(waiting) if count]


def cycle(edges: Sequence[Sequence[int]], remainder: Sequence[int]) -> list[int]:
    """One loop among `remainder` (as :func:`topological` left it), starting at its lowest-positioned member.

    Walks dependencies from the lowest-positioned node, taking the lowest-positioned one each time, until one repeats.
    """
    inside = set(remainder)
    walk: list[int] = []
    seen: dict[int, int] = {}
    position = min(remainder)
    while position not in seen:
        seen[position] = len(walk)
        walk.append(position)
        position = min(need for need in edges[position] if need in inside)
    loop = walk[seen[position] :]
    start = loop.index(min(loop))
    return loop[start:] + loop[:start]


def depths(edges: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """1 + the greatest depth among the dependencies, per position."""
    found = [1] * len(edges)
    for position in order:
        found[position] = 1 + max((found[need] for need in edges[position]), default=0)
    return found


def ancestors(edges: Sequence[Sequence[int]], order: Sequence[int]) -> list[int]:
    """Everything a position depends on, directly or not, as a bit set."""
    found = [0] * len(edges)
    for position in order:
        for need in edges[position]:
            found[position] |= found[need] | 1 << need
    return found


def tree_parents(
    edges: Sequence[Sequence[int]], order: Sequence[int], depth: Sequence[int], nodes: int
) -> list[int | None]:
    """The parent of each node in the tree view: its dependency of greatest depth, the last one among equals.

    Positions from `nodes` on are sync points, which have no place in the tree: the node they would pass on stands for
    them.
    """
    found: list[int | None] = [None] * len(edges)
    for position in order:
        best: int | None = None
        for need in edges[position]:
            candidate = need if need < nodes else found[need]
            if candidate is not None and (best is None or (depth[candidate], candidate) > (depth[best], best)):
                best = candidate
        found[position] = best
    return found
