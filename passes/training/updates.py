"""What a training step writes back: value → the output that is its next value, and what a state is to begin with.

Kept in `Graph.metadata`, as ``update:<name of the value>`` → name of the output and ``state:<name of the input>`` → the
number that fills it at first, so that it goes where the graph goes.
"""

from __future__ import annotations

import numpy as np

from irgrad.errors import UsageError
from irgrad.graph import Graph

__all__ = ["initial_state", "note_state", "note_update", "updates_of"]

_PREFIX = "update:"
_STATE = "state:"


def note_update(graph: Graph, value: str, output: str) -> None:
    """Say that an output is the next value of a parameter or input."""
    graph.metadata[_PREFIX + value] = output


def updates_of(graph: Graph) -> dict[str, str]:
    """Name of a parameter or input → name of the output that is its next value; those that the graph still returns."""
    found = {k.removeprefix(_PREFIX): name for k, name in graph.metadata.items() if k.startswith(_PREFIX)}
    outputs = graph.outputs
    return {value: name for value, name in found.items() if name in outputs}


def note_state(graph: Graph, name: str, fill: float) -> None:
    """Say that an input is a state that begins as an array of one number."""
    graph.metadata[_STATE + name] = repr(float(fill))


def initial_state(graph: Graph) -> dict[str, np.ndarray]:
    """The first values of what a training step writes back: the state that a loop begins with.

    Args:
        graph: the graph of a step, whose optimizer or running statistics `updates_of` tells of.

    Returns:
        Name → array: parameters as they are in the graph, and zeros (or what else they begin with) for the inputs that
        optimizers have added. Any other input that the step writes back is the caller's own and is not among them.

    Raises:
        UsageError: the shape of a state is not known.
    """
    parameters = {value.name: array for value, array in graph.constants.items()}
    inputs = graph.inputs
    found: dict[str, np.ndarray] = {}
    for name in updates_of(graph):
        fill = graph.metadata.get(_STATE + name)
        if name in parameters:
            found[name] = parameters[name]
        elif name in inputs and fill is not None:
            type = inputs[name].tensor_type
            if type.static_shape is None:
                raise UsageError(
                    f"the state {name!r} is {type}, so that no first value can be made; feed an array of {float(fill):g}"
                )
            found[name] = np.full(type.static_shape, float(fill), type.dtype)
    return found
