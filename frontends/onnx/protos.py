"""From graphs to GraphProtos: nodes, types and constants under the names that they have in the file, and irgrad's marks.

Messages are filled where they are, never copied, so that large tensors can get their elements when everything else stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper

from irgrad.builder import call_of
from irgrad.contents import infer_contents
from irgrad.errors import ExportError, IrgradError
from irgrad.frontends.onnx import marks
from irgrad.frontends.onnx.lowering import shown
from irgrad.frontends.onnx.naming import FileNames, captured_inputs
from irgrad.frontends.onnx.opsets import own_attributes, own_inputs, results_needed
from irgrad.frontends.onnx.remarks import put_remarks
from irgrad.frontends.onnx.storage import fill
from irgrad.graph import Graph, Node, Role, Value
from irgrad.infer import infer_types
from irgrad.op import Op
from irgrad.proto import attribute_to_proto
from irgrad.types import Dim, type_from_proto, type_to_proto

__all__ = ["ModelParts", "write_graph"]


@dataclass
class ModelParts:
    """What the graphs of one model share.

    Attributes:
        names: how things are called.
        functions: node → (name, domain) of the function that it calls instead of being of its operation.
        arrays: the tensors of the outermost graph, each with the array that its elements are in.
    """

    names: FileNames
    functions: Mapping[Node, tuple[str, str]] = field(default_factory=dict)
    arrays: list[tuple[TensorProto, np.ndarray]] = field(default_factory=list)


def write_graph(
    proto: onnx.GraphProto, graph: Graph, parts: ModelParts, captured: list[tuple[Value, Value]] | None = None
) -> None:
    """Fill a GraphProto; the tensors of the outermost graph are still without their elements.

    Args:
        proto: an empty message.
        graph: a graph of operations that the model has.
        parts: the model's.
        captured: for a subgraph, the values that it captures with the inputs that stand for them.

    Raises:
        ExportError: an attribute is one that ONNX does not have.
    """
    names = parts.names.values
    proto.name = graph.name or "graph"
    inputs = list(graph.inputs.values())
    for value in inputs[: len(inputs) - len(captured or ())]:
        _declare(proto.input.add(), value, names[value], None)
    for value, array in graph.constants.items():
        tensor = proto.initializer.add(
            name=names[value], data_type=helper.np_dtype_to_tensor_dtype(array.dtype), dims=array.shape
        )
        if value.is_parameter != value.tensor_type.differentiable:
            marks.mark(tensor, marks.PARAMETER, str(value.is_parameter).lower())
        if captured is None:
            parts.arrays.append((tensor, array))
        else:
            fill(tensor, array)
    outputs = {value: proto.output.add() for value in graph.outputs.values()}
    made: dict[str, onnx.NodeProto] = {}
    for node in graph.nodes():
        made[node.name] = proto.node.add()
        _write_node(made[node.name], node, parts)
        if node in parts.names.passing:
            continue
        for value, contents in zip(node.outputs, _predicted(node), strict=True):
            _declare(outputs.get(value) or proto.value_info.add(), value, names[value], contents)
    for value, info in outputs.items():
        if not info.name:
            _declare(info, value, names[value], value.contents)
    _mark_graph(proto, graph, parts, captured)
    put_remarks(graph.metadata, proto, made, outermost=captured is None)


def _write_node(proto: onnx.NodeProto, node: Node, parts: ModelParts) -> None:
    names = parts.names.values
    inputs = own_inputs(node)
    proto.op_type, proto.domain = parts.functions.get(node, (node.op.name, node.op.domain))
    proto.name = node.name
    proto.input.extend("" if v is None else names[v] for v in inputs)
    proto.output.extend(names[v] for v in node.outputs)
    for position in range(len(node.outputs), results_needed(node)):
        proto.output.append(parts.names.unique(f"{node.name}.{position}"))
    inexact: dict[str, Any] = {}
    for name, value in own_attributes(node).items():
        if isinstance(value, Graph):
            subgraph = proto.attribute.add(name=name, type=AttributeProto.GRAPH).g
            write_graph(subgraph, value, parts, captured_inputs(node, value))
            continue
        proto.attribute.append(_attribute(node, name, value))
        if not _is_exact(value, proto.attribute[-1]):
            inexact[name] = value
    if node in parts.names.passing:
        marks.mark(proto, marks.PASSES_ON, parts.names.passing[node])
        return
    if node.role is not Role.FORWARD:
        marks.mark(proto, marks.ROLE, node.role.value)
    for key, text in ((marks.ORIGIN, node.origin), (marks.RULE, node.rule)):
        if text is not None:
            marks.mark(proto, key, text)
    marks.mark_json(proto, marks.EXPANSION, node.expansion)
    given = len(node.inputs) - node.attr("captured", 0)
    if given != len(inputs):
        marks.mark(proto, marks.OPERANDS, str(given))
    if len(proto.output) != len(node.outputs):
        marks.mark(proto, marks.RESULTS, str(len(node.outputs)))
    marks.mark_json(proto, marks.ATTRIBUTES, inexact)


# --- attributes -------------------------------------------------------------------------------------------------------


def _attribute(node: Node, name: str, value: Any) -> AttributeProto:
    kind = _kind(node.op, name)
    if kind == AttributeProto.FLOAT and isinstance(value, int):
        value = float(value)
    elif kind == AttributeProto.FLOATS and isinstance(value, tuple):
        value = tuple(map(float, value))
    if isinstance(value, tuple) and not value and kind is not None:
        return AttributeProto(name=name, type=kind)
    proto = attribute_to_proto(name, value)
    if proto is None:
        raise ExportError(f"the attribute {name!r} of {shown(node)} is a {type(value).__name__}, which ONNX does not have")
    return proto


def _kind(op: Op, name: str) -> Any:
    """The kind that an operation says its attribute is of, an `AttributeProto.AttributeType`; None where it says nothing."""
    schema: Any = op.schema
    return None if schema is None else AttributeProto.AttributeType.Value(schema.attributes[name].type.name)


def _is_exact(value: Any, proto: AttributeProto) -> bool:
    """Whether an attribute of numbers is read back as it was: ONNX has float32 only."""
    if proto.type not in (AttributeProto.FLOAT, AttributeProto.FLOATS):
        return True
    numbers = value if isinstance(value, tuple) else (value,)
    there = proto.floats if proto.type == AttributeProto.FLOATS else (proto.f,)
    return all(isinstance(x, float) and (x == y or x != x) for x, y in zip(numbers, there, strict=True))


# --- types ------------------------------------------------------------------------------------------------------------


def _declare(info: onnx.ValueInfoProto, value: Value, name: str, predicted: tuple[Dim, ...] | None) -> None:
    """Declare a value, marked where the reader would not come to its type and known elements by itself."""
    info.name = name
    info.type.CopyFrom(type_to_proto(value.type))
    if value.contents != predicted or type_from_proto(info.type) != value.type:
        marks.mark(info, marks.TYPE, marks.typed_text(value))


def _predicted(node: Node) -> list[tuple[Dim, ...] | None]:
    """The known elements that the reader will come to for each output of a node."""
    count = len(node.outputs)
    try:
        types = infer_types(call_of(node.op, node.attrs, node.inputs, count))
        return list(infer_contents(call_of(node.op, node.attrs, node.inputs, count, types)))
    except IrgradError:
        return [None] * count


# --- marks ------------------------------------------------------------------------------------------------------------


def _mark_graph(proto: onnx.GraphProto, graph: Graph, parts: ModelParts, captured: list[tuple[Value, Value]] | None) -> None:
    names = parts.names.values
    inner = {value for _, value in captured or ()}
    passing = {value for node in graph.nodes() if node in parts.names.passing for value in node.outputs}
    marks.mark_json(
        proto,
        marks.NAMES,
        {names[v]: v.name for v in graph.values() if names[v] != v.name and v not in inner and v not in passing},
    )
    outputs = parts.names.outputs[graph]
    marks.mark_json(proto, marks.OUTPUTS, outputs if outputs != [o.name for o in proto.output] else [])
    marks.mark_json(proto, marks.GRADIENTS, graph.gradients)
    if captured is not None:
        marks.mark(proto, marks.CAPTURED, json.dumps([_capture(names[outer], outer, value) for outer, value in captured]))


def _capture(name: str, outer: Value, inner: Value) -> list[str | None]:
    same = outer.type == inner.type and outer.contents == inner.contents
    return [name, inner.name, None if same else marks.typed_text(inner)]
