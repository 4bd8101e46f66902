"""Who gets which process, for how long, and what becomes of it."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from instances.sandbox.errors import SandboxDied, SandboxUnavailable
from instances.sandbox.pool import PoolLimits, SandboxPool
from tests.support.sandbox import do, exists

ALICE, BOB = UUID(int=1), UUID(int=2)
V1, V2, V3 = UUID(int=11), UUID(int=12), UUID(int=13)


@pytest.fixture
async def make(host, clock):
    """`make(**limits)`: a pool of this test, without spares unless asked for."""
    pools = []

    def make(**limits):
        pools.append(SandboxPool(host, clock, PoolLimits(**({"spares": 0} | limits))))
        return pools[-1]

    yield make
    for pool in pools:
        await pool.close()


async def load(process):
    """What a runtime would do with a fresh process: put a tenant's code into it, once."""
    await do(process, "loaded = globals().get('loaded', 0) + 1")
    return process.pid


async def test_runs_of_a_version_share_a_process_that_was_loaded_once(make):
    pool = make()
    leases = await asyncio.gather(*(pool.lease(ALICE, V1, load) for _ in range(10)))
    assert len({lease.process.pid for lease in leases}) == 1
    assert {lease.opened for lease in leases} == {leases[0].process.pid}
    assert await do(leases[0].process, "loaded") == [1]


async def test_neither_accounts_nor_versions_share(make):
    pool = make()
    keys = [(ALICE, V1), (ALICE, V2), (BOB, V1), (BOB, V2)]
    leases = [await pool.lease(*key, load) for key in keys]
    assert len({lease.process.pid for lease in leases}) == 4
    for lease in leases:
        lease.release()
    again = [await pool.lease(*key, load) for key in reversed(keys)]
    assert [lease.process.pid for lease in again] == [lease.process.pid for lease in reversed(leases)]


async def test_a_process_of_an_account_never_becomes_one_of_another(make):
    """Even when the pool is full and idle processes are at hand."""
    pool = make(processes=1)
    lease = await pool.lease(ALICE, V1, load)
    pid = lease.process.pid
    await do(lease.process, "secret = 'of alice'")
    lease.release()
    other = await pool.lease(BOB, V1, load)
    assert other.process.pid != pid
    assert await do(other.process, "globals().get('secret')") == [None]
    assert (await lease.process.ended()).cause == "gone"


async def test_when_loading_fails_everybody_who_waits_is_told(make):
    pool = make()
    seen = []

    async def fail(process):
        seen.append(process)
        await do(process, "1")
        raise ValueError("line 3: not a workflow")

    outcomes = await asyncio.gather(*(pool.lease(ALICE, V1, fail) for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["line 3: not a workflow"] * 3
    assert len(seen) == 1
    await seen[0].ended()
    lease = await pool.lease(ALICE, V1, load)
    assert lease.process is not seen[0]


async def test_when_no_process_can_be_had_the_next_one_tries_again(make, host, monkeypatch):
    pool = make()

    async def fail():
        raise SandboxUnavailable("no process could be forked: try later")

    with monkeypatch.context() as patch:
        patch.setattr(host, "spawn", fail)
        refused = await asyncio.gather(*(pool.lease(ALICE, V1, load) for _ in range(2)), return_exceptions=True)
    assert [str(refusal) for refusal in refused] == ["no process could be forked: try later"] * 2
    assert (await pool.lease(ALICE, V1, load)).process.alive


async def test_who_gives_up_waiting_spoils_nothing_for_others(make):
    pool = make()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(process):
        begun.set()
        await go_on.wait()
        return await load(process)

    first = asyncio.create_task(pool.lease(ALICE, V1, slowly))
    await begun.wait()
    second = asyncio.create_task(pool.lease(ALICE, V1, slowly))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go_on.set()
    lease = await second
    assert await do(lease.process, "loaded") == [1]


async def test_a_dead_process_is_replaced(make):
    pool = make()
    lease = await pool.lease(ALICE, V1, load)
    with pytest.raises(SandboxDied):
        await do(lease.process, "os.abort()")
    fresh = await pool.lease(ALICE, V1, load)
    assert fresh.process is not lease.process
    lease.release()
    lease.release()
    assert await do(fresh.process, "loaded") == [1]


@pytest.mark.parametrize("why", ["uses", "age", "memory"])
async def test_a_worn_process_finishes_what_it_has_and_gets_nothing_new(make, clock, why):
    pool = make(uses=2, minutes=10, grown=20 << 20) if why == "uses" else make(minutes=10, grown=20 << 20)
    old = [await pool.lease(ALICE, V1, load), await pool.lease(ALICE, V1, load)]
    if why == "age":
        clock.advance(10 * 60)
    elif why == "memory":
        await do(old[0].process, "keep = bytes(range(256)) * (40 << 12)")
    fresh = await pool.lease(ALICE, V1, load)
    assert fresh.process is not old[0].process
    assert (await pool.lease(ALICE, V1, load)).process is fresh.process
    assert await do(old[0].process, "'goes on'") == ["goes on"]
    old[0].release()
    assert await do(old[1].process, "'goes on'") == ["goes on"]
    old[1].release()
    assert (await old[1].process.ended()).cause == "gone"


async def test_a_process_is_not_worn_before_its_time(make, clock):
    pool = make(uses=3, minutes=10)
    lease = await pool.lease(ALICE, V1, load)
    clock.advance(10 * 60 - 1)
    assert (await pool.lease(ALICE, V1, load)).process is lease.process
    assert (await pool.lease(ALICE, V1, load)).process is lease.process
    assert (await pool.lease(ALICE, V1, load)).process is not lease.process


async def test_an_evicted_version_gets_a_fresh_process(make):
    pool = make()
    lease = await pool.lease(ALICE, V1, load)
    pool.evict(ALICE, V1)
    pool.evict(ALICE, V2)
    assert (await pool.lease(ALICE, V1, load)).process is not lease.process
    assert lease.process.alive
    lease.release()
    await lease.process.ended()


async def test_the_idle_one_not_used_for_longest_goes_first(make):
    pool = make(idle=2)
    leases = {version: await pool.lease(ALICE, version, load) for version in (V1, V2, V3)}
    for version in (V2, V1):
        leases[version].release()
    (await pool.lease(ALICE, V2, load)).release()  # V1 is now the one not used for longest
    leases[V3].release()
    await leases[V1].process.ended()
    assert leases[V2].process.alive
    assert leases[V3].process.alive


async def test_a_full_pool_lets_wait_in_order_and_makes_room_from_idle_ones(make):
    pool = make(processes=2)
    one, two = await pool.lease(ALICE, V1, load), await pool.lease(BOB, V1, load)
    order = []

    async def wait(account, version):
        lease = await pool.lease(account, version, load)
        order.append(version)
        return lease

    third = asyncio.create_task(wait(ALICE, V2))
    await asyncio.sleep(0)
    fourth = asyncio.create_task(wait(BOB, V3))
    await asyncio.sleep(0)
    assert (await pool.lease(ALICE, V1, load)).process is one.process  # what is there is shared as ever
    assert not third.done()
    two.release()
    lease = await third
    assert not fourth.done()
    lease.release()
    await fourth
    assert order == [V2, V3]


async def test_one_account_does_not_take_all(make):
    pool = make(processes=3, per_account=2)
    mine = [await pool.lease(ALICE, V1, load), await pool.lease(ALICE, V2, load)]
    waiting = asyncio.create_task(pool.lease(ALICE, V3, load))
    await asyncio.sleep(0)
    theirs = await pool.lease(BOB, V1, load)
    theirs.release()
    assert not waiting.done()
    mine[0].release()
    third = await waiting
    assert theirs.process.alive  # room came from the account's own
    assert third.process.alive


async def test_who_stops_waiting_for_room_leaves_the_queue(make):
    pool = make(processes=1)
    lease = await pool.lease(ALICE, V1, load)
    gives_up, stays = (asyncio.create_task(pool.lease(BOB, version, load)) for version in (V1, V2))
    await asyncio.sleep(0)
    gives_up.cancel()
    lease.release()
    granted = await stays
    assert granted.process.alive
    assert gives_up.cancelled()
    # Cancelled in the very moment it was granted: the room is free again.
    late = asyncio.create_task(pool.lease(ALICE, V3, load))
    await asyncio.sleep(0)
    granted.release()
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    assert (await pool.lease(ALICE, V1, load)).process.alive


async def test_spares_are_ready_before_they_are_needed(make, host):
    pool = make(spares=2)
    forks = []
    spawn = host.spawn

    async def counted():
        process = await spawn()
        forks.append(process)
        return process

    pool._host = type("Counted", (), {"spawn": staticmethod(counted), "options": host.options})
    first = await pool.lease(ALICE, V1, load)
    await pool._refill
    assert len(forks) == 3
    second = await pool.lease(ALICE, V2, load)
    assert second.process in forks[:3]
    assert second.process is not first.process
    await pool._refill
    assert len(forks) == 4
    # A spare that died is no use to anybody.
    for spare in pool._spares:
        await spare.close()
    assert (await pool.lease(ALICE, V3, load)).process.alive


async def test_a_warm_pool_has_its_spares_before_the_first_lease(make):
    pool = make(spares=2)
    await pool.warm()
    spares = list(pool._spares)
    assert len(spares) == 2
    assert all(spare.grown() is not None for spare in spares), "they are ready"
    assert (await pool.lease(ALICE, V1, load)).process in spares


async def test_closing_the_pool_kills_its_processes_and_leaves_the_host(make, host):
    pool = make(spares=1, processes=1)
    lease = await pool.lease(ALICE, V1, load)
    waiting = asyncio.create_task(pool.lease(BOB, V1, load))
    await asyncio.sleep(0)
    await pool._refill
    pids = [lease.process.pid, *(spare.pid for spare in pool._spares)]
    await pool.close()
    assert not any(map(exists, pids))
    for refused in (waiting, pool.lease(ALICE, V1, load)):
        with pytest.raises(SandboxUnavailable, match="closed"):
            await refused
    lease.release()
    child = await host.spawn()
    assert await do(child, "1") == [1]
    await child.close()


async def test_closing_the_pool_while_a_version_is_loaded(make):
    pool = make()
    begun = asyncio.Event()

    async def for_ever(process):
        begun.set()
        await asyncio.Event().wait()

    waiting = asyncio.create_task(pool.lease(ALICE, V1, for_ever))
    await begun.wait()
    await pool.close()
    with pytest.raises(SandboxUnavailable, match="closed"):
        await waiting


@pytest.mark.parametrize("processes", [1, 2, 64, 200])
async def test_a_pool_of_any_size_leaves_room_for_others(processes: int) -> None:
    limits = PoolLimits.of(processes)
    assert limits.processes == processes
    assert 1 <= limits.per_account <= max(1, processes // 2)
    assert 1 <= limits.idle <= processes
    assert PoolLimits.of(PoolLimits().processes) == PoolLimits()
