"""Idempotency keys: one effect, one answer, also after a crash in between."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import InvalidRequest, Unavailable
from tenants.errors import IdempotencyInFlight, IdempotencyKeyReused
from tenants.idempotency import HELD_REPEATABLE, Answer, Claim

ROUTE = "POST instances"


class Work:
    """Counts how often it is done, and by which ids."""

    def __init__(self, *outcomes: Answer | Exception) -> None:
        self.outcomes = list(outcomes)
        self.claims: list[Claim] = []

    async def __call__(self, claim: Claim) -> Answer:
        self.claims.append(claim)
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def run(tenants, boss):
    async def run(work: Work, key: str | None = "k", body: bytes = b"{}", route: str = ROUTE, account=boss) -> Answer:
        return await tenants.idempotency.run(account.account_id, route, key, body, work)

    return run


async def test_the_second_request_gets_the_first_ones_answer(run):
    work = Work(Answer(200, '{"id":1}'), Answer(200, '{"id":2}'))
    assert await run(work) == Answer(200, '{"id":1}')
    assert await run(work) == Answer(200, '{"id":1}', replayed=True)
    assert len(work.claims) == 1


async def test_keys_belong_to_an_account_and_a_route(run, stranger):
    work = Work(*(Answer(200, str(n)) for n in range(4)))
    assert (await run(work)).body == "0"
    assert (await run(work, account=stranger)).body == "1"
    assert (await run(work, route="POST batch")).body == "2"
    assert (await run(work, key="K")).body == "3"


async def test_without_a_key_every_request_is_done(run):
    work = Work(Answer(200, "1"), Answer(200, "2"))
    assert [(await run(work, key=None)).body for _ in range(2)] == ["1", "2"]
    assert work.claims[0].id() != work.claims[1].id()


async def test_another_body_is_refused(run):
    work = Work(Answer(200, "1"))
    await run(work)
    with pytest.raises(IdempotencyKeyReused) as caught:
        await run(work, body=b"{ }")
    assert (caught.value.status, caught.value.retry) == (409, False)


async def test_while_the_first_is_in_flight_the_second_is_told_to_wait(run):
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(claim: Claim) -> Answer:
        started.set()
        await go_on.wait()
        return Answer(200, "1")

    first = asyncio.create_task(run(slow))
    await started.wait()
    with pytest.raises(IdempotencyInFlight) as caught:
        await run(Work())
    assert (caught.value.status, caught.value.retry, caught.value.retry_after) == (409, True, 1)
    with pytest.raises(IdempotencyKeyReused):
        await run(Work(), body=b"other")
    go_on.set()
    assert (await first).body == "1"
    assert (await run(Work())).replayed


async def test_of_many_at_once_one_does_the_work(run):
    work = Work(*(Answer(200, str(n)) for n in range(20)))
    answers = await asyncio.gather(*(run(work) for _ in range(20)), return_exceptions=True)
    assert len(work.claims) == 1
    assert {type(answer) for answer in answers} <= {Answer, IdempotencyInFlight}


async def test_a_refused_request_gives_the_key_back(run):
    work = Work(InvalidRequest("bad"), Answer(200, "1"))
    with pytest.raises(InvalidRequest):
        await run(work)
    assert await run(work, body=b"corrected") == Answer(200, "1")


@pytest.mark.parametrize("failure", [Unavailable("database away"), RuntimeError("bug")])
async def test_after_an_unknown_outcome_the_repeat_names_the_same_things(run, failure):
    work = Work(failure, Answer(200, "1"))
    with pytest.raises(type(failure)):
        await run(work)
    with pytest.raises(IdempotencyKeyReused):
        await run(work, body=b"other")
    assert (await run(work)).body == "1"
    assert work.claims[0] == work.claims[1]


async def test_a_process_that_died_is_taken_over_with_the_same_seed(tenants, boss, run, clock):
    dead = await tenants.idempotency.begin(boss.account_id, ROUTE, "k", b"{}")
    clock.advance(89)
    with pytest.raises(IdempotencyInFlight):
        await run(Work())
    clock.advance(1)
    work = Work(Answer(200, "1"))
    assert (await run(work)).body == "1"
    assert work.claims == [dead]
    # The dead one was only slow: what it says now changes nothing.
    await tenants.idempotency.finish(dead, Answer(500, "late"))
    await tenants.idempotency.abandon(dead)
    assert (await run(Work())).body == "1"


async def test_work_that_may_be_repeated_is_taken_over_sooner(tenants, boss, clock):
    async def repeat(work: Work) -> Answer:
        return await tenants.idempotency.run(boss.account_id, ROUTE, "k", b"{}", work, HELD_REPEATABLE)

    dead = await tenants.idempotency.begin(boss.account_id, ROUTE, "k", b"{}", HELD_REPEATABLE)
    clock.advance(4.9)
    with pytest.raises(IdempotencyInFlight):
        await repeat(Work())
    clock.advance(0.1)
    work = Work(Answer(200, "1"))
    assert (await repeat(work)).body == "1"
    assert work.claims == [dead]


async def test_a_refused_repeat_does_not_forget_what_the_first_may_have_done(run):
    work = Work(Unavailable("database away"), InvalidRequest("too many"), Answer(200, "1"))
    for failure in (Unavailable, InvalidRequest):
        with pytest.raises(failure):
            await run(work)
    with pytest.raises(IdempotencyKeyReused):
        await run(work, body=b"other")
    assert (await run(work)).body == "1"
    assert work.claims[0] == work.claims[1] == work.claims[2]


async def test_who_was_taken_over_cannot_give_the_key_away(tenants, boss, run, clock):
    slow = await tenants.idempotency.begin(boss.account_id, ROUTE, "k", b"{}")
    clock.advance(90)
    heir = await tenants.idempotency.begin(boss.account_id, ROUTE, "k", b"{}")
    await tenants.idempotency.abandon(slow)
    with pytest.raises(IdempotencyInFlight):
        await run(Work())
    await tenants.idempotency.finish(heir, Answer(200, "1"))
    assert (await run(Work())).replayed


async def test_after_a_day_a_key_is_new(run, clock):
    work = Work(Answer(200, "1"), Answer(200, "2"))
    await run(work)
    clock.advance(24 * 3600)
    assert (await run(work)).replayed
    clock.advance(0.001)
    assert (await run(work, body=b"other")).body == "2"
    assert work.claims[0].seed != work.claims[1].seed


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "é", "a\x00", "a\n"])
async def test_a_bad_key_is_refused(run, key):
    with pytest.raises(InvalidRequest, match="Idempotency-Key must be a text of 1 to 255"):
        await run(Work(), key=key)


async def test_a_claim_names_as_many_things_as_needed(tenants, boss):
    claim = await tenants.idempotency.begin(boss.account_id, ROUTE, "k", b"")
    assert isinstance(claim, Claim)
    named = [claim.id(index) for index in range(100)]
    assert len(set(named)) == 100
    assert named == sorted(named)
    assert all(each.version == 7 and each.variant == claim.seed.variant for each in named)
