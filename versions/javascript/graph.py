"""The graph of a workflow class that the API shows, from its text alone."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from versions.drawing import ClassGraph, Drawn, class_drawn, payload_of
from versions.javascript.declarations import Module, method_of, parameters_of, walk
from versions.javascript.drawing import Drawing
from versions.javascript.literals import text_of
from versions.javascript.modules import exports_of, parse


def class_graph(text: str, exported: str) -> ClassGraph | None:
    """The graph of the class a module exports under this name; None when it is not there, has no `run`, or is
    nested too deeply to be read."""
    name = exports_of(text).get(exported)
    if name is None:
        return None
    module = Module(parse(text.encode("utf-8", "surrogatepass")))
    body = module.class_body(name)
    run = None if body is None else method_of(body, "run")
    if body is None or run is None:
        return None
    drawing = Drawing(module, body)
    try:
        nodes = drawing.function(run, steps_at=1)
    except RecursionError:
        return None
    return class_drawn(exported, drawing.functions, nodes, _payload(run), calls_steps=drawing.touched)


def _payload(run: Node) -> Drawn | None:
    """The fields of the payload that `run` reads."""
    parameters = parameters_of(run)
    if not parameters or parameters[0].type != "identifier":
        return None
    event = text_of(parameters[0])
    fields: list[str] = []
    for node in walk(run):
        if node.type == "member_expression" and text_of(node.child_by_field_name("object")) == f"{event}.payload":
            fields.append(text_of(node.child_by_field_name("property")))
        elif node.type == "variable_declarator" and text_of(node.child_by_field_name("value")) == f"{event}.payload":
            fields += _fields(node.child_by_field_name("name"))
    return payload_of(fields)


def _fields(pattern: Node | None) -> Iterator[str]:
    """Names an object pattern takes out of an object."""
    for child in () if pattern is None or pattern.type != "object_pattern" else pattern.named_children:
        if child.type == "shorthand_property_identifier_pattern":
            yield text_of(child)
        elif child.type == "pair_pattern":
            yield text_of(child.child_by_field_name("key"))
        elif child.type == "object_assignment_pattern":
            yield text_of(child.child_by_field_name("left"))
