"""Giving up rights, step by step, with nothing but the standard library.

A zygote calls `check_platform`, then, loaded, `lock_zygote`. A child calls `enter_child` right after the fork and
`lock_child` once its engine is open. The order within each matters; the comments say why.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL

import seccomp
from control import Limits
from syscalls import ARCHES, Arch

NOBODY = 65534
"""User and group that root becomes."""
NICENESS = 5
"""A tenant's busy loop yields to the worker, the database and everything else that keeps the platform going."""
DESCRIPTORS = 16
"""A child's limit; it has four."""
ZYGOTE_DESCRIPTORS = 1024

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC = 1, 1
_CAPABILITY_VERSION_3 = 0x20080522
_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class CannotLock(Exception):
    """This platform lacks a wall that must stand; one sentence for a person."""


@functools.cache
def arch() -> Arch:
    """This machine's. Raises :class:`CannotLock` where there is no table for it."""
    found = ARCHES.get(platform.machine())
    if sys.platform != "linux" or found is None or struct.calcsize("P") != 8:
        raise CannotLock(f"there are sandboxes on 64-bit Linux on x86-64 and ARM only, not on {platform.platform()}")
    return found


def check_platform() -> None:
    """Raises :class:`CannotLock` if the kernel cannot filter system calls of all threads of a process."""
    try:
        # With the flag but without a program: EFAULT when it would work.
        call("seccomp", _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, 0)
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise CannotLock(f"this kernel, or the container around it, allows no seccomp filters ({error})") from None


def filter_children(more: Iterable[str]) -> bytes:
    """What `lock_child` wants, made before the fork."""
    return seccomp.child_filter(arch(), more)


def lock_zygote(parent: int, *, landlock: bool = True) -> dict[str, int]:
    """Give up what no child will need: root, groups, capabilities, files, sockets, programs. Facts for people."""
    machine = arch()
    _offer_to_oom_killer()
    os.nice(NICENESS)
    _become_nobody()
    _drop_capabilities()
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # Changing user resets both of these: they come after it.
    call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    die_with(parent)
    _limit(resource.RLIMIT_NOFILE, ZYGOTE_DESCRIPTORS)
    version = landlock_deny_all() if landlock else 0
    install(seccomp.zygote_filter(machine))
    return {"landlock": version, "uid": os.getuid(), "gid": os.getgid()}


def enter_child(zygote: int, limits: Limits, *, landlock: bool = True) -> None:
    """First thing after the fork, while there is one thread."""
    die_with(zygote)
    # A domain of its own: the zygote's would let siblings signal each other. A thread inherits it when it is started,
    # and only then (unlike the seccomp filter): this has to be before the engine starts any.
    if landlock:
        landlock_deny_all()
    for limit, value in (
        (resource.RLIMIT_CORE, 0),  # binds no handler of cores that is a program; not being dumpable does
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_DATA, limits.data),
    ):
        _limit(limit, value)
    soft = min(limits.cpu, _hard(resource.RLIMIT_CPU) - 1)
    resource.setrlimit(resource.RLIMIT_CPU, (soft, soft + 1))  # SIGXCPU, which code can ignore; a second later SIGKILL


def lock_child(child_filter: bytes) -> None:
    """Last thing before the first frame: from here on only what the filter allows, in every thread."""
    os.environ.clear()
    _limit(resource.RLIMIT_NPROC, 0)  # counts threads, too; those the engine has are there already
    install(seccomp.for_process(child_filter, os.getpid()))
    # The canary tries everything, once per zygote; every single child tries two calls nothing but the filter refuses.
    for name, arguments in (("socket", (1, 1, 0)), ("capget", (0, 0))):
        with suppress(PermissionError):
            call(name, *arguments)
            raise CannotLock("the filter is installed and does not filter")


def die_with(parent: int) -> None:
    """Be killed when the thread that started this process ends; at once if it already has."""
    call("prctl", _PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def landlock_deny_all() -> int:
    """Enter a Landlock domain in which nothing is allowed that Landlock can refuse. Its ABI version, 0: there is none.

    It cannot refuse everything (stat, UDP before ABI 8, sockets that exist): it is the second wall, never the first.
    """
    try:
        version = call("landlock_create_ruleset", 0, 0, 1)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):  # not built in; turned off; container forbids
            return 0
        raise
    attributes = ctypes.create_string_buffer(landlock_attributes(version))
    ruleset = call("landlock_create_ruleset", ctypes.addressof(attributes), len(attributes) - 1, 0)
    call("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
    return version


def landlock_attributes(version: int) -> bytes:
    """`struct landlock_ruleset_attr` with all an ABI knows. Older ones refuse longer structs and unknown bits."""
    files = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):  # refer, truncate, ioctl on devices
        if version >= since:
            files |= 1 << bit
    fields = [files]
    if version >= 4:
        fields.append(3)  # TCP bind and connect
    if version >= 6:
        fields.append(3)  # abstract Unix sockets and signals beyond the domain
    return struct.pack(f"={len(fields)}Q", *fields)


def install(program: bytes) -> None:
    """Filter this process's system calls from now on, in all of its threads."""
    code = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    buffer = ctypes.create_string_buffer(header, len(header))
    failed = call("seccomp", _SECCOMP_SET_MODE_FILTER, _SECCOMP_FILTER_FLAG_TSYNC, ctypes.addressof(buffer))
    if failed:  # the id of a thread that has filters of its own: it cannot be brought under this one
        raise CannotLock(f"thread {failed} cannot be locked")


def call(name: str, *arguments: int) -> int:
    """A system call by name. Raises OSError."""
    result = _raw(name, *arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _raw(name: str, *arguments: int) -> int:
    # All as longs: the C function is variadic, and the upper halves of ints would be whatever was in the registers.
    return _libc.syscall(ctypes.c_long(arch().numbers[name]), *map(ctypes.c_long, arguments))


def _become_nobody() -> None:
    if os.geteuid() != 0 and os.getuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError as error:
        raise CannotLock(f"root cannot become another user here ({error}): run Millrace as an ordinary user") from None


def _drop_capabilities() -> None:
    """Root lost its own with its name; an ordinary process may have been given some."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(24)
    call("capset", ctypes.addressof(header), ctypes.addressof(nothing))


def _offer_to_oom_killer() -> None:
    """When memory runs out, sandboxes go first: what ran in them is replayed."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit(limit: int, value: int) -> None:
    value = min(value, _hard(limit))
    resource.setrlimit(limit, (value, value))


def _hard(limit: int) -> int:
    hard = resource.getrlimit(limit)[1]
    return (1 << 62) if hard == resource.RLIM_INFINITY else hard
