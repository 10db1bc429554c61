"""Which values a derivative passes through: those that depend on what it is taken by, and those that results depend on.

Only dependence that can carry a derivative counts: through operations that are not declared `ZERO`, between floating-point
values. Reference: Griewank and Walther, Evaluating Derivatives, 2nd edition, SIAM 2008, section 6.2 (activity analysis).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from irgrad.graph import Graph, Value
from irgrad.op import ZERO

__all__ = ["active_values", "useful_values"]


def active_values(graph: Graph, sources: Iterable[Value], stopped: Collection[Value] = ()) -> set[Value]:
    """The values that depend differentiably on one of `sources` (those included), not looking past the `stopped` ones."""
    active = set(sources)
    for node in graph.nodes():
        if node.op.gradient is ZERO:
            continue
        if any(value in active for value in node.inputs if value is not None):
            active.update(v for v in node.outputs if v.type.differentiable and v not in stopped)
    return active


def useful_values(graph: Graph, results: Iterable[Value]) -> set[Value]:
    """The values that one of `results` depends on differentiably (those included)."""
    useful = set(results)
    for node in reversed(graph.nodes()):
        if node.op.gradient is not ZERO and any(value in useful for value in node.outputs):
            useful.update(v for v in node.inputs if v is not None and v.type.differentiable)
    return useful
