"""ES modules as functions: what V8 is given, because mini-racer evaluates scripts only.

A module becomes

    (async function (__import, __export, __dynamic_import, __meta) { "use strict"; <head> <the module's own text>
    })

on its own lines. The head registers the exports as getters (so that they are live, and in their dead zone until they
are reached), then fetches the imports. Only the statements at the top of a module can import or export, so only those
are looked at, however long the rest is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import tree_sitter_javascript
from tree_sitter import Language, Node, Parser, Query, QueryCursor

_DYNAMIC = re.compile(rb"\bimport\s*[(.]")
_DYNAMIC_QUERY = "[(call_expression function: (import) @call) (meta_property) @meta]"


@dataclass(frozen=True, slots=True)
class Import:
    """A static import: what the importing module asks for, and where (from 1)."""

    specifier: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Translated:
    """A module as a function, and what it asks for."""

    text: str
    imports: tuple[Import, ...]
    exports: frozenset[str]
    """Names that are seen in the text; `export *` may add more."""


@cache
def _language() -> Language:
    return Language(tree_sitter_javascript.language())


def parse(source: bytes) -> Node:
    """The program's syntax tree."""
    return Parser(_language()).parse(source).root_node


def translate(name: str, text: str) -> Translated:
    """A module's text as a function. What is no JavaScript stays as it is, for the engine to refuse."""
    source = text.encode("utf-8", "surrogatepass")
    work = _Module(source)
    for node in parse(source).children:
        work.statement(node)
    body = work.rewritten()
    head = work.head()
    translated = (
        f'(async function (__import, __export, __dynamic_import, __meta) {{ "use strict"; {head}{body}\n}})'
        f"\n//# sourceURL={_source_url(name)}"
    )
    return Translated(translated, tuple(work.imports), frozenset(work.getters))


def exports_of(text: str) -> dict[str, str]:
    """What a module exports: the name or expression inside it, by exported name."""
    source = text.encode("utf-8", "surrogatepass")
    work = _Module(source)
    for node in parse(source).children:
        work.statement(node)
    return work.getters


def _source_url(name: str) -> str:
    return re.sub(r"[\s\"']", "_", name)


@dataclass(slots=True)
class _Module:
    source: bytes
    imports: list[Import] = field(default_factory=list)
    getters: dict[str, str] = field(default_factory=dict)
    """Exported name: expression."""
    stars: list[int] = field(default_factory=list)
    _fetches: list[str] = field(default_factory=list)
    _bindings: list[str] = field(default_factory=list)
    _edits: list[tuple[int, int, bytes]] = field(default_factory=list)

    # --- statements ----------------------------------------------------------------------------------------------

    def statement(self, node: Node) -> None:
        if node.type == "import_statement":
            self._import(node)
        elif node.type == "export_statement":
            self._export(node)
        elif node.type == "hash_bang_line":
            self._cut(node.start_byte, node.end_byte)

    def _import(self, node: Node) -> None:
        module = node.child_by_field_name("source")
        if module is None:
            return
        clause = next((child for child in node.named_children if child.type == "import_clause"), None)
        wanted: list[tuple[str, str]] = []
        whole: str | None = None
        for child in clause.named_children if clause is not None else ():
            if child.type == "identifier":
                wanted.append(("default", self._text(child)))
            elif child.type == "namespace_import":
                whole = self._text(child.named_children[0])
            elif child.type == "named_imports":
                wanted += self._specifiers(child)
        number = self._fetch(node, module, [name for name, _ in wanted])
        if whole is not None:
            self._bindings.append(f"const {whole} = $import{number};")
        if wanted:
            pairs = ", ".join(f"{_quoted(name)}: {local}" for name, local in wanted)
            self._bindings.append(f"const {{ {pairs} }} = $import{number};")
        self._cut(node.start_byte, node.end_byte)

    def _export(self, node: Node) -> None:
        module = node.child_by_field_name("source")
        declaration = node.child_by_field_name("declaration")
        value = node.child_by_field_name("value")
        clause = next((child for child in node.named_children if child.type == "export_clause"), None)
        if module is not None:
            self._export_from(node, module, clause)
        elif clause is not None:
            for name, exported in self._specifiers(clause):
                self.getters[exported] = name
            self._cut(node.start_byte, node.end_byte)
        elif any(child.type == "default" for child in node.children):
            self._export_default(node, declaration or value)
        elif declaration is not None:
            for name in _declared(declaration):
                self.getters[self._text(name)] = self._text(name)
            self._cut(node.start_byte, declaration.start_byte)

    def _export_from(self, node: Node, module: Node, clause: Node | None) -> None:
        specifiers = [] if clause is None else self._specifiers(clause)
        number = self._fetch(node, module, [name for name, _ in specifiers])
        whole = next((child for child in node.named_children if child.type == "namespace_export"), None)
        if whole is not None:
            self.getters[_unquoted(self._text(whole.named_children[0]))] = f"$import{number}"
        elif clause is None:
            self.stars.append(number)
        for name, exported in specifiers:
            self.getters[exported] = f"$import{number}[{_quoted(name)}]"
        self._cut(node.start_byte, node.end_byte)

    def _export_default(self, node: Node, value: Node | None) -> None:
        if value is None:
            return
        name = value.child_by_field_name("name")
        if name is not None and value.type in _DECLARATIONS:
            self.getters["default"] = self._text(name)
            self._cut(node.start_byte, value.start_byte)
            return
        # The property's name becomes the function's or class's.
        self.getters["default"] = "$default"
        end = value.end_byte
        self._replace(node.start_byte, value.start_byte, b"const { default: $default } = { default: ")
        self._replace(end, end, b" };")

    def _specifiers(self, clause: Node) -> list[tuple[str, str]]:
        """(name on the other side, name here) of an import, (name here, exported name) of an export."""
        pairs: list[tuple[str, str]] = []
        for child in clause.named_children:
            name = child.child_by_field_name("name")
            if name is None:
                continue
            alias = child.child_by_field_name("alias") or name
            pairs.append((_unquoted(self._text(name)), _unquoted(self._text(alias))))
        return pairs

    def _fetch(self, node: Node, module: Node, names: list[str]) -> int:
        specifier = _unquoted(self._text(module))
        row, column = node.start_point
        self.imports.append(Import(specifier, row + 1, column + 1))
        number = len(self._fetches)
        listed = ", ".join(_quoted(name) for name in names)
        self._fetches.append(f"const $import{number} = await __import({_quoted(specifier)}, [{listed}]);")
        return number

    # --- text ----------------------------------------------------------------------------------------------------

    def head(self) -> str:
        """What comes before the module's own text, on its first line."""
        getters = ", ".join(f"{_quoted(name)}: () => {value}" for name, value in self.getters.items())
        parts = [f"__export({{ {getters} }});"] if getters else []
        parts += self._fetches
        parts += [f"__export.all($import{number});" for number in self.stars]
        parts += self._bindings
        return " ".join(parts) + " " if parts else ""

    def rewritten(self) -> str:
        self._dynamic()
        parts: list[bytes] = []
        at = 0
        for start, end, new in sorted(self._edits):
            parts += [self.source[at:start], new]
            at = end
        parts.append(self.source[at:])
        return b"".join(parts).decode("utf-8", "surrogatepass")

    def _dynamic(self) -> None:
        """`import()` and `import.meta`, wherever they are."""
        if not _DYNAMIC.search(self.source):
            return
        cursor = QueryCursor(Query(_language(), _DYNAMIC_QUERY))
        found = cursor.captures(parse(self.source))
        for node in found.get("call", ()):
            self._replace(node.start_byte, node.end_byte, b"__dynamic_import")
        for node in found.get("meta", ()):
            if node.text is not None and node.text.startswith(b"import"):
                self._replace(node.start_byte, node.end_byte, b"__meta")

    def _cut(self, start: int, end: int) -> None:
        """Take text away, but not its lines."""
        self._replace(start, end, b"\n" * self.source.count(b"\n", start, end))

    def _replace(self, start: int, end: int, new: bytes) -> None:
        self._edits.append((start, end, new))

    def _text(self, node: Node) -> str:
        return self.source[node.start_byte : node.end_byte].decode("utf-8", "surrogatepass")


_DECLARATIONS = {"function_declaration", "generator_function_declaration", "class_declaration", "class"}


def _declared(declaration: Node) -> Iterator[Node]:
    """The names a declaration declares."""
    if declaration.type in ("lexical_declaration", "variable_declaration"):
        for declarator in declaration.named_children:
            name = declarator.child_by_field_name("name")
            if name is not None:
                yield from _bound(name)
        return
    name = declaration.child_by_field_name("name")
    if name is not None:
        yield name


def _bound(pattern: Node) -> Iterator[Node]:
    """The names a pattern binds."""
    if pattern.type in ("identifier", "shorthand_property_identifier_pattern"):
        yield pattern
    elif pattern.type == "pair_pattern":
        value = pattern.child_by_field_name("value")
        if value is not None:
            yield from _bound(value)
    elif pattern.type in ("assignment_pattern", "object_assignment_pattern"):
        left = pattern.child_by_field_name("left")
        if left is not None:
            yield from _bound(left)
    elif pattern.type in ("object_pattern", "array_pattern", "rest_pattern"):
        for child in pattern.named_children:
            yield from _bound(child)


def _unquoted(text: str) -> str:
    """The value of a string literal, or the name itself."""
    if text[:1] in ("'", '"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text


def _quoted(text: str) -> str:
    return json.dumps(text)
