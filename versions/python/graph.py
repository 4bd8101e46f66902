"""A Python workflow class drawn as the graph the API shows, from its text alone.

`run` is read statement by statement; what has no step in it leaves no trace. A decorated function is drawn where it is
called, after the steps its parameters name. What is started before it is awaited carries `starts` and, where it is
awaited, `resolves`: positions in one count of such events.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from versions.errors import ScriptInvalid
from versions.python.literals import FUNCTION, literal, template, text_of
from versions.python.source import module_names, parse

GRAPH_VERSION = 1
DEFAULT_RETRIES = {"limit": 5, "delay": 10_000, "backoff": "exponential"}
DEFAULT_TIMEOUT = "10 minutes"
MAX_DEPTH = 60
"""Syntax nested deeper than this is left out."""
MAX_NODES = 10_000
"""A graph with more is not drawn to its end."""
_MODULES = 5
"""Imports from module to module that are followed to find the class."""

Drawn = dict[str, Any]
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_NODE_TYPES = {
    "do": "step_do",
    "sleep": "step_sleep",
    "sleep_until": "step_sleep_until",
    "wait_for_event": "step_wait_for_event",
}
_STARTERS = ("create_task", "ensure_future")


@dataclass(frozen=True, slots=True)
class ClassGraph:
    """`graph`: `{version, workflow}`. `calls_steps`: whether `run` does anything at all with its steps."""

    graph: dict[str, Any]
    calls_steps: bool


def class_graph(modules: Sequence[tuple[str, str]], main: str, exported: str) -> ClassGraph | None:
    """The graph of the class that the module at path `main` has under this name, which may be imported from another
    one; None when it is not found, or has no `run`. `modules`: (path, text) each."""
    found = _find_class({module_names(path): (path, text) for path, text in modules}, module_names(main), exported)
    if found is None:
        return None
    tree, body = found
    run = _method(body, "run")
    if run is None:
        return None
    drawing = _Drawing(_names(tree.body), body)
    nodes = drawing.method(run, steps_at=2)
    workflow: dict[str, Any] = {"class_name": exported, "functions": drawing.functions, "nodes": nodes}
    payload = _payload(run)
    if payload is not None:
        workflow["payload"] = payload
    return ClassGraph({"version": GRAPH_VERSION, "workflow": workflow}, _uses_steps(run))


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


def _names(body: Iterable[ast.stmt]) -> dict[str, Any]:
    """Functions and values by name."""
    found: dict[str, Any] = {}
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
    return found


def _method(body: ast.ClassDef, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    for node in body.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node
    return None


def _uses_steps(run: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether `run` mentions the step object it is given."""
    if run.args.vararg is not None or run.args.kwarg is not None:
        return True
    names = _parameters(run)[2:3]
    return any(isinstance(node, ast.Name) and node.id in names for node in ast.walk(run))


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    return [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _payload(run: ast.AST) -> dict[str, Any] | None:
    """The fields of the payload that `run` reads."""
    assert isinstance(run, ast.FunctionDef | ast.AsyncFunctionDef)
    parameters = _parameters(run)
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

    fields: dict[str, Any] = {}
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
            fields[key.value] = {"type": "unknown"}
    return {"type": "object", "fields": fields} if fields else None


# --- drawing ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Declared:
    """A function that was made a step."""

    drawn: Drawn
    function: Function | None
    depends: list[_Declared]
    concurrent: bool
    ran: bool = False


@dataclass(slots=True)
class _Drawing:
    module: Mapping[str, Any]
    body: ast.ClassDef
    functions: dict[str, Drawn] = field(default_factory=dict)
    _steps: list[str] = field(default_factory=list)
    """Names the step object goes by."""
    _locals: dict[str, Any] = field(default_factory=dict)
    """Functions, values and declared steps by name."""
    _by_step: dict[str, _Declared] = field(default_factory=dict)
    _pending: dict[str, list[Drawn]] = field(default_factory=dict)
    """Steps under way whose tasks are held by a name."""
    _coroutines: dict[str, ast.expr] = field(default_factory=dict)
    """Calls that were made and not awaited: they do not start before they are."""
    _clock: int = 0
    _depth: int = 0
    _count: int = 0

    def method(self, function: Function, steps_at: int) -> list[Drawn]:
        """The nodes of a function whose parameter number `steps_at` is the step object."""
        parameters = _parameters(function)
        if len(parameters) <= steps_at:
            return []
        outer = self._locals
        self._steps.append(parameters[steps_at])
        self._locals = {}
        try:
            return self._body(function)
        finally:
            self._steps.pop()
            self._locals = outer

    def _body(self, function: Function) -> list[Drawn]:
        if isinstance(function, ast.Lambda):
            return self._expression(function.body)
        return _unbroken(self._block(function.body))

    # --- statements --------------------------------------------------------------------------------------------------

    def _block(self, body: Iterable[ast.stmt]) -> list[Drawn]:
        return [drawn for statement in body for drawn in self._statement(statement)]

    def _statement(self, node: ast.stmt) -> list[Drawn]:
        if self._depth > MAX_DEPTH or self._count > MAX_NODES:
            return []
        self._depth += 1
        try:
            draw = _STATEMENTS.get(type(node))
            if draw is not None:
                return draw(self, node)
            return [drawn for child in ast.iter_child_nodes(node) for drawn in self._any(child)]
        finally:
            self._depth -= 1

    def _any(self, node: ast.AST) -> list[Drawn]:
        if isinstance(node, ast.stmt):
            return self._statement(node)
        if isinstance(node, ast.expr):
            return self._expression(node)
        return [drawn for child in ast.iter_child_nodes(node) for drawn in self._any(child)]

    def _define(self, node: Any) -> list[Drawn]:
        """A function: a step when it is decorated, and drawn where it is called either way."""
        for decorator in node.decorator_list:
            declared = self._declaration(decorator, node)
            if declared is not None:
                self._locals[node.name] = declared
                return []
        self._locals[node.name] = node
        return []

    def _declaration(self, decorator: ast.expr, function: ast.expr | Function | None) -> _Declared | None:
        """What `step.do(…)` makes of a function."""
        if not isinstance(decorator, ast.Call) or self._step_method(decorator.func) != "do":
            return None
        if isinstance(function, ast.Name):
            function = self._value_of(function.id)
        known = function if isinstance(function, Function) else None
        given = {keyword.arg: keyword.value for keyword in decorator.keywords if keyword.arg}
        positional = dict(zip(("name", "depends", "concurrent", "config"), decorator.args, strict=False))
        given = {**positional, **given}
        default = known.name if isinstance(known, ast.FunctionDef | ast.AsyncFunctionDef) else FUNCTION
        name, dynamic = self._name(given["name"]) if given.get("name") is not None else (default, default == FUNCTION)
        drawn: Drawn = {"type": "step_do", "name": name, "config": self._config(given.get("config")), "nodes": []}
        if dynamic:
            drawn["dynamic"] = True
        depends = self._depends(known, given.get("depends"))
        declared = _Declared(drawn, known, depends, literal(given.get("concurrent"), self._value_of) is True)
        self._by_step[name] = declared
        return declared

    def _depends(self, function: Function | None, depends: ast.expr | None) -> list[_Declared]:
        if isinstance(depends, ast.List | ast.Tuple):
            named = [self._locals.get(item.id) for item in depends.elts if isinstance(item, ast.Name)]
            return [one for one in named if isinstance(one, _Declared)]
        parameters = _parameters(function) if function is not None else []
        return [self._by_step[name] for name in parameters if name in self._by_step]

    def _if(self, node: Any) -> list[Drawn]:
        before = self._expression(node.test)
        branches = [{"condition": text_of(node.test), "nodes": self._block(node.body)}]
        rest = node.orelse
        while len(rest) == 1 and isinstance(rest[0], ast.If):
            before += self._expression(rest[0].test)
            branches.append({"condition": text_of(rest[0].test), "nodes": self._block(rest[0].body)})
            rest = rest[0].orelse
        if rest:
            branches.append({"condition": None, "nodes": self._block(rest)})
        return [*before, {"type": "if", "branches": branches}] if _branching(branches) else before

    def _loop(self, node: Any) -> list[Drawn]:
        before = self._expression(node.test if isinstance(node, ast.While) else node.iter)
        nodes = self._block(node.body)
        after = self._block(node.orelse)
        return [*before, *([{"type": "loop", "nodes": nodes}] if _steps_in(nodes) else []), *after]

    def _match(self, node: Any) -> list[Drawn]:
        before = self._expression(node.subject)
        branches: list[Drawn] = []
        for case in node.cases:
            otherwise = isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None
            test = text_of(case.pattern) + (f" if {text_of(case.guard)}" if case.guard is not None else "")
            branches.append({"condition": None if otherwise else test, "nodes": self._block(case.body)})
        if not _branching(branches):
            return before
        return [*before, {"type": "switch", "discriminant": text_of(node.subject), "branches": branches}]

    def _try(self, node: Any) -> list[Drawn]:
        caught = [drawn for handler in node.handlers for drawn in self._block(handler.body)] if node.handlers else None
        blocks: dict[str, list[Drawn] | None] = {
            "try_block": _unbroken([*self._block(node.body), *self._block(node.orelse)]),
            "catch_block": None if caught is None else _unbroken(caught),
            "finally_block": _unbroken(self._block(node.finalbody)) if node.finalbody else None,
        }
        if not any(_steps_in(nodes or []) for nodes in blocks.values()):
            return []
        shown = {key: None if nodes is None else {"type": "block", "nodes": nodes} for key, nodes in blocks.items()}
        return [{"type": "try", **shown}]

    def _with(self, node: Any) -> list[Drawn]:
        """A task group is a parallel group; other contexts are drawn as what is in them."""
        before = [drawn for item in node.items for drawn in self._expression(item.context_expr)]
        groups = [item for item in node.items if text_of(item.context_expr).endswith("TaskGroup()")]
        if not groups:
            return [*before, *self._block(node.body)]
        return [*before, *self._parallel("all", lambda: self._block(node.body))]

    def _leave(self, node: Any) -> list[Drawn]:
        kind = "return" if isinstance(node, ast.Return) else "break"
        value = getattr(node, "value", None)
        return [*self._expression(value), {"type": "break", "kind": kind}]

    def _assign(self, node: Any) -> list[Drawn]:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        name = targets[0].id if len(targets) == 1 and isinstance(targets[0], ast.Name) else None
        value = node.value
        if name is None or value is None:
            return self._expression(value)
        if isinstance(value, ast.Call):
            declared = self._declaration(value.func, value.args[0] if value.args else None)
            if declared is not None:
                self._locals[name] = declared
                return []
            if self._is_step_call(value):
                self._coroutines[name] = value
                return []
        if isinstance(value, ast.Constant | ast.Dict | ast.List | ast.JoinedStr | ast.Lambda):
            self._locals[name] = value
        made = self._expression(value)
        waiting = [drawn for drawn in made if "starts" in drawn and "resolves" not in drawn]
        if waiting:
            self._pending[name] = self._pending.get(name, []) + waiting
        return made

    # --- expressions -------------------------------------------------------------------------------------------------

    def _expression(self, node: ast.expr | None) -> list[Drawn]:
        if node is None or self._depth > MAX_DEPTH or self._count > MAX_NODES:
            return []
        self._depth += 1
        try:
            draw = _EXPRESSIONS.get(type(node))
            if draw is not None:
                return draw(self, node)
            if isinstance(node, ast.Lambda):
                return []  # what is only declared does not run
            return [drawn for child in ast.iter_child_nodes(node) for drawn in self._any(child)]
        finally:
            self._depth -= 1

    def _await(self, node: Any) -> list[Drawn]:
        value = node.value
        if isinstance(value, ast.Name):
            if value.id in self._coroutines:
                return self._expression(self._coroutines[value.id])
            self._resolve(value.id)
            return []
        return self._expression(value)

    def _resolve(self, name: str) -> None:
        waiting = self._pending.pop(name, [])
        if waiting:
            self._clock += 1
            for drawn in waiting:
                drawn["resolves"] = self._clock

    def _call(self, node: Any) -> list[Drawn]:
        called = node.func
        method = self._step_method(called)
        if method is not None:
            return self._step(method, node) if method in _NODE_TYPES and method != "do" else []
        declared = self._called(called, node)
        if declared is not None:
            return self._run(declared)
        name = text_of(called)
        if name in ("asyncio.gather", "gather"):
            exceptions = any(keyword.arg == "return_exceptions" for keyword in node.keywords)
            return self._parallel("all_settled" if exceptions else "all", lambda: self._members(node.args))
        if name in ("asyncio.wait", "asyncio.as_completed"):
            first = any("FIRST_COMPLETED" in text_of(keyword.value) for keyword in node.keywords)
            return self._parallel("race" if first else "all", lambda: self._members(node.args))
        before = [drawn for argument in (*node.args, *node.keywords) for drawn in self._any(argument)]
        if name.rpartition(".")[2] in _STARTERS:
            return self._started(before)
        return [*self._expression(called), *before, *self._helper(called, node)]

    def _members(self, arguments: Iterable[ast.expr]) -> list[Drawn]:
        """What a group waits for."""
        nodes: list[Drawn] = []
        for argument in arguments:
            value = argument.value if isinstance(argument, ast.Starred) else argument
            for item in value.elts if isinstance(value, ast.List | ast.Tuple | ast.Set) else [value]:
                if isinstance(item, ast.Name) and item.id in self._coroutines:
                    nodes += self._expression(self._coroutines[item.id])
                elif isinstance(item, ast.Name) and item.id in self._pending:
                    self._resolve(item.id)
                else:
                    nodes += self._expression(item)
        return nodes

    def _parallel(self, kind: str, members: Callable[[], list[Drawn]]) -> list[Drawn]:
        began = self._clock + 1
        self._clock = began
        nodes = members()
        if not _steps_in(nodes):
            self._clock = began - 1
            return nodes
        self._clock = began + 1
        for drawn in nodes:
            if drawn["type"] in (*_NODE_TYPES.values(), "function_call"):
                drawn |= {"starts": began, "resolves": began + 1}
        return [{"type": "parallel", "kind": kind, "nodes": nodes}]

    def _started(self, nodes: list[Drawn]) -> list[Drawn]:
        """A task was made of it: it runs while the code goes on."""
        if nodes and nodes[-1]["type"] in (*_NODE_TYPES.values(), "function_call"):
            self._clock += 1
            nodes[-1]["starts"] = self._clock
        return nodes

    def _comprehension(self, node: Any) -> list[Drawn]:
        before = [drawn for generator in node.generators for drawn in self._expression(generator.iter)]
        heads = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        tests = [test for generator in node.generators for test in generator.ifs]
        nodes = [drawn for part in (*tests, *heads) for drawn in self._expression(part)]
        return [*before, {"type": "loop", "nodes": nodes}] if _steps_in(nodes) else before

    def _ternary(self, node: Any) -> list[Drawn]:
        before = self._expression(node.test)
        branches = [
            {"condition": text_of(node.test), "nodes": self._expression(node.body)},
            {"condition": None, "nodes": self._expression(node.orelse)},
        ]
        return [*before, {"type": "if", "branches": branches}] if _branching(branches) else before

    def _either(self, node: Any) -> list[Drawn]:
        before = self._expression(node.values[0])
        for value in node.values[1:]:
            after = self._expression(value)
            if _steps_in(after):
                branches = [{"condition": text_of(node.values[0]), "nodes": after}]
                before.append({"type": "if", "branches": branches})
        return before

    # --- steps -------------------------------------------------------------------------------------------------------

    def _step_method(self, called: ast.expr) -> str | None:
        """The method of the step object that is called."""
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id in self._steps:
            return called.attr
        return None

    def _called(self, called: ast.expr, node: ast.Call) -> _Declared | None:
        """The declared step that a call runs: `fetch_order()`, or `step.do("x")(function)()`."""
        if isinstance(called, ast.Name):
            found = self._locals.get(called.id)
            return found if isinstance(found, _Declared) else None
        if isinstance(called, ast.Call):
            return self._declaration(called.func, called.args[0] if called.args else None)
        return None

    def _is_step_call(self, node: ast.Call) -> bool:
        method = self._step_method(node.func)
        if method is not None:
            return method in _NODE_TYPES and method != "do"
        return isinstance(node.func, ast.Name) and isinstance(self._locals.get(node.func.id), _Declared)

    def _run(self, declared: _Declared) -> list[Drawn]:
        """A declared step is called: first the steps it depends on that have not run, then itself."""
        self._count += 1
        waiting = [one for one in declared.depends if not one.ran]
        declared.ran = True
        if declared.concurrent and len(waiting) > 1:
            before = self._parallel("all", lambda: [drawn for one in waiting for drawn in self._run(one)])
        else:
            before = [drawn for one in waiting if not one.ran for drawn in self._run(one)]
        nested = [] if declared.function is None else self._inside(declared.function)
        return [*before, {**declared.drawn, "nodes": nested}]

    def _inside(self, function: Function) -> list[Drawn]:
        if self._depth > MAX_DEPTH:
            return []
        self._depth += 1
        outer = dict(self._locals)
        try:
            return self._body(function)
        finally:
            self._locals = outer
            self._depth -= 1

    def _step(self, method: str, node: ast.Call) -> list[Drawn]:
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        arguments = node.args
        first = arguments[0] if arguments else given.get("name")
        second = arguments[1] if len(arguments) > 1 else None
        name, dynamic = self._name(first)
        drawn: Drawn = {"type": _NODE_TYPES[method], "name": name}
        if method == "sleep":
            drawn["duration"] = literal(second or given.get("duration"), self._value_of)
        elif method == "sleep_until":
            drawn["timestamp"] = text_of(second or given.get("timestamp"))
        else:
            timeout = given.get("timeout") or (arguments[2] if len(arguments) > 2 else None)
            shown = "24 hours" if timeout is None else literal(timeout, self._value_of)
            drawn["options"] = {"event_type": literal(second, self._value_of), "timeout": shown}
        if dynamic:
            drawn["dynamic"] = True
        self._count += 1
        return [drawn]

    def _helper(self, called: ast.expr, node: ast.Call) -> list[Drawn]:
        """A call of a function or method that has steps: it is handed the step object, or was made where that is."""
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        handed = [at for at, one in enumerate(arguments) if isinstance(one, ast.Name) and one.id in self._steps]
        name = text_of(called)
        function, own = self._helper_function(called)
        if function is None:
            return [{"type": "function_call", "name": name}] if handed else []
        name = name.removeprefix("self.")
        if name not in self.functions:
            if not handed and not own:
                return []
            self.functions[name] = {"type": "function_def", "name": name, "nodes": []}
            bound = 1 if text_of(called).startswith("self.") else 0
            nodes = self.method(function, handed[0] + bound) if handed else self._inside(function)
            self.functions[name]["nodes"] = nodes
            if not nodes:
                del self.functions[name]
        return [{"type": "function_call", "name": name}] if name in self.functions else []

    def _helper_function(self, called: ast.expr) -> tuple[Function | None, bool]:
        """The function that is called, and whether it was made in `run`."""
        if isinstance(called, ast.Name):
            found = self._locals.get(called.id)
            if isinstance(found, Function):
                return found, True
            found = self.module.get(called.id)
            return (found, False) if isinstance(found, Function) else (None, False)
        if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "self":
            return _method(self.body, called.attr), False
        return None, False

    # --- arguments ---------------------------------------------------------------------------------------------------

    def _name(self, node: ast.expr | None) -> tuple[str, bool]:
        """A step's name, and whether it is only known when it runs."""
        if isinstance(node, ast.JoinedStr):
            return template(node), True
        value = literal(node, self._value_of)
        if (
            isinstance(node, ast.Constant | ast.Name)
            and isinstance(value, str)
            and not (isinstance(node, ast.Name) and value == node.id and self._value_of(node.id) is None)
        ):
            return value, False
        return text_of(node), True

    def _value_of(self, name: str) -> Any:
        found = self._locals.get(name, self.module.get(name))
        return found if isinstance(found, ast.expr | ast.FunctionDef | ast.AsyncFunctionDef) else None

    def _config(self, node: ast.expr | None) -> Drawn:
        given = literal(node, self._value_of)
        given = given if isinstance(given, Mapping) else {}
        retries = given.get("retries")
        return {
            "retries": {**DEFAULT_RETRIES, **(retries if isinstance(retries, Mapping) else {})},
            "timeout": given.get("timeout", DEFAULT_TIMEOUT),
        }


_STATEMENTS: dict[type[ast.AST], Callable[[_Drawing, Any], list[Drawn]]] = {
    ast.FunctionDef: _Drawing._define,
    ast.AsyncFunctionDef: _Drawing._define,
    ast.ClassDef: lambda drawing, node: [],
    ast.If: _Drawing._if,
    ast.For: _Drawing._loop,
    ast.AsyncFor: _Drawing._loop,
    ast.While: _Drawing._loop,
    ast.Match: _Drawing._match,
    ast.Try: _Drawing._try,
    ast.TryStar: _Drawing._try,
    ast.With: _Drawing._with,
    ast.AsyncWith: _Drawing._with,
    ast.Return: _Drawing._leave,
    ast.Break: _Drawing._leave,
    ast.Assign: _Drawing._assign,
    ast.AnnAssign: _Drawing._assign,
}
_EXPRESSIONS: dict[type[ast.AST], Callable[[_Drawing, Any], list[Drawn]]] = {
    ast.Await: _Drawing._await,
    ast.Call: _Drawing._call,
    ast.IfExp: _Drawing._ternary,
    ast.BoolOp: _Drawing._either,
    ast.ListComp: _Drawing._comprehension,
    ast.SetComp: _Drawing._comprehension,
    ast.GeneratorExp: _Drawing._comprehension,
    ast.DictComp: _Drawing._comprehension,
}


def _steps_in(nodes: Iterable[Drawn]) -> bool:
    return any(node["type"] != "break" for node in nodes)


def _unbroken(nodes: Iterable[Drawn]) -> list[Drawn]:
    """Without what leaves a block that ends there anyway."""
    return [node for node in nodes if node["type"] != "break"]


def _branching(branches: Iterable[Drawn]) -> bool:
    return any(branch["nodes"] for branch in branches)
