"""What a worker does about each ring."""

from __future__ import annotations

from uuid import UUID

import pytest

from jobs.doorbell import NoDoorbell
from jobs.functions import JobFunctions

ACCOUNT = UUID(int=1)
ME, OTHER = 5, 6


class Engine:
    """Notes wakes and pokes; holds what it is told to."""

    worker_id = ME

    def __init__(self) -> None:
        self.wakes = 0
        self.held: set[UUID] = set()
        self.poked: list[UUID] = []

    def wake(self) -> None:
        self.wakes += 1

    def poke(self, account_id: UUID, key: UUID) -> bool:
        assert account_id == ACCOUNT
        self.poked.append(key)
        return key in self.held


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def told() -> list[tuple[int, list[tuple[UUID, UUID]]]]:
    return []


@pytest.fixture
def terminations() -> list[None]:
    return []


@pytest.fixture
def functions(engine: Engine, told: list, terminations: list) -> JobFunctions:
    return JobFunctions(engine, lambda owner, runs: told.append((owner, runs)), lambda: terminations.append(None))


def ref(key: int, owner: int | None) -> tuple[bytes, bytes, int | None]:
    return ACCOUNT.bytes, UUID(int=key).bytes, owner


async def test_work_that_became_ready_is_claimed(functions, engine) -> None:
    await functions.run_instances(None, [])
    assert engine.wakes == 1


@pytest.mark.parametrize("job", ["deliver_event", "change_status"])
async def test_news_go_to_the_holder(functions, engine, told, job) -> None:
    engine.held = {UUID(int=1)}
    await functions.by_name()[job](None, [ref(1, ME), ref(2, OTHER), ref(3, OTHER), ref(4, 9)])
    assert engine.poked == [UUID(int=1)]
    assert told == [(OTHER, [(ACCOUNT, UUID(int=2)), (ACCOUNT, UUID(int=3))]), (9, [(ACCOUNT, UUID(int=4))])]
    assert engine.wakes == 0


@pytest.mark.parametrize("refs", [[ref(1, None)], [ref(1, ME)], [ref(1, None), ref(2, None)]])
async def test_what_nobody_holds_is_claimed_once(functions, engine, told, refs) -> None:
    await functions.deliver_event(None, refs)
    assert engine.wakes == 1
    assert told == []


@pytest.mark.parametrize("job", ["terminate_batch", "terminate_all", "delete_batch"])
async def test_termination_jobs_are_looked_at(functions, engine, terminations, job) -> None:
    await functions.by_name()[job](None, [])
    assert len(terminations) == 1
    assert engine.wakes == 0


async def test_no_doorbell_rings_nothing() -> None:
    await NoDoorbell().ring("run_instances", [])
