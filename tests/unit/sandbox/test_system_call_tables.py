"""Numbers of system calls: one table for two machines."""

import re
from pathlib import Path

import pytest
import seccomp
from syscalls import ARCHES, LEGACY

HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h")),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"),),
}
REPLACED = {
    "open", "creat", "stat", "lstat", "access", "readlink", "getdents", "fork", "vfork", "poll", "select", "pipe",
    "epoll_create", "epoll_wait", "dup2", "unlink", "mkdir", "rename", "chmod", "eventfd", "signalfd", "inotify_init",
    "arch_prctl", "modify_ldt", "iopl", "ioperm", "uselib", "time", "alarm", "pause", "getpgrp", "utime",
}  # fmt: skip
"""Calls aarch64 never had."""


def test_both_machines_know_the_same_names():
    x86, arm = ARCHES["x86_64"].numbers, ARCHES["aarch64"].numbers
    assert x86.keys() - LEGACY.keys() == arm.keys()


def test_arm_has_no_legacy_calls():
    assert not ARCHES["aarch64"].numbers.keys() & (REPLACED | LEGACY.keys())
    assert LEGACY.keys() <= REPLACED


@pytest.mark.parametrize("machine", ARCHES)
def test_every_number_is_used_once(machine):
    numbers = ARCHES[machine].numbers
    assert len(set(numbers.values())) == len(numbers)
    assert all(0 <= number < 512 for number in numbers.values())


@pytest.mark.parametrize("machine", ARCHES)
def test_what_filters_name_exists(machine):
    assert ARCHES[machine].numbers.keys() >= seccomp.BASE | seccomp.OPTIONAL
    assert ARCHES["x86_64"].numbers.keys() >= seccomp.NEVER


def test_nothing_is_both_allowed_and_refused():
    assert not seccomp.BASE & seccomp.OPTIONAL
    assert not (seccomp.BASE | seccomp.OPTIONAL) & seccomp.NEVER


@pytest.mark.parametrize("machine", ARCHES)
def test_numbers_are_the_kernels(machine):
    header = next((path for path in HEADERS[machine] if path.exists()), None)
    if header is None:
        pytest.skip("no kernel headers here")
    text = header.read_text().replace("\\\n", " ")
    kernel: dict[str, int] = {}
    for name, number in re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)", text):
        kernel.setdefault(name, int(number))
    kernel.setdefault("newfstatat", kernel["fstatat"]) if machine == "aarch64" else None
    known = {name: number for name, number in ARCHES[machine].numbers.items() if name in kernel}
    assert known == {name: kernel[name] for name in known}
    assert len(known) > 0.9 * len(ARCHES[machine].numbers)
