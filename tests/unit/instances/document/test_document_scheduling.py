"""Which nodes run, in which order, and how an instance completes: joins, conditions, gates, errors, outputs."""

import pytest

from instances.lifecycle import Kind
from instances.runtimes.document import scope
from instances.runtimes.protocol import Do, Fail, Failure, Finish, Log, StepFailure, StepKind
from tests.support.document_runs import drive, fails, gate, noop, run_context, sets

# --- order -------------------------------------------------------------------------------------------------------


async def test_an_empty_document_completes_at_once():
    run = await drive([])
    assert run.output == {}
    assert run.records(Kind.MILESTONE) == ["initialization", "completion"]


async def test_a_chain_runs_in_order():
    run = await drive([noop("c", "b"), noop("a"), noop("b", "a")])
    assert run.started() == ["a", "b", "c"]
    assert run.output == "success"


async def test_independent_nodes_start_together():
    run = await drive([noop("a"), noop("b"), noop("c", "a", "b")])
    assert [c.key.name for c in run.batches[0][1] if isinstance(c, Do)] == ["a", "b"]
    assert run.started() == ["a", "b", "c"]


async def test_pure_steps_are_marked_so():
    run = await drive([noop("a"), {"id": "b", "type": "external"}, sets("c"), fails("d", on_error="continue")])
    assert all(command.immediate for command in run.commands if isinstance(command, Do))


async def test_max_parallel_holds_back_what_runs_but_not_what_waits():
    nodes = [{"id": f"call{i}", "type": "call_api", "config": {"url": "https://example.com"}} for i in range(4)]
    nodes += [{"id": "sleep", "type": "wait"}, {"id": "outside", "type": "external"}]
    release = {}

    async def perform(do, _attempt):
        release[do.key.name] = True
        return "null"

    run = await drive(nodes, limits={"max_parallel": 2}, perform=perform)
    first = [c.key.name for c in run.batches[0][1] if hasattr(c, "key")]
    assert first == ["call0", "call1", "sleep", "outside"]
    second = [c.key.name for c in run.batches[1][1] if hasattr(c, "key")]
    assert second == ["call2"]
    await run.finish()
    assert run.started() == ["call0", "call1", "outside", "call2", "call3"]


async def test_the_limit_of_attempts_fails_the_instance():
    run = await drive([noop("a"), noop("b", "a"), noop("c", "b")], limits={"max_steps": 2})
    assert run.error.name == "LIMIT_EXCEEDED"
    assert run.started() == ["a", "b"]


async def test_retries_count_towards_the_limit():
    async def perform(_do, _attempt):
        raise StepFailure(Failure("Error", "no"))

    node = {"id": "a", "type": "call_api", "config": {"url": "https://example.com"}, "retries": {"limit": 50}}
    run = await (await drive([node], limits={"max_steps": 3}, perform=perform)).finish()
    assert run.executed == [("a-1", 1), ("a-1", 2), ("a-1", 3)]
    assert run.error.message == "no"


# --- joins -------------------------------------------------------------------------------------------------------


async def test_join_all_waits_for_every_dependency():
    run = await drive([noop("a"), {"id": "b", "type": "external"}, noop("c", "a", "b")])
    assert "c" not in run.started()
    await run.complete("b")
    assert run.started() == ["a", "b", "c"]


async def test_join_all_accepts_skipped_and_continued():
    run = await drive([noop("a", when="`false`"), fails("b", on_error="continue"), noop("c", "a", "b")])
    assert run.started() == ["b", "c"]
    assert run.skipped() == {"a": "condition"}


async def test_join_any_starts_with_the_first_and_only_once():
    run = await drive([noop("a"), {"id": "b", "type": "external"}, noop("c", "a", "b", join="any")])
    assert run.started() == ["a", "b", "c"]
    await run.complete("b")
    assert run.started() == ["a", "b", "c"]
    assert isinstance(run.end, Finish)


async def test_join_any_passes_over_what_failed():
    run = await drive([fails("a", on_error="skip"), {"id": "b", "type": "external"}, noop("c", "a", "b", join="any")])
    assert run.started() == ["a", "b"]
    await run.complete("b")
    assert run.started() == ["a", "b", "c"]


async def test_join_any_without_any_is_skipped():
    run = await drive([fails("a", on_error="skip"), fails("b", on_error="skip"), noop("c", "a", "b", join="any")])
    assert run.skipped() == {"c": "failure"}
    assert isinstance(run.end, Finish)


async def test_join_all_done_runs_whatever_happened():
    nodes = [fails("a", on_error="skip"), noop("b", "a"), noop("c", "a", "b", join="all_done")]
    run = await drive(nodes)
    assert run.skipped() == {"b": "failure"}
    assert run.started() == ["a", "c"]


# --- conditions on nodes -----------------------------------------------------------------------------------------


async def test_when_false_skips_and_dependents_go_on():
    run = await drive(
        [noop("a", when={"field": "trigger.x", "operator": "gt", "value": 5}), noop("b", "a")], input={"x": 1}
    )
    assert run.skipped() == {"a": "condition"}
    assert run.started() == ["b"]


async def test_when_sees_finished_steps():
    run = await drive([sets("a", values={"n": 3}), noop("b", "a", when="steps.a.output.n > `5` || vars.n == `3`")])
    assert run.started() == ["a", "b"]


async def test_a_type_mismatch_in_a_condition_is_logged():
    run = await drive([noop("a", when={"field": "trigger.x", "operator": "gt", "value": 5})], input={"x": "many"})
    assert run.skipped() == {"a": "condition"}
    [line] = [command for command in run.commands if isinstance(command, Log)]
    assert (line.level, line.step) == ("warn", "a")
    assert "trigger.x gt" in line.message


async def test_a_runtime_error_in_a_condition_fails_the_step():
    run = await drive([noop("a", when="trigger.x > 'a'", retries={"limit": 3})], input={"x": 1})
    assert run.error.name == "EXPRESSION_ERROR"
    assert run.executed == [("a-1", 1)]
    await run.check_replay()


async def test_on_error_applies_to_expression_errors():
    run = await drive([noop("a", when="trigger.x > 'a'", on_error="continue"), noop("b", "a")], input={"x": 1})
    assert run.started() == ["a", "b"]
    assert run.output == "success"


# --- the condition node ------------------------------------------------------------------------------------------


async def test_condition_reports_its_verdict():
    run = await drive([gate("g", met=True)], input={"go": False})
    assert run.result("g") == {
        "conditionMet": False,
        "field": "trigger.go",
        "operator": "eq",
        "value": True,
        "actualValue": False,
    }


async def test_an_open_gate_lets_pass():
    run = await drive([gate("g"), noop("a", "g")], input={"go": True})
    assert run.started() == ["g", "a"]


async def test_a_shut_gate_skips_what_comes_after_and_completes():
    nodes = [gate("g"), noop("a", "g"), noop("b", "a", join="all_done"), noop("other")]
    run = await drive(nodes, input={"go": False})
    assert run.skipped() == {"a": "stopped", "b": "stopped"}
    assert run.started() == ["g", "other"]
    assert run.output == {"b": None, "other": "success"}


async def test_on_false_continue_goes_on():
    run = await drive([gate("g", onFalse="continue"), noop("a", "g")], input={"go": False})
    assert run.started() == ["g", "a"]


async def test_on_false_fail_fails():
    run = await drive([gate("g", onFalse="fail"), noop("a", "g")], input={"go": False})
    assert run.error.name == "CONDITION_FAILED"
    assert run.started() == ["g"]


@pytest.mark.parametrize(("go", "ran", "left_out"), [(True, "yes", "no"), (False, "no", "yes")])
async def test_then_and_else(go, ran, left_out):
    nodes = [
        gate("g", then=["yes"], **{"else": ["no"]}),
        noop("yes"),
        noop("no"),
        noop("after", "yes", "no"),
    ]
    run = await drive(nodes, input={"go": go})
    assert run.started() == ["g", ran, "after"]
    assert run.skipped() == {left_out: "branch"}


async def test_a_fork_that_fails_has_a_verdict():
    config = {"onFalse": "fail", "then": ["yes"], "else": ["no"]}
    nodes = [{**gate("g", **config), "on_error": "continue"}, noop("yes"), noop("no")]
    run = await drive(nodes, input={"go": False})
    assert run.started() == ["g", "no"]
    assert run.skipped() == {"yes": "branch"}
    await run.check_replay()


async def test_a_fork_stops_when_it_says_so():
    run = await drive([gate("g", onFalse="stop", then=["yes"]), noop("yes"), noop("after", "yes")], input={"go": False})
    assert run.skipped() == {"yes": "stopped", "after": "stopped"}


async def test_both_branches_are_skipped_when_the_condition_was():
    nodes = [
        {**gate("g", onFalse="continue", then=["yes"], **{"else": ["no"]}), "when": "`false`"},
        noop("yes"),
        noop("no"),
    ]
    run = await drive(nodes)
    assert run.skipped() == {"g": "condition", "yes": "branch", "no": "branch"}


async def test_a_condition_may_be_a_tree():
    config = {"any": ["trigger.a", {"not": {"field": "trigger.b", "operator": "exists"}}], "onFalse": "fail"}
    run = await drive([{"id": "g", "type": "condition", "config": config}], input={"a": False})
    assert run.result("g")["conditionMet"] is True


async def test_reshaping_a_condition_leaves_its_verdict_alone():
    nodes = [
        {**gate("g", onFalse="continue", then=["yes"]), "outputs": {"text": "{{ result.actualValue }}"}},
        noop("yes"),
        sets("see", "g", values={"seen": "{{ steps.g.output }}"}),
    ]
    run = await drive(nodes, input={"go": False})
    assert run.skipped() == {"yes": "branch"}
    assert run.result("see") == {"seen": {"text": False}}


async def test_a_mismatch_in_a_condition_node_is_logged():
    run = await drive([gate("g", operator="gt", value=3)], input={"go": "x"})
    assert run.logs == [("warn", "trigger.go gt: string and number are neither two numbers nor two timestamps")]


# --- on_error ----------------------------------------------------------------------------------------------------


async def test_stop_fails_the_instance():
    run = await drive([fails("a"), noop("b", "a")])
    assert (run.error.name, run.error.message) == ("Error", "a broke")
    assert run.started() == ["a"]
    assert run.skipped() == {}
    assert run.rollback is not None


async def test_continue_lets_dependents_run():
    run = await drive(
        [fails("a", on_error="continue"), sets("b", "a", values={"error": "{{ steps.a.error.message }}"})]
    )
    assert run.result("b") == {"error": "a broke"}
    assert isinstance(run.end, Finish)


async def test_skip_leaves_out_all_descendants():
    nodes = [fails("a", on_error="skip"), noop("b", "a"), noop("c", "b"), noop("other")]
    run = await drive(nodes)
    assert run.skipped() == {"b": "failure", "c": "failure"}
    assert run.output == {"c": None, "other": "success"}


async def test_skip_to_resumes_at_its_target():
    nodes = [
        fails("a", on_error={"skip_to": "d"}),
        noop("b", "a"),
        noop("c", "b"),
        noop("d", "c"),
        noop("e", "d", "b"),
        noop("side", "b"),
    ]
    run = await drive(nodes)
    assert run.skipped() == {"b": "failure", "c": "failure", "side": "failure"}
    assert run.started() == ["a", "d", "e"]


async def test_retry_as_on_error_retries_three_times_then_stops():
    async def perform(_do, _attempt):
        raise StepFailure(Failure("Error", "no"))

    node = {"id": "a", "type": "call_api", "config": {"url": "https://example.com"}, "on_error": "retry"}
    run = await drive([node], perform=perform)
    starts = []
    for _ in range(3):
        starts.append(run.now)
        await run.advance(60)
    assert [attempt for _, attempt in run.executed] == [1, 2, 3, 4]
    assert run.error.message == "no"


async def test_a_thousand_skipped_nodes_need_no_recursion():
    nodes = [fails("n0", on_error="skip")] + [noop(f"n{i}", f"n{i - 1}") for i in range(1, 1000)]
    run = await drive(nodes)
    assert len(run.skipped()) == 999


# --- outputs -----------------------------------------------------------------------------------------------------


async def test_one_sink_gives_its_output():
    assert (await drive([noop("a"), sets("b", "a", values={"x": 1})])).output == {"x": 1}


async def test_several_sinks_give_a_map():
    assert (await drive([sets("a", values={"x": 1}), noop("b")])).output == {"a": {"x": 1}, "b": "success"}


async def test_a_skipped_sink_gives_null():
    assert (await drive([noop("a", when="`false`")])).output is None


async def test_outputs_of_the_document():
    run = await drive([sets("a", values={"x": 1})], outputs={"y": "{{ steps.a.output.x }}", "all": "{{ vars }}"})
    assert run.output == {"y": 1, "all": {"x": 1}}


async def test_failing_outputs_fail_the_instance():
    run = await drive([sets("a", values={"x": 1})], outputs={"y": "{{ vars.x > 'a' }}"})
    assert run.error.name == "EXPRESSION_ERROR"


async def test_too_large_an_output_fails_the_instance():
    nodes = [sets(name, values={"x": "{{ trigger.x }}"}) for name in ("a", "b")]
    run = await drive(nodes, input={"x": "y" * 700_000})
    assert run.error.name == "LIMIT_EXCEEDED"


async def test_many_outputs_are_not_put_together_first():
    text = "x" * 1_000_000
    run = await drive([sets(f"n{i}", values={"v": "{{ trigger }}"}) for i in range(7)], input=text)
    assert (run.error.name, run.error.message) == (
        "LIMIT_EXCEEDED",
        "the output of the instance has more than 1048576 bytes",
    )


async def test_reshaped_outputs_are_limited():
    node = {**sets("a"), "outputs": {"v": "{{ [trigger, trigger, trigger] }}"}}
    run = await drive([node], input=[0.1234567890123456] * 20_000)
    assert run.error.name == "EXPRESSION_ERROR"
    assert "1048576 bytes" in run.error.message


async def test_variables_are_limited(monkeypatch):
    monkeypatch.setattr(scope, "VARIABLES_CHARACTERS", 100)
    nodes = [sets("a", values={"v": "x" * 40}), sets("b", "a", values={"w": "x" * 60}, on_error="continue")]
    run = await drive([*nodes, sets("c", "b", values={"seen": "{{ keys(vars) }}"}, on_error="continue")])
    assert run.skipped() == {}
    assert run.output is None, "c is over the limit, too"
    assert run.executed == [("a-1", 1), ("b-1", 1), ("c-1", 1)]


async def test_outputs_together_are_limited(monkeypatch):
    monkeypatch.setattr(scope, "OUTPUTS_CHARACTERS", 100)
    nodes = [sets("a", values={"v": "x" * 40}), sets("b", "a", values={"v": "x" * 60})]
    run = await drive(nodes)
    assert run.error.name == "LIMIT_EXCEEDED"
    assert "outputs of the instance" in run.error.message
    assert (await drive([nodes[0], {**nodes[1], "save_output": False}])).end is not None


async def test_outputs_of_a_node_reshape_its_result():
    nodes = [sets("a", values={"x": {"y": 2}}, outputs={"z": "{{ result.x.y }}"}), noop("b", "a")]
    run = await drive(nodes, outputs={"a": "{{ steps.a.output }}", "vars": "{{ vars }}"})
    assert run.output == {"a": {"z": 2}, "vars": {"x": {"y": 2}}}


@pytest.mark.parametrize("unseen", [{"save_output": False}, {"outputs": {"z": "{{ result.x }}"}}])
async def test_a_replay_knows_what_was_set_without_the_output(unseen):
    nodes = [sets("a", values={"x": 1}, **unseen), sets("b", "a", values={"x": "{{ vars.x }}"})]
    run = await drive(nodes)
    assert run.result("a") == (None if "save_output" in unseen else {"z": 1})
    assert run.result("b") == {"x": 1}
    await run.check_replay()


async def test_outputs_of_an_ordinary_node_are_what_is_recorded():
    run = await drive([noop("a", outputs={"was": "{{ result }}", "id": "{{ execution.id }}"})])
    assert run.result("a") == {"was": "success", "id": "i-1"}


async def test_an_output_that_is_not_saved_is_seen_by_nobody():
    nodes = [noop("a", save_output=False), sets("b", "a", values={"a": "{{ steps.a }}"})]
    run = await drive(nodes)
    assert run.result("b")["a"]["output"] is None
    assert run.result("b")["a"]["status"] == "complete"


# --- trigger, vars, input ----------------------------------------------------------------------------------------


async def test_a_trigger_completes_at_start_with_the_input():
    nodes = [{"id": "t", "type": "trigger"}, sets("a", "t", values={"x": "{{ previous.x }}{{ steps.t.output.x }}"})]
    run = await drive(nodes, input={"x": 4})
    first = [c for c in run.batches[0][1] if isinstance(c, Do)]
    assert [c.key.name for c in first] == ["t", "a"]
    assert not first[0].counts
    assert run.result("a") == {"x": "44"}
    assert run.result("t") == {"x": 4}


async def test_outputs_of_a_trigger():
    trigger = {"id": "t", "type": "trigger", "outputs": {"n": "{{ result.n }}", "all": "{{ trigger }}"}}
    run = await drive([trigger, sets("a", "t", values={"t": "{{ steps.t.output }}"})], input={"n": 1})
    assert run.result("t") == run.result("a")["t"] == {"n": 1, "all": {"n": 1}}
    await run.check_replay()


async def test_a_trigger_whose_outputs_fail():
    trigger = {"id": "t", "type": "trigger", "outputs": {"n": "{{ sum(result) }}"}}
    run = await drive([trigger, noop("a", "t")], input={"n": 1})
    assert run.error.name == "EXPRESSION_ERROR"
    assert run.started() == ["t"]
    await run.check_replay()


async def test_the_output_of_a_trigger_may_be_kept_from_others():
    trigger = {"id": "t", "type": "trigger", "save_output": False}
    run = await drive([trigger, sets("a", "t", values={"t": "{{ steps.t }}"})], input={"n": 1})
    assert run.result("a")["t"]["output"] is None
    assert run.result("a")["t"]["status"] == "complete"


async def test_a_trigger_does_not_count_towards_the_attempts():
    run = await drive([{"id": "t", "type": "trigger"}, noop("a", "t")], limits={"max_steps": 1})
    assert isinstance(run.end, Finish)


async def test_set_changes_the_variables_of_what_starts_later():
    nodes = [
        sets("a", values={"x": 2, "y": "{{ vars.x }}"}),
        sets("b", "a", values={"seen": "{{ vars }}"}),
    ]
    run = await drive(nodes, vars={"x": 1, "z": 9})
    assert run.result("a") == {"x": 2, "y": 1}
    assert run.result("b") == {"seen": {"x": 2, "y": 1, "z": 9}}


async def test_variables_of_the_instance_win():
    run_of = run_context(trigger={"source": "api", "variables": {"x": 5}})
    run = await drive([sets("a", values={"x": "{{ vars.x }}", "y": "{{ vars.y }}"})], vars={"x": 1, "y": 2}, run=run_of)
    assert run.result("a") == {"x": 5, "y": 2}


async def test_set_needs_an_object():
    run = await drive([{"id": "a", "type": "set", "config": {"values": "{{ trigger }}"}}], input=[1])
    assert run.error.name == "INVALID_CONFIG"


async def test_fail_is_never_retried():
    node = {"id": "a", "type": "fail", "config": {"message": "no {{ trigger.x }}", "code": "E{{ trigger.x }}"},
            "retries": {"limit": 3}}  # fmt: skip
    run = await (await drive([node], input={"x": 1})).finish()
    assert run.executed == [("a-1", 1)]
    assert (run.error.name, run.error.message, run.error.code) == ("E1", "no 1", "E1")


async def test_nothing_follows_the_end():
    run = await drive([fails("a"), noop("b")])
    assert isinstance(run.commands[-1], Fail)
    assert run.started(StepKind.ROLLBACK) == []
