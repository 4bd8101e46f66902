"""Random graphs with failures, driven in random orders: every run ends, obeys its joins, and replays exactly."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from instances.lifecycle import Kind
from instances.runtimes.protocol import EndRollback, Fail, Failure, Finish, StepFailure, StepKind
from tests.support.document_runs import Driver, compiled

KINDS = ["noop", "set", "fail", "call_api", "wait", "wait_for_event", "external", "condition", "for_each"]
KINDS += ["trigger", "workflow"]
UNDOS = [{"type": "noop"}, {"type": "fail"}, {"type": "external"}, {"type": "workflow", "config": {"workflow": "w"}}]


@st.composite
def nodes(draw: Any) -> list[dict[str, Any]]:
    """Nodes that depend on earlier ones only, in a shuffled order of definition."""
    made: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 9))):
        kind = draw(st.sampled_from(KINDS))
        earlier = [node["id"] for node in made]
        node: dict[str, Any] = {
            "id": f"n{number}",
            "type": kind,
            "depends_on": draw(st.lists(st.sampled_from(earlier), unique=True, max_size=3)) if earlier else [],
            "join": draw(st.sampled_from(["all", "any", "all_done"])),
            "on_error": draw(st.sampled_from(["stop", "continue", "skip"])),
        }
        if kind == "set":
            node["config"] = {"values": {f"v{number}": "{{ previous }}", "count": "{{ length(previousStepResults) }}"}}
        elif kind == "call_api":
            node["config"] = {"url": "https://example.com"}
            node["retries"] = {"limit": draw(st.integers(0, 2)), "delay": draw(st.sampled_from([0, 50]))}
        elif kind == "wait":
            node["config"] = {"durationMs": draw(st.sampled_from([1, 40, 500]))}
            node["total_timeout"] = draw(st.sampled_from([None, 100]))
        elif kind == "wait_for_event":
            node["config"] = {"event": "go", "timeout": draw(st.sampled_from([30, 1000]))}
        elif kind == "condition":
            node["config"] = {
                "field": "vars.count",
                "operator": "gt",
                "value": 1,
                "onFalse": draw(st.sampled_from(["stop", "continue", "fail"])),
            }
        elif kind == "for_each":
            node.update(type="call_api", for_each=[1, 2, 3])
            node["config"] = {"url": "https://example.com", "parallel": draw(st.integers(1, 3))}
        elif kind == "external":
            node["timeout"] = 200
        elif kind == "workflow":
            node.update(config={"workflow": "w"}, timeout=150)
        node["outputs"] = draw(st.sampled_from([None, None, {"x": "{{ result }}"}, {"x": "{{ sum(result) }}"}]))
        node["save_output"] = draw(st.sampled_from([True, True, False]))
        if draw(st.booleans()):
            node["when"] = draw(st.sampled_from(["`true`", "`false`", "length(previousStepResults) < `3`"]))
        if draw(st.booleans()):
            node["compensate"] = {**draw(st.sampled_from(UNDOS)), "timeout": 20}
        made.append(node)
    return draw(st.permutations(made))


@st.composite
def documents(draw: Any) -> dict[str, Any]:
    made = draw(nodes())
    ids = [node["id"] for node in made]
    document: dict[str, Any] = {
        "nodes": made,
        "limits": {"max_parallel": draw(st.integers(1, 3)), "timeout": draw(st.sampled_from([None, 300, 5000]))},
        "rollback": draw(st.sampled_from(["auto", "never"])),
    }
    if draw(st.booleans()):
        required = draw(st.lists(st.sampled_from(ids), unique=True, min_size=1, max_size=3))
        on_timeout = draw(st.sampled_from(["fail", "continue"]))
        document["sync_points"] = [{"id": "s", "required": required, "timeout": 100, "on_timeout": on_timeout}]
    return document


async def run_to_the_end(document: dict[str, Any], seed: int) -> Driver:
    """Drive with outcomes, their order, events and outside commands drawn from `seed`."""
    dice = random.Random(seed)

    async def perform(_do: Any, _attempt: Any) -> str:
        if dice.random() < 0.3:
            raise StepFailure(Failure("Error", "unlucky"))
        return "1"

    made = dict(document)
    run = Driver(compiled(made.pop("nodes"), **made), perform=perform, order=dice)
    await run.start()
    for _ in range(200):
        if run.ended or (run.rollback is not None):
            break
        chance = dice.random()
        if chance < 0.2:
            await run.event("go", "1")
        elif chance < 0.5 and run.external:
            key = dice.choice(sorted(run.external, key=lambda key: key.counted))
            await run.complete(key.name, "2", kind=key.kind)
        elif chance < 0.53:
            await run.request_rollback()
        elif chance < 0.55 and run.commands and any(c.__class__.__name__ == "BeginRollback" for c in run.commands):
            await run.stop_rollback()
        else:
            await run.advance(0.02)
    await run.finish()
    return run


@settings(max_examples=150, deadline=None)
@given(documents(), st.integers(0, 2**32))
async def test_runs_end_and_replay(document: dict[str, Any], seed: int) -> None:
    run = await run_to_the_end(document, seed)
    assert run.ended or run.rollback is not None
    assert not run.open
    assert not run.waits
    await run.check_replay()
    check(run)


def check(run: Driver) -> None:
    """What holds for every run."""
    plan = run.plan
    ended: list[str] = run.cancelled()
    started: set[str] = set()
    skipped = run.skipped()
    keys = [command.key for command in run.commands if hasattr(command, "key") and not is_end(command)]
    assert len(keys) == len(set(keys)), "no step starts twice"
    for node in plan.nodes:
        forward = [key for key in keys if key.name == node.node.id and key.kind is not StepKind.ROLLBACK]
        assert not (forward and node.node.id in skipped), "what is skipped never runs"
        if forward:
            started.add(node.node.id)
    for batch, _ in run.batches:
        for message in batch:
            key = getattr(message, "key", None)
            if key is not None and key.kind is not StepKind.ROLLBACK:
                ended.append(key.name)
    for node in plan.nodes:
        if node.node.id in started and node.node.join == "all":
            units = [plan.nodes[d].node.id for d in node.dependencies if d < len(plan.nodes)]
            assert all(unit in skipped or unit in ended for unit in units), "a join waits for all"
    finishes = [c for c in run.commands if isinstance(c, (Finish, Fail))]
    assert len(finishes) <= 1
    if isinstance(run.end, Finish):
        everything = started | set(skipped)
        assert everything == {node.node.id for node in plan.nodes}, "nothing is left behind"
        assert run.records(Kind.MILESTONE)[0] == "initialization"
        assert run.rollback is None
    undone = [c.key for c in run.commands if getattr(getattr(c, "key", None), "kind", None) is StepKind.ROLLBACK]
    assert {key.name for key in undone} <= started, "only what ran is undone"
    depths = [next(n.node.depth for n in plan.nodes if n.node.id == key.name) for key in undone]
    assert depths == sorted(depths, reverse=True), "the deepest first"
    if undone:
        assert any(isinstance(c, EndRollback) for c in run.commands)


def is_end(command: Any) -> bool:
    return command.__class__.__name__ == "Cancel"
