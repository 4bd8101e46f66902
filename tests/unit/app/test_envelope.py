"""Every kind of error becomes one envelope (app.envelope)."""

from typing import Any

import asyncpg
import msgspec
import pytest
from litestar.exceptions import (
    ClientException,
    HTTPException,
    InternalServerException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from app.envelope import refuse
from app.errors import (
    InvalidRequest,
    MillraceError,
    NoRoute,
    NotAllowed,
    NotAuthenticated,
    PayloadTooLarge,
    Problem,
    TooManyRequests,
    Unavailable,
)
from app.faces.face import Answer
from app.failures import understand


def answer_to(error: Exception, method: str = "POST", headers: Any = ()) -> Answer:
    return refuse(understand(error), {"method": method, "headers": headers})


class _Conflict(MillraceError):
    code, key, status, retry = 10401, "instance.cannot_terminate", 409, False


CASES: list[tuple[Exception, int, int, str]] = [
    (InvalidRequest("per_page must be a whole number"), 400, 10002, "per_page must be a whole number"),
    (InvalidRequest(), 400, 10002, "workflows.api.error.body"),
    (NotAuthenticated(), 401, 10000, "Authentication error"),
    (NotAllowed("no"), 403, 10000, "no"),
    (NoRoute(), 404, 7003, "Could not route to the requested path or object"),
    (_Conflict(), 409, 10401, "workflows.api.error.instance.cannot_terminate"),
    (PayloadTooLarge(), 413, 10458, "workflows.api.error.payload_too_large"),
    (TooManyRequests(), 429, 10457, "workflows.api.error.rate_limit.workflow_instance_creation"),
    (Unavailable("later"), 503, 10459, "later"),
    (NotFoundException(), 404, 7003, "Could not route to the requested path or object"),
    (MethodNotAllowedException(), 405, 7001, "This method is not available for that URI."),
    (ClientException("Malformed JSON\nwith details"), 400, 10002, "Malformed JSON"),
    (HTTPException(status_code=413), 413, 10458, "The request body is too large."),
    (HTTPException("Unsupported media type", status_code=415), 415, 10470, "Unsupported media type"),
    (InternalServerException("secret detail"), 500, 10001, "workflows.api.error.internal_server"),
    (ZeroDivisionError("secret detail"), 500, 10001, "workflows.api.error.internal_server"),
    (ConnectionRefusedError("10.0.0.5:5432"), 503, 10459, "A service this needs is not available. Try again."),
    (asyncpg.ConnectionDoesNotExistError(), 503, 10459, "A service this needs is not available. Try again."),
    (asyncpg.QueryCanceledError(), 503, 10459, "A service this needs is not available. Try again."),
    (RedisConnectionError("host"), 503, 10459, "A service this needs is not available. Try again."),
    (
        asyncpg.CharacterNotInRepertoireError(),
        400,
        10002,
        "A text of the request holds U+0000, which cannot be stored.",
    ),
    (asyncpg.UndefinedTableError("secret detail"), 500, 10001, "workflows.api.error.internal_server"),
]


@pytest.mark.parametrize(("error", "status", "code", "message"), CASES)
def test_status_code_and_message(error: Exception, status: int, code: int, message: str) -> None:
    answer = answer_to(error)
    assert answer.status == status
    body: Any = msgspec.json.decode(answer.body)
    assert body == {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}


def test_each_problem_of_a_document_is_one_entry() -> None:
    error = InvalidRequest(
        "invalid",
        problems=[
            Problem("nodes/0/id is missing", "/definition/nodes/0", kind="INVALID_FIELD"),
            Problem("whole", "", code=10021),
        ],
    )
    assert msgspec.json.decode(answer_to(error).body)["errors"] == [
        {
            "code": 10002,
            "message": "nodes/0/id is missing",
            "source": {"pointer": "/definition/nodes/0"},
            "meta": {"kind": "INVALID_FIELD"},
        },
        {"code": 10021, "message": "whole", "source": {"pointer": ""}},
    ]


def test_retry_headers() -> None:
    assert answer_to(_Conflict()).headers == {"x-should-retry": "false"}
    assert answer_to(TooManyRequests(retry_after=0.2)).headers == {"x-should-retry": "true", "retry-after": "1"}
    assert answer_to(TooManyRequests(retry_after=2.1)).headers["retry-after"] == "3"
    assert answer_to(NoRoute()).headers == {}


def test_what_may_be_repeated_when_a_service_is_away() -> None:
    assert answer_to(Unavailable()).headers["x-should-retry"] == "false"
    assert answer_to(Unavailable(), "GET").headers["x-should-retry"] == "true"
    assert answer_to(Unavailable(), "POST", [(b"idempotency-key", b"k")]).headers["x-should-retry"] == "true"


def test_allowed_methods_are_named() -> None:
    error = MethodNotAllowedException(headers={"allow": "POST, GET, OPTIONS"})
    assert answer_to(error).headers == {"allow": "GET, HEAD, OPTIONS, POST"}


def test_a_bad_parameter_is_named() -> None:
    error = ValidationException(extra=[{"message": "Expected `int`", "key": "page", "source": "query"}])
    assert [problem.message for problem in understand(error).problems] == ["query parameter page: Expected `int`"]
    error = ValidationException(extra=[{"message": "Expected `str`", "key": "a.b", "source": "body"}])
    (entry,) = msgspec.json.decode(answer_to(error).body)["errors"]
    assert entry == {"code": 10002, "message": "a.b: Expected `str`", "source": {"pointer": "/a/b"}}
