"""Looking at a script before it is stored: it is loaded once, in a sandbox that ends with it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from instances.runtimes.protocol import SessionLost
from instances.runtimes.scripts.isolate import Isolate
from instances.runtimes.scripts.loading import LoadedScript, load_parts
from instances.runtimes.scripts.messages import LoadFailed
from instances.sandbox.errors import SandboxUnavailable
from instances.sandbox.host import SandboxHost
from versions.compilation import CompiledScript
from versions.errors import ScriptInvalid

LOAD_MS = 10_000
"""CPU time loading may take."""
_NOT_TAKEN = re.compile(r"<anonymous>:(?P<line>\d+)(?::\d+)?: (?:\w+: )?(?P<what>[^\n]*)")
"""What the engine says of a module it does not take; the code follows."""
_PLACE = re.compile(r"(?P<module>[^\s:]+):(?P<line>\d+)(?::(?P<column>\d+))?")


class SandboxChecker:
    """See `versions.compilation.ScriptChecker`. `hosts`: sandboxes by language."""

    def __init__(self, hosts: Mapping[str, SandboxHost]) -> None:
        self._hosts = hosts

    async def check(self, script: CompiledScript, flags: Iterable[str], variables: Mapping[str, Any]) -> dict[str, str]:
        """What the script exports, by name. Raises :class:`ScriptInvalid`."""
        host = self._hosts[script.language]
        try:
            process = await host.spawn()
        except SandboxUnavailable as error:
            raise ScriptInvalid(f"scripts do not run here: {error.reason}") from error
        isolate = Isolate(process, LOAD_MS)
        try:
            load = await isolate.load(load_parts(LoadedScript.of(script, variables=variables, flags=flags)))
        except SessionLost:
            raise ScriptInvalid(_DEATHS.get(isolate.dead or "", "the script ended its sandbox")) from None
        finally:
            await isolate.close()
        if load.failure is not None:
            raise ScriptInvalid(describe(load.failure))
        return load.exports


_DEATHS = {
    "cpu": "the script does not come to an end when it is loaded",
    "memory": "the script uses up its memory when it is loaded",
}


def describe(failure: LoadFailed) -> str:
    """What went wrong and where: `<module>:<line>:<column>: <Name>: <message>`."""
    error = failure.error
    text = f"{error.name}: {error.message}"
    if failure.line is not None:
        column = "" if failure.column is None else f":{failure.column}"
        return f"{failure.module}:{failure.line}{column}: {text}"
    if failure.module is not None and (said := _NOT_TAKEN.match(error.message)):
        return f"{failure.module}:{said['line']}: {error.name}: {said['what']}"
    place = _PLACE.search(error.stack or "")
    return f"{place.group()}: {text}" if place is not None else text
