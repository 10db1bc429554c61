"""What differs between two graphs, node by node: what a pass did, or what two versions of a model have not in common."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from irgrad.compare import array_key, attribute_key, graphs_equal
from irgrad.graph import Graph, Node, Value
from irgrad.literals import array_text
from irgrad.text import attribute_text, line_of, to_text

__all__ = ["Change", "GraphDiff", "diff_graphs"]

_SMALL = 64  # elements of a constant


@dataclass(frozen=True)
class Change:
    """A node of one graph, its counterpart in the other, and what differs between them.

    Attributes:
        before: the node of the first graph.
        after: the node of the second graph.
        what: one line for each thing that differs.
    """

    before: Node
    after: Node
    what: tuple[str, ...]


@dataclass
class GraphDiff:
    """What differs between two graphs. It is true where anything does, and ``str()`` of it tells.

    Attributes:
        before: the first graph.
        after: the second graph.
        added: the nodes that only the second has.
        removed: the nodes that only the first has.
        changed: the nodes that both have, but not quite the same.
        same: how many nodes are the same in both.
        interface: one line for each difference of inputs, constants, outputs, gradients and the graph's own data.
    """

    before: Graph
    after: Graph
    added: list[Node] = field(default_factory=list)
    removed: list[Node] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)
    same: int = 0
    interface: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.interface)

    def counts(self, key: Callable[[Node], str]) -> dict[str, tuple[int, int, int]]:
        """How many nodes were added, removed and changed, by what `key` says of a node; the largest groups first."""
        groups = [
            Counter(map(key, self.added)),
            Counter(map(key, self.removed)),
            Counter(key(change.after) for change in self.changed),
        ]
        names = sorted({name for group in groups for name in group}, key=lambda n: (-sum(g[n] for g in groups), n))
        return {name: (groups[0][name], groups[1][name], groups[2][name]) for name in names}

    def by_operation(self) -> dict[str, tuple[int, int, int]]:
        """Operation → number of nodes added, removed, changed."""
        return self.counts(lambda node: node.op.qualified_name)

    def by_role(self) -> dict[str, tuple[int, int, int]]:
        """Role → number of nodes added, removed, changed."""
        return self.counts(lambda node: node.role.value)

    def lines(self, rows: int | None = None) -> Iterator[str]:
        """The differences, one by one: ``+`` for what is new, ``-`` for what is gone, ``~`` for what changed.

        Args:
            rows: how many of each kind; all by default.
        """
        yield from _limited([[f"~ {line}"] for line in self.interface], rows, "differences of inputs, constants and outputs")
        yield from _limited([[f"- {line_of(node)}"] for node in self.removed], rows, "nodes that are gone")
        yield from _limited([[f"+ {line_of(node)}"] for node in self.added], rows, "new nodes")
        changes = [[f"~ {line_of(c.after)}", *(f"    {what}" for what in c.what)] for c in self.changed]
        yield from _limited(changes, rows, "changed nodes")

    def summary(self) -> str:
        """How many nodes were added, removed and changed, and how many were not, in one line."""
        added, removed, changed = len(self.added), len(self.removed), len(self.changed)
        return f"nodes: {added} added, {removed} removed, {changed} changed, {self.same} the same"

    def __str__(self) -> str:
        return "\n".join([self.summary(), *self.lines()])


def _limited(entries: Sequence[Sequence[str]], rows: int | None, what: str) -> Iterator[str]:
    shown = entries if rows is None else entries[:rows]
    for entry in shown:
        yield from entry
    if len(shown) < len(entries):
        yield f"  ... and {len(entries) - len(shown)} more {what}"


def diff_graphs(before: Graph, after: Graph) -> GraphDiff:
    """Compare two graphs node by node.

    A node has a counterpart where operation, attributes and operands are the same (names may differ: what a node was called
    does not matter as long as it does the same with the same), else where the name is the same.

    Args:
        before: a graph; it is not changed.
        after: another one; neither is it.
    """
    pairs = _matched(before, after)
    diff = GraphDiff(before, after)
    renamed = {b.name: a.name for m, n in pairs.items() for a, b in zip(m.outputs, n.outputs, strict=False)}
    counterparts = set(pairs.values())
    diff.removed = [node for node in before.nodes() if node not in pairs]
    diff.added = [node for node in after.nodes() if node not in counterparts]
    for node, other in pairs.items():
        what = tuple(_node_changes(node, other, renamed))
        if what:
            diff.changed.append(Change(node, other, what))
        else:
            diff.same += 1
    position = {node: k for k, node in enumerate(after.nodes())}
    diff.changed.sort(key=lambda change: position[change.after])
    diff.interface = list(_interface_changes(before, after, renamed))
    return diff


# --- which nodes belong together --------------------------------------------------------------------------------------


def _matched(before: Graph, after: Graph) -> dict[Node, Node]:
    """Node of the first graph → its counterpart in the second one."""
    # In program order, so that what operands correspond to is known when their users are looked at.
    free: dict[Hashable, dict[str, Node]] = defaultdict(dict)
    for node in before.nodes():
        free[_key(node, {})][node.name] = node
    pairs: dict[Node, Node] = {}
    renamed: dict[str, str] = {}
    for node in after.nodes():
        candidates = free.get(_key(node, renamed))
        if candidates:
            found = candidates.pop(node.name if node.name in candidates else next(iter(candidates)))
            pairs[found] = node
            renamed.update({b.name: a.name for a, b in zip(found.outputs, node.outputs, strict=True)})
    counterparts = set(pairs.values())
    for node in after.nodes():
        if node not in counterparts and before.has_node(node.name) and before.node(node.name) not in pairs:
            pairs[before.node(node.name)] = node
    return pairs


def _key(node: Node, renamed: Mapping[str, str]) -> Hashable:
    """Equal for two nodes that do the same with the same; `renamed` says what values are called in the other graph."""
    operands = tuple(_operand_key(value, renamed) for value in node.inputs)
    attributes = tuple(sorted((key, _attribute_key(value)) for key, value in node.attrs.items()))
    return node.op.qualified_name, operands, attributes, len(node.outputs), node.role


def _operand_key(value: Value | None, renamed: Mapping[str, str]) -> Hashable:
    if value is None:
        return None
    array = _contents(value)
    return renamed.get(value.name, value.name) if array is None else array_key(array)


def _attribute_key(value: Any) -> str:
    return to_text(value, "full") if isinstance(value, Graph) else repr(attribute_key(value))


# --- what differs -----------------------------------------------------------------------------------------------------


def _node_changes(node: Node, other: Node, renamed: Mapping[str, str]) -> Iterator[str]:
    """One line for each thing that differs between two nodes; names of values do not count where those correspond."""
    if node.op.qualified_name != other.op.qualified_name:
        yield f"operation: {node.op.qualified_name} → {other.op.qualified_name}"
    for position in range(max(len(node.inputs), len(other.inputs))):
        mine, its = node.input(position), other.input(position)
        if _operand_key(mine, {}) != _operand_key(its, renamed):
            yield f"operand {position}: {_shown(mine)} → {_shown(its)}"
    for key in dict.fromkeys([*node.attrs, *other.attrs]):
        yield from _attribute_changes(key, node.attrs.get(key), other.attrs.get(key))
    if len(node.outputs) != len(other.outputs):
        yield f"outputs: {len(node.outputs)} → {len(other.outputs)}"
    for a, b in zip(node.outputs, other.outputs, strict=False):
        if a.type != b.type:
            yield f"type of %{b.name}: {a.type} → {b.type}"
        elif a.contents != b.contents:
            yield f"known elements of %{b.name}: {_known(a)} → {_known(b)}"
    if node.role is not other.role:
        yield f"role: {node.role.value} → {other.role.value}"
    if node.origin != other.origin:
        yield f"origin: {node.origin} → {other.origin}"


def _shown(value: Value | None, renamed: Mapping[str, str] = MappingProxyType({})) -> str:
    if value is None:
        return "absent"
    array = _contents(value)
    return f"%{renamed.get(value.name, value.name)}" if array is None else f"%{value.name} {array_text(array, 'short')}"


def _contents(value: Value) -> np.ndarray | None:
    """What a small constant holds: such ones have names that nobody gave them, and are told where they are used."""
    array = None if value.is_parameter else value.constant
    return array if array is not None and array.size <= _SMALL else None


def _known(value: Value) -> str:
    return "unknown" if value.contents is None else str(list(value.contents))


def _attribute_changes(key: str, mine: Any, its: Any) -> Iterator[str]:
    if isinstance(mine, Graph) and isinstance(its, Graph):
        if graphs_equal(mine, its) is not None:
            yield f"{key}:"
            yield from (f"  {line}" for line in str(diff_graphs(mine, its)).splitlines())
    elif isinstance(mine, Graph) or isinstance(its, Graph) or attribute_key(mine) != attribute_key(its):
        yield f"{key}: {_attribute(mine)} → {_attribute(its)}"


def _attribute(value: Any) -> str:
    return "not given" if value is None else attribute_text(value)


def _interface_changes(before: Graph, after: Graph, renamed: Mapping[str, str]) -> Iterator[str]:
    for what in ("name", "opset", "metadata"):
        mine, its = getattr(before, what), getattr(after, what)
        if mine != its:
            yield f"{what} of the graph: {mine!r} → {its!r}"
    inputs = [{name: str(value.type) for name, value in graph.inputs.items()} for graph in (before, after)]
    yield from _entries("input", *inputs)
    large = [{v.name: v for v in graph.constants if _contents(v) is None} for graph in (before, after)]
    yield from _entries("constant", *({name: _constant(value) for name, value in table.items()} for table in large))
    for name, value in large[0].items():
        other = large[1].get(name)
        same_kind = other is not None and _constant(value) == _constant(other)
        if same_kind and array_key(before.constants[value]) != array_key(after.constants[large[1][name]]):
            yield f"constant %{name}: other elements"
    outputs = [
        {name: f"{_shown(v, names)}: {v.type}" for name, v in graph.outputs.items()}
        for graph, names in ((before, {}), (after, renamed))
    ]
    yield from _entries("output", *outputs)
    yield from _entries("gradient of", before.gradients, after.gradients)


def _constant(value: Value) -> str:
    return f"{'parameter ' if value.is_parameter else ''}{value.type}"


def _entries(what: str, before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys([*before, *after]):
        mine, its = before.get(name), after.get(name)
        if mine is None:
            yield f"{what} %{name}: new, {its}"
        elif its is None:
            yield f"{what} %{name}: gone, was {mine}"
        elif mine != its:
            yield f"{what} %{name}: {mine} → {its}"
    if before.keys() == after.keys() and list(before) != list(after):
        yield f"order of the {what.split()[0]}s: {', '.join(before)} → {', '.join(after)}"
