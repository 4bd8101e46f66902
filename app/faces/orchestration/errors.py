"""What only this face refuses."""

from __future__ import annotations

from app.errors import MillraceError


class _Unsupported(MillraceError):
    def __init__(self, version: str) -> None:
        super().__init__(f"API version '{version}' is not supported")


class UnsupportedVersion(_Unsupported):
    """404: the URL names a version of this API that there is not."""

    code, key, status = 7003, "", 404


class NotAcceptable(_Unsupported):
    """406: `Accept` names nothing but versions of this API that there are not."""

    code, key, status = 10002, "", 406


class NotFound(MillraceError):
    """404: nothing of that id. `what` as messages call it: `Workflow execution`."""

    code, key, status = 7003, "", 404

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} not found")


class Conflict(MillraceError):
    """409: the state of the execution or task forbids it."""

    code, key, status, retry = 10463, "", 409, False
