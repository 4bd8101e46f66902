"""Scripts as `millrace deploy` uploads them: one file, and the workflow classes in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import msgspec

from app.cli.problems import CommandFailed

CONTENT_TYPES = {
    ".js": "application/javascript+module",
    ".mjs": "application/javascript+module",
    ".ts": "application/typescript",
    ".mts": "application/typescript",
    ".py": "text/x-python",
}
NOTHING_DEPLOYED = "Nothing was deployed."
COMPATIBILITY_DATE = "2026-11-01"
_CLASSES = {
    ".py": re.compile(r"^class\s+(\w+)\s*\([^)]*\bWorkflowEntrypoint\b[^)]*\)", re.MULTILINE),
    ".js": re.compile(r"^\s*export\s+(?:default\s+)?class\s+(\w+)\s+extends\s+WorkflowEntrypoint\b", re.MULTILINE),
}


def is_script(file: Path) -> bool:
    """Whether FILE is source code, by its suffix."""
    return file.suffix in CONTENT_TYPES


def workflow_classes(file: Path) -> list[str]:
    """Classes in it that extend `WorkflowEntrypoint`. Raises :class:`CommandFailed` when it is not text."""
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise CommandFailed(f"{file} is not UTF-8 text", NOTHING_DEPLOYED) from None
    return _CLASSES.get(file.suffix, _CLASSES[".js"]).findall(text)


def variable_bindings(variables: Iterable[str]) -> list[dict[str, str]]:
    """`NAME=VALUE` as bindings. Raises :class:`click.UsageError`."""
    found: list[dict[str, str]] = []
    for variable in variables:
        name, equals, text = variable.partition("=")
        if not name or not equals:
            raise click.UsageError(f"--var must be NAME=VALUE, not {variable!r}")
        found.append({"type": "plain_text", "name": name, "text": text})
    return found


def secret_bindings(file: Path | None) -> list[dict[str, str]]:
    """The secrets in a file of `NAME=VALUE` lines, or with a JSON object of texts.

    Blank lines and those that begin with `#` are left out, and so are quotes around a value. Raises
    :class:`CommandFailed`, without anything of what the file holds.
    """
    if file is None:
        return []
    try:
        text = file.read_text(encoding="utf-8")
        values = _json_texts(text) if text.lstrip().startswith("{") else _lines(text)
    except UnicodeDecodeError:
        raise CommandFailed(f"{file} is not UTF-8 text", NOTHING_DEPLOYED) from None
    except ValueError as error:
        raise CommandFailed(f"{file}: {error}", NOTHING_DEPLOYED) from None
    return [{"type": "secret_text", "name": name, "text": value} for name, value in values.items()]


def _json_texts(text: str) -> dict[str, str]:
    try:
        return msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("it must be a JSON object of texts") from None


def _lines(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name, value = name.strip(), value.strip()
        if not name or not equals:
            raise ValueError(f"line {number} is not NAME=VALUE")
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[name] = value
    return found


def upload_parts(
    file: Path, bindings: Sequence[dict[str, str]] = ()
) -> tuple[dict[str, object], tuple[str, bytes, str]]:
    """The upload's metadata, and its one module as (name, content, content type)."""
    flags = ["python_workers", "python_workflows"] if file.suffix == ".py" else []
    metadata: dict[str, object] = {
        "main_module": file.name,
        "bindings": list(bindings),
        "compatibility_date": COMPATIBILITY_DATE,
        "compatibility_flags": flags,
        "keep_bindings": ["secret_text", "secret_key"],
    }
    return metadata, (file.name, file.read_bytes(), CONTENT_TYPES[file.suffix])
