"""Functions drawn as nodes.

A function is read statement by statement; what has no step in it leaves no trace. Promises that are not awaited where
they are made carry `starts` and, where they are awaited, `resolves`: positions in one count of such events.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tree_sitter import Node

from versions.drawing import DEFAULT_EVENT_TIMEOUT, MAX_DEPTH, Drawn, branching, step_config, steps_in
from versions.javascript.declarations import FUNCTIONS, Module, method_of, parameters_of
from versions.javascript.literals import literal, text_of

_NODE_TYPES = {
    "do": "step_do",
    "sleep": "step_sleep",
    "sleepUntil": "step_sleep_until",
    "waitForEvent": "step_wait_for_event",
}
_GROUPS = {"all": "all", "allSettled": "all_settled", "race": "race", "any": "any"}
_ITERATIONS = frozenset({"map", "forEach", "flatMap", "filter", "reduce", "some", "every", "find"})
_LOOPS = frozenset({"for_statement", "for_in_statement", "while_statement", "do_statement"})


@dataclass(slots=True)
class Drawing:
    """Draws functions of one class."""

    module: Module
    body: Node
    functions: dict[str, Drawn] = field(default_factory=dict)
    """Functions that steps are handed to, by name."""
    touched: bool = False
    """Whether the step object was used at all."""
    _steps: list[str] = field(default_factory=list)
    """Names the step object goes by."""
    _pending: dict[str, list[Drawn]] = field(default_factory=dict)
    """Steps whose promises are held by a name."""
    _clock: int = 0
    _depth: int = 0

    def function(self, function: Node, steps_at: int) -> list[Drawn]:
        """The nodes of a function whose parameter number `steps_at` is the step object."""
        parameters = parameters_of(function)
        body = function.child_by_field_name("body")
        if body is None or len(parameters) <= steps_at:
            return []
        self._steps.append(text_of(parameters[steps_at]).split("=")[0].strip())
        try:
            return self._block(body)
        finally:
            self._steps.pop()

    # --- statements ----------------------------------------------------------------------------------------------

    def _block(self, node: Node | None) -> list[Drawn]:
        if node is None:
            return []
        if node.type == "statement_block":
            return [drawn for statement in node.named_children for drawn in self._statement(statement)]
        return self._statement(node)

    def _statement(self, node: Node) -> list[Drawn]:
        draw = _STATEMENTS.get(node.type)
        return self._expression(node) if draw is None else draw(self, node)

    def _if(self, node: Node) -> list[Drawn]:
        condition = node.child_by_field_name("condition")
        branches = [{"condition": _condition(condition), "nodes": self._block(node.child_by_field_name("consequence"))}]
        otherwise = node.child_by_field_name("alternative")
        while otherwise is not None:
            inner = otherwise.named_children[0] if otherwise.type == "else_clause" else otherwise
            if inner.type == "if_statement":
                test = _condition(inner.child_by_field_name("condition"))
                branches.append({"condition": test, "nodes": self._block(inner.child_by_field_name("consequence"))})
                otherwise = inner.child_by_field_name("alternative")
            else:
                branches.append({"condition": None, "nodes": self._block(inner)})
                otherwise = None
        before = self._expression(condition)
        return [*before, {"type": "if", "branches": branches}] if branching(branches) else before

    def _loop(self, node: Node) -> list[Drawn]:
        heads = [node.child_by_field_name(name) for name in ("initializer", "condition", "increment", "right")]
        before = [drawn for head in heads for drawn in self._expression(head)]
        nodes = self._block(node.child_by_field_name("body"))
        return [*before, {"type": "loop", "nodes": nodes}] if steps_in(nodes) else before

    def _switch(self, node: Node) -> list[Drawn]:
        value = node.child_by_field_name("value")
        body = node.child_by_field_name("body")
        branches: list[Drawn] = []
        for case in () if body is None else body.named_children:
            test = case.child_by_field_name("value")
            statements = [child for child in case.named_children if child != test]
            nodes = [drawn for statement in statements for drawn in self._statement(statement)]
            nodes = [drawn for drawn in nodes if drawn.get("kind") != "break" or drawn["type"] != "break"]
            branches.append({"condition": None if test is None else text_of(test), "nodes": nodes})
        before = self._expression(value)
        if not branching(branches):
            return before
        return [*before, {"type": "switch", "discriminant": _condition(value) or "", "branches": branches}]

    def _try(self, node: Node) -> list[Drawn]:
        handler, final = node.child_by_field_name("handler"), node.child_by_field_name("finalizer")
        blocks = {
            "try_block": self._block(node.child_by_field_name("body")),
            "catch_block": None if handler is None else self._block(handler.child_by_field_name("body")),
            "finally_block": None if final is None else self._block(final.child_by_field_name("body")),
        }
        if not any(steps_in(nodes or []) for nodes in blocks.values()):
            return []
        shown = {key: None if nodes is None else {"type": "block", "nodes": nodes} for key, nodes in blocks.items()}
        return [{"type": "try", **shown}]

    def _leave(self, node: Node) -> list[Drawn]:
        kind = "return" if node.type == "return_statement" else "break"
        nodes = [drawn for child in node.named_children for drawn in self._expression(child)]
        return [*nodes, {"type": "break", "kind": kind}] if self._nested(node) else nodes

    def _nested(self, node: Node) -> bool:
        """Whether leaving here leaves something out."""
        parent = node.parent
        while parent is not None and parent.type in ("statement_block", "else_clause"):
            parent = parent.parent
        return parent is not None and parent.type in ("if_statement", "switch_case", "switch_default", *_LOOPS)

    def _declaration(self, node: Node) -> list[Drawn]:
        nodes: list[Drawn] = []
        for declarator in node.named_children:
            name, value = declarator.child_by_field_name("name"), declarator.child_by_field_name("value")
            made = self._expression(value)
            if name is not None and name.type == "identifier":
                self._hold(text_of(name), made)
            nodes += made
        return nodes

    def _hold(self, name: str, made: list[Drawn]) -> None:
        """Promises that go by a name from now on."""
        waiting = [drawn for drawn in made if "starts" in drawn and "resolves" not in drawn]
        if waiting:
            self._pending[name] = self._pending.get(name, []) + waiting

    # --- expressions ---------------------------------------------------------------------------------------------

    def _expression(self, node: Node | None) -> list[Drawn]:
        if node is None or self._depth > MAX_DEPTH:
            return []
        self._depth += 1
        try:
            draw = _EXPRESSIONS.get(node.type)
            if draw is not None:
                return draw(self, node)
            if node.type in FUNCTIONS or node.type in ("class", "class_declaration", "function_declaration"):
                return []  # what is only declared does not run
            return [drawn for child in node.named_children for drawn in self._expression(child)]
        finally:
            self._depth -= 1

    def _await(self, node: Node) -> list[Drawn]:
        argument = node.named_children[0]
        if argument.type == "identifier":
            self._resolve(text_of(argument))
            return []
        nodes = self._expression(argument)
        for drawn in nodes:
            if "starts" in drawn and "resolves" not in drawn and drawn is nodes[-1] and drawn["type"] != "parallel":
                del drawn["starts"]
                self._clock -= 1
        return nodes

    def _resolve(self, name: str) -> None:
        waiting = self._pending.pop(name, [])
        if waiting:
            self._clock += 1
            for drawn in waiting:
                drawn["resolves"] = self._clock

    def _call(self, node: Node) -> list[Drawn]:
        callee, arguments = node.child_by_field_name("function"), node.child_by_field_name("arguments")
        given = [] if arguments is None else list(arguments.named_children)
        if callee is None:
            return []
        if callee.type == "member_expression":
            owner, method = callee.child_by_field_name("object"), text_of(callee.child_by_field_name("property"))
            if owner is not None and text_of(owner) in self._steps:
                self.touched = True
                return self._step(method, given) if method in _NODE_TYPES else []
            if text_of(owner) == "Promise" and method in _GROUPS:
                return self._group(_GROUPS[method], given)
            if method in _ITERATIONS and given and given[0].type in FUNCTIONS:
                nodes = self._block(given[0].child_by_field_name("body"))
                return [*self._expression(owner), *([{"type": "loop", "nodes": nodes}] if steps_in(nodes) else [])]
            if text_of(owner) == "Array" and method in ("from", "fromAsync") and given and given[-1].type in FUNCTIONS:
                nodes = self._block(given[-1].child_by_field_name("body"))
                return [{"type": "loop", "nodes": nodes}] if steps_in(nodes) else []
        if callee.type in ("parenthesized_expression", *FUNCTIONS):
            called = callee.named_children[0] if callee.type == "parenthesized_expression" else callee
            if called.type in FUNCTIONS:
                return self._block(called.child_by_field_name("body"))
        before = [drawn for argument in given for drawn in self._expression(argument)]
        return [*self._expression(callee), *before, *self._helper(callee, given)]

    def _helper(self, callee: Node, given: list[Node]) -> list[Drawn]:
        """A call of a function or method that is handed the step object."""
        at = next((n for n, argument in enumerate(given) if text_of(argument) in self._steps), None)
        if at is None:
            return []
        self.touched = True
        name = text_of(callee).removeprefix("this.")
        function = method_of(self.body, name) if text_of(callee).startswith("this.") else self.module.value(name)
        if function is None:
            return [{"type": "function_call", "name": name}]
        if name not in self.functions:
            self.functions[name] = {"type": "function_def", "name": name, "nodes": []}
            self.functions[name]["nodes"] = self.function(function, at)
        return [{"type": "function_call", "name": name}] if self.functions[name]["nodes"] else []

    def _step(self, method: str, given: list[Node]) -> list[Drawn]:
        name, dynamic = self._name(given[0] if given else None)
        drawn: Drawn = {"type": _NODE_TYPES[method], "name": name}
        nested: list[Drawn] = []
        if method == "do":
            callback = next((argument for argument in given[1:] if argument.type in FUNCTIONS), None)
            config = given[1] if len(given) > 1 and given[1] is not callback else None
            nested = [] if callback is None else self._block(callback.child_by_field_name("body"))
            drawn |= {
                "config": step_config(self._value(config)),
                "nodes": [node for node in nested if node["type"] != "break"],
            }
        elif method == "sleep":
            drawn["duration"] = self._value(given[1] if len(given) > 1 else None)
        elif method == "sleepUntil":
            drawn["timestamp"] = text_of(given[1]) if len(given) > 1 else ""
        else:
            options = self._value(given[1]) if len(given) > 1 else None
            known = isinstance(options, Mapping)
            drawn["options"] = (
                {"event_type": options.get("type"), "timeout": options.get("timeout", DEFAULT_EVENT_TIMEOUT)}
                if known
                else None
            )
        if dynamic:
            drawn["dynamic"] = True
        self._clock += 1
        drawn["starts"] = self._clock
        return [drawn]

    def _group(self, kind: str, given: list[Node]) -> list[Drawn]:
        """`Promise.all` and its kin, awaited or not."""
        members = given[0] if given else None
        if members is not None and members.type == "identifier":
            self._resolve(text_of(members))
            return []
        began = self._clock + 1
        nodes: list[Drawn] = []
        if members is not None and members.type == "array":
            for member in members.named_children:
                if member.type == "identifier" and text_of(member) in self._pending:
                    self._resolve(text_of(member))
                else:
                    nodes += self._expression(member)
        else:
            nodes = self._expression(members)
        if not steps_in(nodes):
            return nodes
        self._clock = began + 1
        for drawn in nodes:
            if drawn["type"] in (*_NODE_TYPES.values(), "function_call"):
                drawn |= {"starts": began, "resolves": began + 1}
        return [{"type": "parallel", "kind": kind, "nodes": nodes}]

    def _ternary(self, node: Node) -> list[Drawn]:
        condition = node.child_by_field_name("condition")
        branches = [
            {"condition": _condition(condition), "nodes": self._expression(node.child_by_field_name("consequence"))},
            {"condition": None, "nodes": self._expression(node.child_by_field_name("alternative"))},
        ]
        before = self._expression(condition)
        return [*before, {"type": "if", "branches": branches}] if branching(branches) else before

    def _binary(self, node: Node) -> list[Drawn]:
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        before, after = self._expression(left), self._expression(right)
        if text_of(node.child_by_field_name("operator")) in ("&&", "||", "??") and steps_in(after):
            return [*before, {"type": "if", "branches": [{"condition": text_of(left), "nodes": after}]}]
        return [*before, *after]

    def _assignment(self, node: Node) -> list[Drawn]:
        left = node.child_by_field_name("left")
        made = self._expression(node.child_by_field_name("right"))
        if left is not None and left.type == "identifier":
            self._hold(text_of(left), made)
        return made

    # --- arguments -----------------------------------------------------------------------------------------------

    def _name(self, node: Node | None) -> tuple[str, bool]:
        """A step's name, and whether it is only known when it runs."""
        value = self._value(node)
        if not isinstance(value, str):
            return text_of(node), True
        fixed = node is not None and (node.type == "string" or (node.type == "template_string" and "${" not in value))
        return value, not (fixed or (value != text_of(node) and "${" not in value))

    def _value(self, node: Node | None) -> Any:
        return literal(node, self.module.value)


_STATEMENTS: dict[str, Callable[[Drawing, Node], list[Drawn]]] = {
    "if_statement": Drawing._if,
    "switch_statement": Drawing._switch,
    "try_statement": Drawing._try,
    "statement_block": Drawing._block,
    "return_statement": Drawing._leave,
    "break_statement": Drawing._leave,
    "lexical_declaration": Drawing._declaration,
    "variable_declaration": Drawing._declaration,
    **dict.fromkeys(_LOOPS, Drawing._loop),
}
_EXPRESSIONS: dict[str, Callable[[Drawing, Node], list[Drawn]]] = {
    "await_expression": Drawing._await,
    "call_expression": Drawing._call,
    "ternary_expression": Drawing._ternary,
    "binary_expression": Drawing._binary,
    "assignment_expression": Drawing._assignment,
}


def _condition(node: Node | None) -> str | None:
    if node is None:
        return None
    text = text_of(node)
    return text[1:-1] if node.type == "parenthesized_expression" else text
