"""The runtimes of scripts: one per language, all made of the same parts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from instances.runtimes.protocol import StoredVersion
from instances.runtimes.scripts.loading import LoadedScript
from instances.runtimes.scripts.program import ScriptProgram, Surroundings

Load = Callable[[UUID, UUID], Awaitable[LoadedScript]]
"""`load(account_id, script_id)`: an upload, ready for a sandbox."""


class ScriptRuntime:
    """Runs the scripts of one language. See :class:`instances.runtimes.protocol.Runtime`."""

    def __init__(self, number: int, load: Load, surroundings: Surroundings) -> None:
        self.number = number
        self._load = load
        self._around = surroundings

    async def open(self, version: StoredVersion) -> ScriptProgram:
        """Raises what `load` raises."""
        account_id, script_id = version.account_id, version.script_id
        assert script_id is not None
        script = await self._load(account_id, script_id)
        return ScriptProgram(version, script, self._around, lambda: self._load(account_id, script_id))
