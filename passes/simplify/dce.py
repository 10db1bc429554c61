"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irgrad.graph import Graph, Value
from irgrad.pipeline import Pass
from irgrad.rewrite import is_named

__all__ = ["DeadCode", "remove_dead"]


@dataclass(frozen=True)
class DeadCode(Pass):
    """Erase the nodes that no output depends on, and the constants that nothing reads.

    Inputs and parameters stay, since they are the signature: what can be fed to a graph can be fed to whatever is made of
    it. So does every value that has a gradient or is an output.
    """

    name: ClassVar[str] = "dce"

    def run(self, graph: Graph) -> bool:
        return remove_dead(graph)


def remove_dead(graph: Graph) -> bool:
    """Erase dead nodes and constants, in subgraphs too; True if there were any."""
    changed = False
    for inner in graph.walk():
        for node in reversed(inner.nodes()):
            if not any(map(_is_live, node.outputs)):
                inner.erase(node)
                changed = True
        for value in list(inner.constants):
            if not (value.is_parameter or _is_live(value)):
                inner.erase(value)
                changed = True
    return changed


def _is_live(value: Value) -> bool:
    return bool(value.users or value.is_output or is_named(value))
