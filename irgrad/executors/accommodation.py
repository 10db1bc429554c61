"""What onnxruntime takes otherwise than ONNX has it, and what is done about that before a graph is handed over."""

from __future__ import annotations

from irgrad.builder import Builder
from irgrad.graph import Graph, Node
from irgrad.ops.dims import dim_of, join_sizes

__all__ = ["expand_rotary_caches", "reuse_is_unsafe"]

_PROBABILITIES = 3  # the output of Attention that shows its scores


def expand_rotary_caches(graph: Graph) -> None:
    """Give each RotaryEmbedding caches of its own batch: onnxruntime does not take those for a batch of one.

    Args:
        graph: changed in place, with the graphs inside it.
    """
    for inner in graph.walk():
        for node in inner.nodes():
            if node.op.qualified_name == "RotaryEmbedding" and node.input(3) is None:
                _expand_caches(inner, node)


def _expand_caches(graph: Graph, node: Node) -> None:
    x = node.operand(0)
    b = Builder(graph)
    b.take_after(node)
    for index in (1, 2):
        cache = node.operand(index)
        if cache.shape is not None and x.shape is not None and cache.shape[0] is not None and cache.shape[0] == x.shape[0]:
            continue
        graph.set_input(node, index, b.op("Expand", cache, join_sizes(b, dim_of(b, x, 0), 1, 1)))


def reuse_is_unsafe(graph: Graph) -> bool:
    """Whether onnxruntime would use a buffer again for a tensor of another size.

    The inference of onnx takes the number of keys for 0 where it knows no number, in the shape of the scores that an
    Attention shows. Scores for different numbers of keys then look alike to onnxruntime's plan for the memory.
    """
    symbols: set[str] = set()
    unknown = 0
    for node in (node for inner in graph.walk() for node in inner.nodes()):
        if node.op.qualified_name == "Attention" and len(node.outputs) > _PROBABILITIES:
            shape = node.outputs[_PROBABILITIES].shape
            keys = None if shape is None else shape[-1]
            unknown += keys is None
            symbols |= {keys} if isinstance(keys, str) else set()
    return len(symbols) + unknown > 1
