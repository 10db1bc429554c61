"""What a training step writes back: value → the output that is its next value.

Kept in `Graph.metadata`, as ``update:<name of the value>`` → name of the output, so that it goes where the graph goes.
"""

from __future__ import annotations

from irgrad.graph import Graph

__all__ = ["note_update", "updates_of"]

_PREFIX = "update:"


def note_update(graph: Graph, value: str, output: str) -> None:
    """Say that an output is the next value of a parameter or input."""
    graph.metadata[_PREFIX + value] = output


def updates_of(graph: Graph) -> dict[str, str]:
    """Name of a parameter or input → name of the output that is its next value; those that the graph still returns."""
    found = {k.removeprefix(_PREFIX): name for k, name in graph.metadata.items() if k.startswith(_PREFIX)}
    outputs = graph.outputs
    return {value: name for value, name in found.items() if name in outputs}
