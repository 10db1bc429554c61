"""Which elements depend on which: a dependence on the shape of a value alone is none."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from irgrad.graph import Graph, Node, Value

__all__ = ["StatePlaces", "influenced"]

_SHAPE_ONLY = frozenset(
    {"Shape", "Size", "SequenceLength", "OptionalHasElement", "irgrad.OptionalZeros"}
    | {"irgrad.SequenceSizes", "irgrad.SequenceZeros"}
)


@dataclass(frozen=True)
class StatePlaces:
    """Where the states of a Loop or Scan are.

    Attributes:
        count: how many there are.
        first: the position of the first one among the operands, and among the inputs of the body.
        lead: its position among the outputs of the body; among those of the node it is the first.
    """

    count: int
    first: int
    lead: int

    @classmethod
    def of(cls, node: Node) -> StatePlaces:
        """The places of a Loop or Scan node."""
        first, lead = (2, 1) if node.op.qualified_name == "Loop" else (0, 0)
        plain = len(node.inputs) - int(node.attr("captured", 0))
        return cls(max(plain - first - int(node.attr("num_scan_inputs", 0)), 0), first, lead)


def influenced(graph: Graph, sources: Iterable[Value]) -> set[Value]:
    """The values whose elements depend on the elements of `sources` (those included), subgraphs looked into."""
    found = set(sources)
    for node in graph.nodes():
        given = [k for k, value in enumerate(node.inputs) if value in found]
        if given and node.op.qualified_name not in _SHAPE_ONLY:
            found.update(_results(node, given))
    return found


def _results(node: Node, given: Sequence[int]) -> Sequence[Value]:
    """The results of a node that the operands at some positions have influence on."""
    if node.op.qualified_name == "If" and 0 not in given:
        reached = {k for branch in node.subgraphs for k in _outputs(branch, [position - 1 for position in given])}
        return [value for k, value in enumerate(node.outputs) if k in reached]
    if node.op.qualified_name not in ("Loop", "Scan"):
        return node.outputs
    (body,), places = node.subgraphs, StatePlaces.of(node)
    entering = set(given)
    while True:
        reached = _outputs(body, entering)
        if not entering.isdisjoint(range(places.first)) or not reached.isdisjoint(range(places.lead)):
            return node.outputs  # how often the body runs
        again = {places.first + k for k in range(places.count) if places.lead + k in reached}
        if again <= entering:
            return [value for k, value in enumerate(node.outputs) if places.lead + k in reached]
        entering |= again


def _outputs(graph: Graph, given: Iterable[int]) -> set[int]:
    """The positions of the outputs that the inputs at some positions have influence on."""
    inputs = list(graph.inputs.values())
    found = influenced(graph, [inputs[k] for k in given])
    return {k for k, value in enumerate(graph.outputs.values()) if value in found}
