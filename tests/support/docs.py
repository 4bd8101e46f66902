"""The documentation as the tests of it see it: files, fenced blocks, links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins (`docs/document.md:10`), its language, its text."""

    place: str
    language: str
    text: str


def pages() -> list[Path]:
    """README and every page of the documentation."""
    outside = ("README.md", "CHANGELOG.md", "examples/README.md", "bench/README.md")
    return [*(ROOT / name for name in outside), *sorted(DOCS.rglob("*.md"))]


def blocks(language: str) -> Iterator[Block]:
    """Every fenced block in `language`, in order."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 1
                yield Block(f"{page.relative_to(ROOT)}:{line}", match[1], match[2])


def page(name: str) -> str:
    """The text of a page of `docs`."""
    return (DOCS / name).read_text(encoding="utf-8")


def without_code(text: str) -> str:
    """A page's prose: fenced blocks and inline code taken out."""
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def words(text: str) -> set[str]:
    """Every name inside inline code of a page: `a.b`, `x: y` and the like come apart."""
    found: set[str] = set()
    for code in re.findall(r"`([^`\n]+)`", _FENCE.sub("", text)):
        found.update(re.findall(r"[A-Za-z_$][\w$-]*", code))
        found.add(code)
    return found
