"""Parameters from outside: arrays put into a model, and parameters made inputs of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from irgrad.builder import call_of
from irgrad.errors import UsageError, did_you_mean
from irgrad.graph import Graph, Value
from irgrad.infer import infer_types
from irgrad.types import TensorType

__all__ = ["decides_types", "made_constant", "make_inputs", "named_by", "with_parameters"]


def with_parameters(graph: Graph, arrays: Mapping[str, Any]) -> Graph:
    """A copy of a graph with other arrays as its parameters: what training has made of them.

    Args:
        graph: it is left as it is.
        arrays: name of a parameter (or other constant) → array of its shape and dtype, which is copied; numbers and lists
            take the dtype. Parameters that are not named stay as they are. A name that the file gives to a copy of a
            parameter (exporters write tensors that are equal once, and hand them on by Identity) becomes a parameter of its
            own.

    Raises:
        UsageError: a name is no constant's, an array has another shape or dtype, or it would change the shape of a result.
    """
    graph = graph.copy()
    for name, given in arrays.items():
        value = graph.value(name) if graph.has_value(name) else None
        old = None if value is None else named_by(value).constant
        if value is None or old is None:
            raise UsageError(f"the graph has no parameter {name!r}{did_you_mean(name, graph.parameters)}")
        array = np.array(given, None if isinstance(given, np.ndarray) else old.dtype)
        new, known = TensorType.of(array), TensorType.of(old)
        if new != known:
            raise UsageError(f"the array for {name!r} is {new}, but the parameter is {known}")
        own = made_constant(value)
        if decides_types(own) and not np.array_equal(array, old):
            raise UsageError(f"the constant {name!r} decides the shape of a result, so that no other array can replace it")
        graph.set_constant(own, array)
    return graph


def named_by(value: Value) -> Value:
    """What a value is another name of: exporters write tensors that are equal once, and hand them on by Identity."""
    while value.producer is not None and value.producer.op.qualified_name == "Identity":
        value = value.producer.operand(0)
    return value


def made_constant(value: Value) -> Value:
    """A constant under the name of a value that is one, or another name of one: then it becomes a parameter of its own."""
    graph, maker, array = value.graph, value.producer, named_by(value).constant
    assert array is not None
    if maker is None:
        return value
    own, name = graph.add_constant(array, parameter=True), value.name
    graph.replace_all_uses(value, own)
    graph.erase(maker)
    graph.rename(own, name)
    return own


def make_inputs(graph: Graph, names: Iterable[str]) -> None:
    """Make inputs of some constants (or values that are another name of one), under their names."""
    for constant in [made_constant(graph.value(name)) for name in names]:
        name = constant.name
        made = graph.add_input(graph.fresh_name(name), constant.type)
        graph.replace_all_uses(constant, made)
        graph.erase(constant)
        graph.rename(made, name)


def decides_types(value: Value) -> bool:
    """Whether the type of some result follows from the elements of a constant: a Resize's scales, a Range's end."""
    for node in value.users:
        call = call_of(node.op, node.attrs, node.inputs, len(node.outputs))
        others = [k for k, operand in enumerate(node.inputs) if operand is not value]
        blind = replace(
            call,
            constants={k: array for k, array in call.constants.items() if k in others},
            contents={k: known for k, known in call.contents.items() if k in others},
        )
        if infer_types(call) != infer_types(blind):
            return True
    return False
