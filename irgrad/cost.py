"""What a graph costs: arithmetic and bytes for each node, known from shapes before anything runs.

    table = ig.cost(joint, sizes={"N": 8})
    print(table)
    table.total(ig.Role.BACKWARD).flops / table.total(ig.Role.FORWARD).flops

What an operation costs is told where it is defined (`Op.cost`); `irgrad.ops.costs` says what is counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from irgrad.builder import typed_call
from irgrad.errors import UsageError
from irgrad.graph import Graph, Node, Role, Value
from irgrad.op import Cost
from irgrad.runtime.liveness import needed_nodes
from irgrad.runtime.specialise import specialise
from irgrad.types import OptionalType, SequenceType, TensorType, Type

__all__ = ["CostTable", "NodeCost", "cost", "sized", "symbols_of"]


class NodeCost(NamedTuple):
    """A node that is run, and what that takes; None where that is not known before (sizes that depend on data)."""

    node: Node
    cost: Cost | None


@dataclass(frozen=True)
class CostTable:
    """What running a graph once takes.

    Attributes:
        graph: the graph with the sizes put in; its shape arithmetic has become constants.
        rows: the nodes that are run, in order.
    """

    graph: Graph
    rows: tuple[NodeCost, ...]

    def total(self, role: Role | None = None) -> Cost:
        """The sum over all nodes, or those of a role; where some are `unknown`, it is more than that."""
        total = Cost(0, 0, 0)
        for node, cost in self.rows:
            if cost is not None and (role is None or node.role is role):
                total = Cost(total.flops + cost.flops, total.read + cost.read, total.written + cost.written)
        return total

    @property
    def roles(self) -> dict[Role, Cost]:
        """The totals of the roles that the nodes have."""
        present = {node.role for node, _ in self.rows}
        return {role: self.total(role) for role in Role if role in present}

    @property
    def unknown(self) -> list[Node]:
        """The nodes of which nothing is known before the run, so that they are missing in the totals."""
        return [node for node, cost in self.rows if cost is None]

    def __iter__(self) -> Iterator[NodeCost]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        """The totals by role."""
        lines = [f"{'':<10} {'nodes':>7} {'GFLOP':>12} {'MB read':>12} {'MB written':>12}"]
        for name, cost in [*((role.value, cost) for role, cost in self.roles.items()), ("all", self.total())]:
            count = sum(name in ("all", node.role.value) for node, _ in self.rows)
            numbers = f"{cost.flops / 1e9:>12,.3f} {cost.read / 1e6:>12,.1f} {cost.written / 1e6:>12,.1f}"
            lines.append(f"{name:<10} {count:>7,} {numbers}")
        if self.unknown:
            lines.append(f"not known before the run, and not counted: {len(self.unknown)} nodes")
        return "\n".join(lines)


def cost(graph: Graph, sizes: Mapping[str, int] | None = None) -> CostTable:
    """What running a graph once takes: FLOPs, bytes read and bytes written for each node.

    Args:
        graph: it is left as it is.
        sizes: the size of each symbolic dimension of the inputs.

    Raises:
        UsageError: a size is missing or names no dimension.
        TypeInferenceError: a node does not take operands of these sizes; the message names it.
    """
    concrete = sized(graph, sizes or {})
    return CostTable(concrete, tuple(NodeCost(node, node.op.cost_of(typed_call(node))) for node in needed_nodes(concrete)))


def symbols_of(graph: Graph) -> list[str]:
    """The symbols of which the dimensions of the inputs are made, in order."""
    dims = [dim for value in graph.inputs.values() for dim in _dims(value.type) if isinstance(dim, str)]
    return list(dict.fromkeys(factor for dim in dims for factor in dim.split("*") if not factor.isdigit()))


def sized(graph: Graph, sizes: Mapping[str, int]) -> Graph:
    """A graph for inputs of certain sizes, as the executor would make it; the graph itself where no input leaves any open.

    Raises:
        UsageError, TypeInferenceError: see `cost`.
    """
    symbols = symbols_of(graph)
    unknown = [name for name in sizes if name not in symbols]
    if unknown:
        raise UsageError(f"no input has a symbolic dimension {unknown[0]!r}; there are: {', '.join(symbols) or 'none'}")
    missing = [name for name in symbols if name not in sizes]
    if missing:
        example = ", ".join(f"{name!r}: ..." for name in missing)
        raise UsageError(f"sizes are needed for the symbolic dimensions of the inputs: sizes={{{example}}}")
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 0:
            raise UsageError(f"the size of {name!r} is {size!r}; it must be a whole number, 0 or more")
    if not symbols:
        return graph
    return specialise(graph, {name: _with_sizes(value, sizes) for name, value in graph.inputs.items()})


def _with_sizes(value: Value, sizes: Mapping[str, int]) -> Type:
    type = value.type
    if not isinstance(type, TensorType) or type.shape is None:
        return type
    return type.with_shape(tuple(_size(d, sizes) if isinstance(d, str) else d for d in type.shape))


def _size(dim: str, sizes: Mapping[str, int]) -> int:
    """The size of a dimension: a symbol, or a product such as ``2*N``."""
    return prod(int(factor) if factor.isdigit() else sizes[factor] for factor in dim.split("*"))


def _dims(type: Type) -> tuple[int | str | None, ...]:
    if isinstance(type, (SequenceType, OptionalType)):
        return _dims(type.element)
    return type.shape or ()
