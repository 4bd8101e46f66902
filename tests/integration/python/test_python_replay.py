"""Replays: outcomes are handed over in the order they were recorded, and time and chance outside steps repeat."""

from __future__ import annotations

from tests.integration.python.conftest import Loads, Runs
from tests.support.python_scripts import START, flow

RACE = """
order = []
async def one(name):
    await step.sleep(name, 1)
    order.append(name)
    @step.do(f"after {name}")
    async def after(): return name
    order.append("after " + await after())
await asyncio.gather(one("a"), one("b"))
return order
"""


async def test_outcomes_are_handed_over_in_recorded_order(load: Loads) -> None:
    script = await load(flow(RACE))
    first = await script.run(held=frozenset({"a", "b"}))
    await first.settle(first.id("b"))
    await first.settle(first.id("a"))
    await first.go_on()
    assert first.output == ["b", "after b", "a", "after a"] or first.output == ["b", "a", "after b", "after a"]
    again = await script.run(past=first.history)
    assert again.output == first.output
    assert again.ops("attempt_ok") == []
    turned = [first.history[1], first.history[0], *first.history[2:]]
    assert (await script.run(past=turned)).output[0] == "a"


async def test_a_recorded_failure_is_raised_again(load: Loads) -> None:
    script = await load(
        flow(
            """
            @step.do()
            def a(): raise LookupError("lost")
            try: await a()
            except LookupError as error: return f"{type(error).__name__} {error}"
            """
        )
    )
    first = await script.run()
    assert first.output == "LookupError lost"
    assert (await script.run(past=first.history)).output == first.output


async def test_a_recorded_step_that_is_not_called_is_a_mismatch(run: Runs) -> None:
    past = [{"kind": "do", "name": "gone", "count": 2, "at": START, "v": 1}]
    found = await run("await step.wait_for_event('w', 'go')", past=past)
    assert [(said["kind"], said["name"], said["count"]) for said in found.ops("mismatch")] == [("do", "gone", 2)]


async def test_the_past_waits_for_what_is_asked_outside_steps(run: Runs) -> None:
    past = [{"kind": "sleep", "name": "s", "count": 1, "at": START + 5}]
    found = await run("await asyncio.sleep(0.5)\nawait step.sleep('s', 1)\nreturn 1", past=past)
    assert found.ops("mismatch") == []
    assert found.output == 1


CHANCE = """
import os, random, secrets, uuid
def draw():
    return [random.random(), random.randint(1, 10**9), random.choice(range(10**6)), uuid.uuid4().hex, uuid.uuid1().hex,
            os.urandom(9).hex(), secrets.token_hex(4), random.Random().random(), random.SystemRandom().random(),
            random.gauss(0, 1), sorted(range(9), key=lambda _: random.random())]
"""
DRAWING = "first = draw()\nawait step.sleep('s', 10)\nreturn [first, draw(), await step.do('in')(draw)()]"


async def test_chance_outside_steps_repeats_and_inside_does_not(load: Loads) -> None:
    script = await load(flow(DRAWING, CHANCE))
    first = await script.run()
    other_process = await load(flow(DRAWING, CHANCE))
    for again in (await script.run(past=first.history), await other_process.run(past=first.history)):
        assert again.output == first.output
    other = await script.run(seed="cd" * 32)
    assert all(a != b for a, b in zip(other.output[0], first.output[0], strict=True))
    assert all(a != b for a, b in zip(first.output[0], first.output[1], strict=True))


async def test_chance_inside_steps_is_new_in_each_attempt(run: Runs) -> None:
    found = await run(
        """
        drawn = []
        @step.do()
        def a(ctx):
            drawn.append([random.random(), random.Random().random()])
            if ctx["attempt"] < 2: raise ValueError
        await a()
        return drawn
        """
    )
    [one, two] = found.output
    assert one[0] != two[0]
    assert one[1] != two[1]


CLOCKS = """
import logging
def clocks():
    now = datetime.datetime.now(datetime.UTC)
    return [time.time() * 1000, time.time_ns() / 1e6, now.timestamp() * 1000,
            datetime.datetime.utcnow().replace(tzinfo=datetime.UTC).timestamp() * 1000,
            datetime.datetime.today().replace(tzinfo=datetime.UTC).timestamp() * 1000]
"""


async def test_the_clock_outside_steps_is_the_runs(load: Loads) -> None:
    body = """
    days = [datetime.date.today().isoformat(), time.strftime("%Y-%m-%d"), time.ctime()]
    began, loop_began = time.monotonic(), asyncio.get_running_loop().time()
    first = clocks()
    await step.sleep("s", "1 minute")
    later = [time.monotonic() - began, asyncio.get_running_loop().time() - loop_began, time.perf_counter() - began]
    return [days, first, later, clocks(), await step.do("in")(clocks)()]
    """
    script = await load(flow(body, CLOCKS))
    found = await script.run()
    days, first, later, then, inside = found.output
    assert days == ["2023-11-14", "2023-11-14", "Tue Nov 14 22:13:20 2023"]
    assert first == [START] * 5
    assert [round(seconds, 6) for seconds in later] == [60, 60, 60]
    assert then == [START + 60_000] * 5
    assert all(START + 60_000 <= moment < START + 90_000 for moment in inside)
    assert (await script.run(past=found.history)).output == found.output


async def test_sets_are_walked_in_the_same_order_everywhere(load: Loads) -> None:
    orders = []
    for _ in range(2):
        script = await load(flow("return list({str(n) for n in range(50)})"))
        orders.append((await script.run()).output)
    assert orders[0] == orders[1]


async def test_time_outs_and_timers_are_asked_of_the_worker(run: Runs) -> None:
    found = await run(
        """
        fired = []
        asyncio.get_running_loop().call_later(1.5, fired.append, "later")
        gone = asyncio.get_running_loop().call_later(9, fired.append, "never")
        gone.cancel()
        await asyncio.sleep(2)
        try:
            async with asyncio.timeout(0.25):
                await step.wait_for_event("w", "go")
        except TimeoutError:
            fired.append("timeout")
        await asyncio.sleep(0)
        return fired
        """
    )
    assert found.output == ["later", "timeout"]
    assert [said["args"]["ms"] for said in found.called] == [1500, 9000, 2000, 250]
    assert len(found.ops("cancel")) == 1


async def test_context_of_tasks_and_timers_is_where_they_were_made(run: Runs) -> None:
    found = await run(
        """
        async def speak(text):
            await asyncio.sleep(0.001)
            print(text)
        @step.do()
        async def a():
            await asyncio.gather(asyncio.create_task(speak("in")), speak("in too"))
        outside = asyncio.create_task(speak("out"))
        await a()
        await outside
        """
    )
    assert sorted(found.logs) == [("info", "in", 1), ("info", "in too", 1), ("info", "out", 0)]
