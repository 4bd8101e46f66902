"""The graph of a workflow class that the API shows, from its text alone."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from versions.drawing import ClassGraph, Drawn, class_drawn, payload_of
from versions.errors import ScriptInvalid
from versions.python.declarations import method_of, names_in, parameters_of
from versions.python.drawing import Drawing
from versions.python.scope import Scope
from versions.python.source import module_names, parse

_MODULES = 5
"""Imports from module to module that are followed to find the class."""


def class_graph(modules: Sequence[tuple[str, str]], main: str, exported: str) -> ClassGraph | None:
    """The graph of the class that the module at path `main` has under this name, which may be imported from another
    one; None when it is not found, or has no `run`. `modules`: (path, text) each."""
    found = _find_class({module_names(path): (path, text) for path, text in modules}, module_names(main), exported)
    if found is None:
        return None
    tree, body = found
    run = method_of(body, "run")
    if run is None:
        return None
    drawing = Drawing(Scope(names_in(tree.body), body))
    nodes = drawing.method(run, steps_at=2)
    return class_drawn(exported, drawing.functions, nodes, _payload(run), calls_steps=_uses_steps(run))


def _find_class(
    modules: Mapping[tuple[str, ...], tuple[str, str]], at: tuple[str, ...], name: str
) -> tuple[ast.Module, ast.ClassDef] | None:
    for _ in range(_MODULES):
        path, text = modules.get(at, ("", ""))
        try:
            tree = parse(path, text)
        except ScriptInvalid:
            return None
        for node in reversed(tree.body if tree is not None else []):
            if isinstance(node, ast.ClassDef) and node.name == name:
                assert tree is not None
                return tree, node
            alias = _imported(node, name)
            if isinstance(node, ast.ImportFrom) and alias is not None:
                package = at if path.endswith("__init__.py") else at[:-1]
                base = package[: len(package) - (node.level - 1)] if node.level else ()
                at, name = (*base, *(node.module.split(".") if node.module else ())), alias
                break
        else:
            return None
    return None


def _imported(node: ast.stmt, name: str) -> str | None:
    """The name in the other module of what is imported as `name`."""
    names = node.names if isinstance(node, ast.ImportFrom) else []
    return next((alias.name for alias in names if (alias.asname or alias.name) == name), None)


def _uses_steps(run: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether `run` mentions the step object it is given."""
    if run.args.vararg is not None or run.args.kwarg is not None:
        return True
    names = parameters_of(run)[2:3]
    return any(isinstance(node, ast.Name) and node.id in names for node in ast.walk(run))


def _payload(run: ast.FunctionDef | ast.AsyncFunctionDef) -> Drawn | None:
    """The fields of the payload that `run` reads."""
    parameters = parameters_of(run)
    if len(parameters) < 2:
        return None
    event = parameters[1]
    aliases: set[str] = set()

    def is_payload(node: ast.expr) -> bool:
        if isinstance(node, ast.Name):
            return node.id in aliases
        key = None
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            key = node.slice.value
        elif isinstance(node, ast.Attribute):
            key = node.attr
        return key == "payload" and isinstance(node.value, ast.Name) and node.value.id == event  # type: ignore[attr-defined]

    fields: list[str] = []
    for node in ast.walk(run):
        if isinstance(node, ast.Assign) and is_payload(node.value):
            aliases |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    for node in ast.walk(run):
        key: ast.expr | None = None
        if isinstance(node, ast.Subscript) and is_payload(node.value):
            key = node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            key = node.args[0] if node.args and is_payload(node.func.value) else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            fields.append(key.value)
    return payload_of(fields)
