"""Initializers of files: the parameters and the other constants of a graph."""

from __future__ import annotations

import onnx

from irgrad.frontends.onnx import marks
from irgrad.frontends.onnx.declared import check_default
from irgrad.frontends.onnx.scope import Context, Scope
from irgrad.frontends.onnx.tensors import sparse_to_array, tensor_to_array
from irgrad.graph import Graph
from irgrad.types import is_differentiable

__all__ = ["add_initializers"]


def add_initializers(graph: Graph, proto: onnx.GraphProto, scope: Scope, context: Context) -> None:
    """Add the initializers of a GraphProto as constants; those that can be differentiated are parameters.

    Raises:
        ModelError: one is malformed, or is not what an input of the same name is declared to be.
    """
    infos = {info.name: info for info in proto.input}
    for tensor in (*proto.initializer, *proto.sparse_initializer):
        if isinstance(tensor, onnx.SparseTensorProto):
            name = tensor.values.name
            array = sparse_to_array(tensor, context.external, f"the initializer {name!r}")
        else:
            name = tensor.name
            array = tensor_to_array(tensor, context.external, f"the initializer {name!r}")
        parameter = is_differentiable(array.dtype)
        if context.own and isinstance(tensor, onnx.TensorProto):
            parameter = marks.read_parameter(tensor, parameter)
        if name in infos:
            # The default value of an input (before IR version 4 every weight is one): a parameter, which may be fed.
            check_default(infos[name], array)
        scope[name] = graph.add_constant(array, graph.fresh_name(name), parameter=parameter)
