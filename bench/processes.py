"""What the platform's processes use, read from /proc: CPU seconds and resident memory by role."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
ROLES = ("api", "worker", "sandbox", "postgres", "redis")


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    command: str
    cpu: float
    """Seconds, with those of children that are gone."""
    rss: int
    """Bytes."""


def read(pid: int) -> Process | None:
    """A process as it is now; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    cpu = sum(int(field) for field in fields[11:15]) / TICKS
    return Process(pid, int(fields[1]), command, cpu, int(fields[21]) * PAGE)


class Tree:
    """The processes below `root` (`millrace dev`), by role."""

    def __init__(self, root: int) -> None:
        self._root = root

    def by_role(self) -> dict[str, list[Process]]:
        everyone = {
            process.pid: process
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and (process := read(int(entry.name))) is not None
        }
        roles: dict[str, list[Process]] = {role: [] for role in ROLES}
        for process in everyone.values():
            role = self._role(process, everyone)
            if role is not None:
                roles[role].append(process)
        return roles

    def cpu(self) -> dict[str, float]:
        """CPU seconds used so far, by role."""
        return {role: sum(process.cpu for process in them) for role, them in self.by_role().items()}

    def rss(self, role: str) -> int:
        """Resident bytes of a role's processes."""
        return sum(process.rss for process in self.by_role()[role])

    def pids(self, role: str) -> list[int]:
        return [process.pid for process in self.by_role()[role]]

    def _role(self, process: Process, everyone: dict[int, Process]) -> str | None:
        """A process has the role of its ancestor right below the root; a worker's children are sandboxes."""
        below = process
        while below.parent != self._root:
            parent = everyone.get(below.parent)
            if parent is None:
                return None
            below = parent
        command = below.command
        if "postgres" in command.split(" ")[0]:
            return "postgres"
        if "valkey" in command or "redis" in command.split(" ")[0]:
            return "redis"
        if " serve" in command:
            return "api"
        if " worker" in command:
            return "worker" if below is process else "sandbox"
        return None
