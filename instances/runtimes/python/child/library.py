"""Modules: what scripts may import, and where their own come from.

Everything is loaded before the first script: afterwards no file can be opened. What is not on the list stays out of
reach of an import statement. That is for clear errors and not for safety: the lock around the process is the wall.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
import types
import zoneinfo
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

ALLOWED = frozenset(
    (
        "__future__", "abc", "array", "ast", "asyncio", "base64", "binascii", "bisect", "builtins", "calendar", "cmath",
        "codecs", "collections", "colorsys", "contextlib", "contextvars", "copy", "csv", "dataclasses", "datetime",
        "decimal", "difflib", "email", "enum", "errno", "fnmatch", "fractions", "functools", "graphlib", "gzip",
        "hashlib", "heapq", "hmac", "html", "http", "inspect", "io", "ipaddress", "itertools", "json", "keyword",
        "logging", "math", "mimetypes", "numbers", "operator", "os", "pathlib", "posixpath", "pprint", "queue",
        "quopri", "random", "re", "secrets", "shlex", "statistics", "string", "stringprep", "struct", "sys",
        "textwrap", "time", "timeit", "tokenize", "tomllib", "traceback", "types", "typing", "unicodedata", "unittest",
        "urllib", "uuid", "warnings", "weakref", "workers", "xml", "zlib", "zoneinfo",
    )
)  # fmt: skip
"""Of the standard library, and this platform's `workers`."""
_BEHIND = frozenset(("_strptime", "_pydecimal", "copyreg", "locale", "pyexpat"))
"""What parts of the library that are written in C import in the name of the script that calls them."""

_LOADED = (
    "__future__", "array", "ast", "asyncio", "base64", "binascii", "bisect", "calendar", "cmath", "codecs",
    "collections.abc", "colorsys", "concurrent.futures", "contextlib", "contextvars", "copy", "csv", "dataclasses",
    "datetime", "decimal", "difflib", "email.headerregistry", "email.message", "email.mime.multipart",
    "email.mime.text", "email.parser", "email.policy", "email.utils", "encodings.ascii", "encodings.cp1252",
    "encodings.hex_codec", "encodings.idna", "encodings.latin_1", "encodings.punycode", "encodings.raw_unicode_escape",
    "encodings.unicode_escape", "encodings.utf_16", "encodings.utf_16_be", "encodings.utf_16_le", "encodings.utf_32",
    "encodings.utf_8_sig", "enum", "errno", "fnmatch", "fractions", "functools", "graphlib", "gzip", "hashlib",
    "heapq", "hmac", "html.entities", "html.parser", "http", "inspect", "io", "ipaddress", "itertools", "json",
    "keyword", "linecache", "locale", "logging.handlers", "math", "mimetypes", "numbers", "operator", "pathlib",
    "pprint", "queue", "quopri", "random", "re", "secrets", "shlex", "statistics", "string", "stringprep", "struct",
    "textwrap", "time", "timeit", "tokenize", "tomllib", "traceback", "types", "typing", "unicodedata",
    "unittest.mock", "urllib.parse", "uuid", "warnings", "weakref", "xml.dom.minidom", "xml.etree.ElementTree", "zlib",
    "_strptime", "_pydecimal", "pyexpat", "pickle", "copyreg", "opcode", "dis", "sre_constants",
)  # fmt: skip

_OUT_OF_REACH = (
    "ctypes", "_ctypes", "subprocess", "_posixsubprocess", "multiprocessing", "socket", "_socket", "mmap", "gc",
    "signal", "_signal", "resource", "posix", "threading", "_thread", "ssl", "_ssl", "select", "fcntl", "importlib",
)  # fmt: skip
"""Besides what this folder and the zygote consist of."""

HOME = "/session/metadata/"
"""Where a script's modules seem to be, as on Cloudflare: `Path(__file__).parent / "page.html"`."""


def load() -> None:
    """Import the library, once, in the zygote."""
    for name in _LOADED:
        importlib.import_module(name)
    _read_time_zones()


def _read_time_zones() -> None:
    """Time zones are files that are opened when a zone is first asked for. Those of the package are the same on every
    machine; without it, the machine's."""
    zones: dict[str, bytes] = {}
    package = importlib.util.find_spec("tzdata")
    packaged = [] if package is None or package.origin is None else [str(Path(package.origin).parent / "zoneinfo")]
    for name in zoneinfo.available_timezones():
        for folder in (*packaged, *zoneinfo.TZPATH):
            with suppress(OSError):
                zones[name] = (Path(folder) / name).read_bytes()
                break
    common = importlib.import_module("zoneinfo._common")

    def load_tzdata(key: str) -> io.BytesIO:
        if key not in zones:
            raise zoneinfo.ZoneInfoNotFoundError(f"No time zone found with key {key}")
        return io.BytesIO(zones[key])

    common.load_tzdata = load_tzdata  # type: ignore[attr-defined]
    zoneinfo.available_timezones = lambda: set(zones)
    zoneinfo.reset_tzpath(to=())


class ModuleRefused(Exception):
    """A module of the upload that cannot be one."""


class Library:
    """The modules of the script in this process."""

    def __init__(self) -> None:
        self._sources: dict[str, tuple[str, str]] = {}
        """Path and text by module name."""
        self._packages: set[str] = set()
        self._files: dict[str, bytes] = {}
        self._tops: set[str] = set()
        self._import = builtins.__import__
        self._open = io.open
        self.builtins: dict[str, Any] = vars(builtins) | {
            "__import__": self._import_for_script,
            "open": self.open,
            "input": _refuse("input"),
            "breakpoint": _refuse("breakpoint"),
        }

    def close_library(self, own: Iterable[str]) -> None:
        """In the child: nothing is found any more but what is loaded, and the modules of the script."""
        gone = {*_OUT_OF_REACH, *own}
        for name in [name for name in sys.modules if name.partition(".")[0] in gone]:
            del sys.modules[name]
        sys.meta_path[:] = [_Finder(self)]
        sys.path_hooks.clear()
        sys.path.clear()
        sys.path_importer_cache.clear()
        io.open = self.open  # pathlib's

    def add_source(self, path: str, text: str) -> None:
        """Raises :class:`ModuleRefused`."""
        bare = path.removeprefix("./").removeprefix("python_modules/").removesuffix(".py")
        parts = bare.split("/")
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
            self._packages.add(".".join(parts))
        if not all(part.isidentifier() for part in parts):
            raise ModuleRefused(f"module {path!r} cannot be imported: its name is no Python name")
        if parts[0] in sys.stdlib_module_names or parts[0] == "workers":
            raise ModuleRefused(f"module {path!r} has the name of a module that is there already: {parts[0]}")
        for length in range(1, len(parts)):
            self._packages.add(".".join(parts[:length]))
        self._tops.add(parts[0])
        self._sources[".".join(parts)] = (path, text)
        self._files[path] = text.encode("utf-8", "surrogatepass")

    def add_file(self, path: str, content: bytes) -> None:
        self._files[path.removeprefix("./")] = content

    def main(self, path: str) -> types.ModuleType:
        """Import the main module. Raises what it raises."""
        bare = path.removeprefix("./").removesuffix(".py").replace("/", ".")
        if bare not in self._sources:
            raise ModuleRefused(f"No such module {path!r}")
        return importlib.import_module(bare)

    def source(self, name: str) -> tuple[str, str] | None:
        return self._sources.get(name)

    def is_package(self, name: str) -> bool:
        return name in self._packages

    def paths(self) -> set[str]:
        return {HOME + path for path, _ in self._sources.values()}

    def open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """Files are those of the upload, to be read."""
        path = os.fspath(file) if not isinstance(file, int) else ""
        if isinstance(path, bytes):
            path = path.decode("utf-8", "replace")
        name = os.path.normpath(path).removeprefix(HOME) if path.startswith(HOME) else os.path.normpath(path)
        content = self._files.get(name)
        if content is None or set(mode) & set("wax+"):
            raise FileNotFoundError(2, "there are no files but those uploaded with the script, to be read", path)
        raw = io.BytesIO(content)
        if "b" in mode:
            return raw
        encoding = kwargs.get("encoding") or (args[1] if len(args) > 1 else None) or "utf-8"
        return io.TextIOWrapper(raw, encoding, kwargs.get("errors"), kwargs.get("newline"))

    def _import_for_script(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        top = name.partition(".")[0]
        if level == 0 and top not in ALLOWED and top not in self._tops and top not in _BEHIND:
            known = "scripts may import the modules uploaded with them, workers and a part of the standard library"
            raise ModuleNotFoundError(f"No module named {name!r}: {known}", name=name)
        return self._import(name, globals, locals, fromlist, level)


def _refuse(name: str) -> Callable[..., Any]:
    def function(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"there is nobody to talk to: {name}() does not work here")

    return function


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, library: Library) -> None:
        self._library = library

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        found = self._library.source(fullname)
        package = self._library.is_package(fullname)
        if found is None:
            if not package:
                return None
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = []
            return spec
        loader = _Loader(self._library, *found)
        spec = importlib.machinery.ModuleSpec(fullname, loader, origin=HOME + found[0], is_package=package)
        spec.has_location = True
        return spec


class _Loader(importlib.abc.InspectLoader):
    def __init__(self, library: Library, path: str, text: str) -> None:
        self._library = library
        self._path = path
        self._text = text

    def get_source(self, fullname: str) -> str:
        return self._text

    def exec_module(self, module: types.ModuleType) -> None:
        code = compile(self._text, HOME + self._path, "exec", dont_inherit=True)
        module.__dict__["__builtins__"] = self._library.builtins
        exec(code, module.__dict__)  # noqa: S102
