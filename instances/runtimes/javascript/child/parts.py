"""The parts of the web that scripts may need. They are large: a sandbox loads those whose names its script mentions.

A part is a file under `web/`. Lines at its top that begin with `// Names:` list the words that call for it, `// Needs:`
the parts it stands on. Its text is the body of a function of `core`, what the prelude shares with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DYNAMIC = re.compile(rb"\b(?:globalThis|self)\s*(?:\?\.)?\[")
"""Code that asks for globals by names that are not written in it may want any of them."""


class Parts:
    """All parts, read once."""

    def __init__(self, folder: Path) -> None:
        self._sources: dict[str, bytes] = {}
        self._needs: dict[str, list[str]] = {}
        names: dict[str, str] = {}
        for path in sorted(folder.rglob("*.js")):
            part, text = path.relative_to(folder).with_suffix("").as_posix(), path.read_text()
            # The parentheses have V8 parse it once, as something that is called.
            function = f'(function (core) {{ "use strict";\n{text}\n}})\n//# sourceURL=millrace:{part}'
            self._sources[part] = function.encode()
            self._needs[part] = _listed(text, "Needs")
            names |= dict.fromkeys(_listed(text, "Names"), part)
        self._parts = {name.encode(): part for name, part in names.items()}
        words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
        self._words = re.compile(rf"(?<![\w$])(?:{words})(?![\w$])".encode())

    def wanted(self, source: bytes) -> list[str]:
        """Parts that a module's text asks for, each after those it needs."""
        if DYNAMIC.search(source) is not None:
            return self._closure(self._sources)
        return self._closure({self._parts[word] for word in set(self._words.findall(source))})

    def source(self, part: str) -> bytes:
        """A function of `core`, as text."""
        return self._sources[part]

    def _closure(self, parts: Iterable[str]) -> list[str]:
        found: list[str] = []

        def add(part: str) -> None:
            if part not in found:
                for need in self._needs[part]:
                    add(need)
                found.append(part)

        for part in sorted(parts):
            add(part)
        return found


def _listed(text: str, what: str) -> list[str]:
    return [word for line in re.findall(rf"^// {what}: (.*)$", text, re.MULTILINE) for word in line.split()]
