"""What the seccomp filters answer, for every call on both machines."""

import errno

import pytest
import seccomp
from syscalls import ARCHES

from tests.support.sandbox.bpf import ALLOW, KILL, answer, refused

PID = 4242
EPERM = refused(errno.EPERM)
READ, WRITE, EXEC = 1, 2, 4
PRIVATE, SHARED, ANONYMOUS, GROWSDOWN, NORESERVE, HUGETLB = 0x2, 0x1, 0x20, 0x100, 0x4000, 0x40000
BY_ARGUMENT = {"mmap", "mprotect", "madvise", "futex", "tgkill"}


@pytest.fixture(params=ARCHES)
def arch(request):
    return ARCHES[request.param]


@pytest.fixture
def ask(arch):
    program = seccomp.for_process(seccomp.child_filter(arch, ("fstat",)), PID)

    def ask(name, *arguments):
        number = arch.numbers[name] if isinstance(name, str) else name
        return answer(program, arch.audit, number, *arguments)

    return ask


def test_a_child_is_allowed_what_is_listed_and_nothing_else(arch, ask):
    allowed = {arch.numbers[name] for name in seccomp.BASE - BY_ARGUMENT} | {arch.numbers["fstat"]}
    judged_by_argument = {arch.numbers[name] for name in BY_ARGUMENT}
    for number in range(1024):
        if number == arch.numbers["clone3"]:
            assert ask(number) == refused(errno.ENOSYS)
        elif number not in judged_by_argument:
            assert ask(number, -1, -1, -1, -1, -1, -1) == (ALLOW if number in allowed else EPERM), number


def test_calls_of_other_machines_kill(arch):
    program = seccomp.child_filter(arch)
    for other in (0x40000003, 0x40000028, 0, *(each.audit for each in ARCHES.values() if each is not arch)):
        assert answer(program, other, arch.numbers["read"]) == KILL
        assert answer(seccomp.zygote_filter(arch), other, arch.numbers["read"]) == KILL


def test_the_second_abi_of_x86_kills():
    arch = ARCHES["x86_64"]
    for program in (seccomp.child_filter(arch), seccomp.zygote_filter(arch)):
        for number in (0, 1, 59, 520, 545):
            assert answer(program, arch.audit, 0x40000000 + number) == KILL
        assert answer(program, arch.audit, -1) == KILL


def test_no_memory_becomes_executable(ask):
    denied = refused(errno.EACCES)
    for protection in (EXEC, READ | EXEC, WRITE | EXEC, READ | WRITE | EXEC, EXEC | 1 << 40):
        assert ask("mmap", 0, 4096, protection, PRIVATE | ANONYMOUS, -1, 0) == denied
        assert ask("mprotect", 0x1000, 4096, protection) == denied
    for protection in (0, READ, READ | WRITE):
        assert ask("mmap", 0, 4096, protection, PRIVATE | ANONYMOUS | NORESERVE, -1, 0) == ALLOW
        assert ask("mprotect", 0x1000, 4096, protection) == ALLOW


@pytest.mark.parametrize("flag", [SHARED, SHARED | PRIVATE, PRIVATE | GROWSDOWN, PRIVATE | HUGETLB])
def test_no_memory_escapes_its_limit(ask, flag):
    assert ask("mmap", 0, 1 << 30, READ | WRITE, flag | ANONYMOUS, -1, 0) == EPERM


def test_a_child_signals_itself_only(ask):
    assert ask("tgkill", PID, PID, 6) == ALLOW
    assert ask("tgkill", PID, 1, 6) == ALLOW
    for other in (PID + 1, 1, 0, -1, PID - 1, PID << 32):
        assert ask("tgkill", other, other, 9) == EPERM


def test_the_filter_has_to_be_completed(arch):
    program = seccomp.child_filter(arch)
    assert answer(program, arch.audit, arch.numbers["tgkill"], PID) == EPERM
    assert seccomp.for_process(program, 1) != seccomp.for_process(program, 2)


def test_pages_are_not_merged_with_those_of_others(ask):
    assert ask("madvise", 0, 4096, 12) == EPERM
    assert ask("madvise", 0, 4096, 4) == ALLOW


def test_waiting_is_allowed_priority_inheritance_is_not(ask):
    for flags in (0, 0x80, 0x100, 0x180):
        for operation in (0, 1, 3, 4, 5, 9, 10):
            assert ask("futex", 0, operation | flags) == ALLOW
        for operation in (2, 6, 7, 8, 11, 12, 13, 64):
            assert ask("futex", 0, operation | flags) == refused(errno.ENOSYS)


def test_what_dies_only_under_load_is_allowed(ask):
    """abseil aborts without these two, and asks only when a mutex is contended."""
    assert ask("sched_getparam", 0, 0) == ask("sched_getscheduler", 0) == ALLOW


def test_a_thread_that_has_just_started_gets_through_its_beginning(ask):
    assert ask("rseq") == ask("set_robust_list") == ALLOW


@pytest.mark.parametrize("name", ["openat", "socket", "execve", "clone", "kill", "prctl", "newfstatat", "nonsense"])
def test_no_engine_can_ask_for_more_than_is_harmless(arch, name):
    with pytest.raises(ValueError, match=name):
        seccomp.child_filter(arch, ("fstat", name))


def test_a_zygote_forks_but_opens_connects_and_executes_nothing(arch):
    program = seccomp.zygote_filter(arch)
    for name, number in arch.numbers.items():
        assert answer(program, arch.audit, number) == (EPERM if name in seccomp.NEVER else ALLOW), name
    for name in ("clone", "wait4", "kill", "recvmsg", "sendto", "seccomp", "prctl", "landlock_restrict_self"):
        assert answer(program, arch.audit, arch.numbers[name]) == ALLOW
    for name in ("execve", "socket", "connect", "openat", "ptrace", "bpf", "io_uring_setup", "unshare", "setns"):
        assert answer(program, arch.audit, arch.numbers[name]) == EPERM


def test_programs_are_as_the_kernel_wants_them(arch):
    for program in (seccomp.child_filter(arch, seccomp.OPTIONAL), seccomp.zygote_filter(arch)):
        assert len(program) % 8 == 0
        assert len(program) // 8 <= 4096
