"""Scripts as `millrace deploy` uploads them: one file, and the workflow classes in it."""

from __future__ import annotations

import re
from pathlib import Path

from app.cli.problems import CommandFailed

CONTENT_TYPES = {
    ".js": "application/javascript+module",
    ".mjs": "application/javascript+module",
    ".ts": "application/javascript+module",
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


def upload_parts(file: Path) -> tuple[dict[str, object], tuple[str, bytes, str]]:
    """The upload's metadata, and its one module as (name, content, content type)."""
    flags = ["python_workers", "python_workflows"] if file.suffix == ".py" else []
    metadata: dict[str, object] = {
        "main_module": file.name,
        "bindings": [],
        "compatibility_date": COMPATIBILITY_DATE,
        "compatibility_flags": flags,
        "keep_bindings": ["secret_text", "secret_key"],
    }
    return metadata, (file.name, file.read_bytes(), CONTENT_TYPES[file.suffix])
