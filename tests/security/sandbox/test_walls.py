"""One wall alone: what still holds when another one does not."""

from __future__ import annotations

import errno
import os

import pytest

from instances.sandbox.zygote import Zygote
from tests.support.sandbox import do, hostile, weakened

BEGINNING = "    code = ctypes.create_string_buffer(program"
NO_SECCOMP = (
    ("lockdown.py", BEGINNING, f"    return\n{BEGINNING}"),
    (
        "lockdown.py",
        'for name, arguments in (("socket", (1, 1, 0)), ("capget", (0, 0))):',
        "for name, arguments in ():",
    ),
)


SOURCES = [
    "open('/etc/passwd')",
    "os.listdir('/')",
    "open('/tmp/escaped', 'w')",
    "os.mkdir('/tmp/escaped')",
    "os.execv('/bin/true', ['true'])",
    "open(f'/proc/{TESTS}/environ')",
    "os.kill(TESTS, 0)",
    "os.kill(os.getppid(), 0)",
    "os.kill(SIBLING, 0)",
    "os.kill(1, 0)",
    "call('ptrace', 0x4206, SIBLING, 0, 0)",
    "call('ptrace', 0x4206, os.getppid(), 0, 0)",
    "socket.socket().connect(('127.0.0.1', 1))",
    "socket.socket().bind(('127.0.0.1', 0))",
    "os.fork()",
    "os.setuid(0)",
    "resource.setrlimit(resource.RLIMIT_NPROC, (9, 9))",
]
REFUSALS = (errno.EPERM, errno.EACCES, errno.EAGAIN, "not allowed to raise maximum limit")


@pytest.fixture(scope="module")
async def tried(tmp_path_factory):
    """All of it in a child behind Landlock, user and limits, without any filter. (A host would not have it.)"""
    with pytest.MonkeyPatch.context() as patch:
        weakened(tmp_path_factory.mktemp("weak"), patch, *NO_SECCOMP)
        zygote = Zygote("hostile", hostile(), when_over=lambda _: None)
    try:
        await zygote.ready()
        if zygote.facts["landlock"] < 6:
            pytest.skip("this kernel's Landlock knows no scopes")
        sibling, child = await zygote.fork(), await zygote.fork()
        await sibling.ready()
        await do(child, f"SIBLING = {sibling.pid}", f"TESTS = {os.getpid()}")
        here = await do(child, *SOURCES)
        elsewhere = await do(child, *(f"elsewhere(lambda: ({source}))" for source in SOURCES))
        return dict(zip(SOURCES, zip(here, elsewhere, strict=True), strict=True))
    finally:
        await zygote.close()


@pytest.mark.parametrize("source", SOURCES)
def test_without_seccomp_files_processes_and_tcp_are_out_of_reach(tried, source):
    for said in tried[source]:
        assert isinstance(said, list), said
        assert said[1] in REFUSALS, said
