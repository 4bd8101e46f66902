"""The child's side of supervision: end when the supervisor is gone, say when ready.

The supervisor hands over two pipes by environment variables. One never carries anything: it reads as closed when the
supervisor ends, however it ends. Into the other the child writes one byte when it can do its work.
"""

from __future__ import annotations

import os
import signal
import threading

LIFELINE = "MILLRACE_LIFELINE_FD"
NOTIFY = "MILLRACE_NOTIFY_FD"


def follow_supervisor() -> None:
    """Ask this process to end (SIGTERM) when the supervisor is gone. Does nothing in a process that has none."""
    descriptor = _take(LIFELINE)
    if descriptor is not None:
        threading.Thread(target=_wait_for_end, args=(descriptor,), name="lifeline", daemon=True).start()


def tell_ready() -> None:
    """Tell the supervisor, if there is one, that this process can do its work."""
    descriptor = _take(NOTIFY)
    if descriptor is not None:
        os.write(descriptor, b"1")
        os.close(descriptor)


def _take(variable: str) -> int | None:
    text = os.environ.pop(variable, None)
    if text is None:
        return None
    os.set_inheritable(int(text), False)  # children of ours are none of the supervisor's
    return int(text)


def _wait_for_end(descriptor: int) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
