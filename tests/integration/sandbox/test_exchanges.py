"""Frames there and answers back, and the many ways in which a sandbox can end instead."""

import asyncio
import contextlib
import os
import signal
import textwrap
import time

import pytest

from instances.sandbox.child.frames import EXIT_MEMORY, EXIT_PROTOCOL, MAX_FRAME
from instances.sandbox.errors import SandboxDied
from tenants import metrics
from tests.support.sandbox import do, exists

SPIN = "while True: pass"
SPIN_UNKILLABLE = """
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True:
    try:
        while True: pass
    except BaseException: pass
"""


async def died(child, *sources, deadline=20.0):
    with pytest.raises(SandboxDied) as caught:
        await do(child, *sources, deadline=deadline)
    return caught.value


async def test_parts_are_answered_in_order(child):
    assert await do(child, "1 + 1", "x = 20", "x * 2", "1 / 0") == [
        2,
        None,
        40,
        ["ZeroDivisionError", "division by zero"],
    ]
    assert await do(child) == []
    assert await do(child, "x") == [20]
    assert child.exchanges == 3


@pytest.mark.parametrize("size", [1, 65_500, 65_536, 65_540, 1 << 20, MAX_FRAME - 200])
async def test_frames_of_any_size_there_and_back(child, size):
    assert await do(child, f"len({'9' * (size - 5) if size > 5 else 'str()'!r})") == [
        max(size - 5, 0) if size > 5 else 5
    ]
    body = await child.exchange([f"'x' * {size - 4}".encode()], 20)
    assert len(body) == size if size > 4 else body == b'[""]'


async def test_the_largest_answer_and_one_byte_more(child):
    assert len(await child.exchange([f"'x' * {MAX_FRAME - 4}".encode()], 20)) == MAX_FRAME
    death = await died(child, f"'x' * {MAX_FRAME - 3}")
    assert (death.cause, death.status) == ("protocol", EXIT_PROTOCOL)


async def test_a_frame_that_is_too_large_is_not_sent(child):
    with pytest.raises(ValueError, match="are allowed"):
        await child.exchange([bytes(MAX_FRAME)], 1)
    assert await do(child, "'still here'") == ["still here"]


async def test_one_exchange_at_a_time(child):
    first = asyncio.create_task(do(child, "time.sleep(0.05)"))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="in flight"):
        await do(child, "1")
    assert await first == [None]


@pytest.mark.parametrize(
    "source", [SPIN, SPIN_UNKILLABLE, "9 ** 9 ** 9", "import re; re.match('(a+)+$', 'a' * 50 + 'b')"]
)
async def test_busy_code_is_killed_at_the_deadline(child, source):
    await child.ready()
    before = metrics.SANDBOX_KILLS.labels("cpu")._value.get()
    death = await died(child, "1", source, "2", deadline=0.2)
    assert (death.cause, death.part, death.status) == ("cpu", 1, -signal.SIGKILL)
    assert not exists(child.pid)
    assert not child.alive
    assert metrics.SANDBOX_KILLS.labels("cpu")._value.get() == before + 1
    assert (await died(child, "1")).cause == "cpu"


async def test_a_deadline_may_be_shorter_than_the_one_before(child):
    await do(child, "1", deadline=1000)
    began = asyncio.get_running_loop().time()
    assert (await died(child, SPIN, deadline=0.1)).cause == "cpu"
    assert asyncio.get_running_loop().time() - began < 10


async def test_a_deadline_is_not_the_one_of_the_exchange_before(child):
    await do(child, "1", deadline=0.1)
    assert await do(child, "time.sleep(0.2)", deadline=5) == [None]
    await asyncio.sleep(0)
    assert await do(child, "1", deadline=5) == [1]


async def test_code_that_hangs_is_killed_at_the_deadline(child):
    await child.ready()
    began = asyncio.get_running_loop().time()
    death = await died(child, "time.sleep(1000)", deadline=0.2)
    assert (death.cause, death.part) == ("cpu", 0)
    assert asyncio.get_running_loop().time() - began < 10


async def test_a_starved_process_gets_its_time_and_no_more(child, monkeypatch):
    """On a crowded machine, wall time says little. Here the process seems to get half a CPU, then a tenth."""
    loop = asyncio.get_running_loop()
    await child.ready()
    began = loop.time()
    monkeypatch.setattr(child, "cpu", lambda: (loop.time() - began) * 0.5)
    assert await do(child, "time.sleep(0.15)", deadline=0.1) == [None]
    began = loop.time()
    monkeypatch.setattr(child, "cpu", lambda: (loop.time() - began) * 0.1)
    assert (await died(child, "time.sleep(1000)", deadline=0.1)).cause == "cpu"
    assert loop.time() - began >= 0.4


async def test_a_worker_that_stood_still_blames_nobody(child):
    """Its timers are due when it goes on; so is the answer, which has been there for long."""
    await child.ready()
    answer = asyncio.create_task(do(child, "1", deadline=0.05))
    await asyncio.sleep(0)
    time.sleep(0.3)
    assert await answer == [1]
    assert await do(child, "2") == [2]


async def test_a_machine_that_stood_still_is_not_a_process_that_hangs(child):
    loop = asyncio.get_running_loop()
    await child.ready()
    answer = asyncio.create_task(do(child, "time.sleep(0.1)", deadline=1000))
    await asyncio.sleep(0)
    child._looked, child._due = loop.time() - 11, loop.time() - 10
    child._look()
    assert child.alive
    assert await answer == [None]
    answer = asyncio.create_task(do(child, "time.sleep(1000)", deadline=1000))
    await asyncio.sleep(0)
    child._looked, child._due = loop.time() - 11, loop.time() - 0.01
    child._look()
    with pytest.raises(SandboxDied):
        await answer


@pytest.mark.parametrize("source", ["bytearray(1 << 30)", "x = []\nwhile True: x.append(bytes(100_000))"])
async def test_memory_bombs_end_the_process_only(host, child, source):
    death = await died(child, source)
    assert (death.cause, death.status, death.part) == ("memory", EXIT_MEMORY, 0)
    other = await host.spawn()
    assert await do(other, "1") == [1]
    await other.close()


async def test_a_kill_by_the_kernel_is_for_want_of_memory(child):
    """Nobody else sends a SIGKILL that was not ordered."""
    await child.ready()
    inflight = asyncio.create_task(died(child, "time.sleep(1000)"))
    await asyncio.sleep(0)
    os.kill(child.pid, signal.SIGKILL)
    death = await inflight
    assert (death.cause, death.status) == ("memory", -signal.SIGKILL)


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("os._exit(0)", 0),
        ("os._exit(77)", 77),
        ("os.abort()", -signal.SIGABRT),
        ("ctypes.string_at(0)", -signal.SIGSEGV),
        ("signal.raise_signal(signal.SIGTRAP)", -signal.SIGTRAP),
        ("ctypes.CDLL(None).syscall(0x40000001, 1, 0, 0)", -signal.SIGSYS),
    ],
)
async def test_crashes(child, source, status):
    if "0x40000001" in source and os.uname().machine != "x86_64":
        pytest.skip("the second ABI is of x86-64")
    death = await died(child, "1", source)
    assert (death.cause, death.status, death.part) == ("crash", status, 1)


@pytest.mark.parametrize(
    "source",
    [
        "os.write(3, b'\\xff' * 4)",
        "os.write(3, struct.pack('<I', 32 << 20 | 1))",
        "os.close(3)\nwhile True: time.sleep(1)",
    ],
)
async def test_what_is_no_answer_kills(child, source):
    await child.ready()
    death = await died(child, source)
    assert death.cause == "protocol"
    assert not exists(child.pid)


@pytest.mark.parametrize("more", ["b'more'", "b'm'", "b'\\2\\0\\0\\0[]'"])
async def test_saying_more_than_the_answer_kills(child, more):
    """The answer itself may have been taken before the rest was seen."""
    with contextlib.suppress(SandboxDied):
        await do(child, f"os.write(3, b'\\2\\0\\0\\0[]' + {more})")
    assert (await child.ended()).cause == "protocol"


async def test_speaking_without_being_asked_kills(child):
    await do(child, "frames.reply = lambda body: (type(frames).reply(frames, body), frames.send(b'and another thing'))")
    assert (await child.ended()).cause == "protocol"


async def test_answering_before_the_question_was_read_kills(child):
    early = """
    def read(read=frames._read):
        frames.send(b"[]")
        return read()
    frames._read = read
    """
    await do(child, textwrap.dedent(early))
    assert (await died(child, "'" + "x" * (8 << 20) + "'")).cause == "protocol"


@pytest.mark.parametrize("page", ["99, 0", "2, 5", "1, 0", "0, 0"])
async def test_the_page_cannot_point_elsewhere(child, page):
    """What the child writes there is checked: another frame, a part that was not sent, the frame before."""
    await do(child)
    assert (await died(child, f"frames._page[:12] = struct.pack('<QI', {page})\nos._exit(1)")).part is None


async def test_cancelling_an_exchange_kills(child):
    await child.ready()
    exchange = asyncio.create_task(do(child, SPIN))
    await asyncio.sleep(0)
    exchange.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange
    assert (await child.ended()).cause == "gone"
    assert not exists(child.pid)


async def test_closing_ends_what_is_in_flight(child):
    await child.ready()
    inflight = asyncio.create_task(died(child, SPIN))
    await asyncio.sleep(0)
    await child.close()
    assert (await inflight).cause == "gone"
    assert not exists(child.pid)
    await child.close()


async def test_read_outs(child):
    await child.ready()
    assert child.memory() > 5 << 20
    grown = child.grown()
    await do(child, "keep = bytes(range(256)) * (20 << 12)")
    assert 19 << 20 < child.grown() - grown < 40 << 20
    before = child.cpu()
    await do(child, "for _ in range(2_000_000): pass")
    assert child.cpu() > before
    await child.close()
    assert child.memory() is None
    assert child.cpu() > before
