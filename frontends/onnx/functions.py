"""Function bodies of standard operations: the expansion that a schema itself gives for an operation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import onnx
from onnx import AttributeProto, defs

from irgrad.builder import Builder
from irgrad.errors import GraphError
from irgrad.frontends.onnx.calls import domain_of
from irgrad.frontends.onnx.reader import Scope, emit_nodes
from irgrad.graph import OPSET, Node, Value
from irgrad.proto import node_to_proto
from irgrad.types import type_to_proto

__all__ = ["emit_function_body", "has_function_body"]


def has_function_body(node: Node) -> bool:
    """Whether onnx defines the operation of a node, for operands as they are known to be, by simpler ones."""
    return _body(node) is not None


def emit_function_body(b: Builder, node: Node) -> tuple[Value, ...]:
    """Emit the function body of a node's operation.

    The body may be written in an older opset than today's: its nodes are brought up to date as those of a file are.

    Args:
        b: where the nodes go.
        node: one that `has_function_body`.

    Returns:
        One result per output of the node.

    Raises:
        ModelError: the body is not valid for the node's operands.
        GraphError: there is no body, or it does not make one of the outputs that the node has.
    """
    function = _body(node)
    if function is None:
        raise GraphError(f"{node.op.qualified_name} has no function body for the operands of {node.name!r}")
    operands = [*node.inputs, *[None] * (len(function.input) - len(node.inputs))]
    scope: Scope = dict(zip(function.input, operands, strict=True))
    # Some of onnx's own bodies use the standard domain without importing it.
    versions = {"": OPSET, **{domain_of(o.domain): o.version for o in function.opset_import}}
    emit_nodes(b, function.node, scope, versions, attributes=_attributes(node, function), prefix=f"{node.name}/")
    results = []
    for name in function.output[: len(node.outputs)]:
        value = scope.get(name)
        if value is None:
            raise GraphError(f"the function body of {node.op.qualified_name} does not make {name!r} for {node.name!r}")
        results.append(value)
    return tuple(results)


def _attributes(node: Node, function: onnx.FunctionProto) -> Mapping[str, AttributeProto]:
    """What the body's nodes may refer to: the node's attributes, and defaults where it does not give one."""
    defaults = {n: a.default_value for n, a in _schema(node).attributes.items() if a.default_value.type}
    return {**defaults, **{a.name: a for a in (*function.attribute_proto, *_node_proto(node).attribute)}}


def _body(node: Node) -> onnx.FunctionProto | None:
    """The body of a node's operation; None where there is none, be it for lack of a shape that the body depends on."""
    schema = _schema(node)
    if schema is None or node.subgraphs:
        return None
    if not schema.has_context_dependent_function:
        return _plain_body(node.op.name, node.op.domain) if schema.has_function else None
    types = [b"" if v is None else type_to_proto(v.type).SerializeToString() for v in node.inputs]
    function = onnx.FunctionProto()
    function.ParseFromString(schema.get_context_dependent_function(_node_proto(node).SerializeToString(), types))
    return function if function.node else None


@cache
def _plain_body(name: str, domain: str) -> onnx.FunctionProto:
    function = onnx.FunctionProto()
    function.ParseFromString(defs.get_schema(name, OPSET, domain).function_body.SerializeToString())
    return function


def _schema(node: Node) -> Any:
    """The schema of a node's operation, typed so that what onnx's stubs leave out can be used."""
    return node.op.schema


def _node_proto(node: Node) -> onnx.NodeProto:
    return node_to_proto(
        node.op.name,
        node.op.domain,
        node.attrs,
        ["" if v is None else v.name for v in node.inputs],
        [v.name for v in node.outputs],
    )
