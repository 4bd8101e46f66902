"""`/readyz`: whether the process can do its work, and why not (app.health)."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest

from app.composition import Platform
from app.settings import Settings
from tests.support.api import client_of


@pytest.fixture
async def platform(settings: Settings) -> AsyncIterator[Platform]:
    """One of this test alone: what was found is kept for a moment, and who drains is never ready again."""
    async with Platform(settings).opened() as platform:
        yield platform


@pytest.fixture
async def http(platform: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(platform.settings, platform, checked=False) as client:
        yield client


async def test_ready_until_draining(http: httpx.AsyncClient, platform: Platform) -> None:
    assert (await http.get("/readyz")).json() == {"status": "ready"}
    platform.drain()
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "reasons": ["draining"]}
    assert (await http.get("/healthz")).json() == {"status": "ok"}


async def test_not_ready_without_the_database(
    http: httpx.AsyncClient, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> None:
        raise ConnectionRefusedError("secret host")

    monkeypatch.setattr(platform.db, "now", away)
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "unavailable", "reasons": ["database: ConnectionRefusedError"]}


async def test_not_ready_without_redis_unless_the_probe_does_not_mind(settings: Settings) -> None:
    lonely = dataclasses.replace(settings, redis_url="redis://127.0.0.1:1")
    async with Platform(lonely).opened() as platform, client_of(lonely, platform, checked=False) as http:
        answer = await http.get("/readyz")
        tolerant = await http.get("/readyz?exclude=redis")
        wrong = await http.get("/readyz?exclude=database")
        platform.drain()
        draining = await http.get("/readyz?exclude=redis")
    reasons = ["redis: ConnectionError"]
    assert (answer.status_code, answer.json()) == (503, {"status": "unavailable", "reasons": reasons})
    assert (tolerant.status_code, tolerant.json()) == (200, {"status": "degraded", "reasons": reasons})
    assert (wrong.status_code, wrong.json()["errors"][0]["message"]) == (400, "exclude must be redis")
    assert draining.status_code == 503


async def test_probes_at_the_same_time_share_one_look(
    http: httpx.AsyncClient, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    now = platform.db.now

    async def counted() -> datetime:
        nonlocal looks
        looks += 1
        return await now()

    monkeypatch.setattr(platform.db, "now", counted)
    monkeypatch.setattr("app.health.REMEMBERED_SECONDS", 60.0)  # however slow this machine is
    answers = await asyncio.gather(*(http.get("/readyz") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert looks == 1


async def test_not_ready_with_missing_migrations(
    http: httpx.AsyncClient, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def one_missing(_dsn: str) -> list[str]:
        return ["2099-01-01T00:00:00:000000"]

    monkeypatch.setattr("app.health.pending", one_missing)
    answer = await http.get("/readyz")
    assert answer.status_code == 503
    assert "millrace migrate" in answer.json()["reasons"][0]
