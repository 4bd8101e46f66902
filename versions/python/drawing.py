"""Functions drawn as nodes.

A function is read statement by statement; what has no step in it leaves no trace. A decorated function is drawn where
it is called, after the steps its parameters name. What is started before it is awaited carries `starts` and, where it
is awaited, `resolves`: positions in one count of such events.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from versions.drawing import DEFAULT_EVENT_TIMEOUT, MAX_DEPTH, Drawn, branching, steps_in
from versions.python.declarations import Function, parameters_of
from versions.python.literals import literal, text_of
from versions.python.scope import NODE_TYPES, Declared, Scope

MAX_NODES = 10_000
"""A graph with more is not drawn to its end."""
_STARTERS = ("create_task", "ensure_future")


@dataclass(slots=True)
class Drawing:
    """Draws functions of one class."""

    scope: Scope
    functions: dict[str, Drawn] = field(default_factory=dict)
    """Functions that have steps, by name."""
    _pending: dict[str, list[Drawn]] = field(default_factory=dict)
    """Steps under way whose tasks are held by a name."""
    _coroutines: dict[str, ast.expr] = field(default_factory=dict)
    """Calls that were made and not awaited: they do not start before they are."""
    _clock: int = 0
    _depth: int = 0
    _count: int = 0

    def method(self, function: Function, steps_at: int) -> list[Drawn]:
        """The nodes of a function whose parameter number `steps_at` is the step object."""
        parameters = parameters_of(function)
        if len(parameters) <= steps_at:
            return []
        with self.scope.inside({}, parameters[steps_at]):
            return self._body(function)

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
            declared = self.scope.declaration(decorator, node)
            if declared is not None:
                self.scope.locals[node.name] = declared
                return []
        self.scope.locals[node.name] = node
        return []

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
        return [*before, {"type": "if", "branches": branches}] if branching(branches) else before

    def _loop(self, node: Any) -> list[Drawn]:
        before = self._expression(node.test if isinstance(node, ast.While) else node.iter)
        nodes = self._block(node.body)
        after = self._block(node.orelse)
        return [*before, *([{"type": "loop", "nodes": nodes}] if steps_in(nodes) else []), *after]

    def _match(self, node: Any) -> list[Drawn]:
        before = self._expression(node.subject)
        branches: list[Drawn] = []
        for case in node.cases:
            otherwise = isinstance(case.pattern, ast.MatchAs) and case.pattern.pattern is None and case.guard is None
            test = text_of(case.pattern) + (f" if {text_of(case.guard)}" if case.guard is not None else "")
            branches.append({"condition": None if otherwise else test, "nodes": self._block(case.body)})
        if not branching(branches):
            return before
        return [*before, {"type": "switch", "discriminant": text_of(node.subject), "branches": branches}]

    def _try(self, node: Any) -> list[Drawn]:
        caught = [drawn for handler in node.handlers for drawn in self._block(handler.body)] if node.handlers else None
        blocks: dict[str, list[Drawn] | None] = {
            "try_block": _unbroken([*self._block(node.body), *self._block(node.orelse)]),
            "catch_block": None if caught is None else _unbroken(caught),
            "finally_block": _unbroken(self._block(node.finalbody)) if node.finalbody else None,
        }
        if not any(steps_in(nodes or []) for nodes in blocks.values()):
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
            declared = self.scope.declaration(value.func, value.args[0] if value.args else None)
            if declared is not None:
                self.scope.locals[name] = declared
                return []
            if self.scope.is_step_call(value):
                self._coroutines[name] = value
                return []
        if isinstance(value, ast.Constant | ast.Dict | ast.List | ast.JoinedStr | ast.Lambda):
            self.scope.locals[name] = value
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
        method = self.scope.step_method(called)
        if method is not None:
            return self._step(method, node) if method in NODE_TYPES and method != "do" else []
        declared = self.scope.called(called, node)
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
        if not steps_in(nodes):
            self._clock = began - 1
            return nodes
        self._clock = began + 1
        for drawn in nodes:
            if drawn["type"] in (*NODE_TYPES.values(), "function_call"):
                drawn |= {"starts": began, "resolves": began + 1}
        return [{"type": "parallel", "kind": kind, "nodes": nodes}]

    def _started(self, nodes: list[Drawn]) -> list[Drawn]:
        """A task was made of it: it runs while the code goes on."""
        if nodes and nodes[-1]["type"] in (*NODE_TYPES.values(), "function_call"):
            self._clock += 1
            nodes[-1]["starts"] = self._clock
        return nodes

    def _comprehension(self, node: Any) -> list[Drawn]:
        before = [drawn for generator in node.generators for drawn in self._expression(generator.iter)]
        heads = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        tests = [test for generator in node.generators for test in generator.ifs]
        nodes = [drawn for part in (*tests, *heads) for drawn in self._expression(part)]
        return [*before, {"type": "loop", "nodes": nodes}] if steps_in(nodes) else before

    def _ternary(self, node: Any) -> list[Drawn]:
        before = self._expression(node.test)
        branches = [
            {"condition": text_of(node.test), "nodes": self._expression(node.body)},
            {"condition": None, "nodes": self._expression(node.orelse)},
        ]
        return [*before, {"type": "if", "branches": branches}] if branching(branches) else before

    def _either(self, node: Any) -> list[Drawn]:
        before = self._expression(node.values[0])
        for value in node.values[1:]:
            after = self._expression(value)
            if steps_in(after):
                branches = [{"condition": text_of(node.values[0]), "nodes": after}]
                before.append({"type": "if", "branches": branches})
        return before

    # --- steps -------------------------------------------------------------------------------------------------------

    def _run(self, declared: Declared) -> list[Drawn]:
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
        try:
            with self.scope.inside(dict(self.scope.locals)):
                return self._body(function)
        finally:
            self._depth -= 1

    def _step(self, method: str, node: ast.Call) -> list[Drawn]:
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        arguments = node.args
        first = arguments[0] if arguments else given.get("name")
        second = arguments[1] if len(arguments) > 1 else None
        name, dynamic = self.scope.name_of(first)
        drawn: Drawn = {"type": NODE_TYPES[method], "name": name}
        if method == "sleep":
            drawn["duration"] = literal(second or given.get("duration"), self.scope.value_of)
        elif method == "sleep_until":
            drawn["timestamp"] = text_of(second or given.get("timestamp"))
        else:
            timeout = given.get("timeout") or (arguments[2] if len(arguments) > 2 else None)
            shown = DEFAULT_EVENT_TIMEOUT if timeout is None else literal(timeout, self.scope.value_of)
            drawn["options"] = {"event_type": literal(second, self.scope.value_of), "timeout": shown}
        if dynamic:
            drawn["dynamic"] = True
        self._count += 1
        return [drawn]

    def _helper(self, called: ast.expr, node: ast.Call) -> list[Drawn]:
        """A call of a function or method that has steps: it is handed the step object, or was made where that is."""
        arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
        handed = [at for at, one in enumerate(arguments) if isinstance(one, ast.Name) and one.id in self.scope.steps]
        name = text_of(called)
        function, own = self.scope.helper(called)
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


_STATEMENTS: dict[type[ast.AST], Callable[[Drawing, Any], list[Drawn]]] = {
    ast.FunctionDef: Drawing._define,
    ast.AsyncFunctionDef: Drawing._define,
    ast.ClassDef: lambda drawing, node: [],
    ast.If: Drawing._if,
    ast.For: Drawing._loop,
    ast.AsyncFor: Drawing._loop,
    ast.While: Drawing._loop,
    ast.Match: Drawing._match,
    ast.Try: Drawing._try,
    ast.TryStar: Drawing._try,
    ast.With: Drawing._with,
    ast.AsyncWith: Drawing._with,
    ast.Return: Drawing._leave,
    ast.Break: Drawing._leave,
    ast.Assign: Drawing._assign,
    ast.AnnAssign: Drawing._assign,
}
_EXPRESSIONS: dict[type[ast.AST], Callable[[Drawing, Any], list[Drawn]]] = {
    ast.Await: Drawing._await,
    ast.Call: Drawing._call,
    ast.IfExp: Drawing._ternary,
    ast.BoolOp: Drawing._either,
    ast.ListComp: Drawing._comprehension,
    ast.SetComp: Drawing._comprehension,
    ast.GeneratorExp: Drawing._comprehension,
    ast.DictComp: Drawing._comprehension,
}


def _unbroken(nodes: Iterable[Drawn]) -> list[Drawn]:
    """Without what leaves a block that ends there anyway."""
    return [node for node in nodes if node["type"] != "break"]
