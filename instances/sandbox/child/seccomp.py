"""The seccomp filters, as classic BPF programs. Pure: nothing here talks to the kernel.

A child gets an allow-list: what is not on it fails with EPERM, whatever it is and whenever the kernel got it. (An
error instead of death, because libraries probe for calls they can do without, and do so only under load.) Arguments
are looked at where a call does more than one thing; pointers cannot be, so calls that are only told apart behind a
pointer (clone3) are refused. The zygote, which has to fork, gets a list of what even it must never do.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable

from syscalls import Arch

BASE = frozenset(
    (
        "read", "write", "close",
        "mmap", "mprotect", "munmap", "mremap", "madvise", "brk",  # mmap, mprotect and madvise: see _ARGUMENTS
        "futex", "sched_yield", "sched_getaffinity",
        # A thread that was started right before the lock may not have got through libc's own beginning: it registers
        # these, and glibc aborts the process when rseq fails.
        "rseq", "set_robust_list",
        # abseil (in V8) asks for the scheduling class when a mutex is contended, and aborts when it cannot: a child
        # without these two dies under load only.
        "sched_getparam", "sched_getscheduler",
        "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall",
        "tgkill",  # abort() and raise(); to itself only, see child_filter
        "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "getrusage",
        "getpid", "gettid", "getrandom", "exit", "exit_group",
    )
)  # fmt: skip
"""What every child may call after the lock, whatever its engine."""

NEVER = frozenset(
    (
        "execve", "execveat", "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp",
        "pidfd_open", "pidfd_getfd", "pidfd_send_signal", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "tkill",
        "openat", "openat2", "name_to_handle_at", "open_by_handle_at", "memfd_create", "memfd_secret",
        "mkdirat", "unlinkat", "chdir", "chroot", "mount", "umount2", "pivot_root", "fsopen", "open_tree",
        "move_mount", "mount_setattr", "fanotify_init", "inotify_init1",
        "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4",
        "personality", "unshare", "setns", "keyctl", "add_key", "request_key",
        "bpf", "perf_event_open", "io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup", "userfaultfd",
        "shmget", "msgget", "semget", "mq_open", "init_module", "finit_module", "delete_module", "kexec_load",
        "reboot", "swapon", "sethostname", "clock_settime", "settimeofday", "acct", "quotactl", "syslog",
        "open", "creat", "readlink", "getdents", "unlink", "mkdir", "uselib", "modify_ldt", "iopl", "ioperm",
    )
)  # fmt: skip
"""What not even a zygote may do once it is loaded."""

OPTIONAL = frozenset(("fstat", "lseek", "membarrier", "ppoll", "pselect6", "sysinfo", "uname"))
"""What an engine may ask for on top of `BASE`: harmless, and not needed by all."""

ALLOW = 0x7FFF0000
KILL = 0x80000000
"""End the whole process."""


def _refuse(number: int) -> int:
    return 0x00050000 | number


_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
"""Where `struct seccomp_data` has them. Of the 64-bit arguments, the low half is read (both machines are little-endian;
what is compared here are ints and flags, whose high half the kernel drops)."""

PROT_EXEC = 4
UNACCOUNTED = 0x1 | 0x100 | 0x40000
"""MAP_SHARED, MAP_GROWSDOWN, MAP_HUGETLB: writable memory that RLIMIT_DATA does not count."""
MADV_MERGEABLE = 12
"""Lets the kernel merge equal pages of different processes, which makes what others hold measurable."""
FUTEX_FLAGS = 0x80 | 0x100
"""FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME."""
FUTEX_PLAIN = (0, 1, 3, 4, 5, 9, 10)
"""WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET. Not the priority-inheriting ones, which nothing
here needs and which have let programs into the kernel before."""

_ITSELF = b"\xef\xbe\xad\x7f"
"""Stands for the process's own id, and is larger than any."""


class Program:
    """A classic BPF program under construction; jumps are relative and forward."""

    def __init__(self) -> None:
        self._code = bytearray()

    def bytes(self) -> bytes:
        return bytes(self._code)

    def load(self, offset: int) -> None:
        self._add(0x20, 0, 0, offset)

    def argument(self, index: int) -> None:
        self.load(_FIRST_ARGUMENT + 8 * index)

    def mask(self, bits: int) -> None:
        self._add(0x54, 0, 0, bits)

    def answer(self, action: int) -> None:
        self._add(0x06, 0, 0, action)

    def if_equal(self, value: int, action: int) -> None:
        self._add(0x15, 0, 1, value)
        self.answer(action)

    def unless_equal(self, value: int, action: int) -> None:
        self._add(0x15, 1, 0, value)
        self.answer(action)

    def if_at_least(self, value: int, action: int) -> None:
        self._add(0x35, 0, 1, value)
        self.answer(action)

    def if_any_bit(self, bits: int, action: int) -> None:
        self._add(0x45, 0, 1, bits)
        self.answer(action)

    def case(self, number: int, block: Program) -> None:
        """`block`, which has to answer in every case, if the loaded call is `number`."""
        self._add(0x15, 0, len(block._code) // 8, number)
        self._code += block._code

    def _add(self, code: int, when_true: int, when_false: int, value: int) -> None:
        self._code += struct.pack("=HBBI", code, when_true, when_false, value)


def child_filter(arch: Arch, more: Iterable[str] = ()) -> bytes:
    """The allow-list of children: `BASE` and `more`, which is part of `OPTIONAL`. To be completed by `for_process`."""
    asked = frozenset(more)
    if refused := asked - OPTIONAL:
        raise ValueError(f"no sandbox may call {', '.join(sorted(refused))}")
    numbers = arch.numbers
    arguments = _arguments()
    program = _begin(arch)
    for name in sorted((BASE | asked) - arguments.keys()):
        program.if_equal(numbers[name], ALLOW)
    for name, block in arguments.items():
        program.case(numbers[name], block)
    # glibc tries clone3 first and falls back to clone only when it is told that there is no such call.
    program.if_equal(numbers["clone3"], _refuse(errno.ENOSYS))
    program.answer(_refuse(errno.EPERM))
    return program.bytes()


def for_process(child_filter: bytes, pid: int) -> bytes:
    """The filter of the child with this process id. (Making it anew would take a fifth of the time a fork takes.)"""
    assert child_filter.count(_ITSELF) == 1
    return child_filter.replace(_ITSELF, struct.pack("=I", pid))


def zygote_filter(arch: Arch) -> bytes:
    """What a zygote, and with it every child, is refused from the moment it is loaded."""
    program = _begin(arch)
    for name in sorted(NEVER & arch.numbers.keys()):
        program.if_equal(arch.numbers[name], _refuse(errno.EPERM))
    program.answer(ALLOW)
    return program.bytes()


def _begin(arch: Arch) -> Program:
    program = Program()
    program.load(_ARCH)
    program.unless_equal(arch.audit, KILL)  # 32-bit calls have other numbers: `int 0x80` would pass as something else
    program.load(_NUMBER)
    if arch.x32_bit:
        program.if_at_least(arch.x32_bit, KILL)  # same architecture to seccomp, other numbers
    return program


def _arguments() -> dict[str, Program]:
    """Calls that are allowed for some arguments only."""
    mmap = Program()
    mmap.argument(2)
    mmap.if_any_bit(PROT_EXEC, _refuse(errno.EACCES))
    mmap.argument(3)
    mmap.if_any_bit(UNACCOUNTED, _refuse(errno.EPERM))
    mmap.answer(ALLOW)

    mprotect = Program()
    mprotect.argument(2)
    mprotect.if_any_bit(PROT_EXEC, _refuse(errno.EACCES))
    mprotect.answer(ALLOW)

    madvise = Program()
    madvise.argument(2)
    madvise.if_equal(MADV_MERGEABLE, _refuse(errno.EPERM))
    madvise.answer(ALLOW)

    futex = Program()
    futex.argument(1)
    futex.mask(0xFFFFFFFF & ~FUTEX_FLAGS)
    for operation in FUTEX_PLAIN:
        futex.if_equal(operation, ALLOW)
    futex.answer(_refuse(errno.ENOSYS))

    # On the list by name, it would let a child signal every process of its user: compare with its own id.
    tgkill = Program()
    tgkill.argument(0)
    tgkill.if_equal(*struct.unpack("=I", _ITSELF), ALLOW)
    tgkill.answer(_refuse(errno.EPERM))
    return {"mmap": mmap, "mprotect": mprotect, "madvise": madvise, "futex": futex, "tgkill": tgkill}
