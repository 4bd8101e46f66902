"""The API as the commands use it: requests with retries, answers unwrapped, errors that say what to do next."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
import msgspec

ATTEMPTS = 4
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 30.0
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 60.0

_HINTS = {
    7003: "Check the account id and the ids in the command.",
    10000: "Check the token (--token or MILLRACE_TOKEN), or make one with `millrace token create`.",
    10200: "`millrace workflows list` shows the workflows of the account.",
    10400: "`millrace instances list WORKFLOW` shows its instances.",
    10401: "Only an unfinished instance can be terminated.",
    10405: "Choose another --id, or leave it out to get a fresh one.",
    10451: "Only an unfinished instance can be paused.",
    10452: "Only a paused instance can be resumed.",
    10453: "`millrace instances describe` shows the steps that can be restarted from.",
    10454: "Only an unfinished instance takes events.",
    10456: "Try again later, or raise the limit with `millrace account limits`.",
    10457: "Try again later, or raise the limit with `millrace account limits`.",
}
_LOOK_THERE = "Check --url and whether the server runs."
_LOOK_HERE = "`--help` shows what the command takes."
_LOOK_IN_LOG = "Try again; the log of the server says more."


@dataclass(frozen=True)
class Fault:
    """One element of an answer's `errors`."""

    code: int
    message: str
    pointer: str | None = None


class ApiError(Exception):
    """The server refused, or could not be reached. `str()` is what the user reads; `hint` what to try."""

    def __init__(
        self, message: str, *, status: int = 0, faults: tuple[Fault, ...] = (), request_id: str = "", hint: str = ""
    ) -> None:
        self.status = status
        self.faults = faults
        self.request_id = request_id
        self.hint = hint or _HINTS.get(self.code, "") or _hint_for(status)
        super().__init__(message)

    @property
    def code(self) -> int:
        """Code of the first error, 0 when there was no answer."""
        return self.faults[0].code if self.faults else 0


def _hint_for(status: int) -> str:
    """What to try after an answer of this status, 0 for none."""
    if not status:
        return _LOOK_THERE
    return _LOOK_HERE if status < 500 else _LOOK_IN_LOG


@dataclass(frozen=True)
class Answer:
    """An unwrapped success."""

    result: Any
    info: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class StreamEvent:
    """One server-sent event. `data` is its text; `id` the cursor that continues after it."""

    event: str
    data: str
    id: str = ""


class Api:
    """One account of one server. A context manager; not for use by several threads at once.

    GET, PUT and DELETE are repeated when the connection fails; everything is repeated when the server says it may be.
    `sleep` and `transport` are for tests.
    """

    def __init__(
        self,
        base_url: str,
        account_id: str,
        token: str,
        *,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.account_id = account_id
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=f"{self.base_url}/client/v4",
            headers={"authorization": f"Bearer {token}", "user-agent": "millrace-cli", "accept": "application/json"},
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=transport,
            trust_env=not _is_this_machine(self.base_url),
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._http.close()

    def get(self, *path: str, **query: Any) -> Answer:
        return self._send("GET", path, query=query)

    def put(self, *path: str, body: Any = msgspec.UNSET, **query: Any) -> Answer:
        return self._send("PUT", path, body=body, query=query)

    def patch(self, *path: str, body: Any = msgspec.UNSET) -> Answer:
        return self._send("PATCH", path, body=body)

    def delete(self, *path: str) -> Answer:
        return self._send("DELETE", path)

    def post(self, *path: str, body: Any = msgspec.UNSET, once: bool = False) -> Answer:
        """`once`: send an `Idempotency-Key`, so that a repeated request does not do its work twice."""
        headers = {"idempotency-key": secrets.token_hex(16)} if once else {}
        return self._send("POST", path, body=body, headers=headers, repeatable=once)

    def upload(self, *path: str, metadata: dict[str, Any], modules: list[tuple[str, bytes, str]]) -> Answer:
        """PUT a script: its metadata and modules as (name, content, content type)."""
        files: list[tuple[str, Any]] = [("metadata", (None, msgspec.json.encode(metadata), "application/json"))]
        files += [(name, (name, content, kind)) for name, content, kind in modules]
        return self._send("PUT", path, files=files, repeatable=False)

    def pages(self, *path: str, per_page: int = 100, **query: Any) -> Iterator[Any]:
        """Every row of a list, page by page: by cursor where the list has one, else by number."""
        page, cursor = 1, None
        while True:
            position = {"cursor": cursor} if cursor else {"page": page} if page > 1 else {}
            answer = self.get(*path, per_page=per_page, **query, **position)
            yield from answer.result
            cursor, page = answer.info.get("cursor"), page + 1
            if not cursor and ("cursor" in answer.info or len(answer.result) < per_page):
                return

    def stream(self, *path: str, last_event_id: str = "", **query: Any) -> Iterator[StreamEvent]:
        """Server-sent events until the server closes the stream. Raises :class:`ApiError`."""
        headers = {"accept": "text/event-stream", "cache-control": "no-cache"}
        if last_event_id:
            headers["last-event-id"] = last_event_id
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        try:
            with self._http.stream(
                "GET", self._url(path), params=_given(query), headers=headers, timeout=timeout
            ) as response:
                if response.status_code == 204:  # everything was sent before
                    yield StreamEvent("end", "")
                    return
                if response.status_code != 200:
                    response.read()
                    raise _refused(response)
                yield from _events(response.iter_lines())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _send(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        body: Any = msgspec.UNSET,
        query: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
        files: list[tuple[str, Any]] | None = None,
        repeatable: bool | None = None,
    ) -> Answer:
        repeatable = method in ("GET", "PUT", "DELETE") if repeatable is None else repeatable
        content = None if body is msgspec.UNSET else msgspec.json.encode(body)
        sent = {**(headers or {}), **({"content-type": "application/json"} if content is not None else {})}
        for attempt in range(1, ATTEMPTS + 1):
            last = attempt == ATTEMPTS
            try:
                response = self._http.request(
                    method, self._url(path), content=content, files=files, params=_given(query or {}), headers=sent
                )
            except httpx.ConnectError as error:
                raise self._unreachable(error) from None
            except httpx.HTTPError as error:
                if last or not repeatable:
                    raise self._unreachable(error) from None
                self._sleep(_wait(attempt))
                continue
            if not last and _may_repeat(response, repeatable):
                self._sleep(_wait(attempt, response))
                continue
            return _unwrap(response)
        raise AssertionError("unreachable")

    def _url(self, path: tuple[str, ...]) -> str:
        """`/accounts/<id>/…`, every segment encoded. Raises :class:`ApiError` for an empty one, which names a list."""
        if "" in path:
            raise ApiError("a name or id is empty", hint=_LOOK_HERE)
        return "/" + "/".join(quote(segment, safe="") for segment in ("accounts", self.account_id, *path))

    def _unreachable(self, error: httpx.HTTPError) -> ApiError:
        if isinstance(error, httpx.ConnectError):
            return ApiError(f"cannot reach {self.base_url}", hint="Is it running? `millrace dev` starts a server here.")
        return ApiError(f"the connection to {self.base_url} failed: {error or type(error).__name__}")


def _is_this_machine(base_url: str) -> bool:
    """A proxy for the outside world cannot reach a server on this machine."""
    return httpx.URL(base_url).host in ("localhost", "127.0.0.1", "::1")


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _may_repeat(response: httpx.Response, repeatable: bool) -> bool:
    says = response.headers.get("x-should-retry")
    if says is not None:
        return says == "true"
    return response.status_code == 429 or (repeatable and response.status_code in (408, 502, 503, 504))


def _wait(attempt: int, response: httpx.Response | None = None) -> float:
    after = response.headers.get("retry-after", "") if response is not None else ""
    if after.isdigit():
        return min(float(after), LONGEST_WAIT_SECONDS)
    return min(FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1), LONGEST_WAIT_SECONDS)


def _unwrap(response: httpx.Response) -> Answer:
    if response.status_code in (204, 205):
        return Answer(None)
    body = _json(response)
    if response.is_success and isinstance(body, dict) and body.get("success") is True:
        return Answer(body.get("result"), body.get("result_info") or {}, body.get("messages") or [])
    raise _refused(response)


def _refused(response: httpx.Response) -> ApiError:
    request_id = response.headers.get("x-request-id", "")
    faults = _faults(_json(response))
    if not faults:
        return ApiError(
            f"the server answered {response.status_code} in a form that is not Millrace's",
            status=response.status_code,
            request_id=request_id,
            hint="Check --url: it is the address of a Millrace server, without a path.",
        )
    return ApiError(faults[0].message, status=response.status_code, faults=faults, request_id=request_id)


def _faults(body: Any) -> tuple[Fault, ...]:
    """The errors of a failure's body; none when it is not one of Millrace's."""
    try:
        return tuple(
            Fault(int(error["code"]), str(error["message"]), (error.get("source") or {}).get("pointer"))
            for error in body["errors"]
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return ()


def _json(response: httpx.Response) -> Any:
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        return None


def _events(lines: Iterator[str]) -> Iterator[StreamEvent]:
    event, data, cursor = "", [], ""
    for line in lines:
        if not line:
            if data or event:
                yield StreamEvent(event or "message", "\n".join(data), cursor)
            event, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            cursor = value
