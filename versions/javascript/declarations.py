"""What a module and its classes declare: names at the top, methods, parameters."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from versions.drawing import MAX_DEPTH
from versions.javascript.literals import text_of

FUNCTIONS = frozenset({"arrow_function", "function_expression", "function", "generator_function"})


class Module:
    """Top-level names of a module: classes, functions, constants."""

    def __init__(self, root: Node) -> None:
        self._values: dict[str, Node] = {}
        for statement in root.children:
            if statement.type == "export_statement":
                self._declare(statement.child_by_field_name("declaration"))
                value = statement.child_by_field_name("value")
                if value is not None:
                    self._values["$default"] = value
            else:
                self._declare(statement)

    def _declare(self, node: Node | None) -> None:
        if node is None:
            return
        if node.type in ("lexical_declaration", "variable_declaration"):
            for declarator in node.named_children:
                name, value = declarator.child_by_field_name("name"), declarator.child_by_field_name("value")
                if name is not None and value is not None and name.type == "identifier":
                    self._values[text_of(name)] = value
        else:
            name = node.child_by_field_name("name")
            if name is not None:
                self._values[text_of(name)] = node

    def value(self, name: str) -> Node | None:
        """What a name stands for."""
        return self._values.get(name)

    def class_body(self, name: str) -> Node | None:
        """The body of a class, however it came to its name (bundlers wrap classes in calls)."""
        found = self._values.get(name)
        for node in () if found is None else walk(found):
            if node.type in ("class_declaration", "class"):
                return node.child_by_field_name("body")
        return None


def walk(node: Node, depth: int = 0) -> Iterator[Node]:
    """A node and what is in it, not too deep."""
    yield node
    if depth < MAX_DEPTH:
        for child in node.named_children:
            yield from walk(child, depth + 1)


def method_of(body: Node, name: str) -> Node | None:
    """A method of a class, or a property that holds a function."""
    for member in body.named_children:
        key = member.child_by_field_name("name") or member.child_by_field_name("property")
        if key is None or text_of(key) != name:
            continue
        if member.type == "method_definition":
            return member
        value = member.child_by_field_name("value")
        if value is not None and value.type in FUNCTIONS:
            return value
    return None


def parameters_of(function: Node) -> list[Node]:
    """The parameters of a function of any kind."""
    parameters = function.child_by_field_name("parameters") or function.child_by_field_name("parameter")
    if parameters is None:
        return []
    return [parameters] if parameters.type == "identifier" else list(parameters.named_children)
