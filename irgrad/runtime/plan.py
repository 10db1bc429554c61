"""What is decided before a graph of static shapes runs: its kernels, its order, and where every result lies.

Everything that lives between two steps lies in one arena, at offsets that never change; what the graph returns lies in
memory of its own. A result is written over an operand that dies with it where the kernel allows that, and a view is a view.
What has no size before the run (data decides it, or it is no tensor) is left to numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irgrad.builder import typed_call
from irgrad.errors import ExecutionError
from irgrad.graph import Graph, Node, Value
from irgrad.op import Kernel, WorkspaceKernel
from irgrad.runtime.arena import Item, pack, pack_into
from irgrad.runtime.fast import is_compiled
from irgrad.runtime.kernels import bind
from irgrad.runtime.liveness import Buffer, Liveness, liveness, needed_nodes
from irgrad.types import TensorType

__all__ = ["Plan", "is_planned", "kernels_of", "lives_of", "plan"]


@dataclass(frozen=True)
class Plan:
    """How a graph is run.

    Attributes:
        graph: the graph, of static shapes as far as they are known.
        kernels: the kernel of each node that is run.
        liveness: the steps, and what lives when.
        offsets: buffer → where it begins in the arena, for those that lie there.
        workspaces: step → where its kernel's workspace begins in the arena, for those that lie there.
        guests: buffer, or step for its workspace → the memory of a result that is computed later, and where it begins there.
        arena: bytes of the arena.
        returned: bytes of what is returned.
        arena_bound: the most bytes that live at one time of what lies in the arena: no arrangement of it takes less.
        bound: the most bytes that live at one time of everything.
    """

    graph: Graph
    kernels: Mapping[Node, Kernel]
    liveness: Liveness
    offsets: Mapping[Buffer, int]
    workspaces: Mapping[int, int]
    guests: Mapping[Buffer | int, tuple[Buffer, int]]
    arena: int
    returned: int
    arena_bound: int
    bound: int

    @property
    def peak(self) -> int:
        """The bytes that a run takes, feeds and constants not counted, as far as that is known before it."""
        return self.arena + self.returned


def kernels_of(graph: Graph) -> dict[Node, Kernel]:
    """The kernel of each node that some output depends on.

    Raises:
        ExecutionError: a kernel cannot be prepared; the message names the node.
    """
    kernels = {}
    for node in needed_nodes(graph):
        try:
            kernels[node] = bind(typed_call(node))
        except Exception as error:  # a kernel that is planned ahead fails in as many ways as one that runs
            raise ExecutionError(f"the node {node.name!r}: {error}") from error
    return kernels


def lives_of(graph: Graph, kernels: Mapping[Node, Kernel]) -> Liveness:
    """How long what lives when a graph is run by these kernels in memory that is planned: in place where they allow it."""
    needed = {node: kernel.workspace for node, kernel in kernels.items() if isinstance(kernel, WorkspaceKernel)}
    in_place = {node for node, kernel in kernels.items() if not is_compiled(kernel)}
    return liveness(graph, in_place=in_place, workspaces=needed)


def plan(graph: Graph) -> Plan:
    """Plan a graph.

    Args:
        graph: a specialised graph, which must not change any more.

    Raises:
        ExecutionError: a kernel cannot be prepared; the message names the node.
    """
    kernels = kernels_of(graph)
    lives = lives_of(graph, kernels)
    returned = [buffer for buffer in lives.buffers if buffer.returned and is_planned(buffer.value)]
    guests = _guests(lives, returned)
    placed = [buffer for buffer in lives.buffers if buffer.size and not buffer.returned and buffer not in guests]
    steps = [step for step in lives.workspaces if step not in guests]
    packing = pack([*(_item(buffer) for buffer in placed), *(Item(lives.workspaces[step], step, step) for step in steps)])
    offsets = dict(zip(placed, packing.offsets, strict=False))
    workspaces = dict(zip(steps, packing.offsets[len(placed) :], strict=True))
    taken = sum(buffer.size for buffer in returned)
    return Plan(graph, kernels, lives, offsets, workspaces, guests, packing.size, taken, packing.bound, lives.peak[0])


_WORTH_HOSTING = 1 << 16  # bytes from which on a buffer is put into memory that is returned later

_ROOMS = 256  # of those, as many as are looked at


def _guests(lives: Liveness, returned: Sequence[Buffer]) -> dict[Buffer | int, tuple[Buffer, int]]:
    """What lies in the memory of a result, as long as that is not computed yet: buffers, and workspaces of steps."""
    rooms = sorted((b for b in returned if b.size >= _WORTH_HOSTING), key=lambda b: (-b.size, b.begin))[:_ROOMS]
    items: dict[Buffer | int, Item] = {b: _item(b) for b in lives.buffers if not b.returned and is_planned(b.value)}
    items |= {step: Item(size, step, step) for step, size in lives.workspaces.items()}
    large = {what: item for what, item in items.items() if item.size >= _WORTH_HOSTING}
    places = pack_into(list(large.values()), [_item(b) for b in rooms])
    return {what: (rooms[place[0]], place[1]) for what, place in zip(large, places, strict=True) if place is not None}


def _item(buffer: Buffer) -> Item:
    return Item(buffer.size, buffer.begin, buffer.end)


def is_planned(value: Value) -> bool:
    """Whether the memory of a result is known before the run."""
    type = value.type
    return isinstance(type, TensorType) and type.static_shape is not None and type.dtype != np.dtype(object)
