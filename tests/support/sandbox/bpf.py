"""A kernel for seccomp filters: runs a classic BPF program on one system call."""

from __future__ import annotations

import struct

ALLOW = 0x7FFF0000
KILL = 0x80000000


def refused(errno: int) -> int:
    """The answer by which a call fails with `errno`."""
    return 0x00050000 | errno


def answer(program: bytes, arch: int, number: int, *arguments: int) -> int:
    """What the filter says to a system call. Wrong programs raise, as the kernel would not have taken them."""
    words = [argument & 0xFFFFFFFFFFFFFFFF for argument in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0x7F0000000000, *words)
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at, register = 0, 0
    while True:
        operation, when_true, when_false, value = code[at]
        at += 1
        if operation == 0x20:
            assert value % 4 == 0
            register = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            register &= value
        elif operation == 0x06:
            return value
        else:
            true = {0x15: register == value, 0x35: register >= value, 0x45: bool(register & value)}[operation]
            at += when_true if true else when_false
