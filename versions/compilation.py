"""From the modules of an upload to what a sandbox is given, for every language; and who looks whether it runs."""

from __future__ import annotations

import base64
import posixpath
import re
from collections.abc import Collection, Iterable, Mapping
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
_COMMONJS = re.compile(r"(?<![.\w$])(?:module\.exports\b|exports\.[\w$]+\s*=|require\s*\()")
NODE_MODULES = frozenset({
    "assert", "async_hooks", "buffer", "child_process", "cluster", "console", "constants", "crypto", "dgram",
    "diagnostics_channel", "dns", "domain", "events", "fs", "http", "http2", "https", "inspector", "module", "net",
    "os", "path", "perf_hooks", "process", "punycode", "querystring", "readline", "repl", "stream",
    "string_decoder", "sys", "timers", "tls", "tty", "url", "util", "v8", "vm", "wasi", "worker_threads", "zlib",
})  # fmt: skip
"""Modules of Node that may be named without `node:`. The sandbox knows which of them there are."""


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
    stripped: dict[str, str] = {}
    """JavaScript of the modules that were TypeScript, by name."""


class ScriptChecker(Protocol):
    """Loads a script in a sandbox of its own, as it will be loaded to run."""

    async def check(self, script: CompiledScript, flags: Iterable[str], variables: Mapping[str, Any]) -> dict[str, str]:
        """What the script exports, by name. Raises :class:`ScriptInvalid` with the place of what is wrong."""
        ...

    async def strip(self, modules: Mapping[str, str]) -> dict[str, str]:
        """TypeScript modules without their types. Raises :class:`ScriptInvalid` with the place of what is wrong."""
        ...


def typescript_modules(upload: Upload) -> dict[str, str]:
    """Texts of the modules in TypeScript, by name without `./`."""
    return {each.name.removeprefix("./"): _text(each) for each in upload.modules if kind_of(each) == "ts"}


def compile_upload(upload: Upload, stripped: Mapping[str, str]) -> CompiledScript:
    """`stripped`: modules in TypeScript, without types. Raises :class:`ScriptInvalid` naming the module, and the
    line where there is one."""
    if upload.metadata.main_module is None:
        raise ScriptInvalid("scripts must be ES modules or Python: give main_module, not body_part")
    main = find_module(upload.modules, upload.metadata.main_module)
    assert main is not None
    language = PYTHON if kind_of(main) == "python" else JAVASCRIPT
    code: list[Code] = []
    modules: list[dict[str, Any]] = []
    names = {module.name.removeprefix("./") for module in upload.modules}
    for module in upload.modules:
        kind = kind_of(module)
        if kind in _IGNORED:
            continue
        if kind == "wasm":
            raise ScriptInvalid(f"module {module.name!r} is WebAssembly, which does not run here")
        name = module.name.removeprefix("./")
        if kind == "ts" and name not in stripped:
            raise ScriptInvalid(f"module {module.name!r} is TypeScript, which needs sandboxes: none run here")
        kind = "js" if kind == "ts" else kind
        if kind in ("js", "python"):
            if (kind == "python") != (language == PYTHON):
                raise ScriptInvalid(f"module {module.name!r} is not {_SHOWN[language]}, as the main module is")
            text = stripped[name] if name in stripped else _text(module)
            if kind == "js":
                text = _as_function(name, text, names)
            code.append(Code(name, text))
            modules.append({"name": name, "type": kind})
        elif kind == "data":
            modules.append({"name": name, "type": kind, "b64": _base64(module)})
        else:
            modules.append({"name": name, "type": kind, "text": _text(module)})
    if language == PYTHON:
        check_modules([(module.name, module.text) for module in code])
    main_name = main.name.removeprefix("./")
    return CompiledScript(language=language, main=main_name, code=code, modules=modules, stripped=dict(stripped))


def _as_function(name: str, text: str, names: Collection[str]) -> str:
    """A JavaScript module as the engine is given it. Raises :class:`ScriptInvalid` for imports that lead nowhere."""
    translated = translate(name, text)
    for wanted in translated.imports:
        if not _may_exist(wanted.specifier, name, names):
            place = f"{name}:{wanted.line}:{wanted.column}"
            raise ScriptInvalid(f'{place}: No such module "{wanted.specifier}": the upload has none of that name')
    if not translated.imports and not translated.exports:
        found = _COMMONJS.search(text)
        if found is not None:
            line = text.count("\n", 0, found.start()) + 1
            column = found.start() - text.rfind("\n", 0, found.start())
            raise ScriptInvalid(f"{name}:{line}:{column}: CommonJS does not run here: modules must import and export")
    return translated.text


def _may_exist(specifier: str, importer: str, names: Collection[str]) -> bool:
    """Whether an import may find a module: one of the upload, or of the platform, which the sandbox knows."""
    if ":" in specifier:
        return True
    if specifier.startswith("."):
        path = posixpath.normpath(posixpath.join(posixpath.dirname(importer), specifier))
        return path in names or specifier.removeprefix("./") in names
    return specifier in names or specifier.split("/")[0] in NODE_MODULES


def kind_of(module: Module) -> str:
    """`js`, `ts`, `python`, `json`, `text`, `data`, `wasm`, or what is left out."""
    kind = _TYPES.get(module.type)
    by_name = _SUFFIXES.get(PurePosixPath(module.name).suffix.lower())
    if kind is None or kind == "text" or by_name == "ts":
        return by_name or kind or "data"
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
