"""Names are looked up once at a time, off the loop, and slow ones hold up nobody else."""

import asyncio
import socket
import threading

import pytest

from instances.egress import EgressFailed
from instances.egress.names import LOOKUPS_PER_LANE, Names, system_resolver


class Resolver:
    """Answers when it is told to."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    async def __call__(self, host, port):
        self.asked.append(host)
        return await self.answers.setdefault(host, asyncio.get_running_loop().create_future())

    async def answer(self, host, found):
        future = self.answers.pop(host)
        if isinstance(found, Exception):
            future.set_exception(found)
        else:
            future.set_result(found)
        await settled()


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def resolver():
    return Resolver()


@pytest.fixture
def names(resolver):
    names = Names(resolver)
    yield names
    names.close()


async def looking(names, *hosts, lane=None):
    tasks = [asyncio.create_task(names.lookup(host, 443, lane)) for host in hosts]
    await settled()
    return tasks


async def test_one_look_up_serves_all_who_wait(names, resolver):
    tasks = await looking(names, *["a.test"] * 10)
    assert resolver.asked == ["a.test"]
    await resolver.answer("a.test", ["1.1.1.1"])
    assert [task.result() for task in tasks] == [["1.1.1.1"]] * 10
    await looking(names, "a.test")
    assert resolver.asked == ["a.test"] * 2, "an answer is not kept"


async def test_accounts_do_not_wait_for_each_others_look_ups(names, resolver):
    await looking(names, *(f"slow{n}.test" for n in range(LOOKUPS_PER_LANE + 3)), lane="one")
    assert len(resolver.asked) == LOOKUPS_PER_LANE
    [theirs] = await looking(names, "slow0.test", lane="two")
    assert resolver.asked[LOOKUPS_PER_LANE:] == ["slow0.test"]
    assert not theirs.done()
    await resolver.answer("slow1.test", [])
    assert resolver.asked[-1] == f"slow{LOOKUPS_PER_LANE}.test"


async def test_a_look_up_keeps_its_turn_until_it_is_really_over(names, resolver):
    """The system cannot be told to stop looking."""
    tasks = await looking(names, *(f"slow{n}.test" for n in range(LOOKUPS_PER_LANE)))
    for task in tasks:
        task.cancel()
    await settled()
    await looking(names, "next.test")
    assert "next.test" not in resolver.asked
    await resolver.answer("slow0.test", socket.gaierror())
    assert resolver.asked[-1] == "next.test"


async def test_who_stops_waiting_for_a_turn_leaves_nothing_behind(names, resolver):
    await looking(names, *(f"slow{n}.test" for n in range(LOOKUPS_PER_LANE)))
    for task in (tasks := await looking(names, *(f"more{n}.test" for n in range(1_000)))):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for number in range(LOOKUPS_PER_LANE):
        await resolver.answer(f"slow{number}.test", [])
    assert len(resolver.asked) == LOOKUPS_PER_LANE
    assert len(names._turns) == 0


@pytest.mark.parametrize("failure", [socket.gaierror("no such name"), UnicodeError("too long"), TimeoutError()])
async def test_a_failure_is_everybodys(names, resolver, failure):
    tasks = await looking(names, "a.test", "a.test")
    await resolver.answer("a.test", failure)
    for task in tasks:
        with pytest.raises(EgressFailed, match=r"the host name 'a\.test' does not resolve"):
            await task


async def test_the_system_is_asked_in_a_thread_nobody_waits_for(monkeypatch):
    asked, go_on = [], threading.Event()

    def getaddrinfo(host, port, **options):
        thread = threading.current_thread()
        asked.append((host, port, options, thread is threading.main_thread(), thread.daemon))
        go_on.wait(10)
        return [(socket.AF_INET, 1, 6, "", ("1.1.1.1", port)), (socket.AF_INET6, 1, 6, "", ("::1", port, 0, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    task = asyncio.create_task(system_resolver("a.test", 443))
    while not asked:
        await asyncio.sleep(0.001)
    go_on.set()
    assert await task == ["1.1.1.1", "::1"]
    assert asked == [("a.test", 443, {"type": socket.SOCK_STREAM}, False, True)]


async def test_what_the_system_raises_is_raised(monkeypatch):
    def getaddrinfo(*_args, **_options):
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(socket.gaierror, match="no such name"):
        await system_resolver("a.test", 443)


async def test_no_thread_to_be_had(monkeypatch):
    def start(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="no thread"):
        await system_resolver("a.test", 443)


def test_a_loop_may_end_before_an_answer(monkeypatch):
    go_on, threads = threading.Event(), []

    def getaddrinfo(*_args, **_options):
        threads.append(threading.current_thread())
        go_on.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def give_up():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await system_resolver("a.test", 443)

    asyncio.run(give_up())
    go_on.set()
    threads[0].join(10)
    assert not threads[0].is_alive()
