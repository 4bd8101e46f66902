"""The text of Python modules, parsed. Nothing of it is run."""

from __future__ import annotations

import ast
import threading
import warnings

from versions.errors import ScriptInvalid

MAX_SOURCE = 512 * 1024
"""Characters of a module that is looked into; a syntax tree takes a hundred times as much memory."""
_parsing = threading.Lock()
"""Python warns of odd escapes while it parses, and filters of warnings are the whole process's."""


def parse(name: str, text: str) -> ast.Module | None:
    """A module's syntax tree; None for one that is too large or too deep to look into. Raises :class:`ScriptInvalid`
    with the place of what is wrong."""
    if len(text) > MAX_SOURCE:
        return None
    try:
        with _parsing, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        place = f"{name}:{error.lineno or 1}"
        if error.offset is not None and error.offset > 0:
            place += f":{error.offset}"
        raise ScriptInvalid(f"{place}: {type(error).__name__}: {error.msg}") from None
    except ValueError as error:  # null bytes
        raise ScriptInvalid(f"{name}: SyntaxError: {error}") from None
    except (RecursionError, MemoryError):
        return None


def module_names(path: str) -> tuple[str, ...]:
    """The parts of the name a module is imported by, for its path in the upload."""
    bare = path.removeprefix("./").removeprefix("python_modules/").removesuffix(".py")
    parts = tuple(bare.split("/"))
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts
