"""Putting read nodes, sync points and milestones together: every reference resolved, every edge known both ways."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import msgspec

from tenants.limits import DOCUMENT_EDGES
from versions.document.links import Names, ancestors, cycle, depths, topological, tree_parents
from versions.document.model import COMPLETION, INITIALIZATION, Document, Gate, Milestone, Node, SyncPoint
from versions.document.nodes import Draft, Reference
from versions.document.reading import Path, Problems
from versions.document.scanning import Mention

INITIALIZATION_ID, COMPLETION_ID = "initialization", "completion"


@dataclasses.dataclass(frozen=True, slots=True)
class SyncDraft:
    """A sync point whose requirements are not resolved yet."""

    point: SyncPoint
    path: Path
    required: list[Reference]


MilestoneDraft = tuple[Milestone, Path, list[Reference]]


def assemble(
    problems: Problems,
    document: Document,
    drafts: Sequence[Draft],
    syncs: Sequence[SyncDraft],
    milestones: Sequence[MilestoneDraft],
    output_mentions: Sequence[Mention],
    noun: str,
) -> Document | None:
    """`document` with its graph filled in; None when that has problems, which are noted.

    From here on a node is a number: its place in `drafts`, sync points following.
    """
    _check_unique(problems, drafts, syncs, noun)
    graph = _Graph(problems, drafts, syncs, noun)
    graph.read_edges()
    found_milestones = _milestones(problems, graph, milestones, syncs)
    if sum(map(len, graph.edges)) > DOCUMENT_EDGES:
        problems.say("LIMIT_EXCEEDED", ("nodes",), f"the document must have at most {DOCUMENT_EDGES} edges")
    elif graph.order_nodes():
        graph.check_skips()
        graph.check_mentions(output_mentions)
    if problems:
        return None
    return msgspec.structs.replace(
        document,
        nodes=graph.nodes(),
        sync_points=graph.sync_points(),
        milestones=found_milestones,
        order=tuple(graph.ids[at] for at in graph.order),
        sinks=graph.sinks(),
    )


def _check_unique(problems: Problems, drafts: Sequence[Draft], syncs: Sequence[SyncDraft], noun: str) -> None:
    first: dict[str, str] = {}
    entries: list[tuple[str, str, str, Path]] = [
        (draft.node.id, str(draft.node.position), f"{noun} {draft.node.position}", draft.path) for draft in drafts
    ]
    entries += [
        (sync.point.id, f"sync point {sync.point.position}", f"sync point {sync.point.position}", sync.path)
        for sync in syncs
    ]
    for id_, short, long, path in entries:
        if id_ not in first:
            first[id_] = long
            continue
        if first[id_].startswith(f"{noun} ") and short.isdigit():
            where = f"{noun}s {first[id_].removeprefix(f'{noun} ')} and {short}"
        else:
            where = f"{first[id_]} and {long}"
        problems.say("DUPLICATE_ID", (*path, "id"), f'{noun} id "{id_}" is used by {where}')


class _Graph:
    """Nodes and sync points by number, and what each needs."""

    def __init__(self, problems: Problems, drafts: Sequence[Draft], syncs: Sequence[SyncDraft], noun: str) -> None:
        self.problems = problems
        self.drafts = drafts
        self.syncs = syncs
        self.noun = noun
        named = [(draft.node.id, draft.node.name) for draft in drafts]
        synced = [(sync.point.id, sync.point.name) for sync in syncs]
        self.ids = [id_ for id_, _ in named + synced]
        self.number = {id_: at for at, id_ in reversed(list(enumerate(self.ids)))}
        self.all_names = Names(problems, named + synced, noun)
        self.node_names = Names(problems, named, noun)
        self.edges: list[list[int]] = [[] for _ in self.ids]
        self.asked: dict[tuple[int, int], Path] = {}
        """Where the list stands that asked for an edge."""
        self.gates: list[list[Gate]] = [[] for _ in drafts]
        self.skip_to: list[int | None] = [None] * len(drafts)
        self.order: list[int] = []
        self._ancestors: list[int] = []

    def read_edges(self) -> None:
        """Resolve `depends_on`, `required`, `skip_to`, `then` and `else`."""
        for at, draft in enumerate(self.drafts):
            self._need(at, self._resolve(draft.depends_on, self.all_names, f"{draft.node.id} depends on"))
            if draft.skip_to is not None:
                target = self.node_names.find(*draft.skip_to, f"{draft.node.id} skips to")
                self.skip_to[at] = None if target is None else self.number[target]
        for at, sync in enumerate(self.syncs, len(self.drafts)):
            self._need(at, self._resolve(sync.required, self.node_names, f"{sync.point.id} requires"))
        for at, draft in enumerate(self.drafts):
            for verdict, targets in ((True, draft.then), (False, draft.otherwise)):
                for target, path in self._resolve(targets, self.node_names, f"{draft.node.id} leads to"):
                    self.gates[target].append(Gate(condition=draft.node.id, verdict=verdict))
                    self._need(target, [(at, path)])

    def _resolve(self, references: Iterable[Reference], names: Names, what: str) -> list[tuple[int, Path]]:
        found: list[tuple[int, Path]] = []
        for text, path in references:
            id_ = names.find(text, path, what)
            if id_ is not None:
                found.append((self.number[id_], path))
        return found

    def _need(self, at: int, needs: Iterable[tuple[int, Path]]) -> None:
        known = set(self.edges[at])
        for need, path in needs:
            if need == at:
                self.problems.say("SELF_DEPENDENCY", path, f"{self.ids[at]} depends on itself")
            elif need not in known:
                known.add(need)
                self.edges[at].append(need)
                self.asked[at, need] = path[:-1]

    def order_nodes(self) -> bool:
        """Sort the graph; whether that is possible."""
        self.order, remainder = topological(self.edges)
        if remainder:
            loop = cycle(self.edges, remainder)
            shown = " → ".join(self.ids[at] for at in [*loop, loop[0]])
            self.problems.say("CYCLE", self.asked[loop[0], loop[1]], f"dependency cycle: {shown}")
            return False
        self._ancestors = ancestors(self.edges, self.order)
        return True

    def check_skips(self) -> None:
        for at, target in enumerate(self.skip_to):
            if target is not None and not self._ancestors[target] >> at & 1:
                path = (*self.drafts[at].path, "on_error", "skip_to")
                self.problems.add("INVALID_FIELD", path, f"must name a {self.noun} that depends on {self.ids[at]}")

    def check_mentions(self, output_mentions: Iterable[Mention]) -> None:
        """Warn of expressions that read a node which cannot have run by then."""
        spelled = {id_: at for id_, at in self.number.items() if at < len(self.drafts)}
        for id_, at in list(spelled.items()):
            spelled.setdefault(id_.replace("-", "_"), at)
        for at, draft in enumerate(self.drafts):
            for name, path in draft.mentions:
                target = spelled.get(name)
                if target is None or not self._ancestors[at] >> target & 1:
                    self._warn(path, name, f"which does not run before {draft.node.id}" if target is not None else "")
        late = [mention for draft in self.drafts for mention in draft.late_mentions]
        for name, path in [*late, *output_mentions]:
            if name not in spelled:
                self._warn(path, name, "")

    def _warn(self, path: Path, name: str, why: str) -> None:
        reason = why or f"but there is no such {self.noun}"
        self.problems.warn(
            "FORWARD_REFERENCE", path, f"{self.problems.shown(path)} reads steps.{name}, {reason}: it will be null"
        )

    def dependents(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in self.ids]
        for at, needs in enumerate(self.edges):
            for need in needs:
                found[need].append(at)
        return found

    def nodes(self) -> tuple[Node, ...]:
        depth = depths(self.edges, self.order)
        parents = tree_parents(self.edges, self.order, depth, len(self.drafts))
        dependents = self.dependents()
        return tuple(
            msgspec.structs.replace(
                draft.node,
                depends_on=self._ids_of(self.edges[at]),
                dependents=self._ids_of(dependents[at]),
                depth=depth[at],
                parent=None if (parent := parents[at]) is None else self.ids[parent],
                gates=tuple(self.gates[at]),
                skip_to=None if (target := self.skip_to[at]) is None else self.ids[target],
            )
            for at, draft in enumerate(self.drafts)
        )

    def sync_points(self) -> tuple[SyncPoint, ...]:
        depth = depths(self.edges, self.order)
        dependents = self.dependents()
        return tuple(
            msgspec.structs.replace(
                sync.point,
                required=self._ids_of(self.edges[at]),
                dependents=self._ids_of(dependents[at]),
                depth=depth[at],
            )
            for at, sync in enumerate(self.syncs, len(self.drafts))
        )

    def sinks(self) -> tuple[str, ...]:
        """Nodes no other node waits for, not even through a sync point."""
        needed: set[int] = set()
        for needs in self.edges[: len(self.drafts)]:
            for need in needs:
                needed.add(need)
                if need >= len(self.drafts):
                    needed.update(self.edges[need])
        return tuple(self.ids[at] for at in range(len(self.drafts)) if at not in needed)

    def _ids_of(self, numbers: Iterable[int]) -> tuple[str, ...]:
        return tuple(self.ids[at] for at in numbers)


def _milestones(
    problems: Problems, graph: _Graph, drafts: Sequence[MilestoneDraft], syncs: Sequence[SyncDraft]
) -> tuple[Milestone, ...]:
    """`Initialization`, then the document's own, or one per sync point and `Completion`."""
    first = Milestone(id=INITIALIZATION_ID, name=INITIALIZATION, start=True)
    if not drafts:
        taken = {sync.point.id for sync in syncs}
        points = [
            Milestone(
                id=sync.point.id, name=sync.point.name, description=sync.point.description, after=(sync.point.id,)
            )
            for sync in syncs
        ]
        first = msgspec.structs.replace(first, id=_free_id(INITIALIZATION_ID, taken))
        return (first, *points, Milestone(id=_free_id(COMPLETION_ID, taken), name=COMPLETION, end=True))
    found = [first]
    seen = {INITIALIZATION_ID}
    for milestone, path, after in drafts:
        if milestone.id in seen:
            why = "reserved" if milestone.id == INITIALIZATION_ID else "used twice"
            problems.say("DUPLICATE_ID", (*path, "id"), f'milestone id "{milestone.id}" is {why}')
        seen.add(milestone.id)
        targets = [at for at, _ in graph._resolve(after, graph.all_names, f"milestone {milestone.id} comes after")]
        found.append(msgspec.structs.replace(milestone, after=tuple(dict.fromkeys(graph.ids[at] for at in targets))))
    return tuple(found)


def _free_id(id_: str, taken: set[str]) -> str:
    """The id of an automatic milestone; a sync point may have taken the usual one."""
    while id_ in taken:
        id_ += "_"
    return id_
