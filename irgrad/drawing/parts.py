"""A model as a tree of parts (scopes, blocks of layers, nodes), and the level at which it is drawn."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from irgrad.drawing.scopes import Path, anchors, common_stem, reads_weight, scopes
from irgrad.graph import Graph, Node, Role

__all__ = ["Part", "choose_parts", "parts_at_depth", "tree_of"]

WIDEST = 24
"""A part with more children than this gets a level in between, so that it can be opened without drawing all of them."""

_DIRECTLY = "/"
"""Begins the key of a run of nodes that are in a scope and in none inside it; no scope has a slash in its name."""


@dataclass(eq=False)
class Part:
    """Some nodes that may be drawn as one box per role.

    Attributes:
        title: what the box is called.
        pattern: the same for parts that play the same part (the layers of an encoder), which are opened together.
        nodes: those that are drawn, forward ones and those that belong to them.
        children: the parts that it consists of; none where it consists of single nodes.
    """

    title: str
    pattern: str
    nodes: list[Node] = field(default_factory=list)
    children: list[Part] = field(default_factory=list)

    @property
    def closed_size(self) -> int:
        """The number of boxes that stand for the part."""
        return len({node.role for node in self.nodes})

    @property
    def open_size(self) -> int:
        """The number of boxes that stand for what it consists of."""
        return sum(child.closed_size for child in self.children) if self.children else len(self.nodes)


def tree_of(graph: Graph, drawn: Collection[Node]) -> Part:
    """The parts of a graph; nodes that are not forward ones are in the part of the node that they were made for."""
    order = graph.nodes()
    forward = [node for node in order if node.role is Role.FORWARD] or order
    belongs: dict[Node, list[Node]] = {node: [] for node in forward}
    for node, anchor in anchors(graph, forward).items():
        if node in drawn:
            belongs[anchor].append(node)
    return _part(graph.name, (), forward, scopes(forward), belongs)


def choose_parts(root: Part, most: int) -> list[Part | Node]:
    """The parts, and single nodes where they fit in, that make up a drawing of at most `most` boxes.

    The largest parts are opened first, and either all that are alike (`Part.pattern`) or none of them.
    """
    frontier: list[Part] = [root]
    opened: list[Node] = []
    size = root.closed_size
    refused: set[str] = set()
    while True:
        alike: dict[str, list[Part]] = {}
        for part in frontier:
            if part.pattern not in refused and len(part.nodes) > part.closed_size:
                alike.setdefault(part.pattern, []).append(part)
        if not alike:
            break
        pattern, parts = max(alike.items(), key=lambda item: max(len(part.nodes) for part in item[1]))
        grown = size + sum(part.open_size - part.closed_size for part in parts)
        if grown > most:
            refused.add(pattern)
            continue
        size = grown
        for part in parts:
            position = next(i for i, other in enumerate(frontier) if other is part)
            frontier[position : position + 1] = part.children
            if not part.children:
                opened += part.nodes
    return [*frontier, *opened]


def parts_at_depth(root: Part, depth: int) -> list[Part | Node]:
    """The parts `depth` levels below the whole, and those above that go no deeper."""
    level: list[Part] = [root]
    for _ in range(depth):
        level = [child for part in level for child in (part.children or [part])]
    return list(level)


def _part(
    title: str, path: Path, nodes: Sequence[Node], paths: Mapping[Node, Path], belongs: Mapping[Node, list[Node]]
) -> Part:
    """The part of the scope `path`. Scopes are nested as deeply as names are long, so that recursion is no danger."""
    part = Part(title, _pattern(path), _all(nodes, belongs))
    inner: dict[str, list[Node]] = {}
    runs, interrupted = 0, False
    for node in nodes:
        deeper = paths[node][len(path) :]
        if deeper:
            inner.setdefault(deeper[0], []).append(node)
            interrupted = True
        else:
            # What stands before and behind the inner scopes is no box: that would have its results as its operands.
            runs, interrupted = runs + interrupted, False
            inner.setdefault(f"{_DIRECTLY}{runs}", []).append(node)
    if len(inner) == 1:
        ((name, _),) = inner.items()
        if not name.startswith(_DIRECTLY):
            return _part("/".join((*path, name)), (*path, name), nodes, paths, belongs)
        part.children = list(_blocks(part, nodes, belongs))
        return part
    for name, members in inner.items():
        if name.startswith(_DIRECTLY):
            child = Part(title if path else _span(members), _pattern((*path, _DIRECTLY)), _all(members, belongs))
            child.children = list(_blocks(child, members, belongs))
        else:
            child = _part("/".join((*path, name)), (*path, name), members, paths, belongs)
        if child.nodes:
            part.children.append(child)
    part.children = _packed(part.children, part.pattern)
    return part


def _all(nodes: Sequence[Node], belongs: Mapping[Node, list[Node]]) -> list[Node]:
    return [other for node in nodes for other in belongs[node]]


def _span(nodes: Sequence[Node]) -> str:
    return nodes[0].name if len(nodes) == 1 else f"{nodes[0].name} … {nodes[-1].name}"


def _pattern(path: Path) -> str:
    return re.sub(r"\d+", "#", "/".join(path))


def _packed(parts: list[Part], pattern: str) -> list[Part]:
    """Runs of neighbouring parts in place of more parts than can be drawn."""
    if len(parts) <= WIDEST:
        return parts
    each = -(-len(parts) // WIDEST)
    packed = []
    for start in range(0, len(parts), each):
        run = parts[start : start + each]
        title = run[0].title if len(run) == 1 else f"{run[0].title} … {run[-1].title}"
        packed.append(Part(title, f"{pattern}/run", [node for part in run for node in part.nodes], run))
    return packed


# --- parts of what has no scopes --------------------------------------------------------------------------------------


def _blocks(part: Part, nodes: Sequence[Node], belongs: Mapping[Node, list[Node]]) -> Iterator[Part]:
    """The blocks of layers that a long run of nodes consists of."""
    if len(part.nodes) <= WIDEST or len(nodes) < 4:
        return
    starts = _starts(nodes)
    everything = common_stem(_parameters(nodes))
    blocks = []
    for start, stop in pairwise([*starts, len(nodes)]):
        run = nodes[start:stop]
        stem = common_stem(_parameters(run))
        title = stem if len(stem) > len(everything) else _span(run)
        block = Part(title, f"{part.pattern}/block", _all(run, belongs))
        if block.nodes:
            blocks.append(block)
    yield from _packed(blocks, f"{part.pattern}/blocks")


def _parameters(nodes: Sequence[Node]) -> list[str]:
    return [value.name for node in nodes for value in node.inputs if value is not None and value.is_parameter]


def _starts(nodes: Sequence[Node]) -> list[int]:
    """Where blocks begin: at bottlenecks, where a single result is handed on, else at weights, else anywhere."""
    bottlenecks = _bottlenecks(nodes)
    at_bottlenecks = [
        index
        for index in range(1, len(nodes))
        if index in bottlenecks and (reads_weight(nodes[index]) or index + 1 not in bottlenecks)
    ]
    at_weights = [index for index in range(1, len(nodes)) if reads_weight(nodes[index])]
    for starts in (at_bottlenecks, at_weights):
        longest = max(stop - start for start, stop in pairwise([0, *starts, len(nodes)]))
        if len(starts) >= 3 and 2 * longest <= len(nodes):
            return [0, *starts]
    return list(range(len(nodes)))


def _bottlenecks(nodes: Sequence[Node]) -> set[int]:
    """The positions before which at most one floating-point result of the nodes so far waits for a later one."""
    position = {node: index for index, node in enumerate(nodes)}
    change = [0] * (len(nodes) + 1)
    for index, node in enumerate(nodes):
        for value in node.outputs:
            last = max((position.get(user, -1) for user in value.users), default=-1)
            if last > index and getattr(getattr(value.type, "dtype", None), "kind", "f") in "fV":
                change[index + 1] += 1
                change[last + 1] -= 1
    waiting, found = 0, set()
    for index in range(len(nodes)):
        waiting += change[index]
        if waiting <= 1:
            found.add(index)
    return found
