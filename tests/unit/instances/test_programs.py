"""Which opened versions a worker keeps in memory."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from instances.engine import programs as module
from instances.engine.programs import Programs
from instances.runtimes.protocol import StoredVersion

ACCOUNT = UUID(int=1)


class Opener:
    """Opens any version but those without a source, and counts."""

    number = 0

    def __init__(self) -> None:
        self.opened: list[int] = []

    async def open(self, version: StoredVersion) -> Any:
        self.opened.append(version.version_key.int)
        if not version.source:
            raise ValueError("nothing to open")
        return object()


@pytest.fixture
def opener() -> Opener:
    return Opener()


def programs_of(opener: Opener, sizes: dict[int, int]) -> Programs:
    async def load(account_id: UUID, key: UUID) -> StoredVersion:
        source = "x" * sizes.get(key.int, 1)
        return StoredVersion(account_id, key, key, "w", "W", 1, 0, "document", "", source, "{}", 25_000, key)

    return Programs({0: opener}, load)  # type: ignore[dict-item]


def wanted(*numbers: int) -> list[tuple[UUID, UUID]]:
    return [(ACCOUNT, UUID(int=number)) for number in numbers]


def kept(programs: Programs, *numbers: int) -> list[int]:
    return [number for number in numbers if programs.get(*wanted(number)[0]) is not None]


async def test_a_version_is_opened_once(opener: Opener) -> None:
    programs = programs_of(opener, {})
    await programs.load(wanted(1, 2, 1))
    await programs.load(wanted(2, 3))
    assert sorted(opener.opened) == [1, 2, 3]


async def test_the_least_used_go_when_there_are_too_many(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PROGRAMS", 3)
    programs = programs_of(opener, {})
    await programs.load(wanted(1, 2, 3))
    await programs.load(wanted(1))
    await programs.load(wanted(4))
    assert kept(programs, 1, 2, 3, 4) == [1, 3, 4]


async def test_large_ones_go_sooner(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHARACTERS", 100)
    programs = programs_of(opener, {1: 60, 2: 30, 3: 60})
    await programs.load(wanted(1, 2))
    await programs.load(wanted(3))
    assert kept(programs, 1, 2, 3) == [2, 3]
    await programs.load(wanted(4))
    assert kept(programs, 2, 3, 4) == [2, 3, 4]


async def test_what_is_wanted_now_stays_whatever_its_size(opener: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHARACTERS", 100)
    programs = programs_of(opener, {1: 90, 2: 90, 3: 90, 4: 0})
    await programs.load(wanted(3))
    await programs.load(wanted(1, 2, 4))
    assert kept(programs, 1, 2, 3, 4) == [1, 2]
    await programs.load(wanted(5))
    assert kept(programs, 1, 2, 5) == [2, 5]
