"""What the report tells of a graph, as plain numbers and texts: nothing here knows that it becomes a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from irgrad.cost import CostTable, cost
from irgrad.graph import Graph, Node, Role, Value
from irgrad.runtime.liveness import Buffer, Liveness, liveness

__all__ = ["Facts", "Kept", "OpRow", "RuleRow", "gather", "total_bytes"]


@dataclass(frozen=True)
class Kept:
    """A forward result that backward nodes read, so that its memory is not freed after the forward pass.

    Attributes:
        buffer: its memory.
        readers: the steps of the backward nodes that read it or a view of it, in order.
    """

    buffer: Buffer
    readers: list[int]


@dataclass
class RuleRow:
    """One kind of forward operation against what its adjoint rule has made.

    Attributes:
        name: the operation's qualified name; None stands for what the adjoint pass itself adds.
        forward, backward: numbers of nodes.
        forward_flops, backward_flops: arithmetic of those.
        kept: bytes of forward results that those backward nodes are the last to read.
    """

    name: str | None
    forward: int = 0
    backward: int = 0
    forward_flops: int = 0
    backward_flops: int = 0
    kept: int = 0


@dataclass
class OpRow:
    """The nodes of one operation in one role, and what they cost."""

    name: str
    role: Role
    nodes: int = 0
    flops: int = 0
    read: int = 0
    written: int = 0


@dataclass(frozen=True)
class Facts:
    """A graph, what it costs, and what lives when.

    Attributes:
        graph: the graph, as it is.
        sizes: the sizes that were put in for its symbolic dimensions.
        costs: its nodes as they are run, in order, and what each costs.
        lives: their memory, in the same order.
    """

    graph: Graph
    sizes: Mapping[str, int]
    costs: CostTable
    lives: Liveness

    @cached_property
    def positions(self) -> dict[Node, int]:
        """Node → its step."""
        return {node: position for position, node in enumerate(self.lives.nodes)}

    @cached_property
    def live(self) -> dict[Role, list[int]]:
        """Role → live bytes during each step in buffers that nodes of this role have made."""
        made: dict[Role, list[Buffer]] = {}
        for buffer in self.lives.buffers:
            made.setdefault(_maker(buffer).role, []).append(buffer)
        return {role: self.lives.timeline(made[role]) for role in Role if role in made}

    @cached_property
    def kept(self) -> list[Kept]:
        """The forward results that backward nodes read, the largest first."""
        found = []
        for buffer in self.lives.buffers:
            if buffer.size and _maker(buffer).role is Role.FORWARD:
                asked = [node for value in buffer.values for node in value.graph.keeps_alive(value)]
                readers = {self.positions[node] for node in asked if node in self.positions}
                if readers:
                    found.append(Kept(buffer, sorted(readers)))
        return sorted(found, key=lambda kept: (-kept.buffer.size, kept.buffer.begin))

    @cached_property
    def kept_by(self) -> dict[int, list[int]]:
        """Step of a backward node → positions in `kept` of what it reads."""
        found: dict[int, list[int]] = {}
        for number, kept in enumerate(self.kept):
            for step in kept.readers:
                found.setdefault(step, []).append(number)
        return found

    def at_peak(self) -> Iterator[Buffer]:
        """The buffers that are alive at the peak, the largest first."""
        _, step = self.lives.peak
        alive = [buffer for buffer in self.lives.buffers if buffer.begin <= step <= buffer.end and buffer.size]
        yield from sorted(alive, key=lambda buffer: (-buffer.size, buffer.begin))

    def rules(self) -> list[RuleRow]:
        """Forward operations against the backward nodes that their rules have made, the costliest first."""
        rows: dict[str | None, RuleRow] = {}
        for node, taken in self.costs:
            flops = 0 if taken is None else taken.flops
            if node.role is Role.FORWARD:
                row = rows.setdefault(node.op.qualified_name, RuleRow(node.op.qualified_name))
                row.forward += 1
                row.forward_flops += flops
            elif node.role is Role.BACKWARD:
                row = rows.setdefault(node.rule, RuleRow(node.rule))
                row.backward += 1
                row.backward_flops += flops
        for kept in self.kept:
            rows[self.lives.nodes[kept.readers[-1]].rule].kept += kept.buffer.size
        return sorted(rows.values(), key=lambda row: (-row.forward_flops - row.backward_flops, -row.forward - row.backward))

    def operations(self) -> list[OpRow]:
        """All operations by role, the costliest first."""
        rows: dict[tuple[str, Role], OpRow] = {}
        for node, taken in self.costs:
            key = node.op.qualified_name, node.role
            row = rows.setdefault(key, OpRow(*key))
            row.nodes += 1
            if taken is not None:
                row.flops += taken.flops
                row.read += taken.read
                row.written += taken.written
        return sorted(rows.values(), key=lambda row: (-row.flops, -row.written, row.name))


def gather(graph: Graph, sizes: Mapping[str, int] | None = None) -> Facts:
    """All that the report tells.

    Raises:
        UsageError, TypeInferenceError: see `irgrad.cost.cost`.
    """
    costs = cost(graph, sizes)
    return Facts(graph, dict(sizes or {}), costs, liveness(costs.graph))


def total_bytes(values: Iterable[Value]) -> int:
    """The bytes of constants or inputs, those of unknown size not counted."""
    return sum(getattr(value.type, "nbytes", None) or 0 for value in values)


def _maker(buffer: Buffer) -> Node:
    node = buffer.value.producer
    assert node is not None
    return node
