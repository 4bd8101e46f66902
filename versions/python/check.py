"""What is wrong with the Python modules of an upload, as far as it can be seen without running them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence, Set

from versions.errors import ScriptInvalid
from versions.python.literals import text_of
from versions.python.source import module_names, parse

LIBRARY = frozenset(
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
"""What scripts may import besides each other, by its first name: the runtime's list."""
VENDORED = "python_modules/"
"""Packages that come along: what they import may be optional, and is found out when they are loaded."""
_FORGIVING = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def check_modules(modules: Sequence[tuple[str, str]]) -> None:
    """Check the modules of an upload, (path, text) each. Raises :class:`ScriptInvalid` naming the module and line."""
    known = LIBRARY | {module_names(path)[0] for path, _ in modules}
    for path, text in modules:
        tree = parse(path, text)
        if tree is None or path.removeprefix("./").startswith(VENDORED):
            continue
        for node, name in _imports(tree.body):
            if name.partition(".")[0] not in known:
                place = f"{path}:{node.lineno}:{node.col_offset + 1}"
                rule = "scripts may import the modules uploaded with them, workers and a part of the standard library"
                raise ScriptInvalid(f"{place}: ModuleNotFoundError: No module named {name!r}: {rule}")


def _imports(body: Sequence[ast.AST]) -> Iterator[tuple[ast.stmt, str]]:
    """Imports whose failure is not provided for, wherever they are."""
    waiting: list[ast.AST] = list(reversed(body))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node, node.module
        elif isinstance(node, ast.Try | ast.TryStar) and _forgives(node):
            waiting += [*node.handlers, *node.orelse, *node.finalbody]
        elif isinstance(node, ast.If) and text_of(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        else:
            waiting += reversed(list(ast.iter_child_nodes(node)))


def _forgives(node: ast.Try | ast.TryStar) -> bool:
    """Whether an import that fails in the block is handled."""
    caught: Set[str] = set()
    for handler in node.handlers:
        if handler.type is None:
            return True
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        caught |= {kind.id for kind in kinds if isinstance(kind, ast.Name)}
    return bool(caught & _FORGIVING)
