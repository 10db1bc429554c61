"""A graph of standard operations as a ModelProto, so that other runtimes can be asked what it gives."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from irgrad.graph import OPSET, Graph
from irgrad.proto import node_to_proto
from irgrad.types import type_to_proto

__all__ = ["model_of"]


def model_of(graph: Graph) -> onnx.ModelProto:
    """The model; the subgraphs of its nodes must not capture anything."""
    return helper.make_model(_graph_proto(graph, ""), opset_imports=[helper.make_opsetid("", OPSET)])


def _graph_proto(graph: Graph, prefix: str) -> onnx.GraphProto:
    """Names inside of a subgraph get a prefix: none may be that of a value outside."""
    nodes = []
    for node in graph.nodes():
        attrs = {key: value for key, value in node.attrs.items() if key != "captured"}
        operands = ["" if v is None else prefix + v.name for v in node.inputs]
        proto = node_to_proto(node.op.name, node.op.domain, attrs, operands, [prefix + v.name for v in node.outputs])
        for key, value in attrs.items():
            if isinstance(value, Graph):
                proto.attribute.append(helper.make_attribute(key, _graph_proto(value, f"{prefix}{node.name}/{key}/")))
        nodes.append(proto)
    nodes += [helper.make_node("Identity", [prefix + v.name], [prefix + n]) for n, v in graph.outputs.items() if n != v.name]
    return helper.make_graph(
        nodes,
        graph.name,
        [helper.make_value_info(prefix + name, type_to_proto(v.type)) for name, v in graph.inputs.items()],
        [helper.make_value_info(prefix + name, type_to_proto(v.type)) for name, v in graph.outputs.items()],
        [numpy_helper.from_array(array, prefix + value.name) for value, array in graph.constants.items()],
    )
