"""Operations that ONNX does not have, replaced by what they mean in those that it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from irgrad.errors import ExportError, IrgradError
from irgrad.graph import Graph, Node
from irgrad.rewrite import RecordingBuilder, take_place

__all__ = ["is_standard", "lower", "told"]

_SHOWN = 10


def is_standard(node: Node) -> bool:
    """Whether ONNX has the operation of a node."""
    return node.op.schema is not None


def lower(graph: Graph, keep: Callable[[Node], bool] = is_standard) -> None:
    """Replace the nodes of a graph, and of the graphs inside it, by their lowerings until all are such as to be kept.

    Constants that only a replaced node has read go with it, and so do those that a lowering made and did not use.

    Args:
        graph: changed in place.
        keep: says of a node that it may stay.

    Raises:
        ExportError: nodes have no lowering; all of them are named.
    """
    problems: list[str] = []
    for inner in graph.walk():
        before, waiting = set(inner.constants), [node for node in inner.nodes() if not keep(node)]
        while waiting:
            made: list[Node] = []
            for node in waiting:
                try:
                    made += _replace(inner, node)
                except IrgradError as error:
                    problems.append(f"{shown(node)}: {error}")
            waiting = [node for node in made if not keep(node)]
        for value in [v for v in inner.constants if v not in before and not (v.users or v.is_output)]:
            inner.erase(value)
    if problems:
        raise ExportError(told("cannot be written in standard operations", problems), problems)


def shown(node: Node) -> str:
    """How messages call a node."""
    return f"{node.name!r} ({node.op.qualified_name})"


def told(problem: str, nodes: Sequence[str]) -> str:
    """One sentence about nodes that have a problem: the first of them, and how many more there are."""
    more = f"; and {len(nodes) - _SHOWN} more" if len(nodes) > _SHOWN else ""
    count = "a node" if len(nodes) == 1 else f"{len(nodes)} nodes"
    return f"{count} {problem}: {'; '.join(nodes[:_SHOWN])}{more}"


def _replace(graph: Graph, node: Node) -> list[Node]:
    """Put the lowering of a node in its place, under the names of its outputs: the nodes that it consists of."""
    b = RecordingBuilder(graph)
    b.take_after(node, expanded=True)
    with b:
        results = node.op.lowered(b, node)
    operands = node.inputs
    for old, new in zip(node.outputs, results, strict=False):
        take_place(old, new)
    names = {new: old.name for old, new in zip(node.outputs, results, strict=False) if new.producer in b.made}
    graph.erase(node)
    for new, name in names.items():
        graph.rename(new, name)
    for value in dict.fromkeys(operands):
        if value is not None and value.constant is not None and not (value.is_parameter or value.users or value.is_output):
            graph.erase(value)
    return b.made
