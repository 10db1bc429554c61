"""Specialising a graph to the concrete shapes of its feeds: shapes become numbers, shape arithmetic folds away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from irgrad.builder import call_of
from irgrad.graph import Graph, Node, Value
from irgrad.infer import infer_contents, infer_types
from irgrad.runtime.kernels import evaluate
from irgrad.types import TensorType, Type

__all__ = ["fold", "specialise"]

_FOLDED = 4096  # elements: larger constants (weights) are not computed with ahead of the run


def specialise(graph: Graph, types: Mapping[str, Type]) -> Graph:
    """The same graph for one signature of its inputs.

    Args:
        graph: any graph; it is left as it is.
        types: input name → its concrete type; inputs that are not named keep theirs.

    Returns:
        A new graph with the same names of inputs, outputs, constants and nodes; values whose contents follow from the
        shapes alone have become constants.
    """
    other = Graph(graph.name, graph.opset)
    other.gradients, other.metadata = dict(graph.gradients), dict(graph.metadata)
    mapped: dict[Value, Value] = {}
    for value in graph.inputs.values():
        mapped[value] = other.add_input(value.name, types.get(value.name, value.type))
    for value, array in graph.constants.items():
        mapped[value] = other.add_constant(array, value.name, parameter=value.is_parameter)
    for node in graph.nodes():
        operands = [None if v is None else mapped[v] for v in node.inputs]
        call = call_of(node.op, node.attrs, operands, len(node.outputs))
        inferred = [_sharper(t, v.type) for t, v in zip(infer_types(call), node.outputs, strict=True)]
        contents = infer_contents(call_of(node.op, node.attrs, operands, len(node.outputs), inferred))
        arrays = fold(node, operands, inferred, contents)
        if arrays is not None:
            for value, array in zip(node.outputs, arrays, strict=True):
                mapped[value] = other.add_constant(array, value.name)
            continue
        clone = other.add_node(
            node.op,
            operands,
            inferred,
            node.attrs,
            name=node.name,
            output_names=[v.name for v in node.outputs],
            role=node.role,
            origin=node.origin,
        )
        for value, twin, known in zip(node.outputs, clone.outputs, contents, strict=True):
            mapped[value] = twin
            twin.contents = known
    other.set_outputs({name: mapped[value] for name, value in graph.outputs.items()})
    return other


def fold(
    node: Node,
    operands: Sequence[Value | None],
    types: Sequence[Type],
    contents: Sequence[tuple[object, ...] | None],
    limit: int = _FOLDED,
) -> Sequence[np.ndarray] | None:
    """The results of a node where they are known before it runs, otherwise None.

    They are known where they follow from shapes, or where every operand is a constant of at most `limit` elements. A
    parameter is no constant in this sense: it may change from run to run.
    """
    first = types[0]
    if len(types) == 1 and isinstance(first, TensorType) and contents[0] is not None:
        shape = first.static_shape
        if shape is not None and all(isinstance(d, int) for d in contents[0]):
            return [np.array(contents[0], first.dtype).reshape(shape)]
    if node.op.random or any(isinstance(a, Graph) for a in node.attrs.values()):
        return None
    arrays = []
    for value in operands:
        if value is not None and (value.constant is None or value.is_parameter or value.constant.size > limit):
            return None
        arrays.append(None if value is None else value.constant)
    if not all(isinstance(t, TensorType) and (t.static_shape is None or np.prod(t.static_shape) <= limit) for t in types):
        return None
    return evaluate(call_of(node.op, node.attrs, operands, len(types), types), arrays)


def _sharper(inferred: Type, declared: Type) -> Type:
    """The inferred type, its gaps filled from what was known before."""
    if not (isinstance(inferred, TensorType) and isinstance(declared, TensorType)) or declared.shape is None:
        return inferred
    if inferred.shape is None:
        # Symbols of the general graph mean nothing here: their sizes are numbers now.
        return inferred.with_shape(tuple(d if isinstance(d, int) else None for d in declared.shape))
    if len(inferred.shape) != len(declared.shape):
        return inferred
    return inferred.with_shape(
        tuple(d if i is None and isinstance(d, int) else i for i, d in zip(inferred.shape, declared.shape, strict=True))
    )
