"""Errors of this package that a caller can cause."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import InvalidRequest, MillraceError, PayloadTooLarge, Problem
from tenants.errors import LimitReached


class WorkflowNotFound(MillraceError):
    """404: no workflow of that name in the account."""

    code, key, status = 10200, "workflow.not_found", 404


class VersionNotFound(MillraceError):
    """404: no such version of the workflow."""

    code, key, status = 10300, "version.not_found", 404


class WorkflowInactive(MillraceError):
    """409: the workflow is inactive, a draft or archived, so it is not started."""

    code, key, status, retry = 10211, "workflow.inactive", 409, False


class OtherForm(MillraceError):
    """409: the workflow was written in another form, which the change does not fit; the message says what would."""

    code, key, status, retry = 10213, "", 409, False


class ChangedMeanwhile(MillraceError):
    """409: others kept changing the workflow while this change was made."""

    code, key, status, retry = 10214, "workflow.changed_meanwhile", 409, True


class ScriptNotFound(MillraceError):
    """404: no script of that name in the account, or in the workspace the caller is restricted to."""

    code, key, status = 10007, "", 404

    def __init__(self, message: str = "This Worker does not exist on your account.") -> None:
        super().__init__(message)


class ScriptNameTaken(MillraceError):
    """409: a script of another workspace has the name."""

    code, key, status, retry = 10215, "", 409, False


class ScriptElsewhere(MillraceError):
    """409: the script a workflow is to run is in another workspace than the workflow."""

    code, key, status, retry = 10216, "", 409, False


class ScriptInvalid(MillraceError):
    """400: an upload, or the class a workflow names, cannot be run here; the message says what and why."""

    code, key, status = 10021, "", 400


class UnresolvedBinding(MillraceError):
    """400: an `inherit` binding names nothing the previous version has."""

    code, key, status = 10057, "", 400


class InvalidWorkflowName(InvalidRequest):
    """400: a name that breaks the rule for workflow names, or is reserved."""


class DocumentInvalid(InvalidRequest):
    """400: a definition document with problems, one entry of `errors` each."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems[0].message if problems else "", problems=list(problems))


class InvalidInput(InvalidRequest):
    """400: an instance's input breaks the workflow's `input_schema`."""


class InvalidScriptName(InvalidRequest):
    """400: a name that breaks the rule for script names."""


class ScriptTooLarge(PayloadTooLarge):
    """413: a script is larger than the account's limit."""

    code, key = 10027, ""


class TooManyWorkflows(LimitReached):
    """403: the account has as many workflows as it may have."""


class TooManyScripts(LimitReached):
    """403: the account has as many scripts as it may have."""


class TooManySchedules(LimitReached):
    """403: the account's workflows have as many schedules as they may have."""


class CronNotAllowed(MillraceError):
    """403: the account's plan has no cron schedules."""

    code, key, status = 10208, "workflow.cron_requires_paid_plan", 403


class SecretNotFound(MillraceError):
    """404: the script has no secret of that name."""

    code, key, status = 10056, "", 404


class ScriptReferenced(MillraceError):
    """409: workflows run the script; the message names them."""

    code, key, status, retry = 10064, "", 409, False


class NoWorkerSchedules(MillraceError):
    """400: scripts have no schedules of their own."""

    code, key, status = 10100, "", 400

    def __init__(self) -> None:
        super().__init__(
            "scripts answer no scheduled events here: give `schedules` to a workflow of the script instead of `crons`"
        )


class NoScriptVersions(MillraceError):
    """404: nothing was uploaded under that name yet."""

    code, key, status = 10222, "", 404

    def __init__(self) -> None:
        super().__init__("There are no versions of this Worker.")


class ScriptVersionNotFound(MillraceError):
    """404: no such version, or no such deployment, of the script."""

    code, key, status = 10212, "", 404

    def __init__(self, message: str = "This Worker has no such version.") -> None:
        super().__init__(message)


class NotOffered(MillraceError):
    """400: something Cloudflare has for scripts and Millrace has not; the message says what there is instead."""

    code, key, status = 10101, "", 400


class DeploymentHolds(MillraceError):
    """400: the deployment that holds cannot be deleted."""

    code, key, status = 10102, "", 400

    def __init__(self) -> None:
        super().__init__("this deployment is the one that holds: deploy another version, then delete it")


class NoTail(MillraceError):
    """400: the console of scripts is not streamed by script."""

    code, key, status = 10023, "", 400

    def __init__(self) -> None:
        super().__init__(
            "scripts answer no requests here, so there is nothing to tail; what a workflow writes to its console shows"
            " `millrace instances logs WORKFLOW INSTANCE --follow`"
        )
