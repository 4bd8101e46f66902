"""Looking at a script before it is stored: it is loaded once, in a sandbox that ends with it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from instances.runtimes.protocol import SessionLost
from instances.runtimes.scripts.isolate import Isolate, encode
from instances.runtimes.scripts.loading import LoadedScript, load_parts
from instances.runtimes.scripts.messages import LoadFailed, Stripped, Violation, decode_stripped
from instances.sandbox.errors import SandboxDied, SandboxUnavailable
from instances.sandbox.host import SandboxHost
from instances.sandbox.process import SandboxProcess
from versions.compilation import CompiledScript
from versions.errors import ScriptInvalid

LOAD_MS = 3_000
"""CPU time loading may take."""
_NOT_TAKEN = re.compile(r"<anonymous>:(?P<line>\d+)(?::\d+)?: (?:\w+: )?(?P<what>[^\n]*)")
"""What the engine says of a module it does not take; the code follows."""
STRIP_MS = 20_000
"""CPU time that taking types out may take."""
_PLACE = re.compile(r"(?P<module>[^\s:()]+):(?P<line>\d+)(?::(?P<column>\d+))?")


class SandboxChecker:
    """See `versions.compilation.ScriptChecker`. `hosts`: sandboxes by language."""

    def __init__(self, hosts: Mapping[str, SandboxHost]) -> None:
        self._hosts = hosts

    async def check(self, script: CompiledScript, flags: Iterable[str], variables: Mapping[str, Any]) -> dict[str, str]:
        """What the script exports, by name. Raises :class:`ScriptInvalid`."""
        process = await self._spawn(script.language)
        isolate = Isolate(process, LOAD_MS)
        try:
            load = await isolate.load(load_parts(LoadedScript.of(script, variables=variables, flags=flags)))
        except SessionLost:
            raise ScriptInvalid(_DEATHS.get(isolate.dead or "", "the script ended its sandbox")) from None
        finally:
            await isolate.close()
        if load.failure is not None:
            raise ScriptInvalid(describe(load.failure, [module.name for module in script.code]))
        if not load.settled:
            raise ScriptInvalid("the script is never loaded: it awaits something at its top level that never comes")
        return load.exports

    async def strip(self, modules: Mapping[str, str]) -> dict[str, str]:
        """TypeScript modules as JavaScript, by name. Raises :class:`ScriptInvalid` with the place of what is wrong."""
        parts = [encode({"op": "strip", "name": name, "text": text}) for name, text in modules.items()]
        process = await self._spawn("javascript")
        try:
            said = decode_stripped(await process.exchange(parts, STRIP_MS / 1000))
        except SandboxDied as died:
            raise ScriptInvalid(_DEATHS.get(died.cause, "the script ended its sandbox")) from None
        except Violation:
            raise ScriptInvalid("the types of the script could not be taken out") from None
        finally:
            await process.close()
        for answer in said:
            if isinstance(answer, LoadFailed):
                raise ScriptInvalid(describe(answer))
        stripped = {answer.module: answer.text for answer in said if isinstance(answer, Stripped)}
        if stripped.keys() != modules.keys():
            raise ScriptInvalid("the types of the script could not be taken out")
        return stripped

    async def _spawn(self, language: str) -> SandboxProcess:
        try:
            return await self._hosts[language].spawn()
        except SandboxUnavailable as error:
            raise ScriptInvalid(f"scripts do not run here: {error.reason}") from error


_DEATHS = {
    "cpu": "the script does not come to an end when it is loaded",
    "memory": "the script uses up its memory when it is loaded",
}


def describe(failure: LoadFailed, modules: Collection[str] = ()) -> str:
    """What went wrong and where: `<module>:<line>:<column>: <Name>: <message>`. A place is one in `modules`."""
    error = failure.error
    text = f"{error.name}: {error.message}"
    if failure.line is not None:
        column = "" if failure.column is None else f":{failure.column}"
        return f"{failure.module}:{failure.line}{column}: {text}"
    if failure.module is not None and (said := _NOT_TAKEN.match(error.message)):
        return f"{failure.module}:{said['line']}: {error.name}: {said['what']}"
    for place in _PLACE.finditer(error.stack or ""):
        if place["module"] in modules:
            return f"{place.group()}: {text}"
    return text
