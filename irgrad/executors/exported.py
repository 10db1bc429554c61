"""What the executors share that run a graph as an ONNX model: its form in standard operations, and errors by node."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from irgrad.errors import ExecutionError
from irgrad.frontends.onnx.lowering import lower, shown
from irgrad.graph import Graph
from irgrad.parameters import make_inputs
from irgrad.types import OptionalType, SequenceType, Type, dtype_name

__all__ = ["Exported", "checked", "export"]

_PLACES = (
    re.compile(r"node with name '(.*?)'"),
    re.compile(r"[Nn]ame:'(.*?)'"),
    re.compile(r"[Nn]ode:? ?\((.*?)\)(?= |:|$)"),
)
"""How onnxruntime mentions a node in its messages."""


@dataclass(frozen=True)
class Exported:
    """A graph as it is handed to another runtime.

    Attributes:
        graph: the graph in standard operations, with the parameters that can be fed among its inputs.
        names: input or such a parameter → what it is called in the model.
        defaults: such a parameter → the model's own array.
    """

    graph: Graph
    names: Mapping[str, str]
    defaults: Mapping[str, np.ndarray]

    def feeds(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The feeds of the model: those given, and the model's own arrays for parameters that are not."""
        return {self.names[name]: array for name, array in {**self.defaults, **arrays}.items()}

    def failure(self, runtime: str, error: Exception) -> ExecutionError:
        """An error of another runtime as one of irgrad's, with the node that it is about where the message has it."""
        text = " ".join(str(error).split()) or type(error).__name__
        for place in _PLACES:
            for name in place.findall(text):
                if self.graph.has_node(name):
                    node = self.graph.node(name)
                    made_for = f", made for {node.origin!r}" if node.origin else ""
                    return ExecutionError(f"the node {shown(node)}{made_for} failed in {runtime}, which says: {text}")
        return ExecutionError(f"{runtime} says: {text}")


def export(graph: Graph, fed: Collection[str] = ()) -> Exported:
    """Prepare a graph for another runtime.

    Args:
        graph: it is left as it is.
        fed: the parameters that can be fed.

    Raises:
        ExportError: nodes have no form in standard operations; all of them are named.
    """
    other = graph.copy()
    lower(other)
    defaults = {name: other.constants[other.value(name)] for name in fed}
    make_inputs(other, fed)
    # In a file one name is one value: an input steps aside for another value that is returned under its name.
    outputs = other.outputs
    names = {}
    for name, value in other.inputs.items():
        if outputs.get(name, value) is not value:
            other.rename(value, other.fresh_name(name, avoid=outputs))
        names[name] = value.name
    return Exported(other, names, defaults)


def checked(result: Any, type: Type, name: str, runtime: str) -> Any:
    """A result of another runtime, numpy's scalars made 0-d arrays.

    Raises:
        ExecutionError: it is of another dtype than its type says.
    """
    if result is None:
        return None
    if isinstance(type, SequenceType):
        return [checked(element, type.element, name, runtime) for element in result]
    if isinstance(type, OptionalType):
        return checked(result, type.element, name, runtime)
    array = np.asarray(result)
    if type.dtype == object and array.dtype.kind in "US":
        return array.astype(object)
    if array.dtype != type.dtype:
        raise ExecutionError(f"{runtime} returned {dtype_name(array.dtype)} for {name!r}, which is {dtype_name(type.dtype)}")
    return array
