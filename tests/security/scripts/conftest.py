# ruff: noqa: E501 - lines of JavaScript
from __future__ import annotations

import os
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.support.api import new_tenant
from tests.support.javascript import Run, Scripts
from tests.support.live import Live, live_for_tests

CANARY = "canary-of-the-worker-environment"


@pytest.fixture(scope="package")
async def running(databases, valkey) -> AsyncIterator[Live]:
    """A Millrace whose workers have a secret in their environment."""
    os.environ["MILLRACE_TEST_CANARY"] = CANARY
    try:
        async with live_for_tests(databases, valkey) as running:
            yield running
    finally:
        del os.environ["MILLRACE_TEST_CANARY"]


@pytest.fixture(scope="package")
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as client:
        yield client


@pytest.fixture(scope="package")
async def js(running: Live, http) -> Scripts:
    """The tenant that attacks."""
    return Scripts(running, await new_tenant(running.platform), http)


@pytest.fixture(scope="package")
async def neighbour_flow(running: Live, http) -> tuple[Scripts, str]:
    neighbour = Scripts(running, await new_tenant(running.platform), http)
    handle = await neighbour.flow(
        'await step.do("begin", async () => 1);\n'
        'await step.waitForEvent("w", { type: "go" });\n'
        'await step.do("look", async () => opened("all-clear"));\n'
        "return [typeof globalThis.pwned, Object.keys(Object.prototype).length, JSON.stringify({ a: [1] }), String([].pwned), event.payload.n];"
    )
    return neighbour, handle


@pytest.fixture
async def neighbour(neighbour_flow: tuple[Scripts, str]) -> AsyncIterator[Run]:
    """An instance of another account: under way before the attack, it goes on after it and has seen nothing."""
    scripts, handle = neighbour_flow
    run = await scripts.create(handle, {"n": 7})
    await run.until("waiting")
    yield run
    await run.send("go")
    await run.open("all-clear")
    assert await run.output() == ["undefined", 0, '{"a":[1]}', "undefined", 7]
