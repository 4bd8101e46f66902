"""A short visible tour of a fresh server, over HTTP like any client: one line per step, with the server's real answer.

deploy → batch create → pause → send an event while paused → resume → complete → terminate a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import msgspec

from app.examples import Example, examples

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.05
WORKFLOW = "order-approval"

Out = Callable[[str], None]


class TourFailed(Exception):
    """The server did not do what the tour expects; one sentence."""


async def run(base_url: str, account_id: str, token: str, out: Out = print) -> None:
    """Deploy the examples and walk through one of them, telling `out` line by line. Raises :class:`TourFailed`."""
    async with httpx.AsyncClient(
        base_url=f"{base_url}/client/v4/accounts/{account_id}/",
        headers={"authorization": f"Bearer {token}"},
        timeout=PATIENCE_SECONDS,
        trust_env=False,
    ) as http:
        try:
            await _Tour(http, out).walk()
        except httpx.HTTPError as error:
            raise TourFailed(f"the server did not answer: {error or type(error).__name__}") from None


def curl_lines(base_url: str, account_id: str, token: str) -> list[str]:
    """Three commands to go on with: create an instance, send it an event, look at it."""
    root = f"{base_url}/client/v4/accounts/{account_id}/workflows/{WORKFLOW}/instances"
    auth = f"-H 'Authorization: Bearer {token}'"
    params = '{"instance_id": "order-7", "params": {"order": 7, "sku": "lamp", "total": 900}}'
    return [
        f"curl {auth} {root} -d '{params}'",
        f'curl {auth} {root}/order-7/events/approval -d \'{{"approved": true, "by": "you"}}\'',
        f"curl {auth} {root}/order-7",
    ]


class _Tour:
    def __init__(self, http: httpx.AsyncClient, out: Out) -> None:
        self._http = http
        self._out = out

    async def walk(self) -> None:
        for example in examples():
            await self._deploy(example)
        instances = f"workflows/{WORKFLOW}/instances"
        orders = [{"params": {"order": number, "sku": "lamp", "total": 900}} for number in (1, 2, 3)]
        created = await self._ask("POST", f"{instances}/batch", orders)
        first, *others = [instance["id"] for instance in created]
        self._say("create", f"a batch of {len(created)}", ", ".join(instance["status"] for instance in created))

        waiting = await self._until(f"{instances}/{first}", "waiting")
        self._say("wait", f"for the event {_awaited(waiting)!r}", waiting["status"])
        paused = await self._ask("PATCH", f"{instances}/{first}/status", {"status": "pause"})
        self._say("pause", "the first one", paused["status"])
        sent = await self._ask("POST", f"{instances}/{first}/events/approval", {"approved": True, "by": "the tour"})
        self._say("send event", "while it is paused", f"stored at {sent['timestamp']}")
        resumed = await self._ask("PATCH", f"{instances}/{first}/status", {"status": "resume"})
        self._say("resume", "the first one", resumed["status"])
        done = await self._until(f"{instances}/{first}", "complete")
        self._say("complete", f"after {done['step_count']} steps", msgspec.json.encode(done["output"]).decode())

        ended = await self._ask("POST", f"{instances}/batch/terminate", others)
        for instance_id in others:
            await self._until(f"{instances}/{instance_id}", "terminated")
        self._say("terminate", f"the other {len(others)}", f"{ended['status']}, terminated")

    async def _deploy(self, example: Example) -> None:
        result = await self._ask("PUT", f"workflows/{example.name}", {"definition": example.definition})
        self._say("deploy", f"examples/{example.file.name}", f"version {result['version_id']}")

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        response = await self._http.request(method, path, json=body)
        try:
            answer = response.json()
        except ValueError:
            raise TourFailed(f"{method} {path} answered {response.status_code} without JSON") from None
        if not response.is_success:
            raise TourFailed(f"{method} {path} answered {response.status_code}: {answer['errors'][0]['message']}")
        return answer["result"]

    async def _until(self, path: str, status: str) -> Any:
        """The instance once it has `status`; finished in another one, or not in time, is a failure."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (instance := await self._ask("GET", path))["status"] != status:
                    if instance["end"] is not None:
                        raise TourFailed(f"the instance is {instance['status']}, not {status}: {instance['error']}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise TourFailed(f"the instance is not {status} after {PATIENCE_SECONDS:.0f} s") from None
        return instance

    def _say(self, what: str, which: str, answer: str) -> None:
        self._out(f"  {what:<11} {which:<32} {answer}")


def _awaited(instance: Any) -> str:
    return next((step["event_type"] for step in instance["steps"] if step["type"] == "waitForEvent"), "")
