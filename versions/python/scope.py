"""What names mean in the function that is being read: values, functions, the step object, and what it made steps."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from versions.drawing import Drawn, step_config
from versions.python.declarations import Function, method_of, parameters_of
from versions.python.literals import FUNCTION, literal, template, text_of

NODE_TYPES = {
    "do": "step_do",
    "sleep": "step_sleep",
    "sleep_until": "step_sleep_until",
    "wait_for_event": "step_wait_for_event",
}


@dataclass(slots=True, eq=False)
class Declared:
    """A function that was made a step."""

    drawn: Drawn
    function: Function | None
    depends: list[Declared]
    concurrent: bool
    ran: bool = False


@dataclass(slots=True)
class Scope:
    """Names of a module, of a class of it, and of the function that is being read."""

    module: Mapping[str, Any]
    body: ast.ClassDef
    steps: list[str] = field(default_factory=list)
    """Names the step object goes by."""
    locals: dict[str, Any] = field(default_factory=dict)
    """Functions, values and declared steps by name."""
    _by_step: dict[str, Declared] = field(default_factory=dict)

    @contextmanager
    def inside(self, names: dict[str, Any], steps: str | None = None) -> Iterator[None]:
        """While a function is read: it begins with these `locals` and may call the step object `steps`."""
        outer = self.locals
        self.locals = names
        if steps is not None:
            self.steps.append(steps)
        try:
            yield
        finally:
            if steps is not None:
                self.steps.pop()
            self.locals = outer

    def step_method(self, called: ast.expr) -> str | None:
        """The method of the step object that is called."""
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id in self.steps:
            return called.attr
        return None

    def declaration(self, decorator: ast.expr, function: ast.expr | Function | None) -> Declared | None:
        """What `step.do(…)` makes of a function."""
        if not isinstance(decorator, ast.Call) or self.step_method(decorator.func) != "do":
            return None
        if isinstance(function, ast.Name):
            function = self.value_of(function.id)
        known = function if isinstance(function, Function) else None
        given = {keyword.arg: keyword.value for keyword in decorator.keywords if keyword.arg}
        positional = dict(zip(("name", "depends", "concurrent", "config"), decorator.args, strict=False))
        given = {**positional, **given}
        default = known.name if isinstance(known, ast.FunctionDef | ast.AsyncFunctionDef) else FUNCTION
        name, dynamic = self.name_of(given["name"]) if given.get("name") is not None else (default, default == FUNCTION)
        drawn: Drawn = {
            "type": "step_do",
            "name": name,
            "config": step_config(literal(given.get("config"), self.value_of)),
            "nodes": [],
        }
        if dynamic:
            drawn["dynamic"] = True
        depends = self._depends(known, given.get("depends"))
        declared = Declared(drawn, known, depends, literal(given.get("concurrent"), self.value_of) is True)
        self._by_step[name] = declared
        return declared

    def _depends(self, function: Function | None, depends: ast.expr | None) -> list[Declared]:
        if isinstance(depends, ast.List | ast.Tuple):
            named = [self.locals.get(item.id) for item in depends.elts if isinstance(item, ast.Name)]
            return [one for one in named if isinstance(one, Declared)]
        parameters = parameters_of(function) if function is not None else []
        return [self._by_step[name] for name in parameters if name in self._by_step]

    def called(self, called: ast.expr, node: ast.Call) -> Declared | None:
        """The declared step that a call runs: `fetch_order()`, or `step.do("x")(function)()`."""
        if isinstance(called, ast.Name):
            found = self.locals.get(called.id)
            return found if isinstance(found, Declared) else None
        if isinstance(called, ast.Call):
            return self.declaration(called.func, called.args[0] if called.args else None)
        return None

    def is_step_call(self, node: ast.Call) -> bool:
        """Whether a call, once awaited, is a step."""
        method = self.step_method(node.func)
        if method is not None:
            return method in NODE_TYPES and method != "do"
        return isinstance(node.func, ast.Name) and isinstance(self.locals.get(node.func.id), Declared)

    def helper(self, called: ast.expr) -> tuple[Function | None, bool]:
        """The function that is called, and whether it was made in `run`."""
        if isinstance(called, ast.Name):
            found = self.locals.get(called.id)
            if isinstance(found, Function):
                return found, True
            found = self.module.get(called.id)
            return (found, False) if isinstance(found, Function) else (None, False)
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "self":
            return method_of(self.body, called.attr), False
        return None, False

    def name_of(self, node: ast.expr | None) -> tuple[str, bool]:
        """A step's name, and whether it is only known when it runs."""
        if isinstance(node, ast.JoinedStr):
            return template(node), True
        value = literal(node, self.value_of)
        if (
            isinstance(node, ast.Constant | ast.Name)
            and isinstance(value, str)
            and not (isinstance(node, ast.Name) and value == node.id and self.value_of(node.id) is None)
        ):
            return value, False
        return text_of(node), True

    def value_of(self, name: str) -> Any:
        """What a name stands for, where it is known."""
        found = self.locals.get(name, self.module.get(name))
        return found if isinstance(found, ast.expr | ast.FunctionDef | ast.AsyncFunctionDef) else None
