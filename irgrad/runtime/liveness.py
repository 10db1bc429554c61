"""How long values live when a graph is run node by node, and what they take: known from types before anything runs.

The order and the frees are those of the numpy executor. Bytes count once per buffer: a view of a result (see `Op.view`)
keeps the whole of its buffer alive, and views of inputs and constants take nothing. A result may be written over an operand
that dies with it (see `Op.in_place`), which is how the executor plans its memory, but not how the plain interpreter runs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

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


@dataclass(eq=False)
class Buffer:
    """Memory that a node allocates.

    Attributes:
        value: the result that it is allocated for.
        size: its bytes; 0 where that is not known before the run.
        begin: the step (a position in `Liveness.nodes`) that allocates it.
        end: the last step during which it is alive.
        returned: whether it is handed out in the end.
        values: all results that lie in it: `value`, views of it, and what is written over it.
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
        views: results that are views, and of which operand.
        workspaces: step → the bytes that its kernel needs while it runs, for those that need any.
    """

    nodes: list[Node]
    buffers: list[Buffer]
    of: dict[Value, Buffer]
    unknown: list[Value]
    views: dict[Value, Value]
    workspaces: Mapping[int, int] = field(default_factory=dict)

    def timeline(self, buffers: Sequence[Buffer] | None = None) -> list[int]:
        """Live bytes during each step, after it has allocated its results: those of all buffers and workspaces, or of some
        buffers.
        """
        changes = [0] * (len(self.nodes) + 1)
        for buffer in self.buffers if buffers is None else buffers:
            changes[buffer.begin] += buffer.size
            changes[buffer.end + 1] -= buffer.size
        workspaces = self.workspaces if buffers is None else {}
        live, total = [], 0
        for position, change in enumerate(changes[: len(self.nodes)]):
            total += change
            live.append(total + workspaces.get(position, 0))
        return live

    @property
    def peak(self) -> tuple[int, int]:
        """The most live bytes, and the first step that has them."""
        live = self.timeline()
        most = max(live, default=0)
        return most, live.index(most) if live else 0


def liveness(
    graph: Graph, *, in_place: bool | Collection[Node] = False, workspaces: Mapping[Node, int] | None = None
) -> Liveness:
    """How long what lives when a graph is run as it stands.

    Args:
        graph: one with static shapes; whatever else counts as `Liveness.unknown`.
        in_place: write results over operands that die with them, where the operation allows it: everywhere or at some nodes.
        workspaces: node → the bytes that its kernel needs while it runs.
    """
    nodes = needed_nodes(graph)
    ends = {value: position for position, freed in enumerate(frees_after(nodes)) for value in freed}
    strides: dict[Value, Strides] = {}
    views = _views(nodes, strides)
    first: dict[Value, Value] = {}  # view → what the chain of views starts from
    last: dict[Value, int] = {}  # that → the last step that needs it or one of its views
    for node in nodes:
        for value in node.outputs:
            start = first[value] = first.get(views[value], views[value]) if value in views else value
            last[start] = max(last.get(start, 0), ends.get(value, len(nodes) - 1))
    buffers: list[Buffer] = []
    of: dict[Value, Buffer] = {}
    unknown: list[Value] = []
    for position, node in enumerate(nodes):
        for value in node.outputs:
            source = views.get(value)
            if source is not None and source not in of:
                continue  # of an input or constant
            buffer = of.get(source) if source is not None else None
            if buffer is None and (in_place is True or (in_place and node in in_place)):
                buffer = _overwritten(node, position, of, strides)
                if buffer is not None:
                    buffer.end = last[value]
            if buffer is None:
                size = bytes_of(value.type)
                if size is None:
                    unknown.append(value)
                buffer = Buffer(value, size or 0, position, last[value])
                buffers.append(buffer)
            of[value] = buffer
            buffer.returned |= value.is_output
            buffer.values.append(value)
    needed = {position: size for position, node in enumerate(nodes) if (size := (workspaces or {}).get(node, 0))}
    return Liveness(nodes, buffers, of, unknown, views, needed)


def _overwritten(node: Node, position: int, of: Mapping[Value, Buffer], strides: Mapping[Value, Strides]) -> Buffer | None:
    """The buffer of an operand that the only result of a node may be written over."""
    allowed = node.op.in_place
    if not allowed or len(node.outputs) != 1 or node.subgraphs:
        return None
    (result,) = node.outputs
    for index in range(len(node.inputs)) if allowed is True else allowed:
        operand = node.input(index)
        if operand is None or operand.type != result.type or operand not in of:
            continue
        if node.inputs.count(operand) > 1:
            continue  # a kernel may read it at one position after it has written at another
        buffer = of[operand]
        whole = buffer.size == bytes_of(result.type) and operand not in strides
        others = (v for v in node.inputs if v is not None and v is not operand and of.get(v) is buffer)
        if whole and buffer.end == position and not buffer.returned and next(others, None) is None:
            return buffer
    return None


# --- views ------------------------------------------------------------------------------------------------------------


def _views(nodes: Sequence[Node], strides: dict[Value, Strides]) -> dict[Value, Value]:
    """The results that are views, and of which operand; `strides` is filled for those whose elements do not lie in order."""
    views: dict[Value, Value] = {}
    for node in nodes:
        source = node.input(0)
        for value in node.outputs:
            if source is not None and _may_be_view(node, source, value) and _is_view(node, source, value, strides):
                views[value] = source
    return views


Strides: TypeAlias = "tuple[int, ...]"
"""How many elements apart neighbours along each axis lie; 0 along an axis that is broadcast."""


def _may_be_view(node: Node, source: Value, value: Value) -> bool:
    """Whether the kernel does nothing with the elements: by its operation, or a SumTo that has nothing to sum."""
    return node.op.view or (node.op.qualified_name == "irgrad.SumTo" and bytes_of(source.type) == bytes_of(value.type))


def _is_view(node: Node, source: Value, value: Value, strides: dict[Value, Strides]) -> bool:
    """Whether numpy gives a view of `source`; `strides`, of views whose elements do not lie in order, is completed."""
    before, after = _dims(source), _dims(value)
    if before is None or after is None:
        return True
    ordered = _ordered(after)
    found = _strides_of(node, before, strides.get(source, _ordered(before)), after)
    if found is not None and found != ordered:
        strides[value] = found
    return found is not None


def _strides_of(node: Node, before: tuple[int, ...], strides: Strides, after: tuple[int, ...]) -> Strides | None:
    """The strides of a view of an array of shape `before`; None where numpy has to copy it."""
    if node.op.name == "Transpose":
        return tuple(strides[axis] for axis in node.attr("perm") or reversed(range(len(before))))
    if prod(before) == prod(after):
        return _reshaped(before, strides, after)
    if node.op.name == "Expand":
        old = (*(1,) * (len(after) - len(before)), *before)
        known = (*(0,) * (len(after) - len(before)), *strides)
        return tuple(0 if size == 1 else stride for size, stride in zip(old, known, strict=True))
    steps = [1] * len(before)
    if node.op.name == "Slice" and (given := node.input(4)) is not None:
        axes = node.input(3)
        known_axes = range(len(before)) if axes is None else axes.contents or ()
        for axis, step in zip(known_axes, given.contents or (), strict=False):
            if isinstance(axis, int) and isinstance(step, int):
                steps[axis] = step
    return tuple(stride * step for stride, step in zip(strides, steps, strict=True))


def _reshaped(before: tuple[int, ...], strides: Strides, after: tuple[int, ...]) -> Strides | None:
    """The strides of a reshaped view: axes that follow each other in memory may be cut anew, others may not be joined."""
    if not prod(after):
        return _ordered(after)
    runs: list[tuple[int, int]] = []  # (number of elements, distance between them) of axes that follow each other
    for size, stride in zip(before, strides, strict=True):
        if size == 1:
            continue
        if runs and runs[-1][1] == stride * size:
            runs[-1] = runs[-1][0] * size, stride
        else:
            runs.append((size, stride))
    found: list[int] = []
    left, stride = 1, 1
    for size in reversed(after):
        if size != 1 and left == 1:
            left, stride = runs.pop()
        if left % size:
            return None
        found.append(stride)
        left, stride = left // size, stride * size
    return tuple(reversed(found))


def _ordered(shape: tuple[int, ...]) -> Strides:
    """The strides of an array whose elements lie one behind the other."""
    found, stride = [], 1
    for size in reversed(shape):
        found.append(stride)
        stride *= size
    return tuple(reversed(found))


def _dims(value: Value) -> tuple[int, ...] | None:
    return value.type.static_shape if isinstance(value.type, TensorType) else None
