"""What a sandbox is made of, seen from outside: its rights, what it knows, what it could be read for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from instances.sandbox.host import SandboxHost
from tests.support.sandbox import do, hostile

SECRET = "of the platform " + "and nobody else " * 2
os.environ["MILLRACE_SANDBOX_TEST_SECRET"] = SECRET  # in this worker's environment and memory, as the real ones are

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can look into these processes")


@pytest.fixture(scope="module")
async def host():
    """A host that was started while this process held descriptors and secrets."""
    with Path("/etc/passwd").open("rb"), Path("/dev/null").open("wb") as inheritable:
        os.set_inheritable(inheritable.fileno(), True)
        host = SandboxHost("hostile", hostile())
        await host.start()
        yield host
        await host.close()


@pytest.fixture(scope="module")
async def child(host):
    child = await host.spawn()
    await do(child, "1")
    return child


@pytest.fixture(scope="module", params=["zygote", "child"])
def pid(request, child):
    if request.param == "child":
        return child.pid
    return int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[1])


def status(pid):
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def test_no_rights_are_left(pid):
    shown = status(pid)
    expected = "65534" if os.getuid() == 0 else str(os.getuid())
    assert shown["Uid"].split() == [expected] * 4
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(shown[kind], 16) == 0
    assert shown["NoNewPrivs"] == "1"
    assert shown["Seccomp"] == "2"
    if os.getuid() == 0:
        assert shown["Gid"].split() == ["65534"] * 4
        assert shown["Groups"].strip() == ""


def test_every_thread_is_locked(child):
    threads = list(Path(f"/proc/{child.pid}/task").iterdir())
    assert len(threads) == 2
    for thread in threads:
        shown = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)
        assert (shown["NoNewPrivs"], shown["Seccomp"]) == ("1", "2")
        assert shown.get("Seccomp_filters", "2") == "2"  # the zygote's and its own


def test_nobody_else_can_look_into_it(pid):
    """Not dumpable: what is in /proc belongs to root, whoever runs it."""
    assert (Path(f"/proc/{pid}") / "environ").stat().st_uid == 0
    assert stat.S_IMODE((Path(f"/proc/{pid}") / "environ").stat().st_mode) == 0o400


def test_it_is_the_first_to_go_when_memory_runs_out(pid):
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"


def test_it_yields_to_the_platform(pid):
    assert os.getpriority(os.PRIO_PROCESS, pid) > os.getpriority(os.PRIO_PROCESS, os.getpid())


@as_root
def test_its_environment_is_empty(pid):
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""


async def test_nothing_of_the_environment_is_known_inside(child):
    assert await do(child, "dict(os.environ)", "os.getenv('PATH')") == [{}, None]


@as_root
def test_its_descriptors(child, pid):
    links = {int(fd.name): str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    assert [links.pop(number) for number in (0, 1, 2)] == ["/dev/null"] * 3
    if pid == child.pid:
        assert list(links) == [3]
        assert links[3].startswith("socket:")
    else:
        assert sorted(link.partition(":")[0] for link in links.values()) == ["pipe", "pipe", "socket"]


async def test_its_descriptors_from_inside(child):
    probe = "[number for number in range(4, 2000) if call_or(lambda: os.lseek(number, 0, 1)) != 9]"
    define = (
        "def call_or(function):\n    try:\n        return function()\n    except OSError as error:\n"
        "        return error.errno\n"
    )
    assert await do(child, define, probe.replace("lambda:", "lambda number=number:")) == [None, []]


@as_root
async def test_no_secret_of_the_platform_is_in_its_memory(host, child, pid):
    assert SECRET.encode() in memory(os.getpid()), "the search must be able to find it"
    assert SECRET.encode() not in memory(pid)
    told = await host.spawn()
    await do(told, f"keep = {SECRET!r}")
    assert SECRET.encode() in memory(told.pid), "the search must be able to find it"
    await told.close()


async def test_what_one_child_is_told_no_other_knows(host):
    """Neither one that was there before nor one that comes after."""
    told, before = await host.spawn(), await host.spawn()
    await do(told, f"keep = {SECRET!r}")
    after = await host.spawn()
    for other in (before, after):
        assert await do(other, "'keep' in globals() or hasattr(own, 'keep') or 'keep' in own.names") == [False]
        if os.getuid() == 0:
            assert SECRET.encode() not in memory(other.pid)
    for process in (told, before, after):
        await process.close()


async def test_what_it_writes_to_its_page_is_seen_by_its_worker_only(host):
    one, two = await host.spawn(), await host.spawn()
    await do(one, "frames._page[100:110] = b'0123456789'")
    assert await do(two, "bytes(frames._page[100:110]).hex()") == ["00" * 10]
    assert os.pread(one._page, 10, 100) == b"0123456789"
    with pytest.raises(OSError, match="not permitted"):
        os.ftruncate(one._page, 0)  # which would kill whoever looks at it: the size is sealed
    for process in (one, two):
        await process.close()


def memory(pid: int) -> bytes:
    """Everything a process has in private, readable memory."""
    found = bytearray()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *rest = line.split()
            if rights.startswith("rw") and (len(rest) < 4 or not rest[3].startswith("[v")):
                start, end = (int(bound, 16) for bound in span.split("-"))
                file.seek(start)
                found += file.read(end - start) or b""
    return bytes(found)
