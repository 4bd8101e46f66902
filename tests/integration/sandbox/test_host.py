"""Zygotes: started, tested, replaced, killed, and what becomes of their children."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from instances.sandbox import zygote as zygotes
from instances.sandbox.child.control import Limits
from instances.sandbox.errors import SandboxDied, SandboxUnavailable
from instances.sandbox.examination import PROBE, examine
from instances.sandbox.host import SandboxHost
from instances.sandbox.options import SandboxOptions
from instances.sandbox.process import SandboxProcess
from tenants import metrics
from tests.support.sandbox import await_death, do, exists, hostile, weakened

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def make():
    """`make(options)`: a host of this test."""
    hosts = []

    def make(options=None, language="hostile"):
        hosts.append(SandboxHost(language, options or hostile()))
        return hosts[-1]

    yield make
    for host in hosts:
        await host.close()


def zygote_pid(child):
    return int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_fifty_at_once_are_fifty_processes(host):
    children = await asyncio.gather(*(host.spawn() for _ in range(50)))
    said = await asyncio.gather(*(do(child, "os.getpid()", f"'for {child.pid}'") for child in children))
    assert said == [[child.pid, f"for {child.pid}"] for child in children]
    assert len({child.pid for child in children}) == 50
    assert metrics.SANDBOXES.labels("hostile")._value.get() >= 50
    # Every second one is killed: the right ones die.
    for child in children[::2]:
        child.kill()
    assert [death.cause for death in await asyncio.gather(*(child.ended() for child in children[::2]))] == ["gone"] * 25
    assert await asyncio.gather(*(do(child, "os.getpid()") for child in children[1::2])) == [
        [child.pid] for child in children[1::2]
    ]
    await asyncio.gather(*(child.close() for child in children))
    assert not any(exists(child.pid) for child in children)


async def test_a_spawn_that_is_cancelled_leaves_no_process(make):
    host = make()
    keep = await host.spawn()
    await keep.ready()
    zygote = zygote_pid(keep)
    spawns = [asyncio.create_task(host.spawn()) for _ in range(5)]
    await asyncio.sleep(0)
    for spawn in spawns:
        spawn.cancel()
    await asyncio.gather(*spawns, return_exceptions=True)
    await (await host.spawn()).close()  # behind the kills, in the same queue
    left = {int(pid) for pid in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()}
    assert await asyncio.to_thread(await_death, [*left - {keep.pid}])
    assert await do(keep, "1") == [1]


@pytest.fixture
def started(monkeypatch) -> list[subprocess.Popen[bytes]]:
    """Every zygote process that was started."""
    processes: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            processes.append(self)

    monkeypatch.setattr(zygotes.subprocess, "Popen", Noted)
    return processes


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 10])
async def test_a_host_that_is_closed_while_it_starts_leaves_nothing(make, started, turns):
    host = make()
    starting = asyncio.create_task(host.start())
    for _ in range(turns):  # of the loop: before the process is there, and after
        await asyncio.sleep(0)
    await host.close()
    with pytest.raises(SandboxUnavailable):
        await starting
    assert bool(started) is (turns > 1)
    assert all(process.returncode is not None for process in started)


async def test_a_host_that_is_closed_while_the_canary_is_out_leaves_nothing(make, started, monkeypatch):
    out = asyncio.Event()

    async def canary(_zygote):
        out.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("instances.sandbox.host.release_canary", canary)
    host = make()
    starting = asyncio.create_task(host.start())
    await out.wait()
    await host.close()
    with pytest.raises(SandboxUnavailable):
        await starting
    assert [process.returncode is not None for process in started] == [True]


async def test_a_close_that_is_given_up_still_ends_everything(make, started):
    host = make()
    child = await host.spawn()
    closing = asyncio.create_task(host.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    await host.close()
    assert all(process.returncode is not None for process in started)
    assert not exists(child.pid)


async def test_a_zygote_that_died_is_waited_for(make, started, monkeypatch):
    may_be_seen = threading.Event()
    wait = subprocess.Popen.wait

    def late(process, timeout=None):
        may_be_seen.wait(10)
        return wait(process, timeout)

    host = make()
    child = await host.spawn()
    monkeypatch.setattr(subprocess.Popen, "wait", late)
    started[0].kill()
    await child.ended()
    closing = asyncio.create_task(host.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    may_be_seen.set()
    await closing
    assert [process.returncode for process in started] == [-signal.SIGKILL]


async def test_a_loop_that_ends_takes_its_zygote_along(make, started):
    """The end of a loop cancels every task there is."""
    host = make()
    await host.start()
    assert host._zygote is not None
    ending = host._zygote.end()
    await asyncio.sleep(0)
    ending.cancel()
    await asyncio.gather(ending, return_exceptions=True)
    assert [process.returncode is not None for process in started] == [True]


async def test_no_descriptors_and_no_processes_are_left(make):
    async def use():
        host = make()
        children = await asyncio.gather(*(host.spawn() for _ in range(5)))
        await asyncio.gather(*(do(child, "'x' * 1_000_000") for child in children))
        await children[0].close()
        with pytest.raises(SandboxDied):
            await do(children[1], "os._exit(1)")
        pids = [child.pid for child in children] + [zygote_pid(children[2])]
        await host.close()
        return pids

    await use()
    before = sorted(Path("/proc/self/fd").iterdir())
    pids = await use()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert not any(map(exists, pids))


async def test_a_fresh_zygote_takes_over_after_so_many_forks(make):
    host = make(hostile(forks=4))
    first = await host.spawn()  # the second fork; the canary was the first
    assert zygote_pid(await host.spawn()) == zygote_pid(first)
    pids = {zygote_pid(await host.spawn()) for _ in range(3)}
    while zygote_pid(child := await host.spawn()) in pids:
        await host._starting if host._starting else None
    addresses = await do(first, "id(len)"), await do(child, "id(len)")
    assert addresses[0] != addresses[1]  # (the layout of the address space is drawn anew)
    assert await do(first, "'goes on'") == ["goes on"]
    old = zygote_pid(first)
    for process in [*next(z for z in host._zygotes if z is not host._zygote)._children.values()]:
        await process.close()
    assert await asyncio.to_thread(await_death, [old])
    assert await do(child, "1") == [1]


async def test_children_draw_their_own_random_numbers(host):
    one, two = await host.spawn(), await host.spawn()
    assert await do(one, "random.random()") != await do(two, "random.random()")
    await asyncio.gather(one.close(), two.close())


async def test_the_hash_seed_can_be_fixed_and_leaves_no_trace(make):
    said = []
    for _ in range(2):
        child = await make(hostile(environment={"PYTHONHASHSEED": "0"})).spawn()
        said.append(await do(child, "hash('abc')", "sorted(os.environ)"))
    assert said[0] == said[1]
    assert said[0][1] == []


async def test_a_dead_zygote_takes_its_children_along_and_is_replaced(make):
    host = make()
    children = await asyncio.gather(*(host.spawn() for _ in range(4)))
    await asyncio.gather(*(child.ready() for child in children))
    spinning = asyncio.create_task(do(children[0], "while True: pass"))
    await asyncio.sleep(0)
    os.kill(zygote_pid(children[0]), signal.SIGKILL)
    with pytest.raises(SandboxDied) as death:
        await spinning
    assert (death.value.cause, death.value.status) == ("gone", None)
    assert [(await child.ended()).cause for child in children] == ["gone"] * 4
    assert await asyncio.to_thread(await_death, [child.pid for child in children])
    assert await do(await host.spawn(), "1") == [1]


async def test_a_zygote_that_hangs_is_killed(make, monkeypatch):
    host = make()
    child = await host.spawn()
    await child.ready()
    pid = zygote_pid(child)
    monkeypatch.setattr(zygotes, "ANSWER_SECONDS", 0.1)
    os.kill(pid, signal.SIGSTOP)
    fresh = await host.spawn()  # from another one
    assert await do(fresh, "1") == [1]
    assert zygote_pid(fresh) != pid
    assert (await child.ended()).cause == "gone"
    assert await asyncio.to_thread(await_death, [pid, child.pid])


async def test_a_zygote_that_does_not_listen_gets_everything_in_order(make):
    """More requests than the socket holds, with descriptors, among them kills."""
    host = make()
    first, second = await host.spawn(), await host.spawn()
    await first.ready()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    host._zygote._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    pid = zygote_pid(first)
    os.kill(pid, signal.SIGSTOP)
    spawns = [asyncio.create_task(host.spawn()) for _ in range(20)]
    await asyncio.sleep(0)
    assert host._zygote._outgoing, "the socket must be full"
    second.kill()
    spawns[-1].cancel()
    os.kill(pid, signal.SIGCONT)
    children = await asyncio.gather(*spawns[:-1])
    assert await asyncio.gather(*(do(child, "os.getpid()") for child in children)) == [
        [child.pid] for child in children
    ]
    assert (await second.ended()).cause == "gone"
    assert await do(first, "1") == [1]
    await asyncio.gather(*(child.close() for child in children))
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors - 2  # those of the second


async def test_closing_a_host_that_has_requests_waiting(make):
    host = make()
    child = await host.spawn()
    before = sorted(Path("/proc/self/fd").iterdir())
    host._zygote._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    pid = zygote_pid(child)
    os.kill(pid, signal.SIGSTOP)
    spawns = [asyncio.create_task(host.spawn()) for _ in range(20)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(host.close())
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGCONT)
    await closing
    assert {type(outcome) for outcome in await asyncio.gather(*spawns, return_exceptions=True)} <= {
        SandboxUnavailable,
        SandboxProcess,
    }
    assert len(list(Path("/proc/self/fd").iterdir())) <= len(before)
    assert not exists(pid)


async def test_a_kill_that_is_not_carried_out_kills_the_zygote(make, monkeypatch):
    host = make()
    child = await host.spawn()
    await child.ready()
    monkeypatch.setattr(zygotes, "ANSWER_SECONDS", 0.1)
    os.kill(zygote_pid(child), signal.SIGSTOP)
    await child.close()
    assert await asyncio.to_thread(await_death, [child.pid])


async def test_nothing_outlives_a_worker_that_is_killed():
    """Neither an idle child, nor a busy one, nor the zygote."""
    source = f"""
        import asyncio, json, os, sys
        sys.path.insert(0, {str(ROOT)!r})
        from instances.sandbox.host import SandboxHost
        from tests.support.sandbox import do, hostile
        async def main():
            host = SandboxHost("hostile", hostile())
            children = [await host.spawn() for _ in range(3)]
            for child in children:
                await child.ready()
            busy = asyncio.create_task(do(children[1], "while True: pass", deadline=1000))
            await asyncio.sleep(0)
            zygote = int(open(f"/proc/{{children[0].pid}}/stat").read().rpartition(")")[2].split()[1])
            print(json.dumps([zygote, *(child.pid for child in children)]), flush=True)
            await busy
        asyncio.run(main())
    """
    worker = subprocess.Popen(
        [sys.executable, "-P", "-c", "\n".join(line[8:] for line in source.splitlines())], stdout=subprocess.PIPE
    )
    assert worker.stdout is not None
    pids = json.loads(await asyncio.to_thread(worker.stdout.readline))
    assert all(map(exists, pids))
    worker.kill()
    worker.wait()
    worker.stdout.close()
    assert await asyncio.to_thread(await_death, pids)


async def test_closing_the_host_ends_everything(make):
    host = make()
    child = await host.spawn()
    pids = [zygote_pid(child), child.pid]
    await host.close()
    assert not any(map(exists, pids))
    with pytest.raises(SandboxUnavailable, match="closed"):
        await host.spawn()
    await host.close()


async def test_closing_while_starting(make):
    host = make()
    spawn = asyncio.create_task(host.spawn())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await host.close()
    with pytest.raises(SandboxUnavailable):
        await spawn
    assert not host._zygotes


async def test_limits_are_the_kernels(make):
    host = make(hostile(limits=Limits(data=96 << 20, cpu=1)))
    child = await host.spawn()
    await child.ready()
    limits = Path(f"/proc/{child.pid}/limits").read_text()
    shown = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
    assert shown["Max data size"] == [str(96 << 20)] * 2
    for name in ("core file size", "file size", "processes", "locked memory", "msgqueue size"):
        assert shown[f"Max {name}"] == ["0", "0"], name
    assert shown["Max cpu time"] == ["1", "2"]
    assert int(shown["Max open files"][1]) <= 16
    with pytest.raises(SandboxDied) as death:  # the deadline is far away: the kernel ends it
        await do(child, "while True: pass", deadline=60)
    assert (death.value.cause, death.value.status) == ("cpu", -signal.SIGXCPU)


async def test_the_engine_can_fail_to_start(make, tmp_path):
    (tmp_path / "broken.py").write_text("import a_module_nobody_has")
    with pytest.raises(SandboxUnavailable, match="a_module_nobody_has") as caught:
        await make(SandboxOptions(engine=tmp_path / "broken.py")).spawn()
    assert caught.value.permanent


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("prepare", "no sandbox may call socket"),
        ("thread", "left threads running"),
        ("open", "canary died"),
    ],
)
async def test_engines_that_do_not_keep_to_the_rules_do_not_start(make, tmp_path, method, reason):
    engine = {
        "prepare": "class Bad(Probe):\n    syscalls = frozenset(('socket',))",
        "thread": "import threading\nclass Bad(Probe):\n    def prepare(self):\n"
        "        threading.Thread(target=threading.Event().wait, daemon=True).start()",
        "open": "import os\nclass Bad(Probe):\n    def open(self, limits):\n        os.write(3, b'\\2\\0\\0\\0[]')",
    }[method]
    (tmp_path / "bad.py").write_text(f"from probe import Probe\n{engine}\ndef engine():\n    return Bad()\n")
    with pytest.raises(SandboxUnavailable, match=reason):
        await make(SandboxOptions(engine=tmp_path / "bad.py")).spawn()


async def test_what_dies_before_it_is_ready_died_of_no_tenants_code(make, tmp_path):
    (tmp_path / "fragile.py").write_text(
        "import os\n"
        "from probe import Probe\n"
        "class Fragile(Probe):\n"
        "    forks = 0\n"
        "    def prepare(self):\n"
        "        os.register_at_fork(before=self.count)\n"
        "    def count(self):\n"
        "        self.forks += 1\n"
        "    def open(self, limits):\n"
        "        self.forks == 1 or os._exit(7)\n"  # all but the canary
        "def engine():\n"
        "    return Fragile()\n"
    )
    child = await make(SandboxOptions(engine=tmp_path / "fragile.py")).spawn()
    with pytest.raises(SandboxDied) as death:
        await child.exchange([b"code of a tenant"], 5)
    assert (death.value.cause, death.value.part, death.value.status) == ("gone", None, 7)


async def test_no_interpreter(make, tmp_path):
    with pytest.raises(SandboxUnavailable, match="interpreter could not be started"):
        await make(SandboxOptions(engine=PROBE, python=tmp_path / "none")).spawn()


async def test_other_folders_can_be_imported_from_and_the_project_cannot(make, tmp_path):
    (tmp_path / "elsewhere_module.py").write_text("value = 42")
    (tmp_path / "asks.py").write_text(
        "import elsewhere_module, importlib.util\n"
        "from probe import Probe\n"
        "def engine():\n"
        "    assert elsewhere_module.value == 42\n"
        "    assert importlib.util.find_spec('instances') is None and importlib.util.find_spec('msgspec') is None\n"
        "    return Probe()\n"
    )
    (tmp_path / "apart").mkdir()
    shutil.move(tmp_path / "asks.py", tmp_path / "apart" / "asks.py")
    host = make(SandboxOptions(engine=tmp_path / "apart" / "asks.py", paths=(tmp_path,)))
    assert await (await host.spawn()).exchange([], 5) == b"[]"


@pytest.mark.parametrize(
    ("file", "before", "after", "reason"),
    [
        ("seccomp.py", '"getpid", "gettid"', '"getpid", "gettid", "memfd_secret", "dup"', "dup"),
        ("seccomp.py", '"getpid", "gettid"', '"getpid", "gettid", "kill"', "kill"),
        ("seccomp.py", "tgkill.if_equal(", "tgkill.unless_equal(", "tgkill"),
        ("seccomp.py", "mmap.if_any_bit(UNACCOUNTED", "mmap.if_any_bit(0", "mmap"),
        ("seccomp.py", "mprotect.if_any_bit(PROT_EXEC", "mprotect.if_any_bit(0", "mprotect"),
        ("seccomp.py", '"getpid", "gettid"', '"getpid", "gettid", "newfstatat"', "newfstatat"),
        ("zygote.py", "os.closerange(", "os.closerange(1000 + ", "descriptor 4 was open"),
        ("lockdown.py", "os.environ.clear()", "os.environ['LEFT'] = 'behind'", "environment"),
    ],
)
async def test_the_canary_notices_every_hole(make, tmp_path, monkeypatch, file, before, after, reason):
    weakened(tmp_path, monkeypatch, (file, before, after))
    host = make(SandboxOptions(engine=PROBE))
    for _ in range(2):
        with pytest.raises(SandboxUnavailable, match=reason) as caught:
            await host.spawn()
        assert caught.value.permanent
    assert not host._zygotes


async def test_the_canary_notices_that_there_is_no_lock_at_all(make, tmp_path, monkeypatch):
    """It may well die of what it achieves."""
    weakened(tmp_path, monkeypatch, ("zygote.py", "lockdown.lock_child(self._filter)", "pass"))
    with pytest.raises(SandboxUnavailable, match=r"got through|canary died"):
        await make(SandboxOptions(engine=PROBE)).spawn()


async def test_every_single_child_looks_whether_its_filter_filters(make, tmp_path, monkeypatch):
    weakened(tmp_path, monkeypatch, ("lockdown.py", "install(seccomp.for_process", "len(seccomp.for_process"))
    with pytest.raises(SandboxUnavailable, match=r"canary died.*81"):
        await make(SandboxOptions(engine=PROBE)).spawn()


@pytest.mark.parametrize(
    ("file", "before", "after", "reason"),
    [
        ("syscalls.py", '"x86_64": Arch(', '"alpha": Arch(', "64-bit Linux on x86-64 and ARM only"),
        ("syscalls.py", '"seccomp": (317', '"seccomp": (999', "allows no seccomp filters"),
        ("lockdown.py", "os.setgroups([])", "raise OSError(1, 'no')", "root cannot become another user here"),
    ],
)
async def test_a_platform_that_cannot_lock_is_refused_in_one_sentence(
    make, tmp_path, monkeypatch, file, before, after, reason
):
    if os.uname().machine != "x86_64" or (os.getuid() != 0 and "setgroups" in before):
        pytest.skip("written for x86-64 and root")
    weakened(tmp_path, monkeypatch, (file, before, after))
    with pytest.raises(SandboxUnavailable, match=reason) as caught:
        await make(SandboxOptions(engine=PROBE)).start()
    assert caught.value.permanent
    assert "\n" not in caught.value.reason


async def test_an_examination_says_what_this_machine_can():
    found = await examine()
    assert found.reason == ""
    assert found.facts.keys() == {"landlock", "uid", "gid"}
    assert found.facts["uid"] == (65534 if os.getuid() == 0 else os.getuid())


async def test_an_examination_says_why_not(tmp_path, monkeypatch):
    weakened(tmp_path, monkeypatch, ("seccomp.py", '"getpid", "gettid"', '"getpid", "gettid", "sched_setaffinity"'))
    assert (await examine()).reason == "the sandbox does not hold here: sched_setaffinity (EINVAL) got through"


async def test_a_zygote_that_cannot_be_replaced_goes_on(make, tmp_path, monkeypatch):
    host = make(hostile(forks=3))
    first = await host.spawn()
    weakened(tmp_path, monkeypatch, ("zygote.py", "engine.prepare()", "raise ImportError('half installed')"))
    for _ in range(4):
        child = await host.spawn()
        assert zygote_pid(child) == zygote_pid(first)
        if host._starting is not None:
            await asyncio.gather(host._starting, return_exceptions=True)
    assert await do(child, "1") == [1]


async def test_once_a_canary_got_out_nothing_is_spawned_any_more(make, tmp_path, monkeypatch):
    host = make(hostile(forks=2))
    await host.spawn()
    weakened(tmp_path, monkeypatch, ("seccomp.py", '"getpid", "gettid"', '"getpid", "gettid", "kill"'))
    await host.spawn()
    await asyncio.gather(host._starting, return_exceptions=True)
    with pytest.raises(SandboxUnavailable, match="kill"):
        await host.spawn()
