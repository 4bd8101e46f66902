"""What a sandbox is given to load a script."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from instances.runtimes.scripts.isolate import encode
from versions.compilation import JAVASCRIPT, Code, CompiledScript

CPU_MS = 30_000
"""CPU time of one step attempt when neither the script nor the account says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedScript:
    """An upload with everything its sandbox is given. Secrets are in clear text here, and nowhere else."""

    language: str = JAVASCRIPT
    main: str
    code: Sequence[Code] = ()
    """Modules with code, in the order they are given to the sandbox."""
    modules: Sequence[Mapping[str, Any]] = ()
    """All modules: `{name, type: js|python|text|json|data, text? | b64?}`; content only of those without code."""
    vars: Mapping[str, Any] = field(default_factory=dict)
    """Texts, JSON values and secrets, by binding."""
    workflows: Mapping[str, str] = field(default_factory=dict)
    """Workflow bindings: handle by binding."""
    exports: Mapping[str, str] = field(default_factory=dict)
    """Handle of the workflow of each class of this script (`ctx.exports`)."""
    flags: frozenset[str] = frozenset()
    cpu_ms: int = CPU_MS
    subrequests: int | None = None
    """Fetches the script allows its runs."""

    @classmethod
    def of(
        cls,
        script: CompiledScript,
        *,
        variables: Mapping[str, Any],
        flags: Iterable[str],
        workflows: Mapping[str, str] | None = None,
        exports: Mapping[str, str] | None = None,
        cpu_ms: int | None = None,
        subrequests: int | None = None,
    ) -> LoadedScript:
        return cls(
            language=script.language,
            main=script.main,
            code=script.code,
            modules=script.modules,
            vars=variables,
            workflows=workflows or {},
            exports=exports or {},
            flags=frozenset(flags),
            cpu_ms=cpu_ms or CPU_MS,
            subrequests=subrequests,
        )


def load_parts(script: LoadedScript) -> list[bytes]:
    """The parts of the frame that loads it: sources, then the order to run the main module."""
    kind = b"S" if script.language == JAVASCRIPT else b"P"
    load = {
        "op": "load",
        "main": script.main,
        "modules": list(script.modules),
        "vars": dict(script.vars),
        "workflows": dict(script.workflows),
        "exports": dict(script.exports),
        "flags": sorted(script.flags),
        "entropy": base64.b64encode(os.urandom(32)).decode(),
    }
    return [*(_source(kind, code) for code in script.code), encode(load)]


def _source(kind: bytes, code: Code) -> bytes:
    return kind + msgspec.json.encode({"module": code.name}) + b"\n" + code.text.encode("utf-8", "surrogatepass")
