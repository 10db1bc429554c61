"""Attributes and nodes, to and from their ONNX protos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from irgrad.types import OptionalType, SequenceType, TensorType, type_from_proto, type_to_proto

__all__ = ["attribute_from_proto", "attribute_to_proto", "node_to_proto"]


def attribute_from_proto(proto: AttributeProto) -> Any:
    """The Python value of an attribute: str for strings, tuples for lists, arrays for tensors, `Type` for types.

    Graphs stay GraphProtos: making a `Graph` of one takes the scope it stands in, which the reader has.
    """
    value = helper.get_attribute_value(proto)
    if proto.type in (AttributeProto.STRING,):
        return _text(value)
    if proto.type == AttributeProto.STRINGS:
        return tuple(_text(v) for v in value)
    if proto.type == AttributeProto.TENSOR:
        return numpy_helper.to_array(value)
    if proto.type == AttributeProto.TYPE_PROTO:
        return type_from_proto(value)
    if proto.type in (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.TENSORS, AttributeProto.GRAPHS):
        return tuple(value)
    return value


def attribute_to_proto(name: str, value: Any) -> AttributeProto | None:
    """The inverse of `attribute_from_proto`; None for a value that has no proto here (a subgraph)."""
    if isinstance(value, np.ndarray):
        return helper.make_attribute(name, numpy_helper.from_array(value))
    if isinstance(value, (TensorType, SequenceType, OptionalType)):
        return helper.make_attribute(name, type_to_proto(value))
    if isinstance(value, str):
        return helper.make_attribute(name, value.encode("utf-8", errors="surrogateescape"))
    if isinstance(value, (int, float, bytes, onnx.TensorProto, onnx.TypeProto, onnx.SparseTensorProto)):
        return helper.make_attribute(name, value)
    if isinstance(value, tuple):
        if not value:
            return helper.make_attribute(name, [], attr_type=AttributeProto.INTS)
        if isinstance(value[0], (int, float, str)):
            return helper.make_attribute(name, list(value))
    return None


def node_to_proto(
    op_type: str, domain: str, attrs: Mapping[str, Any], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.NodeProto:
    """A NodeProto; attributes that have no proto (subgraphs) are left out."""
    node = onnx.NodeProto(op_type=op_type, domain=domain, input=inputs, output=outputs)
    for name, value in attrs.items():
        attribute = attribute_to_proto(name, value)
        if attribute is not None:
            node.attribute.append(attribute)
    return node


def _text(value: bytes) -> str:
    return value.decode("utf-8", errors="surrogateescape")
