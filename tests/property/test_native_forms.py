"""Whatever a body holds, it compiles and is shown in every form, or all that is wrong is said, with pointers."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.forms import compiled, shown
from versions.errors import DocumentInvalid
from versions.forms import FORMS, redacted

IDS = st.sampled_from(["a", "b", "task-1", "action-0", "_root", "", "x y", "B"])
TYPES = st.sampled_from(
    ["noop", "wait", "trigger", "condition", "send_notification", "external", "fly", "", None, "set"]
)
LEAVES = st.none() | st.booleans() | st.integers(-2, 10**9) | st.floats(allow_nan=False) | st.text(max_size=5) | IDS
JUNK = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
CONFIG = (
    JUNK | st.just({"message": "m"}) | st.just({"durationMs": 5}) | st.just({"field": "trigger.a", "operator": "eq"})
)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """An object with any of these fields, now and then junk in its place."""
    return st.fixed_dictionaries({}, optional={key: value | JUNK for key, value in fields.items()}) | JUNK


def several(each: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(each, max_size=4)


NAME = st.sampled_from(["Task 1", "a", "b"])
TRIGGER = some(type=st.sampled_from(["manual", "scheduled", "Event"]), config=CONFIG, cron=st.just("* * * * *"))
BODIES = {
    "002": some(
        name=NAME,
        description=NAME,
        tasks=several(
            some(
                id=IDS, name=NAME, description=NAME, dependencies=several(IDS), timeout=st.integers(0, 9), type=TYPES,
                config=CONFIG, retryPolicy=some(maxRetries=st.integers(-1, 101), maxBackoff=st.integers(0, 9)),
                resourceRequirements=some(cpu=st.floats(0, 4), custom=several(some(name=NAME, value=JUNK))),
            )
        ),
        synchronizationPoints=several(some(id=IDS, name=NAME, requiredTasks=several(IDS), timeout=st.integers(0, 9))),
    ),
    "004": some(
        name=NAME,
        trigger=TRIGGER,
        variables=JUNK,
        actions=several(
            some(
                id=IDS, type=TYPES, name=NAME, config=CONFIG, timeout=st.integers(0, 9), conditions=several(JUNK),
                onError=st.sampled_from(["stop", "continue", "retry"]),
            )
        ),
    ),
    "001": some(
        name=NAME,
        triggers=several(TRIGGER),
        settings=some(timeout=st.integers(0, 9), retryOnFailure=st.booleans(), maxRetries=st.integers(0, 9)),
        definition=some(
            nodes=several(some(id=IDS, type=TYPES, name=NAME, parameters=CONFIG, position=JUNK)),
            connections=several(some(**{"from": IDS, "to": IDS})),
        ),
    ),
}  # fmt: skip


SOUND_CONFIGS = {
    "noop": [{}, None],
    "wait": [{"durationMs": 5}, {}],
    "send_notification": [{"message": "m"}, {"message": "{{ trigger.a }}", "recipient": "r"}],
    "condition": [{"field": "trigger.a", "operator": "equals", "value": 1}, {"field": "vars.b", "operator": "exists"}],
    "external": [None],
    "ship_order": [{"any": ["thing"]}],
}
SOUND_TRIGGERS = st.sampled_from([
    "manual", {"type": "webhook", "config": {"path": "/x"}}, {"type": "scheduled", "config": {"cron": "0 * * * *"}},
    {"type": "schedule", "interval": 5000, "name": "n"}, {"type": "event", "event": "e", "condition": "trigger.a"},
])  # fmt: skip
WORDS = st.sampled_from([None, "", "words"])


@st.composite
def sound(draw: st.DrawFn, dialect: str) -> dict[str, Any]:
    """A body with nothing wrong."""
    count = draw(st.integers(0, 5))
    types = [draw(st.sampled_from(sorted(SOUND_CONFIGS))) for _ in range(count)]
    parts: list[dict[str, Any]] = []
    for at, type_ in enumerate(types):
        parts.append({"type": type_, "name": f"Name {at}", "description": draw(WORDS)})
        config = draw(st.sampled_from(SOUND_CONFIGS[type_]))
        parts[at]["parameters" if dialect == "001" else "config"] = config
    body: dict[str, Any] = {"name": "w", "description": draw(WORDS)}
    if dialect == "002":
        for at, part in enumerate(parts):
            earlier = [name for n in range(at) for name in (f"task-{n + 1}", f"Name {n}", f"name {n}", f"name-{n}")]
            part["dependencies"] = draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else None
            part["timeout"] = draw(st.sampled_from([None, 1, 500.0]))
            policy = {"maxRetries": draw(st.integers(0, 100)), "maxBackoff": draw(st.sampled_from([None, 0, 70_000]))}
            part["retryPolicy"] = draw(st.sampled_from([None, policy]))
            part["resourceRequirements"] = draw(st.sampled_from([None, {}, {"cpu": 0.5, "custom": []}]))
        points = [{"name": "S", "requiredTasks": ["Name 0"], "timeout": draw(st.sampled_from([None, 9]))}]
        return {**body, "tasks": parts, "synchronizationPoints": points if parts else []}
    if dialect == "004":
        for part in parts:
            part["onError"] = draw(st.sampled_from([None, "stop", "continue", "retry"]))
            part["timeout"] = draw(st.sampled_from([None, 1, 500.0]))
            part["conditions"] = draw(
                st.sampled_from([None, [], ["trigger.a"], [{"field": "a", "operator": "exists"}]])
            )
        return {**body, "actions": parts, "trigger": draw(st.none() | SOUND_TRIGGERS), "variables": {"b": draw(WORDS)}}
    links = [{"from": f"n{a}", "to": f"n{b}"} for a in range(count) for b in range(a + 1, count) if draw(st.booleans())]
    nodes = [
        {"id": f"n{at}", **part, "position": draw(st.sampled_from([None, {"x": 1}]))} for at, part in enumerate(parts)
    ]
    sampled = draw(st.sampled_from([None, {}, {"timeout": 5}, {"retryOnFailure": True}, {"maxRetries": 2}]))
    triggers = draw(st.lists(SOUND_TRIGGERS, max_size=2))
    return {**body, "definition": {"nodes": nodes, "connections": links}, "settings": sampled, "triggers": triggers}


@pytest.mark.parametrize("dialect", BODIES)
@given(data=st.data())
def test_whatever_a_body_holds_all_that_is_wrong_is_said(dialect: str, data: st.DataObject) -> None:
    body = data.draw(BODIES[dialect].filter(lambda body: isinstance(body, dict)))
    try:
        source = compiled(dialect, body)
    except DocumentInvalid as error:
        assert 1 <= len(error.problems) <= 50
        assert all(each.kind and each.message for each in error.problems)
        assert all(each.pointer == "" or (each.pointer or "").startswith("/") for each in error.problems)
    else:
        shown(dialect, source)


@pytest.mark.parametrize("dialect", BODIES)
@given(data=st.data())
def test_what_is_shown_may_be_sent_again_and_is_the_same(dialect: str, data: st.DataObject) -> None:
    body = data.draw(sound(dialect))
    source = compiled(dialect, body, handlers=("ship_order",))
    own = shown(dialect, source)
    for other in FORMS:
        msgspec.json.encode(redacted(shown(other, source)))
    again = compiled(dialect, {**body, **own}, handlers=("ship_order",))
    assert msgspec.json.decode(again.source) == msgspec.json.decode(source.source)
    assert shown(dialect, again) == own
    assert again.source_hash == source.source_hash
