"""Errors of this package that a caller can cause."""

from __future__ import annotations

from app.errors import InvalidRequest, MillraceError, TooManyRequests


class InstanceNotFound(MillraceError):
    """404: no instance of that id in the workflow."""

    code, key, status = 10400, "instance.not_found", 404


class StepNotFound(MillraceError):
    """404: the instance has no step of that name and type, or the step no such attempt."""

    code, key, status = 10464, "step.not_found", 404


class NotificationNotFound(MillraceError):
    """404: the account has no such notification."""

    code, key, status = 10473, "notification.not_found", 404


class TaskNotFound(MillraceError):
    """404: the account has no such task for somebody to do."""

    code, key, status = 10474, "task.not_found", 404


class HookNotFound(MillraceError):
    """404: no webhook has that URL, or its workflow is not active."""

    code, key, status = 10490, "hook.not_found", 404


class TooManyListeners(InvalidRequest):
    """400: more workflows listen to an event than one event may start."""

    code, key = 10491, "event.too_many_listeners"


class InstanceExists(MillraceError):
    """400: the instance id is in use."""

    code, key, status = 10405, "instance.already_exists", 400


class DuplicateInBatch(MillraceError):
    """The id is used earlier in the same batch. Never raised: a message of a successful batch."""

    code, key, status = 10415, "instance.duplicate_in_batch", 400


class InvalidInstanceId(InvalidRequest):
    """400: an instance id breaks its rule, or is reserved."""

    code, key = 10450, "instance.invalid_id"


class InvalidTransactionId(InvalidRequest):
    """400: a transaction id breaks its rule, or is reserved."""

    code, key = 10480, "instance.invalid_transaction_id"


class InvalidEventType(InvalidRequest):
    """400: an event type breaks its rule."""

    code, key = 10455, "workflow.invalid_event_type"


class CannotSendEvent(InvalidRequest):
    """400: the instance is finished, nothing will ever read the event."""

    code, key = 10454, "instance.cannot_send_event"


class _Refused(MillraceError):
    """409: a command the instance's status does not allow; sending it again does not help."""

    status, retry = 409, False


class CannotTerminate(_Refused):
    code, key = 10401, "instance.cannot_terminate"


class CannotPause(_Refused):
    code, key = 10451, "instance.cannot_pause"


class CannotResume(_Refused):
    code, key = 10452, "instance.cannot_resume"


class CannotRestart(_Refused):
    """Also when the step to restart from is not in the instance's history."""

    code, key = 10453, "instance.cannot_restart"


class CannotCancel(_Refused):
    """The instance ended otherwise."""

    code, key = 10489, "instance.cannot_cancel"


class NotFinished(_Refused):
    """Only a finished instance may be deleted so."""

    code, key = 10487, "instance.not_finished"


class CannotRetry(_Refused):
    """A retry as a new instance: the old one is neither errored nor terminated."""

    code, key = 10481, "instance.cannot_retry"


class RolledBack(_Refused):
    """What is to be kept, or to go on, was compensated."""

    code, key = 10482, "instance.rolled_back"


class InvalidFirstStep(InvalidRequest):
    """400: no retry can begin with that step: it is unknown, or something before it has no result."""

    code, key = 10488, "instance.invalid_first_step"


class CannotRetryStep(_Refused):
    """The step has not failed, or what came after its failure does not allow it."""

    code, key = 10483, "step.cannot_retry"


class StepNotWaiting(_Refused):
    """The step does not wait to be completed from outside; the message has its state."""

    code, key = 10484, "step.not_waiting"


class StepAnsweredBefore(StepNotWaiting):
    """Its answer is there, and its run has not read it yet. `failed`: it fails the attempt."""

    def __init__(self, message: str, *, failed: bool) -> None:
        self.failed = failed
        super().__init__(message)


class WrongPhase(_Refused):
    """The step is to be compensated, not completed, or the other way round."""

    code, key = 10485, "step.wrong_phase"


class StepAnswered(_Refused):
    """Somebody else answered the step at the same time."""

    code, key = 10486, "step.answered"


class TooManyQueued(TooManyRequests):
    """429: the queue is full."""

    code, key = 10456, "instance.too_many_queued"


class TooManyEvents(TooManyRequests):
    """429: the instance holds as many unread events as it may."""

    code, key = 10465, "instance.too_many_events"


class TooManyStreams(TooManyRequests):
    """429: the credential has as many event streams open as it may."""

    code, key = 10466, "rate_limit.streams"
