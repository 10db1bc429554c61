"""The operation ai.onnx.preview.training.Gradient, replaced by the backward nodes that it stands for.

Source: the operation's text in ONNX's TrainingOperators document. `xs`, `zs` and `y` name tensors of the graph around the
node; the node's operands are the values of `xs` and then `zs` at which the gradient of `y` is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from irgrad.builder import Builder
from irgrad.errors import AdjointError
from irgrad.graph import Graph, Node, Role, Value
from irgrad.passes.autodiff.adjoint import accumulate_adjoints
from irgrad.pipeline import Pass
from irgrad.transplant import needed_for

__all__ = ["GRADIENT_OP", "LowerGradientOp"]

GRADIENT_OP = "ai.onnx.preview.training.Gradient"


@dataclass(frozen=True)
class LowerGradientOp(Pass):
    """Replace every Gradient node; one whose `y` is itself a gradient gives a second derivative."""

    name: ClassVar[str] = "gradient_op"

    def run(self, graph: Graph) -> bool:
        nodes = [node for node in graph.nodes() if node.op.qualified_name == GRADIENT_OP]
        waiting = nodes
        while waiting:
            # A node has to wait for the one that makes its y.
            ready = [n for n in waiting if not _depends_on(graph.value(n.attr("y")), set(waiting))]
            if not ready:
                names = ", ".join(repr(n.name) for n in waiting)
                raise AdjointError(f"the Gradient nodes {names} need each other's results")
            for node in ready:
                _lower(graph, node)
            waiting = [node for node in waiting if node not in ready]
        return bool(nodes)


def _depends_on(value: Value, nodes: set[Node]) -> bool:
    seen: set[Node] = set()
    stack = [value.producer]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        if node in nodes:
            return True
        seen.add(node)
        stack += [v.producer for v in node.inputs if v is not None]
    return False


def _lower(graph: Graph, node: Node) -> None:
    names = [*node.attr("xs", ()), *node.attr("zs", ())]
    if len(names) != len(node.inputs) or None in node.inputs:
        raise AdjointError(f"the Gradient node {node.name!r} names {len(names)} tensors but has {len(node.inputs)} operands")
    named = [graph.value(name) for name in names]
    operands = [value for value in node.inputs if value is not None]
    # A tensor at another value is one of its own, so that only what is read in its place counts.
    forward = Builder(graph, origin=node.name, near=node)
    moved = {old: forward.op("Identity", new) for old, new in zip(named, operands, strict=True) if old is not new}
    y = graph.value(node.attr("y"))
    if moved:
        y = _at_other_values(graph, y, moved)
    points = [moved.get(value, value) for value in named]
    wrt = points[: len(node.attr("xs", ()))]
    b = Builder(graph, role=Role.BACKWARD, origin=node.name)
    # A y that is no scalar is summed, hence the ones.
    seed = b.op("Expand", b.scalar(1, y), b.shape_of(y))
    # The tensors that are named are independent of each other: one that is computed from another counts as a constant.
    results = accumulate_adjoints(graph, {y: seed}, wrt, stop=points)
    fresh: dict[str, Value] = {}
    for output, result, by in zip(node.outputs, results, wrt, strict=False):
        value = b.op("Identity", b.zeros_like(by) if result is None else result)
        graph.replace_all_uses(output, value)
        fresh[output.name] = value
    graph.erase(node)
    for name, value in fresh.items():
        graph.rename(value, name)


def _at_other_values(graph: Graph, y: Value, moved: Mapping[Value, Value]) -> Value:
    """A copy of the computation of `y` in which the named tensors have the values that a node was given."""
    mapped: dict[Value, Value] = dict(moved)
    for step in needed_for(graph, [y], moved)[0]:
        if not any(v in mapped for v in step.inputs if v is not None):
            continue
        operands = [None if v is None else mapped.get(v, v) for v in step.inputs]
        attrs = {key: a.copy() if isinstance(a, Graph) else a for key, a in step.attrs.items()}
        clone = Builder(graph, role=step.role, origin=step.origin).node(step.op, operands, attrs, outputs=len(step.outputs))
        for value, twin in zip(step.outputs, clone.outputs, strict=True):
            mapped.setdefault(value, twin)
    return mapped.get(y, y)
