"""Turns are shared fairly, and none gets lost."""

import asyncio
import random

import pytest

from instances.egress.lanes import Lanes


class Crowd:
    """Callers of lanes: who is in, who waits."""

    def __init__(self, lanes):
        self.lanes = lanes
        self.waiting = []

    async def come(self, key, count=1):
        for _ in range(count):
            self.waiting.append((key, asyncio.create_task(self.lanes.enter(key))))
        await settled()

    def inside(self, key):
        return sum(task.done() and not task.cancelled() for each, task in self.waiting if each == key)

    async def go(self, key):
        at = next(at for at, (each, task) in enumerate(self.waiting) if each == key and task.done())
        del self.waiting[at]
        self.lanes.leave(key)
        await settled()

    async def give_up(self):
        for _, task in self.waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in self.waiting), return_exceptions=True)


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_lane_has_so_many_turns():
    crowd = Crowd(Lanes(100, 2))
    await crowd.come("a", 3)
    assert crowd.inside("a") == 2
    await crowd.come("b")
    assert crowd.inside("b") == 1
    await crowd.go("a")
    assert crowd.inside("a") == 2
    await crowd.give_up()


@pytest.mark.parametrize(("lanes", "share"), [(1, 50), (2, 33), (4, 20), (9, 10), (99, 1)])
async def test_lanes_that_take_all_they_can_leave_something(lanes, share):
    crowd = Crowd(Lanes(100, 100))
    for lane in range(lanes):
        await crowd.come(lane, 60)
    for _ in range(60):  # what each gives back goes to whoever has least
        for lane in range(lanes):
            if crowd.inside(lane) > share:
                await crowd.go(lane)
    assert {crowd.inside(lane) for lane in range(lanes)} <= {share, share + 1}
    await crowd.come("new")
    assert crowd.inside("new") == 1
    await crowd.give_up()


async def test_lanes_are_served_in_turn():
    """However many wait in one, and however long."""
    crowd = Crowd(Lanes(2, 1))
    await crowd.come("x")
    await crowd.come("y")
    await crowd.come("many", 50)
    await crowd.come("few", 2)
    served = []
    for leaving in ("x", "many", "few", "many", "few", "many"):
        before = {key: crowd.inside(key) for key in ("many", "few")}
        await crowd.go(leaving)
        served += [key for key in ("many", "few") if crowd.inside(key) >= before[key] + (key != leaving)]
    assert served == ["many", "few", "many", "few", "many", "many"]
    await crowd.give_up()


async def test_first_come_first_served_within_a_lane():
    lanes, order = Lanes(10, 1), []

    async def one(number):
        await lanes.enter("a")
        order.append(number)
        await asyncio.sleep(0)
        lanes.leave("a")

    await asyncio.gather(*(one(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]
    assert len(lanes) == 0


async def test_who_is_cancelled_takes_no_turn():
    crowd = Crowd(Lanes(10, 1))
    await crowd.come("a", 3)
    crowd.waiting[1][1].cancel()
    await settled()
    await crowd.go("a")
    assert crowd.inside("a") == 1
    assert crowd.waiting[1][1].done()
    assert not crowd.waiting[1][1].cancelled()
    await crowd.give_up()


async def test_who_gives_up_waiting_leaves_nothing_behind():
    lanes = Lanes(1, 1)
    await lanes.enter("a")
    waiting = asyncio.create_task(lanes.enter("b"))
    await settled()
    waiting.cancel()
    await settled()
    assert list(lanes._lanes) == ["a"]
    assert not lanes._waiting
    lanes.leave("a")


async def test_a_turn_given_to_somebody_cancelled_in_the_same_moment_is_passed_on():
    lanes = Lanes(10, 1)
    await lanes.enter("a")
    second = asyncio.create_task(lanes.enter("a"))
    third = asyncio.create_task(lanes.enter("a"))
    await settled()
    lanes.leave("a")
    second.cancel()
    await settled()
    assert second.cancelled()
    assert third.done()
    lanes.leave("a")
    assert len(lanes) == 0


async def test_room_that_is_left_while_only_cancelled_ones_wait_is_used():
    lanes = Lanes(2, 2)
    await lanes.enter("a")
    await lanes.enter("b")
    waiting = asyncio.create_task(lanes.enter("a"))
    await settled()
    waiting.cancel()
    lanes.leave("b")
    lanes.leave("a")
    async with asyncio.timeout(5):
        await lanes.enter("a")
    lanes.leave("a")
    assert len(lanes) == 0


async def test_nothing_is_lost_or_left_behind_whatever_happens():
    chance = random.Random(7)
    lanes = Lanes(8, 3)
    inside = dict.fromkeys("abcd", 0)

    async def one():
        key = chance.choice("aaabcd")
        await lanes.enter(key)
        inside[key] += 1
        try:
            assert inside[key] <= 3
            assert sum(inside.values()) <= 8
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
        finally:
            inside[key] -= 1
            lanes.leave(key)

    tasks = []
    for _ in range(3_000):
        tasks.append(asyncio.create_task(one()))
        if chance.random() < 0.3:
            chance.choice(tasks[-20:]).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in done} == {type(None), asyncio.CancelledError}
    assert len(lanes) == 0
    assert lanes._lanes == {}
    assert not lanes._waiting
