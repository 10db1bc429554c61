"""Expanding a node into simpler ones: an operation's own lowering, else its ONNX function body."""

from __future__ import annotations

from collections.abc import Sequence

from irgrad.builder import Builder
from irgrad.frontends.onnx.functions import emit_function_body, has_function_body
from irgrad.graph import Graph, Node, Value

__all__ = ["can_expand", "expand", "put_in_place"]


def can_expand(node: Node) -> bool:
    """Whether the meaning of a node is known as a subgraph of other operations."""
    return node.op.has_lowering or has_function_body(node)


def expand(graph: Graph, node: Node) -> dict[Value, Value]:
    """Replace a node by the subgraph that it means.

    Returns:
        Each output of the node → the value that has taken its place and (where that is new) its name.

    Raises:
        PluginError: the node has no expansion (see `can_expand`).
    """
    b = Builder(graph)
    b.take_after(node, expanded=True)
    with b:
        results = node.op.lowered(b, node) if node.op.has_lowering else emit_function_body(b, node)
    return put_in_place(graph, node, results)


def put_in_place(graph: Graph, node: Node, results: Sequence[Value]) -> dict[Value, Value]:
    """Put values in the place of a node's outputs, under their names, and erase the node.

    Args:
        graph: where they are.
        node: what is replaced.
        results: one value per output; further ones are left alone.

    Returns:
        Each output of the node → the value that has taken its place.
    """
    replaced = dict(zip(node.outputs, results, strict=False))
    for old, new in replaced.items():
        graph.replace_all_uses(old, new)
    operands = node.inputs
    graph.erase(node)
    for old, new in replaced.items():
        if new.producer is not None and new not in operands:
            graph.rename(new, old.name)
    return replaced
