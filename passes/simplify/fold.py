"""Constant folding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from irgrad.graph import Graph, Node
from irgrad.pipeline import Pass
from irgrad.runtime.specialise import FOLD_LIMIT, fold
from irgrad.types import TensorType, types_compatible

__all__ = ["Fold"]


@dataclass(frozen=True)
class Fold(Pass):
    """Replace nodes whose results are known by constants: those that follow from shapes, and those that read constants only.

    Such a constant that a subgraph captures becomes one of its own, so that more follows inside.

    Parameters are no constants here, random numbers stay to be drawn, and a node that fails is left to fail when it runs.

    Attributes:
        limit: the most elements that a constant may have to be computed with or to be made.
    """

    name: ClassVar[str] = "fold"
    limit: int = FOLD_LIMIT

    def run(self, graph: Graph) -> bool:
        changed = False
        for inner in graph.walk():
            for node in inner.nodes():
                changed |= bool(node.subgraphs) and self._hand_in(node)
                arrays = self._results(node)
                if arrays is not None:
                    _replace(inner, node, arrays)
                    changed = True
        return changed

    def _hand_in(self, node: Node) -> bool:
        """Put the constants that subgraphs of a node capture into them."""
        count = int(node.attr("captured", 0))
        first = len(node.inputs) - count
        known = {k: v.constant for k, v in enumerate(node.inputs[first:]) if v is not None and not v.is_parameter}
        handed = {k: array for k, array in known.items() if array is not None and array.size <= self.limit}
        for inner in node.subgraphs if handed else ():
            captured = list(inner.inputs.values())[-count:]
            for k, array in handed.items():
                constant = inner.add_constant(array)
                inner.replace_all_uses(captured[k], constant)
                inner.erase(captured[k])
                inner.rename(constant, captured[k].name)
        if handed:
            node.graph.set_operands(node, [v for k, v in enumerate(node.inputs, -first) if k not in handed])
            node.attrs["captured"] = count - len(handed)
        return bool(handed)

    def _results(self, node: Node) -> Sequence[np.ndarray] | None:
        types = [value.type for value in node.outputs]
        try:
            arrays = fold(node, node.inputs, types, [value.contents for value in node.outputs], self.limit)
        except Exception:  # an index out of range, an operation that nothing runs: the executor reports it, if it is reached
            return None
        if arrays is None or not all(
            isinstance(a, np.ndarray) and types_compatible(TensorType.of(a), t) for a, t in zip(arrays, types, strict=True)
        ):
            return None
        return arrays


def _replace(graph: Graph, node: Node, arrays: Sequence[np.ndarray]) -> None:
    names = [value.name for value in node.outputs]
    constants = [graph.add_constant(array, graph.fresh_name(name)) for array, name in zip(arrays, names, strict=True)]
    for old, new in zip(node.outputs, constants, strict=True):
        graph.replace_all_uses(old, new)
    graph.erase(node)
    for constant, name in zip(constants, names, strict=True):
        graph.rename(constant, name)
