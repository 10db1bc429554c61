"""The text form of a graph: what ``print(graph)`` shows, and what `parse_text` reads back.

    graph mlp opset 28 {
      meta producer = "pytorch 2.1"
      input %x: f32[N,3]
      param %w: f32[3,4]{...}
      const %axes: i64[1]{1}
      %h: f32[N,4] = MatMul(%x, %w) @"fc 1"
      %s: f32[N,1] = ReduceSum(%h, %axes, keepdims=1)
      %d: f32[N,4] = Expand(%g, %shape) backward of s
      output s
      output w_grad = %MatMul_3
      gradient w = w_grad
    }

One line per node: results with their types, operation, operands (``_`` for an absent one), attributes, ``@name`` of the node
where it is not that of its first result, role where it is not forward, the forward node that it was made ``of``, the
operation ``by`` whose adjoint rule it was made, ``via`` the expansion of which node (``via GroupNormalization @gn``), and,
on demand, the pass ``after`` which it has not changed any more. Names that are not plain are quoted (``%"x:0"``). The
elements of a constant stand in braces after its type: in row-major order, a single one where all are the same, ``{...}``
where they are left out. Braces after any other type hold the elements of a small integer tensor as far as they are known
(``i64[2]{N,?}``).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

import numpy as np

from irgrad.graph import Graph, Node, Role, Value
from irgrad.literals import array_text, contents_text, float_text, name_text, quote, type_text
from irgrad.text_parser import parse_text
from irgrad.types import OptionalType, SequenceType, TensorType

__all__ = ["Constants", "attribute_text", "line_of", "parse_text", "to_text"]

Constants: TypeAlias = Literal["short", "full", "none"]

_INDENT = "  "


def to_text(graph: Graph, constants: Constants = "short", *, passes: bool = False) -> str:
    """The text form of a graph, one line per node in program order.

    Args:
        graph: any graph; also one that breaks invariants, as long as it can be sorted.
        constants: what of the arrays of constants is written: "short" leaves out those of more than 32 elements (unless all
            are the same), "full" writes the bytes of those in base64, "none" writes none.
        passes: write which pass last changed a node (`Node.changed_by`) as well.

    Returns:
        A text that ends in a newline. ``parse_text(to_text(graph, "full"))`` is the same graph.
    """
    return "\n".join(_graph_lines(graph, constants, "", passes)) + "\n"


def line_of(thing: Node | Value) -> str:
    """The line that the text form has for a node, an input or a constant; for a result that of its node."""
    if isinstance(thing, Node):
        return _node_text(thing, "short", "", passes=False, nested=False)
    producer = thing.producer
    return _header_line(thing, "short") if producer is None else line_of(producer)


def attribute_text(value: Any) -> str:
    """An attribute as the text form has it, large arrays and subgraphs left out."""
    return _attribute_text(value, "short", "", passes=False, nested=False)


def _graph_lines(graph: Graph, constants: Constants, indent: str, passes: bool) -> Iterator[str]:
    yield f"graph {name_text(graph.name)} opset {graph.opset} {{"
    inner = indent + _INDENT
    for key, text in graph.metadata.items():
        yield f"{inner}meta {name_text(key)} = {quote(text)}"
    for value in (*graph.inputs.values(), *graph.constants):
        yield inner + _header_line(value, constants)
    for node in graph.nodes():
        yield inner + _node_text(node, constants, inner, passes)
    for name, value in graph.outputs.items():
        yield f"{inner}output {name_text(name)}" + ("" if name == value.name else f" = %{name_text(value.name)}")
    for name, gradient in graph.gradients.items():
        yield f"{inner}gradient {name_text(name)} = {name_text(gradient)}"
    yield indent + "}"


def _header_line(value: Value, constants: Constants) -> str:
    array = value.constant
    if array is None:
        return f"input {_typed(value)}"
    keyword = "param" if value.is_parameter else "const"
    return f"{keyword} %{name_text(value.name)}: {type_text(value.type)}{array_text(array, constants)}"


def _typed(value: Value) -> str:
    known = "" if value.contents is None else contents_text(value.contents)
    return f"%{name_text(value.name)}: {type_text(value.type)}{known}"


def _node_text(node: Node, constants: Constants, indent: str, passes: bool, *, nested: bool = True) -> str:
    results = ", ".join(map(_typed, node.outputs)) or "()"
    arguments = ["_" if v is None else f"%{name_text(v.name)}" for v in node.inputs]
    for key, value in node.attrs.items():
        text = _attribute_text(value, constants, indent, passes, nested)
        arguments.append(f"{quote(key) if key == '_' else name_text(key)}={text}")
    parts = [f"{results} = {name_text(node.op.qualified_name)}({', '.join(arguments)})"]
    if not node.outputs or node.name != node.outputs[0].name:
        parts.append(f"@{name_text(node.name)}")
    if node.role is not Role.FORWARD:
        parts.append(str(getattr(node.role, "value", node.role)))
    if node.origin is not None:
        parts.append(f"of {name_text(str(node.origin))}")
    if node.rule is not None:
        parts.append(f"by {name_text(node.rule)}")
    if node.expansion is not None:
        parts.append(f"via {name_text(node.expansion.op)} @{name_text(node.expansion.node)}")
    if passes and node.changed_by is not None:
        parts.append(f"after {name_text(node.changed_by)}")
    return " ".join(parts)


def _attribute_text(value: Any, constants: Constants, indent: str, passes: bool, nested: bool) -> str:
    if isinstance(value, (bool, int, np.integer, np.bool_)):
        return str(int(value))
    if isinstance(value, (float, np.floating)):
        return float_text(float(value))
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bytes):
        return f"bytes {_base64(value)}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_attribute_text(v, constants, indent, passes, nested) for v in value) + "]"
    if isinstance(value, np.ndarray):
        return f"{type_text(TensorType.of(value))}{array_text(value, constants) or '{...}'}"
    if isinstance(value, (TensorType, SequenceType, OptionalType)):
        return type_text(value)
    if isinstance(value, Graph):
        if not nested:
            return f"graph {name_text(value.name)} {{...}}"
        return "\n".join(_graph_lines(value, constants, indent, passes))
    if hasattr(value, "SerializeToString"):
        return f"proto {type(value).__name__} {_base64(value.SerializeToString(deterministic=True))}"
    return "none" if value is None else quote(repr(value))


def _base64(raw: bytes) -> str:
    return '"' + base64.b64encode(raw).decode() + '"'


Graph.printer = to_text
