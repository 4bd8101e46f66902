"""What Cloudflare's tests of Workflows hold (bindings, contexts, the engine, validation, delays), and which of ours
hold it here.

One line per test of theirs, in our words and under numbers of our own: B bindings, C contexts and values, E the engine,
V validation, D delay functions. Names of tests often begin with the numbers of the lines they hold.
"""

from __future__ import annotations

from dataclasses import dataclass

BINDINGS = "tests/integration/javascript/test_bindings.py"
CONTEXT = "tests/integration/javascript/test_context.py"
STEPS = "tests/integration/javascript/test_steps.py"
RETRIES = "tests/integration/javascript/test_retries.py"
WAITS = "tests/integration/javascript/test_waits.py"
STEERING = "tests/integration/javascript/test_steering.py"
ROLLBACK = "tests/integration/javascript/test_rollback.py"
REPLAY = "tests/integration/javascript/test_replay.py"
STREAMS = "tests/integration/javascript/test_streams.py"
PREVIEWS = "tests/integration/javascript/test_stream_previews.py"
NAMES = "tests/integration/javascript/test_names.py"
BATCHES = "tests/integration/instances/test_instance_batches.py"
LIMITS = "tests/unit/tenants/test_limits.py"
ENGINE = "tests/integration/engine/test_scripts_on_the_engine.py"


@dataclass(frozen=True)
class Held:
    """A check that holds here: where (file), and by which tests of it."""

    what: str
    file: str
    tests: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()
    """Further files and tests."""


@dataclass(frozen=True)
class Nothing:
    """A check that has nothing to hold here. `row`: first cell of the row in docs/compatibility.md that says why."""

    what: str
    row: str


def held(what: str, file: str, *tests: str, also: tuple[tuple[str, str], ...] = ()) -> Held:
    return Held(what, file, tests, also)


FINISHED = "test_finished_instances_cannot_be_terminated_and_can_be_restarted"
ROLLED_BACK = "test_terminate_with_rollback_runs_the_handlers"
REFUSED = "test_what_is_refused"
VIEWS = "test_views_keep_type_and_content"

CHECKLIST: dict[str, Held | Nothing] = {
    # --- bindings ------------------------------------------------------------------------------------------------
    "B01": held("create takes an id and params", BINDINGS, "test_b01_b02_b20_create_with_id_and_params"),
    "B02": held(
        "the event names the bound workflow", BINDINGS, "test_b02_the_workflow_s_name_is_that_of_the_bound_one"
    ),
    "B03": held("create without arguments makes an id", BINDINGS, "test_b03_create_without_arguments"),
    "B04": held("create refuses an invalid id", BINDINGS, REFUSED),
    "B05": Nothing("create waits for the files of its predecessor", "files of deleted instances"),
    "B06": held("get gives a handle with all methods", BINDINGS, "test_b06_get_gives_a_handle"),
    "B07": held("a deleted instance is not found", BINDINGS, "test_b07_delete"),
    "B08": held("delete refuses an empty id", BINDINGS, REFUSED),
    "B09": held(
        "the id of a scheduled instance is valid, and not found",
        NAMES,
        "test_v06_b09_ids_that_instances_can_have_are_looked_for",
        also=((BINDINGS, REFUSED),),
    ),
    "B10": held(
        "an instance that deletes itself stops", BINDINGS, "test_b10_an_instance_that_deletes_itself_stops_there"
    ),
    "B11": held("batch delete deletes in order", BINDINGS, "test_b11_b12_b14_delete_batch"),
    "B12": held("batch delete tells each missing id", BINDINGS, "test_b11_b12_b14_delete_batch"),
    "B13": held(
        "batch delete hides the cause of a failure",
        BATCHES,
        "test_a_failure_is_told_per_instance_and_without_its_cause",
    ),
    "B14": held(
        "batch delete goes on after a failure",
        BATCHES,
        "test_a_failure_is_told_per_instance_and_without_its_cause",
        also=((BINDINGS, "test_b11_b12_b14_delete_batch"),),
    ),
    "B15": held("batch delete refuses none, 101 and invalid ids", BINDINGS, REFUSED),
    "B16": held("batch create keeps the order", BINDINGS, "test_b16_a_batch_of_three_in_order"),
    "B17": held("batch create refuses none", BINDINGS, REFUSED),
    "B18": held("an event reaches its wait", BINDINGS, "test_b18_b24_send_event"),
    "B19": held("status while waiting", BINDINGS, "test_b19_b23_b26_terminate_while_waiting"),
    "B20": held("status of a success", BINDINGS, "test_b01_b02_b20_create_with_id_and_params"),
    "B21": held("status of a failure", BINDINGS, "test_b21_status_of_a_failed_instance"),
    "B22": Nothing("status lists outputs of steps", "outputs of steps in `status()`"),
    "B23": held("status after a termination", BINDINGS, "test_b19_b23_b26_terminate_while_waiting"),
    "B24": held(
        "a wait gives payload and type",
        WAITS,
        "test_e07_an_event_completes_a_wait",
        also=((BINDINGS, "test_b18_b24_send_event"),),
    ),
    "B25": held("two waits get their own events", BINDINGS, "test_b25_two_waits_get_each_their_own_event"),
    "B26": held("termination ends a wait", STEERING, "test_b26_termination_ends_a_wait_and_no_later_step_begins"),
    "B27": held("a restarted instance completes again", BINDINGS, "test_b27_restart"),
    "B28": held("a pause waits for the step", STEERING, "test_e27_b28_b29_pause_waits_for_the_step_and_resume_goes_on"),
    "B29": held(
        "a resumed instance completes", STEERING, "test_e27_b28_b29_pause_waits_for_the_step_and_resume_goes_on"
    ),
    "B30": held("resume takes a pause back", STEERING, "test_e29_b30_resume_while_waiting_for_the_pause_takes_it_back"),
    # --- contexts and values -------------------------------------------------------------------------------------
    "C01": held("attempts count from 1", CONTEXT, "test_c01_the_attempt_counts_from_one"),
    "C02": held("limit 2 makes three attempts", CONTEXT, "test_c02_a_failing_step_runs_once_more_than_its_limit"),
    "C03": held("retries wait for their delay", CONTEXT, "test_c03_retries_wait_for_the_delay"),
    "C04": Nothing("delays that tests switch off", "tests of workflows under Cloudflare's test runner"),
    "C05": held("the context names the step", CONTEXT, "test_c05_the_context_names_the_step"),
    "C06": held("steps are counted by name", CONTEXT, "test_c06_names_are_counted_one_by_one"),
    "C07": held("the default configuration, with 10 seconds", CONTEXT, "test_c07_the_default_configuration"),
    "C08": held("defaults fill a configuration", CONTEXT, "test_c08_what_a_configuration_leaves_out_is_the_default"),
    "C09": held("the context is a copy", CONTEXT, "test_c09_the_context_is_a_copy"),
    "C10": held("a stream is stored and read", STREAMS, "test_c10_a_stream_is_stored_and_read_by_the_caller"),
    "C11": held("an empty stream", STREAMS, "test_c11_an_empty_stream_is_an_empty_stream"),
    "C12": held("a locked stream is refused", STREAMS, "test_c12_a_locked_stream_is_no_result"),
    "C13": held("chunks of text are refused", STREAMS, "test_c13_chunks_must_be_bytes"),
    "C14": held("chunks over 16 MiB are refused", STREAMS, "test_c14_a_chunk_of_more_than_16_mib_is_refused"),
    "C15": held("a restart removes a stream", STREAMS, "test_c15_a_restart_removes_what_was_stored"),
    "C16": Nothing("mocked streams survive a restart", "tests of workflows under Cloudflare's test runner"),
    "C17": held("chunks of other views are bytes", STREAMS, "test_c17_chunks_of_other_views_come_back_as_bytes"),
    "C18": held(
        "whoever asks for a step's stream may read it again",
        PREVIEWS,
        "test_c18_the_step_endpoint_gives_the_bytes_of_a_stream",
        also=((STREAMS, "test_a_large_stream_is_read_in_every_life_and_by_callers"),),
    ),
    "C19": Nothing("mocked streams replace callbacks", "tests of workflows under Cloudflare's test runner"),
    "C20": held("views show a stream's text", PREVIEWS, "test_views_show_the_beginning_of_a_stream"),
    "C21": held("views cut a stream's text", PREVIEWS, "test_views_show_the_beginning_of_a_stream"),
    "C22": held("views show a stream that is no text", PREVIEWS, "test_views_show_the_beginning_of_a_stream"),
    "C23": held("a timeout removes a stream", STREAMS, "test_c23_a_timeout_while_the_stream_is_read_leaves_nothing"),
    "C24": held("200 KB of bytes", CONTEXT, VIEWS),
    "C25": held("a view is stored without its buffer", CONTEXT, VIEWS),
    "C26": held("bytes keep their type in the same run", CONTEXT, VIEWS),
    "C27": held("views keep their type", CONTEXT, VIEWS),
    "C28": held("views in objects", CONTEXT, "test_nested_views_are_stored_without_the_buffer_around_them"),
    "C29": held("views in arrays", CONTEXT, "test_nested_views_are_stored_without_the_buffer_around_them"),
    "C30": held("sensitive outputs in views", CONTEXT, "test_c30_c31_sensitive_outputs_are_shown_to_the_code_only"),
    "C31": held("sensitive outputs of a step", CONTEXT, "test_c30_c31_sensitive_outputs_are_shown_to_the_code_only"),
    "C32": held("errors of sensitive steps", CONTEXT, "test_c32_errors_of_sensitive_steps_are_shown"),
    "C33": held("sensitive streams", PREVIEWS, "test_c33_a_sensitive_stream_is_shown_to_the_code_only"),
    # --- the engine ----------------------------------------------------------------------------------------------
    "E01": held("no retry after NonRetryableError", RETRIES, "test_e01_no_retry_after_a_non_retryable_error"),
    "E02": held("it keeps its message", RETRIES, "test_e02_with_the_flag_it_keeps_its_name_and_message"),
    "E03": held("a caught failure", RETRIES, "test_e03_a_caught_failure_leaves_the_instance_successful"),
    "E04": held(
        "a delay function's delay is used and told",
        RETRIES,
        "test_e04_the_delay_is_told_with_the_attempt_that_failed",
        "test_e04_d05_d06_a_delay_function_is_asked_for_each_retry",
    ),
    "E05": held("a throwing delay function", RETRIES, "test_a_delay_function_that_fails_ends_the_step"),
    "E06": held("the context shows fixed delays", RETRIES, "test_e06_the_context_shows_fixed_delays_only"),
    "E07": held("an event completes a wait", WAITS, "test_e07_an_event_completes_a_wait"),
    "E08": held("an event wakes an instance", REPLAY, "test_e08_an_event_finds_an_instance_no_worker_holds"),
    "E09": held("the third wait times out", WAITS, "test_e09_the_third_wait_times_out_and_takes_no_later_event"),
    "E10": held("status and log after a restart", REPLAY, "test_e10_status_and_log_are_there_after_a_restart"),
    "E11": held("200 KB of bytes in views", CONTEXT, "test_views_show_bytes_by_their_size"),
    "E12": held("bytes inside objects in views", CONTEXT, "test_views_show_bytes_by_their_size"),
    "E13": held("a step over the limit fails", STEPS, "test_the_limit_of_steps"),
    "E14": held("steps up to the limit", STEPS, "test_the_limit_of_steps"),
    "E15": held("10,000 steps by default, by profile", LIMITS, "test_the_profiles_are_cloudflares"),
    "E16": held("terminate refuses what completed", STEERING, FINISHED, also=((BINDINGS, REFUSED),)),
    "E17": held("terminate refuses what failed", STEERING, FINISHED),
    "E18": held("terminate refuses what was terminated", STEERING, FINISHED),
    "E19": held("restart of what completed", STEERING, FINISHED),
    "E20": held("restart of what failed", STEERING, FINISHED),
    "E21": held("restart of what was terminated", STEERING, FINISHED),
    "E22": held("restart of what runs", STEERING, "test_e22_a_running_instance_can_be_restarted"),
    "E23": held("restart of what is paused", STEERING, "test_e23_a_paused_instance_can_be_restarted"),
    "E24": held("restart from a step", STEERING, "test_e24_restart_from_a_step_keeps_what_came_before"),
    "E25": held(
        "a name shared by a sleep and a step",
        STEERING,
        "test_e25_restart_from_a_name_shared_with_a_sleep_means_the_step",
    ),
    "E26": held("restart from no step", STEERING, "test_e26_restart_from_a_step_that_never_ran_is_refused"),
    "E27": held("pause in a step", STEERING, "test_e27_b28_b29_pause_waits_for_the_step_and_resume_goes_on"),
    "E28": held("pause in parallel steps", STEERING, "test_e28_pause_waits_for_all_parallel_steps"),
    "E29": held("resume before the pause", STEERING, "test_e29_b30_resume_while_waiting_for_the_pause_takes_it_back"),
    "E30": held("pause in a sleep", STEERING, "test_e30_a_pause_interrupts_a_sleep"),
    "E31": held("pause in a wait", STEERING, "test_e31_a_pause_interrupts_a_wait"),
    "E32": held("a pause left behind", REPLAY, "test_e32_a_pause_asked_for_before_the_worker_left_is_settled"),
    "E33": held("handlers in reverse", ROLLBACK, "test_e33_e36_handlers_run_in_reverse_and_are_told_why"),
    "E34": held("handlers of parallel steps", ROLLBACK, "test_e34_of_parallel_steps_the_one_started_later_goes_first"),
    "E35": held("a handler's configuration", ROLLBACK, "test_e35_the_configuration_of_a_handler"),
    "E36": held("what handlers are told", ROLLBACK, "test_e33_e36_handlers_run_in_reverse_and_are_told_why"),
    "E37": held("a failed step's handler", ROLLBACK, "test_e37_a_failed_step_is_rolled_back_too"),
    "E38": held("steps without handlers", ROLLBACK, "test_e38_only_steps_with_handlers_are_rolled_back"),
    "E39": held("a handler that fails", ROLLBACK, "test_e39_a_handler_that_fails_stops_the_rest"),
    "E40": held("terminate with rollback in a sleep", ROLLBACK, ROLLED_BACK),
    "E41": held("the same after a replay", ROLLBACK, ROLLED_BACK),
    "E42": held("a step in flight", ROLLBACK, "test_e42_a_step_that_had_not_finished_is_rolled_back"),
    "E43": held("a step out of reach", ROLLBACK, "test_e43_a_step_that_replay_no_longer_reaches_fails_the_rollback"),
    "E44": held("a caught failure", ROLLBACK, "test_e44_a_failure_that_was_caught_is_rolled_back_on_termination"),
    "E45": held("dynamic delays in handlers", ROLLBACK, "test_e45_handlers_see_no_dynamic_delay"),
    "E46": held("terminate with rollback while paused", ROLLBACK, ROLLED_BACK),
    "E47": held("no rollback on success", ROLLBACK, "test_e47_no_rollback_on_success"),
    # --- validation ----------------------------------------------------------------------------------------------
    "V01": held("workflow names refused", NAMES, "test_v01_names_that_no_workflow_may_have"),
    "V02": held("workflow names taken", NAMES, "test_v02_names_that_workflows_may_have"),
    "V03": held(
        "instance ids refused",
        NAMES,
        "test_v03_ids_that_no_new_instance_may_have",
        "test_v03_ids_that_are_no_text",
    ),
    "V04": held("instance ids taken", NAMES, "test_v04_ids_that_new_instances_may_have"),
    "V05": held("ids that cannot be asked for", NAMES, "test_v05_ids_that_no_instance_can_have"),
    "V06": held("ids that can be asked for", NAMES, "test_v06_b09_ids_that_instances_can_have_are_looked_for"),
    "V07": held("step names refused", STEPS, "test_wrong_arguments"),
    "V08": held("step names taken", STEPS, "test_v08_v10_v11_what_is_accepted"),
    "V09": held("configurations refused", STEPS, "test_wrong_arguments"),
    "V10": held("functions as delays", STEPS, "test_v08_v10_v11_what_is_accepted"),
    "V11": held("configurations taken", STEPS, "test_v08_v10_v11_what_is_accepted"),
    # --- delay functions -----------------------------------------------------------------------------------------
    "D01": Nothing("the race with a signal: won", "a race of a promise and an abort signal"),
    "D02": Nothing("the race with a signal: lost", "a race of a promise and an abort signal"),
    "D03": Nothing("the race with a signal: rejected", "a race of a promise and an abort signal"),
    "D04": Nothing("the race with a signal: over before", "a race of a promise and an abort signal"),
    "D05": held("a synchronous delay function", RETRIES, "test_e04_d05_d06_a_delay_function_is_asked_for_each_retry"),
    "D06": held("an asynchronous delay function", RETRIES, "test_e04_d05_d06_a_delay_function_is_asked_for_each_retry"),
    "D07": held(
        "one that never settles", RETRIES, "test_d07_a_delay_function_that_never_settles_fails_after_five_seconds"
    ),
    "D08": held(
        "one that throws",
        RETRIES,
        "test_a_delay_function_that_fails_ends_the_step",
        "test_d07_d08_a_delay_function_that_failed_is_in_the_log",
    ),
    "D09": held("one that rejects", RETRIES, "test_a_delay_function_that_fails_ends_the_step"),
    "D10": held(
        "one that is cut off", ENGINE, "test_d10_after_a_delay_function_that_ended_its_sandbox_comes_the_default_delay"
    ),
    "D11": Nothing("asking without a logger", "a delay function asked without a logger"),
}
