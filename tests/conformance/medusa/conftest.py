"""Medusa's admin API in the hands of a tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.conformance.conftest import Face

BASE = "/admin/workflows-executions"


@dataclass
class Medusa:
    """`face` is the tenant; its answers are held to the contract."""

    face: Face

    async def run(
        self, workflow: str, transaction_id: str | None = None, *, now: bool = False, **body: Any
    ) -> httpx.Response:
        """Run a workflow; `now`: without waiting for it."""
        if transaction_id is not None:
            body["transaction_id"] = transaction_id
        headers = {"prefer": "respond-async"} if now else {}
        return await self.face.http.post(f"{BASE}/{workflow}/run", json=body, headers=headers)

    async def get(self, workflow: str, transaction_id: str, **query: str) -> dict[str, Any]:
        answer = await self.face.http.get(f"{BASE}/{workflow}/{transaction_id}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()["workflow_execution"]

    async def list(self, query: str = "") -> dict[str, Any]:
        answer = await self.face.http.get(f"{BASE}?{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def until(self, workflow: str, transaction_id: str, *states: str) -> dict[str, Any]:
        """The execution once it is in one of `states`."""

        async def ask() -> httpx.Response:
            return await self.face.http.get(f"{BASE}/{workflow}/{transaction_id}")

        body = await self.face.when(ask, lambda body: body["workflow_execution"]["state"] in states)
        return body["workflow_execution"]

    async def pause(self, workflow: str, transaction_id: str) -> None:
        answer = await self.face.cloud.patch(
            f"/workflows/{workflow}/instances/{transaction_id}/status", json={"status": "pause"}
        )
        assert answer.status_code == 200, answer.text

    async def answer(self, workflow: str, how: str, **body: Any) -> httpx.Response:
        """`steps/success` or `steps/failure`."""
        return await self.face.http.post(f"{BASE}/{workflow}/steps/{how}", json=body)


@pytest.fixture
def medusa(face: Face) -> Medusa:
    return Medusa(face)
