"""What becomes of a step when an attempt of it has ended: it completes, is tried again, or has failed.

How it ended is written down, and only when that is committed the session is told, so that what it knows is what a
replay will tell it.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import msgspec

from instances.engine.runs.failures import encode_failure
from instances.engine.runs.open_steps import OpenSteps
from instances.engine.runs.state import RunState
from instances.engine.runs.step import Step, StepState
from instances.lifecycle import Kind
from instances.runtimes.protocol import (
    MAX_DEATHS,
    Broken,
    Done,
    Failure,
    Raw,
    Retry,
    SessionLost,
    StepFailure,
)
from tenants.limits import PAYLOAD_BYTES

DEADLY = Failure("WorkflowInternalError", f"The attempt ended {MAX_DEATHS} sandboxes in a row")
DEFAULT_DELAY = 10_000
"""Base of the wait before a retry when the session that would say it is gone, ms."""


class Outcomes:
    """Ends the attempts of one run's open steps. `again` begins the next attempt of one, when its time has come;
    `failed` hears of those that have failed.
    """

    def __init__(
        self, state: RunState, steps: OpenSteps, again: Callable[[Step], None], failed: Callable[[Step], None]
    ) -> None:
        self._state = state
        self._clock = state.clock
        self._usage = state.usage
        self._steps = steps
        # Weakly, because whoever is to be called holds this: a circle would outlive the run.
        self._again, self._failed = weakref.WeakMethod(again), weakref.WeakMethod(failed)

    def complete(self, step: Step, result: Raw | None) -> None:
        """The step came to `result`: with the output made of it, it is complete, if the instance may store that."""
        do = step.do
        try:
            output = result if do.shape is None else do.shape(result)
        except StepFailure as error:
            self.fail(step, error.failure)
            return
        if _too_large(output) or (do.keep_result and _too_large(result)):
            message = f"Step {do.key.counted} output is too large. Maximum allowed size is 1MiB."
            self.fail(step, Failure("WorkflowInternalError", message))
            return
        value = output if do.save_output else None
        if not step.compensates and (refusal := self._usage.refuse_value(value)) is not None:
            self.give_up(step, refusal)
            return
        step.streamed = None  # it is the step's now
        self._steps.close(step)
        if step.compensate_input is not None and not step.compensates:
            self._steps.write(Kind.COMPENSATE_INPUT, step, step.compensate_input)
        kept = result if do.keep_result else None
        if kept is not None:
            self._steps.write(Kind.STEP_RESULT, step, kept)
        now = self._clock.now()
        message = Done(do.key, value, now, step.attempts, step.started_at, step.compensate_input, kept)
        self._steps.write(Kind.STEP_COMPLETED, step, value, None if step.aside else message)

    def fail(self, step: Step, failure: Failure, *, timed_out: bool = False) -> None:
        """An attempt failed: another one follows, or the step has failed."""
        retry = step.do.retry
        self._steps.drop_stream(step)
        step.failures += 1
        step.deaths = 0
        again = not failure.permanent and step.failures <= retry.limit
        if again and retry.allow is not None:
            again = retry.allow(failure, step.attempts)
        if not again:
            self.give_up(step, failure, timed_out=timed_out)
        elif step.do.dynamic_delay:
            step.state = StepState.DELAYING
            self._steps.run(step, self._ask_delay(step, failure, timed_out))
        else:
            self._retry_later(step, failure, retry, timed_out=timed_out)

    def give_up(self, step: Step, failure: Failure, *, timed_out: bool = False) -> None:
        """The step has failed."""
        told = replace(failure, permanent=False, retry_after=None)  # those were for us, and are not in the journal
        message = Broken(step.do.key, told, self._clock.now(), step.attempts, timed_out, step.started_at)
        self._steps.close(step)
        payload = encode_failure(failure, timed_out=timed_out)
        self._steps.write(Kind.STEP_FAILED, step, payload, None if step.aside else message)
        failed = self._failed()
        assert failed is not None
        failed(step)

    def wait_for_retry(self, step: Step, delay: int, failed_at: datetime) -> None:
        """The next attempt begins `delay` ms after the last one failed."""
        step.state = StepState.RETRYING
        again = self._again()
        assert again is not None
        self._steps.set_timer("retry", step, delay, failed_at, again)

    def die(self, step: Step, failure: Failure | None, cause: str) -> None:
        """The sandbox died on this attempt. It fails with `failure`, if that is known; else it is made again by whoever
        opens the run next, unless it has been the death of too many.
        """
        if step.state not in (StepState.RUNNING, StepState.DELAYING):
            return
        step.deaths += 1
        if failure is None and step.deaths >= MAX_DEATHS:
            failure = DEADLY
        if failure is None:
            self._steps.write(Kind.ATTEMPT_INTERRUPTED, step, msgspec.json.encode({"died": cause}).decode())
            self._steps.close(step)
            return
        if step.state is StepState.RUNNING:  # the failure a delay function is asked about has been counted
            step.failures += 1
        retry = _based_on(step.do.retry, DEFAULT_DELAY) if step.do.dynamic_delay else step.do.retry
        if step.failures <= retry.limit:
            payload = encode_failure(failure, delay=retry.wait(step.failures))
            self._steps.write(Kind.ATTEMPT_FAILED, step, payload)
            self._steps.close(step)
        else:
            self.give_up(step, failure)

    async def _ask_delay(self, step: Step, failure: Failure, timed_out: bool) -> None:
        """Have the session say how long to wait."""
        try:
            base = await self._state.session.delay(step.do, step.attempts, failure)
        except StepFailure as error:
            self.give_up(step, error.failure)
        except SessionLost as lost:
            self._state.lose_session(lost)
        else:
            self._retry_later(step, failure, _based_on(step.do.retry, base), timed_out=timed_out)

    def _retry_later(self, step: Step, failure: Failure, retry: Retry, *, timed_out: bool) -> None:
        now, delay = self._clock.now(), _delay(retry, step.failures, failure)
        self._steps.clear_timer("outside", step)
        payload = encode_failure(failure, timed_out=timed_out, delay=delay)
        self._steps.write(Kind.ATTEMPT_FAILED, step, payload, at=now)
        self.wait_for_retry(step, delay, now)


def _too_large(output: Raw | None) -> bool:
    return output is not None and len(output) > PAYLOAD_BYTES // 4 and len(output.encode()) > PAYLOAD_BYTES


def _based_on(retry: Retry, base: int) -> Retry:
    return replace(retry, delay=base)


def _delay(retry: Retry, failures: int, failure: Failure) -> int:
    """Milliseconds until the next attempt."""
    delay = retry.wait(failures)
    if retry.jitter:
        delay += int(delay * retry.jitter * random.random())  # noqa: S311
    if failure.retry_after is not None:
        delay = max(delay, failure.retry_after)
    return delay if retry.max_delay is None else min(delay, retry.max_delay)
