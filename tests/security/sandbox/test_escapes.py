"""Every way out of a sandbox, tried from inside: as root and as an ordinary user, with Landlock and without."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).parents[2] / "support" / "sandbox" / "driver.py"

DENIED = {
    "read a file": "open('/etc/passwd').read()",
    "read the root directory": "os.listdir('/')",
    "look at a file": "os.stat('/etc/passwd')",
    "look at a link": "os.readlink('/proc/self/exe')",
    "say where it is": "os.getcwd()",
    "go elsewhere": "os.chdir('/tmp')",
    "write a file": "open('/tmp/escaped', 'w')",
    "write to /dev/shm": "open('/dev/shm/escaped', 'w')",
    "make a directory": "os.mkdir('/tmp/escaped')",
    "remove a file": "os.unlink('/tmp/escaped')",
    "link a file": "os.link('/etc/passwd', '/tmp/escaped')",
    "change an owner": "os.chown('/tmp', 0, 0)",
    "make a device": "os.mknod('/tmp/escaped', 0o60600)",
    "read randomness from a device": "open('/dev/urandom', 'rb')",
    "open a file by handle": "call('open_by_handle_at', -100, 0, 0)",
    "read the worker's environment": "open(f'/proc/{WORKER}/environ', 'rb').read()",
    "read the worker's memory": "open(f'/proc/{WORKER}/mem', 'rb').read()",
    "read the zygote's environment": "open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "read its own environment": "open('/proc/self/environ', 'rb').read()",
    "read its own memory map": "open('/proc/self/maps').read()",
    "list processes": "os.listdir('/proc')",
    "list its descriptors": "os.listdir('/proc/self/fd')",
    "make a TCP socket": "socket.socket().connect(('127.0.0.1', 5432))",
    "make a UDP socket": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "make a raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "make a Unix socket": "socket.socket(socket.AF_UNIX)",
    "make a netlink socket": "socket.socket(16, socket.SOCK_RAW)",
    "make a packet socket": "socket.socket(17, socket.SOCK_RAW)",
    "make an ALG socket": "socket.socket(38, 5)",
    "make a VSOCK socket": "socket.socket(40, 1)",
    "make a pair of sockets": "socket.socketpair()",
    "connect its socket": "call('connect', 3, 0, 0)",
    "accept on its socket": "call('accept', 3, 0, 0)",
    "listen on its socket": "call('listen', 3, 1)",
    "send a descriptor": "call('sendmsg', 3, 0, 0)",
    "receive a descriptor": "call('recvmsg', 3, 0, 0x40)",
    "resolve a name": "fail(isinstance(error_of(lambda: socket.getaddrinfo(b'example.org', 80)), OSError))",
    "fork": "os.fork()",
    "fork a terminal": "os.forkpty()",
    "vfork": "call('clone', 0x4111, 0, 0, 0, 0)",
    "run a program": "os.execv('/bin/true', ['true'])",
    "run a program by descriptor": "call('execveat', 3, 0, 0, 0, 0x1000)",
    "start a process": "subprocess.Popen(['/bin/true'])",
    "spawn a process": "os.posix_spawn('/bin/true', ['true'], {})",
    "start a shell": "fail(os.system('true') in (-1, 127 << 8))",
    "wait for somebody": "os.waitpid(-1, os.WNOHANG)",
    "signal the worker": "os.kill(WORKER, 0)",
    "kill the worker": "os.kill(WORKER, signal.SIGKILL)",
    "kill the zygote": "os.kill(os.getppid(), signal.SIGKILL)",
    "kill a sibling": "os.kill(SIBLING, signal.SIGKILL)",
    "kill a sibling's thread": "call('tgkill', SIBLING, SIBLING, signal.SIGKILL)",
    "kill the worker's thread": "call('tgkill', WORKER, WORKER, signal.SIGKILL)",
    "kill everybody": "os.kill(-1, signal.SIGKILL)",
    "kill init": "os.kill(1, signal.SIGKILL)",
    "kill a group": "os.killpg(0, signal.SIGKILL)",
    "kill by task": "call('tkill', SIBLING, 9)",
    "queue a signal": "call('rt_sigqueueinfo', SIBLING, 9, 0)",
    "queue a signal to a thread": "call('rt_tgsigqueueinfo', SIBLING, SIBLING, 9, 0)",
    "hold the worker": "os.pidfd_open(WORKER)",
    "hold a sibling": "os.pidfd_open(SIBLING)",
    "take the worker's descriptors": "call('pidfd_getfd', 3, 0, 0)",
    "trace the worker": "call('ptrace', 16, WORKER, 0, 0)",
    "trace a sibling": "call('ptrace', 0x4206, SIBLING, 0, 0)",
    "be traced": "call('ptrace', 0, 0, 0, 0)",
    "read the worker's memory by call": "call('process_vm_readv', WORKER, 0, 0, 0, 0, 0)",
    "write a sibling's memory by call": "call('process_vm_writev', SIBLING, 0, 0, 0, 0, 0)",
    "advise a sibling's memory": "call('process_madvise', 3, 0, 0, 0, 0)",
    "compare processes": "call('kcmp', WORKER, SIBLING, 0, 0, 0)",
    "change a sibling's limits": "resource.prlimit(SIBLING, resource.RLIMIT_CPU, (0, 0))",
    "raise its limits": "call('prlimit64', 0, 2, 0, 0)",
    "raise its limits the old way": "call('setrlimit', 2, 0)",
    "read its limits": "resource.getrlimit(resource.RLIMIT_DATA)",
    "raise its priority": "call('setpriority', 0, 0, -20)",
    "become real-time": "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))",
    "choose its processor": "os.sched_setaffinity(0, {0})",
    "become root": "os.setuid(0)",
    "become root's group": "os.setgid(0)",
    "change its groups": "os.setgroups([0])",
    "get capabilities": "call('capset', 0, 0)",
    "leave its namespaces": "call('unshare', 0x10000000)",
    "enter a namespace": "call('setns', 3, 0)",
    "change its root": "os.chroot('/')",
    "mount": "call('mount', 0, 0, 0, 0, 0)",
    "be dumpable": "call('prctl', 4, 1, 0, 0, 0)",
    "outlive the zygote": "call('prctl', 1, 0, 0, 0, 0)",
    "change its personality": "call('personality', 0x400000)",
    "filter its calls": "call('seccomp', 1, 0, 0)",
    "make a Landlock ruleset": "call('landlock_create_ruleset', 0, 0, 1)",
    "start a thread": "call('clone', 0x10f00, 0, 0, 0, 0)",
    "start a process the new way": "call('clone3', 0, 0)",
    "make an anonymous file": "os.memfd_create('x')",
    "make a secret file": "call('memfd_secret', 0)",
    "make a pipe": "os.pipe()",
    "duplicate a descriptor": "os.dup(3)",
    "duplicate a descriptor onto another": "os.dup2(3, 0)",
    "change a descriptor": "__import__('fcntl').fcntl(3, 4, 0)",
    "control a device": "__import__('fcntl').ioctl(3, 0x541B, bytes(8))",
    "push input into a terminal": "__import__('fcntl').ioctl(0, 0x5412, b'x')",
    "make an event descriptor": "os.eventfd(0)",
    "make an epoll": "select.epoll()",
    "make a timer descriptor": "call('timerfd_create', 1, 0)",
    "make a signal descriptor": "call('signalfd4', -1, 0, 8, 0)",
    "watch files": "call('inotify_init1', 0)",
    "watch the whole system's files": "call('fanotify_init', 0, 0)",
    "share memory": "mmap.mmap(-1, 4096)",
    "share memory by System V": "call('shmget', 0, 4096, 0o1600)",
    "send System V messages": "call('msgget', 0, 0o1600)",
    "use System V semaphores": "call('semget', 0, 1, 0o1600)",
    "open a message queue": "call('mq_open', 0, 0, 0, 0)",
    "map memory that grows down": "mmap.mmap(-1, 4096, flags=0x122)",
    "map huge pages": "mmap.mmap(-1, 1 << 21, flags=0x40022)",
    "map executable memory": "mmap.mmap(-1, 4096, flags=0x22, prot=7)",
    "make memory executable": "call('mprotect', id(self := 0) & ~4095, 4096, 5)",
    "merge pages": "mmap.mmap(-1, 4096, flags=0x22, prot=3).madvise(12)",
    "protect keys": "call('pkey_alloc', 0, 0)",
    "lock memory": "call('mlock', 0, 4096)",
    "bind memory": "call('mbind', 0, 0, 0, 0, 0, 0)",
    "remap files": "call('remap_file_pages', 0, 0, 0, 0, 0)",
    "use io_uring": "call('io_uring_setup', 1, 0)",
    "enter io_uring": "call('io_uring_enter', 3, 0, 0, 0, 0, 0)",
    "register with io_uring": "call('io_uring_register', 3, 0, 0, 0)",
    "use old asynchronous I/O": "call('io_setup', 1, 0)",
    "load BPF": "call('bpf', 0, 0, 0)",
    "count performance events": "call('perf_event_open', 0, 0, -1, -1, 0)",
    "handle page faults": "call('userfaultfd', 0)",
    "read keys": "call('keyctl', 0, -3, 0, 0, 0)",
    "add keys": "call('add_key', 0, 0, 0, 0, 0)",
    "request keys": "call('request_key', 0, 0, 0, 0)",
    "load a module": "call('init_module', 0, 0, 0)",
    "load a kernel": "call('kexec_load', 0, 0, 0, 0)",
    "reboot": "call('reboot', 0, 0, 0, 0)",
    "read the kernel's log": "call('syslog', 3, 0, 0)",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "name the host": "socket.sethostname('x')",
    "ask for the host's name": "os.uname()",
    "set an alarm": "signal.setitimer(signal.ITIMER_REAL, 1)",
    "make a timer": "call('timer_create', 0, 0, 0)",
    "inherit priorities": "call('futex', id(0), 6, 0, 0, 0, 0)",
}
"""What a tenant might try, each as Python that must end in an operating system's refusal."""

HARMLESS = {
    "read the clock": "time.time() > 0",
    "use memory": "len(bytearray(10 << 20)) == 10 << 20",
    "sleep": "time.sleep(0.001) is None",
    "draw random bytes": "len(os.urandom(8)) == 8",
    "signal itself": "call('tgkill', os.getpid(), os.getpid(), 0) == 0",
    "catch signals": "signal.signal(10, lambda *_: None) is not None and signal.raise_signal(10) is None",
    "print": "print('into the void') is None",
    "ask for its scheduling class": "os.sched_getscheduler(0) >= 0 and os.sched_getparam(0).sched_priority == 0",
}

REFUSALS = {errno.EPERM, errno.EACCES, errno.ENOSYS}
PREPARE = """
def fail(because):
    if because:
        raise PermissionError(1, "as it must be")

def error_of(function):
    try:
        function()
    except Exception as error:
        return error
"""
SWEEP = """
import lockdown, seccomp
numbers = lockdown.arch().numbers
allowed = {numbers[name] for name in seccomp.BASE | own.syscalls}
if lockdown.arch().machine == "x86_64":
    allowed |= {335, 336}  # uretprobe, uprobe: newer kernels filter them for nobody; useless outside a probe
result = []
for number in range(1000):
    if number not in allowed:
        outcome = lockdown._libc.syscall(number, 0, 0, 0, 0, 0, 0)
        why = ctypes.get_errno()
        if outcome != -1 or why != (38 if number == numbers["clone3"] else 1):
            result.append([number, outcome, why])
"""


def run(user: str, landlock: bool, frames: list[str]) -> dict:
    """Answers of a child of a worker that runs as `user`."""
    command = [sys.executable, "-P", str(DRIVER)]
    if user == "nobody":
        # A right that root had is handed on, to reach this interpreter wherever it is. Sandboxes must drop it.
        right = "+dac_read_search"
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps", right,
                   "--ambient-caps", right, *command]  # fmt: skip
    done = subprocess.run(
        command,
        input=json.dumps({"landlock": landlock, "frames": frames}),
        capture_output=True,
        text=True,
        env=dict(os.environ) | {"MILLRACE_SECRET": "must not be seen in there"},
        cwd="/",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


USERS = ["root", "nobody"] if os.getuid() == 0 else ["whoever runs this"]


@pytest.fixture(scope="module", params=[(user, landlock) for user in USERS for landlock in (True, False)], ids=str)
def tried(request):
    """`{what was tried: answer}`, everything in one child of a worker of that user."""
    user, landlock = request.param
    if user == "nobody" and shutil.which("setpriv") is None:
        pytest.skip("setpriv is needed to become nobody")
    sources = DENIED | HARMLESS
    elsewhere = {f"{name}, on another thread": f"elsewhere(lambda: ({source}))" for name, source in DENIED.items()
                 if "\n" not in source and ":=" not in source}  # fmt: skip
    said = run(user, landlock, [PREPARE, *sources.values(), *elsewhere.values(), SWEEP])
    assert said["uid"] == {"root": 0, "nobody": 65534}.get(user, os.getuid())
    assert said["facts"]["uid"] == (65534 if user in ("root", "nobody") else os.getuid())
    assert bool(said["facts"]["landlock"]) <= landlock
    rights = dict(line.split(":\t", 1) for line in said["rights"].splitlines() if ":\t" in line)
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(rights[kind], 16) == 0, "a right that the worker had was handed on"
    return dict(zip(["prepare", *sources, *elsewhere, "sweep"], said["answers"], strict=True))


@pytest.mark.parametrize("what", DENIED)
def test_it_cannot(tried, what):
    assert refused(tried[what]), tried[what]
    if f"{what}, on another thread" in tried:
        assert refused(tried[f"{what}, on another thread"]), tried[f"{what}, on another thread"]


@pytest.mark.parametrize("what", HARMLESS)
def test_it_can(tried, what):
    assert tried[what] is True


def test_every_call_that_is_not_listed_is_refused(tried):
    assert tried["sweep"] == []


def refused(answer) -> bool:
    return isinstance(answer, list) and len(answer) == 2 and answer[1] in REFUSALS
