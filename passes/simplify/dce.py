"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from irgrad.graph import Graph
from irgrad.pipeline import Pass

__all__ = ["DeadCode", "remove_dead"]


@dataclass(frozen=True)
class DeadCode(Pass):
    """Erase the nodes that no output depends on, and the constants that nothing reads.

    Inputs stay, since they are the signature; so do parameters that have a gradient or are an output.
    """

    name: ClassVar[str] = "dce"

    def run(self, graph: Graph) -> bool:
        return remove_dead(graph)


def remove_dead(graph: Graph) -> bool:
    """Erase dead nodes and constants; True if there were any."""
    kept = set(graph.outputs.values())
    changed = False
    for node in reversed(graph.nodes()):
        if not any(value in kept or value.users for value in node.outputs):
            graph.erase(node)
            changed = True
    for value in list(graph.constants):
        if value not in kept and not value.users and value.name not in graph.gradients:
            graph.erase(value)
            changed = True
    return changed
