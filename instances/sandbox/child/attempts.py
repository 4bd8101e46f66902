"""What the canary tries from inside a locked child: every kind of way out. Nothing may succeed, or reach the kernel.

Arguments are chosen so that a call that does get through does no harm: signal 0, no pointers behind structs, programs
that do nothing.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
from collections.abc import Iterator
from typing import NoReturn

import lockdown
from frames import Frames

_HERE = -100
"""AT_FDCWD"""
_CONNECTION = 3
_PAGE = 4096
_PRIVATE, _SHARED, _ANONYMOUS, _GROWSDOWN, _HUGETLB = 0x2, 0x1, 0x20, 0x100, 0x40000
_READ, _WRITE, _EXEC = 1, 2, 4
_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000
_SIGCHLD = 17
_DONTWAIT = 0x40


def serve(frames: Frames) -> NoReturn:
    """Answer each frame with a JSON list of what could be done although it must not."""
    while True:
        while frames.next_part() is not None:
            pass
        frames.reply(json.dumps(escapes()).encode())


def escapes() -> list[str]:
    """Try everything."""
    numbers = lockdown.arch().numbers
    found = []
    for name, arguments, expected in _attempts():
        if name not in numbers:
            continue  # a call this architecture never had
        try:
            result = lockdown.call(name, *arguments)
        except OSError as error:
            if error.errno not in expected:
                found.append(f"{name} ({errno.errorcode.get(error.errno or 0, error.errno)})")
        else:
            if name in ("fork", "vfork", "clone") and result == 0:
                os._exit(0)
            found.append(f"{name}{arguments[:2]}")
    return found + list(_left_behind())


def _left_behind() -> Iterator[str]:
    for descriptor in range(_CONNECTION + 1, 1024):
        try:
            os.close(descriptor)
            yield f"descriptor {descriptor} was open"
        except OSError:
            pass
    environment = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    if environment and environment[0] is not None:
        yield "the environment was not empty"


def _attempts() -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    denied = (errno.EPERM,)
    for name, *arguments in (*_files(), *_sockets(), *_processes(), *_rights(), *_kernel(), *_descriptors()):
        yield str(name), tuple(int(argument) for argument in arguments), denied
    yield "clone3", (0, 0), (errno.ENOSYS,)
    yield "futex", (_text(b"\0" * 8), 6, 0, 0), (errno.ENOSYS,)
    own = lockdown.call("mmap", 0, _PAGE, _READ | _WRITE, _PRIVATE | _ANONYMOUS, -1, 0)
    yield "mprotect", (own, _PAGE, _READ | _EXEC), (errno.EACCES,)
    yield "mmap", (0, _PAGE, _READ | _EXEC, _PRIVATE | _ANONYMOUS, -1, 0), (errno.EACCES,)
    for flags in (_SHARED | _ANONYMOUS, _PRIVATE | _ANONYMOUS | _GROWSDOWN, _PRIVATE | _ANONYMOUS | _HUGETLB):
        yield "mmap", (0, _PAGE, _READ | _WRITE, flags, -1, 0), denied


def _files() -> Iterator[tuple[str | int, ...]]:
    root, program, buffer = _text(b"/"), _text(b"/proc/self/exe"), _text(b"\0" * 512)
    secrets = _text(f"/proc/{os.getppid()}/environ".encode())
    yield "open", root, 0
    yield "openat", _HERE, root, 0
    yield "openat", _HERE, secrets, 0
    yield "openat", _HERE, _text(b"/dev/null"), 2
    yield "openat2", _HERE, root, 0, 0
    yield "stat", root, buffer
    yield "newfstatat", _HERE, root, buffer, 0
    yield "statx", _HERE, root, 0, 0, buffer
    yield "faccessat", _HERE, root, 0
    yield "readlink", program, buffer, 64
    yield "readlinkat", _HERE, program, buffer, 64
    yield "getcwd", buffer, 64
    yield "chdir", root
    yield "mkdirat", _HERE, root, 0
    yield "unlinkat", _HERE, root, 0
    yield "memfd_create", root, 0
    yield "memfd_secret", 0
    yield "name_to_handle_at", _HERE, root, 0, 0, 0
    yield "open_by_handle_at", _HERE, 0, 0
    yield "inotify_init1", 0
    yield "fanotify_init", 0, 0
    for name in ("mount", "umount2", "pivot_root", "fsopen", "open_tree", "move_mount", "mount_setattr"):
        yield name, 0, 0, 0, 0, 0


def _sockets() -> Iterator[tuple[str | int, ...]]:
    unix, inet, netlink, stream, raw = 1, 2, 16, 1, 3
    yield "socket", inet, stream, 0
    yield "socket", unix, stream, 0
    yield "socket", netlink, raw, 0
    yield "socketpair", unix, stream, 0, _text(b"\0" * 8)
    for name in ("connect", "bind", "listen", "accept", "accept4"):
        yield name, _CONNECTION, 0, 0, 0
    for name in ("sendto", "recvfrom", "sendmsg", "recvmsg"):  # sendmsg and recvmsg could carry descriptors
        yield name, _CONNECTION, 0, 0, _DONTWAIT, 0, 0


def _processes() -> Iterator[tuple[str | int, ...]]:
    zygote, program = os.getppid(), _text(b"/bin/true")
    yield "kill", zygote, 0
    yield "kill", -1, 0
    yield "kill", os.getpid(), 0
    yield "tkill", zygote, 0
    yield "tgkill", zygote, zygote, 0
    yield "rt_sigqueueinfo", zygote, 0, 0
    yield "rt_tgsigqueueinfo", zygote, zygote, 0, 0
    yield "pidfd_open", zygote, 0
    yield "pidfd_send_signal", _CONNECTION, 0, 0, 0
    yield "pidfd_getfd", _CONNECTION, 0, 0
    yield "ptrace", 16, zygote, 0, 0
    yield "ptrace", 0, 0, 0, 0
    yield "process_vm_readv", zygote, 0, 0, 0, 0, 0
    yield "process_vm_writev", zygote, 0, 0, 0, 0, 0
    yield "process_madvise", _CONNECTION, 0, 0, 0, 0
    yield "kcmp", zygote, zygote, 0, 0, 0
    yield "wait4", -1, 0, 1, 0
    yield "waitid", 0, 0, 0, 0, 0
    yield "execve", program, 0, 0
    yield "execveat", _HERE, program, 0, 0, 0
    yield "clone", _SIGCHLD, 0, 0, 0, 0
    yield "clone", _THREAD, 0, 0, 0, 0
    yield ("fork",)
    yield ("vfork",)


def _rights() -> Iterator[tuple[str | int, ...]]:
    yield "setuid", 0
    yield "setgid", 0
    yield "setresuid", 0, 0, 0
    yield "setresgid", 0, 0, 0
    yield "setgroups", 0, 0
    yield "capget", 0, 0
    yield "capset", 0, 0
    yield "unshare", 0x10000000
    yield "setns", _CONNECTION, 0
    yield "chroot", _text(b"/")
    yield "personality", 0xFFFFFFFF
    yield "prctl", 3, 0, 0, 0, 0
    yield "prctl", 4, 1, 0, 0, 0
    yield "seccomp", 1, 0, 0
    yield "prlimit64", 0, 2, 0, 0
    yield "getrlimit", 2, 0
    yield "setrlimit", 2, 0
    yield "setpriority", 0, 0, 0
    yield "sched_setscheduler", 0, 0, 0
    yield "sched_setaffinity", 0, 0, 0
    for name in ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "keyctl", "add_key"):
        yield name, 0, 0, 0, 0
    yield "request_key", 0, 0, 0, 0


def _kernel() -> Iterator[tuple[str | int, ...]]:
    yield "bpf", 0, 0, 0
    yield "perf_event_open", 0, 0, -1, -1, 0
    yield "io_uring_setup", 1, _text(b"\0" * 128)
    yield "io_uring_enter", _CONNECTION, 0, 0, 0, 0, 0
    yield "io_uring_register", _CONNECTION, 0, 0, 0
    yield "io_setup", 1, _text(b"\0" * 8)
    yield "userfaultfd", 1
    for name in ("shmget", "msgget", "semget"):
        yield name, 0, _PAGE, 0o1600
    yield "mq_open", _text(b"m"), 0, 0, 0
    yield "remap_file_pages", 0, 0, 0, 0, 0
    yield "pkey_mprotect", 0, 0, 0, 0
    yield "pkey_alloc", 0, 0
    yield "mlock", 0, 0
    yield "mbind", 0, 0, 0, 0, 0, 0
    yield "madvise", 0, 0, 12
    for name in ("init_module", "finit_module", "delete_module", "kexec_load", "reboot", "swapon", "acct", "quotactl"):
        yield name, 0, 0, 0, 0, 0
    for name in ("sethostname", "clock_settime", "settimeofday", "syslog", "timer_create", "setitimer"):
        yield name, -1, 0, 0, 0
    for name in ("uselib", "modify_ldt", "iopl", "ioperm"):
        yield name, 0, 0, 0


def _descriptors() -> Iterator[tuple[str | int, ...]]:
    yield "dup", _CONNECTION
    yield "dup2", _CONNECTION, 9
    yield "dup3", _CONNECTION, 9, 0
    yield "fcntl", _CONNECTION, 1, 0
    yield "ioctl", _CONNECTION, 0, 0
    yield "pipe", 0
    yield "pipe2", 0, 0
    yield "eventfd2", 0, 0
    yield "epoll_create", 1
    yield "epoll_create1", 0
    yield "signalfd4", -1, 0, 0, 0
    yield "timerfd_create", 0, 0
    yield "splice", _CONNECTION, 0, _CONNECTION, 0, 0, 0
    yield "vmsplice", _CONNECTION, 0, 0, 0


_kept: list[ctypes.Array[ctypes.c_char]] = []


def _text(text: bytes) -> int:
    """The address of a C string."""
    buffer = ctypes.create_string_buffer(text)
    _kept.append(buffer)
    return ctypes.addressof(buffer)
