"""`millrace dev` as a process of its own, as a user starts it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from app.cli.installation import Ready
from tests.support.servers import CHECKOUT

START_SECONDS = 90


class DevServer:
    """One `millrace dev`. `environment` is added to an otherwise bare one."""

    def __init__(self, directory: Path, *options: str, environment: dict[str, str] | None = None) -> None:
        self.directory = directory
        self.ready_file = directory.with_name(f"{directory.name}.ready")
        self._arguments = ["--data-dir", str(directory), "--port", "0", "--ready-file", str(self.ready_file), *options]
        self._environment = {"PYTHONPATH": str(CHECKOUT), "PATH": os.environ["PATH"], **(environment or {})}
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None
        return self._process

    def start(self) -> DevServer:
        """Start it; returns at once."""
        self.ready_file.unlink(missing_ok=True)  # a killed predecessor's
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "app.cli.main", "dev", *self._arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environment,
            cwd="/",
            start_new_session=True,
        )
        return self

    async def ready(self) -> Ready:
        """Wait until it runs."""
        deadline = time.monotonic() + START_SECONDS
        while not self.ready_file.exists():
            if self.process.poll() is not None:
                raise AssertionError(f"it ended with {self.process.returncode}: {self.process.communicate()[1]}")
            assert time.monotonic() < deadline, "it did not become ready"
            await asyncio.sleep(0.05)
        return msgspec.json.decode(self.ready_file.read_bytes(), type=Ready)

    async def ended(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, standard output, standard error."""
        out, err = await asyncio.to_thread(self.process.communicate, timeout=START_SECONDS)
        return self.process.returncode, out, err

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return await self.ended()

    def clean_up(self) -> None:
        """Whatever happened, leave no process behind. In order if possible, or PostgreSQL leaves memory."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.communicate(timeout=START_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def processes(self, *words: str) -> list[int]:
        """Processes of this server: its children, and whatever names its folder; those whose command has `words`."""
        tree = _processes()
        wanted = {pid for pid, (_, command) in tree.items() if os.fsencode(self.directory) in command}
        if self._process is not None:
            wanted.add(self._process.pid)
        while grown := {pid for pid, (parent, _) in tree.items() if parent in wanted} - wanted:
            wanted |= grown
        wanted -= {os.getpid()}
        return sorted(pid for pid in wanted if pid in tree and all(word.encode() in tree[pid][1] for word in words))


def _processes() -> dict[int, tuple[int, bytes]]:
    """Living processes: parent and command line."""
    found: dict[int, tuple[int, bytes]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(entry.name)] = (int(fields[1]), (entry / "cmdline").read_bytes())
        except OSError:
            continue
    return found
