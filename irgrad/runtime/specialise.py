"""Specialising a graph to the concrete shapes of its feeds: shapes become numbers, shape arithmetic folds away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from irgrad.builder import call_of
from irgrad.contents import follows_contents, infer_contents
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph, Node, Value
from irgrad.infer import infer_types
from irgrad.runtime.kernels import evaluate
from irgrad.types import Dim, TensorType, Type, as_known_to_be_there, without_symbols

__all__ = ["FOLD_LIMIT", "fold", "sharper", "specialise"]

FOLD_LIMIT = 4096  # elements: larger constants (weights) are not computed with ahead of the run


def specialise(graph: Graph, types: Mapping[str, Type], elements: Mapping[str, tuple[Dim, ...]] | None = None) -> Graph:
    """The same graph for one signature of its inputs.

    Args:
        graph: any graph; it is left as it is.
        types: input name → its concrete type; inputs that are not named keep theirs.
        elements: input name → its contents as far as they are known (for a subgraph, which may capture a shape).

    Returns:
        A new graph with the same names of inputs, outputs, constants and nodes; values whose contents follow from the
        shapes alone have become constants.

    Raises:
        TypeInferenceError: a node does not take operands of these shapes; the message names it.
    """
    other = Graph(graph.name, graph.opset)
    other.gradients, other.metadata = dict(graph.gradients), dict(graph.metadata)
    mapped: dict[Value, Value] = {}
    for value in graph.inputs.values():
        mapped[value] = other.add_input(value.name, types.get(value.name, value.type))
        mapped[value].contents = (elements or {}).get(value.name)
    for value, array in graph.constants.items():
        mapped[value] = other.add_constant(array, value.name, parameter=value.is_parameter)
    for node in graph.nodes():
        operands = [None if v is None else mapped[v] for v in node.inputs]
        call = call_of(node.op, node.attrs, operands, len(node.outputs))
        try:
            types_of = infer_types(call)
        except TypeInferenceError as error:
            raise TypeInferenceError(f"at the node {node.name!r}: {error}") from None
        inferred = [sharper(t, v.type) for t, v in zip(types_of, node.outputs, strict=True)]
        contents: Sequence[tuple[Dim, ...] | None] = [None] * len(inferred)
        if follows_contents(node.op):
            contents = infer_contents(call_of(node.op, node.attrs, operands, len(node.outputs), inferred))
        try:
            arrays = fold(node, operands, inferred, contents)
        except Exception:  # an index out of range, an operation that nothing runs: the executor reports it, if it is reached
            arrays = None
        if arrays is not None:
            for value, array in zip(node.outputs, arrays, strict=True):
                mapped[value] = other.add_constant(array, value.name)
            continue
        clone = other.add_clone(node, operands, inferred)
        clone.changed_by = node.changed_by
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
    limit: int = FOLD_LIMIT,
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
    if node.op.random or node.subgraphs:
        return None
    arrays = []
    for value in operands:
        if value is not None and (value.constant is None or value.is_parameter or value.constant.size > limit):
            return None
        arrays.append(None if value is None else value.constant)
    if not all(isinstance(t, TensorType) and (t.static_shape is None or np.prod(t.static_shape) <= limit) for t in types):
        return None
    return evaluate(call_of(node.op, node.attrs, operands, len(types), types), arrays)


def sharper(inferred: Type, declared: Type) -> Type:
    """The inferred type, its gaps filled from what was known before.

    Symbols of the general graph are not taken over: in a specialised one their sizes are numbers.
    """
    known = without_symbols(declared)
    inferred = as_known_to_be_there(inferred, known)
    if not isinstance(inferred, TensorType):
        if isinstance(known, TensorType) or inferred.__class__ is not known.__class__:
            return inferred
        return replace(inferred, element=sharper(inferred.element, known.element))
    if inferred.shape is None:
        return known  # of an opaque operation not even the element type is inferred
    if not isinstance(known, TensorType) or known.shape is None or known.rank != inferred.rank:
        return inferred
    return inferred.with_shape(tuple(k if i is None else i for i, k in zip(inferred.shape, known.shape, strict=True)))
