"""Operations over a WebSocket, in the protocol `graphql-transport-ws`.

A socket is read by one task; each operation has one of its own, and a third keeps the socket alive: it asks silent
clients for a sign of life, and looks whether their credential is still good.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from litestar import WebSocket
from litestar.exceptions import WebSocketDisconnect

from app.authentication import CALLER, GRAPHQL, Credentials, authenticate_bearer, in_account
from app.composition import Platform
from app.errors import InvalidRequest, MillraceError, NotAuthenticated
from app.faces.orchestration.graphql.http import answers, asked_in
from app.faces.orchestration.graphql.operations import Operations, Refused
from app.faces.orchestration.graphql.refusals import dressed
from app.middleware.streams import Streams
from tenants.auth import Caller, require_one_account
from tenants.bodies import check_depth
from tenants.errors import RequestRateExceeded
from tenants.limits import BODY_OPERATION_BYTES

PROTOCOL = "graphql-transport-ws"
INIT_WAIT = 10.0
"""Seconds a client has for `connection_init`."""
PING_EVERY = 25.0
SILENCE = 60.0
"""Seconds without a message from the client after which it is taken for gone."""
RECHECK_EVERY = 30.0
"""Seconds between looks at the credential."""
OPERATIONS_MAX = 100
"""Operations under way at the same time."""

_CREDENTIAL = "authorization", "authtoken"
_ACCOUNT = "x-account-id"

AnySocket = WebSocket[Any, Any, Any]


class Closed(Exception):
    """The socket is to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Sockets:
    """The sockets of one process."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._credentials = Credentials(platform, GRAPHQL)
        self._operations = Operations(platform)
        self._streams = Streams()

    def end_all(self) -> None:
        """Close every socket, and every one that is opened from now on: clients find another server."""
        self._streams.end_all()

    async def serve(self, socket: AnySocket) -> None:
        """Talk to one client until either side has had enough."""
        offered = socket.scope["subprotocols"]
        if PROTOCOL not in offered:
            await socket.accept()
            await socket.close(4406, "Subprotocol not acceptable")
            return
        upgrade = await self._upgrade(socket)
        await socket.accept(subprotocols=PROTOCOL)
        end = self._streams.begin()
        try:
            await _Connection(self._platform, self._operations, socket, upgrade).run(end)
        finally:
            self._streams.over(end)

    async def _upgrade(self, socket: AnySocket) -> Caller | None:
        """Whose credential came with the upgrade; None for none that may be used."""
        try:
            return await self._credentials.caller(socket.scope, accepts_ticket=True)
        except MillraceError:
            return None


class _Connection:
    """One socket."""

    def __init__(self, platform: Platform, operations: Operations, socket: AnySocket, upgrade: Caller | None) -> None:
        self._platform = platform
        self._operations = operations
        self._socket = socket
        self._scope: Any = socket.scope
        self._upgrade = upgrade
        self._caller: Caller | None = None
        self._initialised = False
        self._running: dict[str, asyncio.Task[None]] = {}
        self._clock = asyncio.get_running_loop().time
        self._heard = self._clock()

    async def run(self, end: asyncio.Event) -> None:
        """Until the client leaves, breaks a rule, or `end` is set."""
        tasks = [asyncio.ensure_future(one) for one in (self._read(), self._keep(), self._ended(end))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Closed as closed:
            await self._close(closed.code, closed.reason)
        except WebSocketDisconnect:
            pass
        finally:
            await _cancelled([*tasks, *self._running.values()])

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(Exception):  # the client may be gone already, in as many ways as there are servers
            await self._socket.close(code, reason)

    async def _ended(self, end: asyncio.Event) -> None:
        await end.wait()
        raise Closed(1012, "Service restart")

    # --- staying alive -------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        start = self._clock()
        ping, look = start + PING_EVERY, start + RECHECK_EVERY
        while True:
            due = min(ping, look, self._heard + SILENCE)
            if self._caller is None:
                due = min(due, start + INIT_WAIT)
            await asyncio.sleep(max(0.0, due - self._clock()))
            now = self._clock()
            if self._caller is None and now >= start + INIT_WAIT:
                raise Closed(4408, "Connection initialisation timeout")
            if now >= self._heard + SILENCE:
                raise Closed(1011, "No sign of life")
            if now >= look:
                look = now + RECHECK_EVERY
                await self._recheck()
            if now >= ping:
                ping = now + PING_EVERY
                await self._send({"type": "ping"})

    async def _recheck(self) -> None:
        if self._caller is None:
            return
        try:
            self._caller = await self._platform.tenants.recheck(self._caller)
        except MillraceError as error:
            if error.status < 500:
                raise Closed(4403, "Forbidden") from None

    # --- messages ------------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        handlers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "connection_init": self._on_init,
            "ping": self._on_ping,
            "pong": self._on_pong,
            "subscribe": self._on_subscribe,
            "complete": self._on_complete,
        }
        while True:
            message = _decoded(await self._socket.receive_data("text"))
            self._heard = self._clock()
            handler = handlers.get(message["type"])
            if handler is None:
                raise Closed(4400, "Unknown message type")
            await handler(message)

    async def _send(self, message: dict[str, Any]) -> None:
        await self._socket.send_data(msgspec.json.encode(message).decode(), "text")

    async def _on_init(self, message: dict[str, Any]) -> None:
        if self._initialised:
            raise Closed(4429, "Too many initialisation requests")
        self._initialised = True
        payload = message.get("payload")
        if not isinstance(payload, dict | None):
            raise Closed(4400, "The payload of connection_init must be an object")
        try:
            self._caller = await self._whose(payload or {})
        except MillraceError:
            raise Closed(4403, "Forbidden") from None
        structlog.contextvars.bind_contextvars(account=self._caller.account_id.hex)
        self._scope[CALLER] = self._caller
        await self._send({"type": "connection_ack"})

    async def _whose(self, payload: dict[str, Any]) -> Caller:
        """Who the client is. Raises :class:`MillraceError`."""
        caller, text, account = self._upgrade, _told(payload, *_CREDENTIAL), _told(payload, _ACCOUNT)
        if text is not None:
            caller = await authenticate_bearer(self._platform.tenants, text)
            require_one_account((caller, self._upgrade or caller))
        if caller is None:
            raise NotAuthenticated()
        return caller if account is None else await in_account(self._platform.tenants, caller, account)

    async def _on_ping(self, message: dict[str, Any]) -> None:
        await self._send({"type": "pong"} | ({"payload": message["payload"]} if "payload" in message else {}))

    async def _on_pong(self, message: dict[str, Any]) -> None:
        """It is a sign of life, and that has been noted."""

    async def _on_complete(self, message: dict[str, Any]) -> None:
        task = self._running.pop(_id(message), None)
        if task is not None:
            await _cancelled([task])

    async def _on_subscribe(self, message: dict[str, Any]) -> None:
        id, payload = _id(message), message.get("payload")
        if self._caller is None:
            raise Closed(4401, "Unauthorized")
        if not isinstance(payload, dict):
            raise Closed(4400, "subscribe needs a payload")
        if id in self._running:
            raise Closed(4409, f"Subscriber for {id} already exists")
        if len(self._running) >= OPERATIONS_MAX:
            rule = RequestRateExceeded(f"a socket may have {OPERATIONS_MAX} operations under way", retry_after=1)
            await self._refuse(id, [dressed(rule, self._scope)])
            return
        task = asyncio.ensure_future(self._operate(id, payload, self._caller))
        self._running[id] = task

    # --- operations ----------------------------------------------------------------------------------------------

    async def _operate(self, id: str, payload: dict[str, Any], caller: Caller) -> None:
        told = 0
        try:
            operation = await self._prepared(payload, caller)
            async with contextlib.aclosing(answers(self._operations, operation, caller, self._scope)) as all_of_it:
                async for answer in all_of_it:
                    if "data" not in answer:
                        raise Refused(answer["errors"])
                    await self._send({"type": "next", "id": id, "payload": answer})
                    told += 1
            self._running.pop(id, None)
            await self._send({"type": "complete", "id": id})
        except Refused as refused:
            await self._refuse(id, refused.errors)
        except WebSocketDisconnect:
            self._running.pop(id, None)
        except Exception as error:
            await self._refuse(id, [dressed(error, self._scope)])

    async def _prepared(self, payload: dict[str, Any], caller: Caller) -> Any:
        rate = await self._platform.tenants.count_request(caller)
        if rate is not None and rate.retry_after is not None:
            raise RequestRateExceeded(retry_after=rate.retry_after)
        return self._operations.prepare(asked_in(payload), caller, self._scope)

    async def _refuse(self, id: str, errors: list[Any]) -> None:
        """Nothing more comes of an operation: the client may use its id again."""
        self._running.pop(id, None)
        with contextlib.suppress(WebSocketDisconnect):
            await self._send({"type": "error", "id": id, "payload": errors})


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _decoded(text: Any) -> dict[str, Any]:
    """A message. Raises :class:`Closed` for what is none."""
    encoded = text.encode() if isinstance(text, str) else bytes(text)
    if len(encoded) > BODY_OPERATION_BYTES:
        raise Closed(1009, "Message too large")
    try:
        check_depth(encoded)
        message = msgspec.json.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, InvalidRequest):
        raise Closed(4400, "Messages must be JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise Closed(4400, "Messages must be objects with a type")
    return message


def _id(message: dict[str, Any]) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not id:
        raise Closed(4400, "The message needs an id")
    return id


def _told(payload: dict[str, Any], *names: str) -> str | None:
    """What a payload says under one of these names (in lower case), itself or in its `headers`."""
    headers = payload.get("headers")
    for place in (payload, headers if isinstance(headers, dict) else {}):
        found = {str(name).lower(): value for name, value in place.items()}
        for name in names:
            if isinstance(found.get(name), str):
                return found[name]
    return None
