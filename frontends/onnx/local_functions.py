"""Operations that ONNX does not have, as functions of the model: their bodies are what they mean in those that it has."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import NodeProto

from irgrad.compare import array_key, attribute_key
from irgrad.errors import ExportError
from irgrad.frontends.onnx import marks
from irgrad.frontends.onnx.lowering import is_standard, lower
from irgrad.frontends.onnx.naming import file_names
from irgrad.frontends.onnx.opsets import own_inputs
from irgrad.frontends.onnx.protos import ModelParts, write_graph
from irgrad.frontends.onnx.storage import fill
from irgrad.graph import MAX_CONTENTS, Graph, Node, Value
from irgrad.types import TensorType

__all__ = ["Functions", "is_callable"]

_UNKNOWN = TensorType(np.dtype(np.float32))


def is_callable(node: Node) -> bool:
    """Whether a node may become a call of a function: an operation with a lowering, and without subgraphs.

    A fused group is called too: its subgraph is the function.
    """
    return node.op.has_lowering and bool(node.op.domain) and (not node.subgraphs or _is_group(node))


def _is_group(node: Node) -> bool:
    return node.op.qualified_name == "irgrad.Fused"


@dataclass
class Functions:
    """The functions of one model: one for each operation with its attributes and the types of its operands, or fused group.

    A lowering may depend on all that, on shapes too, so that a function does not serve for other types.

    Attributes:
        calls: node → (name, domain) of the function that it calls.
        bodies: (name, domain) of a function → its body, a graph of standard operations.
    """

    calls: dict[Node, tuple[str, str]] = field(default_factory=dict)
    bodies: dict[tuple[str, str], Graph] = field(default_factory=dict)
    _operations: dict[tuple[str, str], Node] = field(default_factory=dict)
    _groups: set[tuple[str, str]] = field(default_factory=set)
    _known: dict[Hashable, tuple[str, str]] = field(default_factory=dict)

    def add(self, nodes: Iterable[Node]) -> None:
        """Let nodes call functions.

        Raises:
            ExportError: the lowering of one uses what ONNX does not have.
        """
        for node in nodes:
            key = _key(node)
            if key not in self._known:
                plain, count = node.attrs["body"].name if _is_group(node) else node.op.name, 1
                name = plain
                while (name, node.op.domain) in self.bodies:
                    count += 1
                    name = f"{plain}_{count}"
                self._known[key] = name, node.op.domain
                self.bodies[name, node.op.domain] = _body(node)
                self._operations[name, node.op.domain] = node
            self.calls[node] = self._known[key]
            if _is_group(node):
                self._groups.add(self._known[key])
                node.graph.set_op(node, node.op, {})  # all that they say is in the function

    def protos(self, imports: Iterable[onnx.OperatorSetIdProto]) -> list[onnx.FunctionProto]:
        """The functions, whose bodies are written in the given opsets."""
        return [self._proto(key, imports) for key in self.bodies]

    def _proto(self, key: tuple[str, str], imports: Iterable[onnx.OperatorSetIdProto]) -> onnx.FunctionProto:
        body, operation = self.bodies[key], self._operations[key]
        parts = ModelParts(file_names(body))
        graph = onnx.GraphProto()
        write_graph(graph, body, parts)
        for tensor, array in parts.arrays:
            fill(tensor, array)
        function = onnx.FunctionProto(name=key[0], domain=key[1], opset_import=imports)
        function.input.extend(value.name for value in graph.input)
        function.output.extend(value.name for value in graph.output)
        function.attribute.extend(operation.attrs)
        for tensor in graph.initializer:
            constant = NodeProto(op_type="Constant", output=[tensor.name])
            constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(tensor)
            function.node.append(constant)
        function.node.extend(graph.node)
        if key not in self._groups:  # which is read back as what it is made of
            marks.mark(function, marks.OPERATION, operation.op.name)
        return function


def _key(node: Node) -> Hashable:
    """What the body of a node's function may depend on."""
    return (
        node.op,
        tuple(sorted((name, attribute_key(value)) for name, value in node.attrs.items())),
        tuple(None if v is None else (v.type, v.contents, _embedded(v)) for v in own_inputs(node)),
        tuple(v.type for v in node.outputs),
    )


def _embedded(value: Value) -> Hashable:
    """A small constant of integers (axes, a shape), which a lowering may look at."""
    array = value.constant
    if array is None or value.is_parameter or array.dtype.kind not in "iub" or array.size > MAX_CONTENTS:
        return None
    return array_key(array)


def _body(node: Node) -> Graph:
    """The lowering of a node as a graph: operands are inputs, small constants of integers are known."""
    graph = Graph(node.op.name)
    operands: list[Value | None] = []
    for position, value in enumerate(own_inputs(node)):
        # A function has a parameter for each operand, also for one that its calls leave out or whose elements it knows.
        inner = graph.add_input(f"x{position}", _UNKNOWN if value is None else value.type)
        if value is None:
            operands.append(None)
        elif value.constant is not None and _embedded(value) is not None:
            operands.append(graph.add_constant(value.constant))
        else:
            inner.contents = value.contents
            operands.append(inner)
    clone = graph.add_node(node.op, operands, [v.type for v in node.outputs], node.attrs)
    graph.set_outputs({f"y{k}": value for k, value in enumerate(clone.outputs)})
    try:
        lower(graph, is_standard)
    except ExportError as error:
        raise ExportError(f"the meaning of {node.op.qualified_name} {error}", error.nodes) from None
    return graph
