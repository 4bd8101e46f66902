"""From the modules of an upload to what a sandbox is given, for every language; and who looks whether it runs."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, Protocol

import msgspec

from versions.errors import ScriptInvalid
from versions.javascript.modules import translate
from versions.python.check import check_modules
from versions.uploads import SOURCE_MAP, Module, Upload, find_module

JAVASCRIPT, PYTHON = "javascript", "python"
_SHOWN = {JAVASCRIPT: "JavaScript", PYTHON: "Python"}
RUNTIMES = {JAVASCRIPT: 1, PYTHON: 2}
"""Numbers of the runtimes, as `instances.runtimes.protocol` has them."""

_TYPES = {
    "application/javascript+module": "js",
    "text/javascript+module": "js",
    "application/javascript": "js",
    "text/javascript": "js",
    "application/typescript": "ts",
    "text/x-typescript": "ts",
    "text/x-python": "python",
    "text/x-python-requirement": "requirement",
    "application/json": "json",
    "text/plain": "text",
    "application/wasm": "wasm",
    SOURCE_MAP: "map",
}
_SUFFIXES = {
    ".js": "js", ".mjs": "js", ".ts": "ts", ".mts": "ts", ".py": "python", ".json": "json", ".txt": "text",
    ".html": "text", ".sql": "text", ".wasm": "wasm", ".map": "map",
}  # fmt: skip
_IGNORED = ("map", "requirement")


class Code(msgspec.Struct, frozen=True):
    """A module as the engine evaluates it."""

    name: str
    text: str


class CompiledScript(msgspec.Struct, frozen=True, kw_only=True):
    """A script, ready for a sandbox. `modules`: `{name, type, text? | b64?}`; of those in `code`, no content."""

    language: str
    main: str
    code: list[Code]
    modules: list[dict[str, Any]]
    exports: dict[str, str] = {}
    """What the main module exports: `workflow`, `worker` or `other`, by name."""


class ScriptChecker(Protocol):
    """Loads a script in a sandbox of its own, as it will be loaded to run."""

    async def check(self, script: CompiledScript, flags: Iterable[str], variables: Mapping[str, Any]) -> dict[str, str]:
        """What the script exports, by name. Raises :class:`ScriptInvalid` with the place of what is wrong."""
        ...


def compile_upload(upload: Upload) -> CompiledScript:
    """Raises :class:`ScriptInvalid` naming the module, and the line where there is one."""
    if upload.metadata.main_module is None:
        raise ScriptInvalid("scripts must be ES modules or Python: give main_module, not body_part")
    main = find_module(upload.modules, upload.metadata.main_module)
    assert main is not None
    language = PYTHON if kind_of(main) == "python" else JAVASCRIPT
    code: list[Code] = []
    modules: list[dict[str, Any]] = []
    for module in upload.modules:
        kind = kind_of(module)
        if kind in _IGNORED:
            continue
        if kind == "wasm":
            raise ScriptInvalid(f"module {module.name!r} is WebAssembly, which does not run here")
        name = module.name.removeprefix("./")
        if kind in ("js", "python"):
            if (kind == "python") != (language == PYTHON):
                raise ScriptInvalid(f"module {module.name!r} is not {_SHOWN[language]}, as the main module is")
            text = _text(module)
            code.append(Code(name, translate(name, text).text if kind == "js" else text))
            modules.append({"name": name, "type": kind})
        elif kind == "data":
            modules.append({"name": name, "type": kind, "b64": _base64(module)})
        else:
            modules.append({"name": name, "type": kind, "text": _text(module)})
    if language == PYTHON:
        check_modules([(module.name, module.text) for module in code])
    return CompiledScript(language=language, main=main.name.removeprefix("./"), code=code, modules=modules)


def kind_of(module: Module) -> str:
    """`js`, `ts`, `python`, `json`, `text`, `data`, `wasm`, or what is left out."""
    kind = _TYPES.get(module.type)
    if kind is None or kind == "text":
        kind = _SUFFIXES.get(PurePosixPath(module.name).suffix.lower(), kind or "data")
    return kind


def _text(module: Module) -> str:
    try:
        return module.data.decode()
    except UnicodeDecodeError:
        raise ScriptInvalid(f"module {module.name!r} is not UTF-8 text") from None


def _base64(module: Module) -> str:
    if module.encoding == "base64":
        return module.content
    return base64.b64encode(module.data).decode()
