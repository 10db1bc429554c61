"""Putting a node in the place of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_letters

from irgrad.graph import Expansion, Graph, Node, Value
from irgrad.op import find_op
from irgrad.passes.fusion.clusters import Cluster, is_small
from irgrad.passes.fusion.members import Layout, Member
from irgrad.rewrite import RecordingBuilder, is_named, take_place
from irgrad.runtime.tiles import Tiling

__all__ = ["Group", "put"]

_NAMED = 4  # operations in the name of a body; origins in that of its node


@dataclass(frozen=True)
class Group:
    """A group that is about to become one node.

    Attributes:
        nodes: its nodes, in program order.
        body: what they are as a graph; its inputs and outputs have the names that the values have outside.
        tiling: along which axes it can be run piece by piece; None where it is run as a whole.
    """

    nodes: tuple[Node, ...]
    body: Graph
    tiling: Tiling | None

    @classmethod
    def of(cls, cluster: Cluster, places: Mapping[Node, int]) -> Group:
        """What becomes of a cluster.

        Args:
            cluster: a convex group.
            places: node → its place in the program order.
        """
        nodes = tuple(sorted(cluster.nodes, key=places.__getitem__))
        return cls(nodes, _body(nodes, cluster), _tiling(nodes, cluster))


def put(graph: Graph, group: Group) -> Node:
    """Put a node of `irgrad.Fused` in the place of the nodes of a group; it."""
    nodes, body, tiling = group.nodes, group.body, group.tiling
    operands = [graph.value(name) for name in body.inputs]
    results = [graph.value(name) for name in body.outputs]
    first = results[0].producer
    assert first is not None
    node = graph.add_node(
        find_op("Fused", "irgrad"),
        operands,
        [value.type for value in results],
        {"body": body} if tiling is None else {"layout": str(tiling), "tiled": tiling.axes, "body": body},
        role=nodes[0].role,
        origin=_joined(nodes),
        near=nodes[-1],
        rule=_same([member.rule for member in nodes]),
        expansion=_shared_expansion(nodes),
    )
    name = first.name
    for old, new in zip(results, node.outputs, strict=True):
        take_place(old, new)
    read = dict.fromkeys(value for member in nodes for value in member.inputs if value is not None)
    for member in reversed(nodes):
        graph.erase(member)
    for new, old_name in zip(node.outputs, body.outputs, strict=True):
        graph.rename(new, old_name)
    graph.rename(node, name)
    for value in read:
        if value.constant is not None and not (value.is_parameter or value.users or value.is_output or is_named(value)):
            graph.erase(value)
    return node


def _body(nodes: Sequence[Node], cluster: Cluster) -> Graph:
    """The nodes as a graph."""
    kinds = list(dict.fromkeys(node.op.name for node in nodes))
    body = Graph("_".join(kinds[:_NAMED]) + ("" if len(kinds) <= _NAMED else f"_and_{len(kinds) - _NAMED}_more"))
    mapped: dict[Value, Value] = {}
    for node in nodes:
        for value in node.inputs:
            if value in cluster.inputs and value not in mapped:
                mapped[value] = body.add_input(value.name, value.type)
                mapped[value].contents = value.contents
    b = RecordingBuilder(body)
    taken = {
        name for node in nodes for name in (node.name, *(v.name for v in (*node.inputs, *node.outputs) if v is not None))
    }
    for node in nodes:
        for value in node.inputs:
            if value is not None and value not in mapped:
                array = value.constant
                assert array is not None, f"{value!r} is read by {node!r}, but it is no operand of the group"
                mapped[value] = body.add_constant(array, value.name)
        _emit(b, node, cluster.members[node], mapped, taken)
    body.set_outputs({v.name: mapped[v] for node in nodes for v in node.outputs if v in cluster.outputs})
    return body


def _emit(b: RecordingBuilder, node: Node, member: Member, mapped: dict[Value, Value], taken: set[str]) -> None:
    operands = [None if v is None else mapped[v] for v in node.inputs]
    if member.emit is None:
        clone = b.graph.add_clone(node, operands)
        for value, twin in zip(node.outputs, clone.outputs, strict=True):
            mapped[value] = twin
            twin.contents = value.contents
        return
    b.role, b.origin, b.rule, b.expansion = node.role, node.origin, node.rule, node.expansion
    b.made = []
    known = len(b.graph.constants)
    with b:
        results = member.emit(b, node, operands)
    # Names of the graph around it are kept for what has them there.
    for part in b.made:
        b.graph.rename(part, b.graph.fresh_name(f"{node.name}_part", node=True, avoid=taken))
    for value in (*(v for part in b.made for v in part.outputs), *list(b.graph.constants)[known:]):
        b.graph.rename(value, b.graph.fresh_name(f"{node.name}_part", avoid=taken))
    for value, result in zip(node.outputs, results, strict=True):
        b.graph.set_type(result, value.type)
        b.graph.rename(result, value.name)
        mapped[value] = result
    b.graph.rename(b.made[-1], node.name)


def _tiling(nodes: Sequence[Node], cluster: Cluster) -> Tiling | None:
    free = cluster.free()
    if cluster.space is None or is_small(cluster.space) or not free or len(cluster.space) > len(ascii_letters):
        return None

    def letters(layout: Layout) -> str:
        return "".join("." if axis is None else ascii_letters[axis] for axis in layout)

    operands = dict.fromkeys(v for node in nodes for v in node.inputs if v in cluster.inputs)
    results = [v for node in nodes for v in node.outputs if v in cluster.outputs]
    layouts = cluster.layouts
    return Tiling(
        tuple(letters(layouts[v]) for v in operands if v is not None),
        tuple(letters(layouts[v]) for v in results),
        letters(tuple(free)),
    )


def _joined(nodes: Sequence[Node]) -> str | None:
    """The origins of the nodes: their names where there are few, else the first and how many more there are."""
    origins = list(dict.fromkeys(node.origin for node in nodes if node.origin is not None))
    if len(origins) > _NAMED:
        origins = [*origins[: _NAMED - 1], f"{len(origins) - _NAMED + 1} more"]
    return " + ".join(origins) or None


def _same(rules: Sequence[str | None]) -> str | None:
    return rules[0] if len(set(rules)) == 1 else None


def _shared_expansion(nodes: Sequence[Node]) -> Expansion | None:
    return nodes[0].expansion if len({node.expansion for node in nodes}) == 1 else None
