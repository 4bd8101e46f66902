"""The example documents that ship with Millrace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Example:
    """One example: the workflow's name in paths, the file, and the definition document in it."""

    name: str
    file: Path
    definition: dict[str, Any]


def examples() -> list[Example]:
    """Every example, by name. Packaged inside `app`, or in the `examples` folder of a source tree."""
    packaged = Path(__file__).parent / "example_documents"
    folder = packaged if packaged.is_dir() else Path(__file__).parent.parent / "examples"
    return [
        Example(file.stem, file, yaml.safe_load(file.read_text(encoding="utf-8")))
        for file in sorted(folder.glob("*.yaml"))
    ]
