"""Request bodies of this face. Fields it does not know are ignored, except inside a definition."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

EXECUTION_TIMEOUT_S = 300
"""Deadline of an execution when neither the call nor the definition names one."""
EXECUTION_TIMEOUT_MAX_S = 31_536_000

Seconds = Annotated[int, msgspec.Meta(ge=1, le=EXECUTION_TIMEOUT_MAX_S)]


class ExecuteOptions(msgspec.Struct, frozen=True, rename="camel"):
    """`timeout` is the execution's deadline in seconds, and how long a call waits at most."""

    wait_for_completion: bool = False
    timeout: Seconds | None = None


class ExecuteBody(msgspec.Struct, frozen=True, rename="camel"):
    """Of `POST /v1/workflows/{id}/execute`."""

    input_data: dict[str, Any] | None = None
    options: ExecuteOptions | None = None


class ExecuteInput(msgspec.Struct, frozen=True, rename="camel"):
    """The same body, its input as it was written."""

    input_data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class RetryBody(msgspec.Struct, frozen=True, rename="camel"):
    """Of `POST /v1/executions/{id}/retry`: the step to run from, the failed one unless named."""

    from_step: str | None = None


class DuplicateBody(msgspec.Struct, frozen=True):
    """Of `POST /v1/workflows/{id}/duplicate`."""

    name: str | None = None


class LoginBody(msgspec.Struct, frozen=True):
    """Of `POST /v1/auth/login`; `account` (id or name) picks among several."""

    email: str
    password: str
    account: str | None = None


class RefreshBody(msgspec.Struct, frozen=True, rename="camel"):
    """Of `POST /v1/auth/refresh`."""

    refresh_token: str
