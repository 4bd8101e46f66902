"""One wall alone: what still holds when another one does not."""

from __future__ import annotations

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


@pytest.fixture
async def children(tmp_path, monkeypatch):
    """Two children behind Landlock, user and limits, but without any seccomp filter. (A host would refuse them.)"""
    weakened(tmp_path, monkeypatch, *NO_SECCOMP)
    zygote = Zygote("hostile", hostile(), when_over=lambda _: None)
    try:
        await zygote.ready()
        if zygote.facts["landlock"] < 6:
            pytest.skip("this kernel's Landlock knows no scopes")
        yield await zygote.fork(), await zygote.fork()
    finally:
        await zygote.close()


@pytest.mark.parametrize(
    "source",
    [
        "open('/etc/passwd')",
        "os.listdir('/')",
        "open('/tmp/escaped', 'w')",
        "os.mkdir('/tmp/escaped')",
        "os.execv('/bin/true', ['true'])",
        f"open('/proc/{os.getpid()}/environ')",
        f"os.kill({os.getpid()}, 0)",
        "os.kill(os.getppid(), 0)",
        "os.kill(SIBLING, 0)",
        "os.kill(1, 0)",
        "call('ptrace', 0x4206, SIBLING, 0, 0)",
        "call('ptrace', 0x4206, os.getppid(), 0, 0)",
        "socket.socket().connect(('127.0.0.1', 1))",
        "socket.socket().bind(('127.0.0.1', 0))",
        "os.fork()",
        "os.setuid(0)",
        "resource.setrlimit(resource.RLIMIT_NPROC, (9, 9)) or os.fork()",
    ],
)
async def test_without_seccomp_files_processes_and_tcp_are_out_of_reach(children, source):
    sibling, child = children
    await sibling.ready()
    names = f"SIBLING = {sibling.pid}"
    for attempt in (source, f"elsewhere(lambda: ({source}))"):
        said = (await do(child, names, attempt))[1]
        assert isinstance(said, list), said
        assert said[1] in (1, 11, 13, "not allowed to raise maximum limit"), said
