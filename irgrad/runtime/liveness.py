"""How long values live when a graph is run node by node, and what they take: known from types before anything runs.

The order and the frees are those of the numpy interpreter. Bytes count once per buffer: a view of a result (see `Op.view`)
keeps the whole of its buffer alive, and views of inputs and constants take nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

from irgrad.graph import Graph, Node, Value
from irgrad.op import bytes_of
from irgrad.types import TensorType

__all__ = ["Buffer", "Liveness", "frees_after", "liveness", "needed_nodes"]


def needed_nodes(graph: Graph) -> list[Node]:
    """The nodes that some output depends on, in program order."""
    wanted = set(graph.outputs.values())
    kept = []
    for node in reversed(graph.nodes()):
        if any(value in wanted for value in node.outputs):
            kept.append(node)
            wanted.update(v for v in node.inputs if v is not None)
    return kept[::-1]


def frees_after(nodes: Sequence[Node]) -> list[list[Value]]:
    """For each of the nodes that are run, in that order, the results that nothing needs any more once it has run.

    What the graph returns is never among them, nor are inputs and constants.
    """
    last: dict[Value, int] = {}
    for position, node in enumerate(nodes):
        for value in (*node.inputs, *node.outputs):
            if value is not None and value.producer is not None and not value.is_output:
                last[value] = position
    frees: list[list[Value]] = [[] for _ in nodes]
    for value, position in last.items():
        frees[position].append(value)
    return frees


@dataclass
class Buffer:
    """Memory that a node allocates.

    Attributes:
        value: the result that it is allocated for.
        size: its bytes; 0 where that is not known before the run.
        begin: the step (a position in `Liveness.nodes`) that allocates it.
        end: the last step during which it is alive.
        returned: whether it is handed out in the end.
        values: all results that lie in it: `value`, and views of it.
    """

    value: Value
    size: int
    begin: int
    end: int
    returned: bool = False
    values: list[Value] = field(default_factory=list)


@dataclass(frozen=True)
class Liveness:
    """What lives when.

    Attributes:
        nodes: the steps: the nodes that are run, in order.
        buffers: what they allocate, in order.
        of: result → its buffer; results that are views of inputs or constants have none.
        unknown: results whose size is not known before the run, so that they count as nothing.
    """

    nodes: list[Node]
    buffers: list[Buffer]
    of: dict[Value, Buffer]
    unknown: list[Value]

    def timeline(self, buffers: Sequence[Buffer] | None = None) -> list[int]:
        """Live bytes during each step, after it has allocated its results: those of all buffers, or of some."""
        changes = [0] * (len(self.nodes) + 1)
        for buffer in self.buffers if buffers is None else buffers:
            changes[buffer.begin] += buffer.size
            changes[buffer.end + 1] -= buffer.size
        live, total = [], 0
        for change in changes[: len(self.nodes)]:
            total += change
            live.append(total)
        return live

    @property
    def peak(self) -> tuple[int, int]:
        """The most live bytes, and the first step that has them."""
        live = self.timeline()
        most = max(live, default=0)
        return most, live.index(most) if live else 0


def liveness(graph: Graph) -> Liveness:
    """How long what lives when a graph is run as it stands.

    Args:
        graph: one with static shapes; whatever else counts as `Liveness.unknown`.
    """
    nodes = needed_nodes(graph)
    ends = {value: position for position, freed in enumerate(frees_after(nodes)) for value in freed}
    buffers: list[Buffer] = []
    of: dict[Value, Buffer] = {}
    unknown: list[Value] = []
    strided: set[Value] = set()  # those whose elements do not lie one behind the other
    for position, node in enumerate(nodes):
        source = node.input(0)
        for value in node.outputs:
            end = ends.get(value, len(nodes) - 1)
            if node.op.view and source is not None and _is_view(node, source, value, strided):
                if source in of:
                    buffer = of[value] = of[source]
                    buffer.end = max(buffer.end, end)
                    buffer.returned |= value.is_output
                    buffer.values.append(value)
                continue
            size = bytes_of(value.type)
            if size is None:
                unknown.append(value)
            buffer = of[value] = Buffer(value, size or 0, position, end, value.is_output, [value])
            buffers.append(buffer)
    return Liveness(nodes, buffers, of, unknown)


# --- views ------------------------------------------------------------------------------------------------------------


def _is_view(node: Node, source: Value, value: Value, strided: set[Value]) -> bool:
    """Whether numpy gives a view; `strided` is told where the elements of the view do not lie one behind the other."""
    before, after = _dims(source), _dims(value)
    if before is None or after is None:
        return True
    if node.op.name in ("Reshape", "Flatten"):
        if source in strided:
            # Where axes of one element come or go, the others keep their strides; else the elements are copied.
            if [d for d in before if d != 1] != [d for d in after if d != 1]:
                return False
            strided.add(value)
        return True
    if source in strided or not _stays_contiguous(node, before, after):
        strided.add(value)
    return True


def _stays_contiguous(node: Node, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    if node.op.name == "Transpose":
        perm = node.attr("perm") or tuple(reversed(range(len(before))))
        moved = [axis for axis in perm if before[axis] != 1]
        return moved == sorted(moved)
    if prod(before) == prod(after):
        return True
    if len(before) != len(after):
        return False
    # A block of whole rows: nothing but the first axis of more than one element is cut.
    cut = [axis for axis, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    return cut == [cut[0]] and prod(before[: cut[0]]) == 1 and after[cut[0]] <= before[cut[0]]


def _dims(value: Value) -> tuple[int, ...] | None:
    return value.type.static_shape if isinstance(value.type, TensorType) else None
