"""One sandbox process as its worker sees it."""

from __future__ import annotations

from collections.abc import Sequence

from instances.sandbox.errors import SandboxDied

Part = bytes | bytearray | memoryview


class SandboxProcess:
    """A locked child process and the connection to it. Made by :meth:`SandboxHost.spawn`.

    One exchange at a time: a second one while the first is in flight is a bug of the caller (RuntimeError).
    """

    pid: int
    language: str
    exchanges: int
    """Exchanges completed."""

    @property
    def alive(self) -> bool:
        """False as soon as its end has been noticed; an exchange would raise :class:`SandboxDied`."""
        raise NotImplementedError

    async def ready(self) -> None:
        """Wait until its engine is open and it is locked; `exchange` does that, too. Raises :class:`SandboxDied`."""
        raise NotImplementedError

    async def exchange(self, parts: Sequence[Part], deadline: float) -> bytes:
        """Send one frame and return the body of the answer, undecoded (hostile bytes, at most 32 MiB).

        `deadline`: seconds of CPU time. At that many seconds of wall time a process that used them, or that hangs
        without using any, is killed; one that was only starved by others gets the rest, up to four times the deadline.

        Raises :class:`SandboxDied` when the process ends, is killed, or says what is not an answer; ValueError when the
        frame is over 32 MiB (nothing was sent). Cancelled: the process is killed.
        """
        raise SandboxDied("gone")

    async def ended(self) -> SandboxDied:
        """Wait for its end, however it comes about; how it ended, as the exception exchanges raise from then on."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it now (cause `gone`); an exchange in flight raises. Harmless when it is dead."""
        raise NotImplementedError

    async def close(self) -> None:
        """`kill`, then wait until the process does not exist any more."""
        raise NotImplementedError

    def memory(self) -> int | None:
        """Bytes of resident memory, what it shares with its zygote included; None when it cannot be read."""
        raise NotImplementedError

    def grown(self) -> int | None:
        """Bytes of resident memory gained since it was ready; None when that cannot be read."""
        raise NotImplementedError

    def cpu(self) -> float:
        """CPU seconds used in its life. Measured from outside: nothing in the sandbox can falsify it."""
        raise NotImplementedError
