"""Attributes of nodes in files, and the nodes that are nothing but an attribute: constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto

from irgrad.errors import DuplicateNameError, ModelTypeError
from irgrad.frontends.onnx.check import checked_attribute, shown
from irgrad.frontends.onnx.external import ExternalData
from irgrad.frontends.onnx.tensors import sparse_to_array, tensor_to_array
from irgrad.graph import Value
from irgrad.proto import attribute_from_proto
from irgrad.types import type_from_proto

__all__ = ["constant_of", "filled_array", "resolved_attributes", "value_of"]

_LARGEST_FILL = 2**31  # bytes: a larger ConstantOfShape stays a node instead of becoming a weight
_CONSTANTS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": object,
    "value_strings": object,
}


def resolved_attributes(node: NodeProto, enclosing: Mapping[str, AttributeProto] | None) -> dict[str, AttributeProto]:
    """The node's attributes, references to those of the enclosing function replaced by what they refer to.

    A reference to an attribute that the call leaves out, and that has no default, leaves the node without the attribute.

    Args:
        node: any node.
        enclosing: the attributes of the function call that the node is inlined for; None outside of functions.

    Raises:
        DuplicateNameError: the node has two attributes of one name.
        ModelTypeError: an attribute does not hold what its kind says, or refers to what it cannot.
    """
    found: dict[str, AttributeProto] = {}
    for attribute in node.attribute:
        name = attribute.name
        if name in found:
            raise DuplicateNameError(f"{shown(node)} has two attributes named {name!r}")
        if name.startswith("__"):
            continue  # by onnx's rules a tool's own note, without a meaning for others
        if not attribute.ref_attr_name:
            found[name] = checked_attribute(attribute, node)
            continue
        if enclosing is None:
            raise ModelTypeError(
                f"{shown(node)} has the attribute {name!r}, which refers to the attribute {attribute.ref_attr_name!r} of a "
                "function, but the node is in none"
            )
        target = enclosing.get(attribute.ref_attr_name)
        if target is None:
            continue
        if attribute.type not in (target.type, AttributeProto.UNDEFINED):
            kinds = [AttributeProto.AttributeType.Name(k) for k in (attribute.type, target.type)]
            raise ModelTypeError(
                f"{shown(node)} has the attribute {name!r} of the kind {kinds[0]}, which refers to the function's attribute "
                f"{attribute.ref_attr_name!r} of the kind {kinds[1]}"
            )
        if target.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise ModelTypeError(f"{shown(node)} takes a subgraph from its function's caller, which is not supported")
        renamed = AttributeProto()
        renamed.CopyFrom(target)
        renamed.name = name
        found[name] = renamed
    return found


def value_of(attribute: AttributeProto, node: NodeProto, external: ExternalData) -> Any:
    """The Python value of an attribute that is no subgraph: as `attribute_from_proto`, tensors of every encoding."""
    what = f"the attribute {attribute.name!r} of {shown(node)}"
    if attribute.type == AttributeProto.TENSOR:
        return tensor_to_array(attribute.t, external, what)
    if attribute.type == AttributeProto.TENSORS:
        return tuple(tensor_to_array(t, external, what) for t in attribute.tensors)
    if attribute.type == AttributeProto.SPARSE_TENSOR:
        return sparse_to_array(attribute.sparse_tensor, external, what)
    if attribute.type == AttributeProto.SPARSE_TENSORS:
        return tuple(sparse_to_array(t, external, what) for t in attribute.sparse_tensors)
    if attribute.type == AttributeProto.TYPE_PROTOS:
        return tuple(type_from_proto(t) for t in attribute.type_protos)
    if attribute.type == AttributeProto.GRAPHS:
        raise ModelTypeError(f"{what} holds a list of subgraphs, which no operation of ONNX has and which is not supported")
    return attribute_from_proto(attribute)


def constant_of(node: NodeProto, attrs: Mapping[str, Any]) -> np.ndarray:
    """The array of a Constant node.

    Raises:
        ModelTypeError: it has no attribute, or more than one, that says what it is.
    """
    if len(attrs) != 1:
        raise ModelTypeError(f"{shown(node)} must have exactly one attribute that holds its value, it has {len(attrs)}")
    ((name, value),) = attrs.items()
    return value if isinstance(value, np.ndarray) else np.array(value, _CONSTANTS[name])


def filled_array(node: NodeProto, inputs: Sequence[Value | None], attrs: Mapping[str, Any]) -> np.ndarray | None:
    """What a ConstantOfShape with a constant shape makes; None for any other node and for absurd sizes.

    The array is one element seen many times: a weight that is made this way takes no memory until it is used.
    """
    if node.op_type != "ConstantOfShape" or inputs[0] is None or inputs[0].constant is None:
        return None
    fill = np.asarray(attrs.get("value", np.zeros(1, np.float32)))
    shape = [int(d) for d in inputs[0].constant.reshape(-1)]
    if fill.size != 1 or min(shape, default=0) < 0 or prod(shape) * fill.itemsize > _LARGEST_FILL:
        return None
    return np.broadcast_to(fill.reshape(()), shape)
