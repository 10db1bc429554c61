"""Function bodies of standard operations: the expansion that a schema itself gives for an operation."""

from __future__ import annotations

from functools import cache

import onnx
from onnx import defs

from irgrad.builder import Builder
from irgrad.frontends.onnx.reader import Scope, emit_nodes
from irgrad.graph import OPSET, Graph, Node, Value
from irgrad.proto import node_to_proto
from irgrad.types import type_to_proto

__all__ = ["emit_function_body", "has_function_body"]


def has_function_body(node: Node) -> bool:
    """Whether onnx defines the operation of a node by simpler ones."""
    schema = node.op.schema
    if schema is None or any(isinstance(a, Graph) for a in node.attrs.values()):
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def emit_function_body(b: Builder, node: Node) -> tuple[Value, ...]:
    """Emit the function body of a node's operation; its results, one per output of the node."""
    function = _body(node)
    scope: Scope = {}
    for name, value in zip(function.input, node.inputs, strict=False):
        scope[name] = value
    for name in function.input[len(node.inputs) :]:
        scope[name] = None
    versions = {o.domain: o.version for o in function.opset_import} or {"": OPSET}
    attributes = {a.name: a for a in _node_proto(node).attribute}
    for default in function.attribute_proto:
        attributes.setdefault(default.name, default)
    schema = node.op.schema
    assert schema is not None
    for name, described in schema.attributes.items():
        if name not in attributes and described.default_value.type != onnx.AttributeProto.UNDEFINED:
            attributes[name] = described.default_value
    emit_nodes(b, function.node, scope, versions, attributes=attributes, prefix=f"{node.name}/")
    results = [scope[name] for name in function.output[: len(node.outputs)]]
    assert all(r is not None for r in results)
    return tuple(r for r in results if r is not None)


def _body(node: Node) -> onnx.FunctionProto:
    schema = node.op.schema
    assert schema is not None
    if schema.has_context_dependent_function:
        types = [type_to_proto(v.type).SerializeToString() if v is not None else b"" for v in node.inputs]
        data = schema.get_context_dependent_function(_node_proto(node).SerializeToString(), types)
        function = onnx.FunctionProto()
        function.ParseFromString(data)
        return function
    return _plain_body(schema.name, schema.domain)


@cache
def _plain_body(name: str, domain: str) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(defs.get_schema(name, OPSET, domain).function_body.SerializeToString())
    return function


def _node_proto(node: Node) -> onnx.NodeProto:
    return node_to_proto(
        node.op.name,
        node.op.domain,
        node.attrs,
        ["" if v is None else v.name for v in node.inputs],
        [v.name for v in node.outputs],
    )
