"""`fetch` and what it gives. The worker makes the request and hands the answer's body over piece by piece."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from bindings import host_call
from durations import is_number

_REDIRECTS = ("follow", "manual", "error")


class Headers:
    """Header fields; names in any case. `get` joins fields of one name."""

    def __init__(self, fields: Any = None) -> None:
        self._fields: list[tuple[str, str]] = []
        for name, value in _pairs(fields):
            self.append(name, value)

    def append(self, name: str, value: Any) -> None:
        name, text = str(name), str(value).strip(" \t\r\n")
        if not name or any(char <= " " or char >= "\x7f" or char in '()<>@,;:\\"/[]?={}' for char in name):
            raise TypeError(f"invalid header name {name!r}")
        if any(char in "\r\n\0" for char in text):
            raise TypeError(f"invalid value of the header {name!r}")
        self._fields.append((name, text))

    def set(self, name: str, value: Any) -> None:
        self.delete(name)
        self.append(name, value)

    def delete(self, name: str) -> None:
        self._fields = [field for field in self._fields if field[0].lower() != name.lower()]

    def get(self, name: str, default: Any = None) -> Any:
        found = self.get_all(name)
        return ", ".join(found) if found else default

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self._fields if key.lower() == name.lower()]

    def has(self, name: str) -> bool:
        return any(key.lower() == name.lower() for key, _ in self._fields)

    def items(self) -> list[tuple[str, str]]:
        return [(name.lower(), value) for name, value in self._fields]

    def keys(self) -> list[str]:
        return list(dict(self.items()))

    def values(self) -> list[str]:
        return [self[name] for name in self.keys()]

    getAll = get_all

    def __getitem__(self, name: str) -> str:
        if not self.has(name):
            raise KeyError(name)
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.has(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        return f"Headers({self.items()!r})"


def _pairs(fields: Any) -> Iterable[tuple[Any, Any]]:
    if fields is None:
        return ()
    if isinstance(fields, Headers):
        return fields.items()
    return fields.items() if isinstance(fields, Mapping) else fields


class _Body:
    """A body that is here, or is read from the worker, once."""

    def __init__(self, content: bytes | None, remote: int | None = None) -> None:
        self._content = content
        self._remote = remote
        self.body_used = False

    @property
    def bodyUsed(self) -> bool:
        return self.body_used

    def _use(self) -> None:
        if self.body_used:
            raise TypeError("the body was read already")
        self.body_used = self._content is not None or self._remote is not None

    async def bytes(self) -> bytes:
        return b"".join([piece async for piece in self.chunks(whole=True)])

    async def chunks(self, *, whole: bool = False) -> AsyncIterator[bytes]:
        """The body piece by piece, as it arrives."""
        self._use()
        if self._remote is None:
            if self._content:
                yield self._content
            return
        done = False
        try:
            while not done:
                found = await host_call("read", {"body": self._remote, "as": "bytes", "whole": whole})
                done = found["done"]
                piece = base64.b64decode(found["b64"])
                if piece:
                    yield piece
        finally:
            if not done:
                await self.close()

    async def close(self) -> None:
        """Let go of a body that will not be read."""
        remote, self._remote = self._remote, None
        if remote is not None:
            self.body_used = True
            await host_call("close", {"body": remote})

    async def buffer(self) -> bytes:
        return await self.bytes()

    async def text(self) -> str:
        return (await self.bytes()).decode("utf-8-sig", "replace")

    async def json(self) -> Any:
        return json.loads(await self.text())


def _content(body: Any, headers: Headers) -> bytes | None:
    """A body as bytes; its type goes into the headers when none is there."""
    if body is None:
        return None
    if isinstance(body, str):
        kind, content = "text/plain;charset=UTF-8", body.encode("utf-8", "replace")
    elif isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    else:
        raise TypeError(f"a body must be str or bytes, not {type(body).__name__} (json=… sends JSON)")
    if not headers.has("content-type"):
        headers.append("content-type", kind)
    return content


class Response(_Body):
    """An answer: `Response("text", status=200, headers={…})`, or what `fetch` gives."""

    def __init__(
        self,
        body: Any = None,
        status: int = 200,
        status_text: str = "",
        headers: Any = None,
        statusText: str = "",
        **_: Any,
    ) -> None:
        if not is_number(status) or not (200 <= status <= 599 or status == 101):
            raise ValueError("a status must be a number from 200 to 599")
        self.status = int(status)
        self.status_text = self.statusText = status_text or statusText
        self.headers = Headers(headers)
        self.url = ""
        self.redirected = False
        super().__init__(_content(body, self.headers))

    @property
    def ok(self) -> bool:
        return 200 <= self.status <= 299

    @classmethod
    def from_json(cls, value: Any, **options: Any) -> Response:
        headers = Headers(options.pop("headers", None))
        if not headers.has("content-type"):
            headers.append("content-type", "application/json")
        return cls(json.dumps(value), headers=headers, **options)

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> Response:
        if status not in (301, 302, 303, 307, 308):
            raise ValueError(f"{status} is not a redirect status code")
        return cls(None, status, headers={"location": url})

    @classmethod
    def _received(cls, answer: dict[str, Any]) -> Response:
        response = cls()
        response.status = answer["status"]
        response.status_text = response.statusText = answer["statusText"]
        response.headers._fields = [(name, value) for name, value in answer["headers"]]
        response.url, response.redirected = answer["url"], answer["redirected"]
        response._remote = answer["body"]
        return response

    def raise_for_status(self) -> None:
        if not self.ok:
            raise Exception(f"{self.url or 'the response'} answered {self.status} {self.status_text}".rstrip())

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


class _Json:
    """`Response.json(value)` makes a response of JSON; `await response.json()` reads one."""

    def __get__(self, response: Response | None, kind: type[Response]) -> Any:
        return kind.from_json if response is None else lambda: _Body.json(response)


Response.json = _Json()  # type: ignore[assignment, method-assign]


class Request(_Body):
    """What `fetch` may be given instead of a URL."""

    def __init__(self, url: Any, method: str = "GET", headers: Any = None, body: Any = None, **options: Any) -> None:
        if isinstance(url, Request):
            self.url, self.headers = url.url, Headers(headers if headers is not None else url.headers)
            self.method = method if method != "GET" else url.method
            body = url._content if body is None else body
        else:
            self.url, self.method, self.headers = str(url), method, Headers(headers)
        self.method = str(self.method).upper()
        self.redirect = options.get("redirect", "follow")
        super().__init__(_content(body, self.headers))


async def fetch(resource: Any, options: Any = None, **keywords: Any) -> Response:
    """Make a request: `fetch(url, method="POST", headers={…}, body="…")`. Options may be a dict, too; `json=` sends a
    value, `params=` adds a query. Raises TypeError when there is no answer.
    """
    wanted = {**(options or {}), **keywords}
    headers = Headers(wanted.pop("headers", None) or (resource.headers if isinstance(resource, Request) else None))
    url = resource.url if isinstance(resource, Request) else str(resource)
    params, value = wanted.pop("params", None), wanted.pop("json", None)
    if params:
        address, _, fragment = url.partition("#")
        url = f"{address}{'&' if '?' in address else '?'}{urlencode(params, doseq=True)}"
        url += f"#{fragment}" if fragment else ""
    body = wanted.get("body")
    if value is not None:
        body = json.dumps(value)
        if not headers.has("content-type"):
            headers.append("content-type", "application/json")
    method = wanted.get("method") or (resource.method if isinstance(resource, Request) else "GET")
    redirect = wanted.get("redirect") or (resource.redirect if isinstance(resource, Request) else "follow")
    if redirect not in _REDIRECTS:
        raise TypeError(f"redirect must be one of {', '.join(_REDIRECTS)}")
    content = _content(body, headers)
    if content is None and isinstance(resource, Request):
        content = resource._content
    if content is not None and str(method).upper() in ("GET", "HEAD"):
        raise TypeError("a request with method GET or HEAD cannot have a body")
    call: dict[str, Any] = {
        "method": str(method).upper(),
        "url": url.partition("#")[0],
        "headers": headers._fields,
        "redirect": redirect,
    }
    if content is not None:
        call["body"] = base64.b64encode(content).decode()
    return Response._received(await host_call("fetch", call))
