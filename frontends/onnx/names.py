"""Names in files: which node makes what, in what order nodes may be read, and what subgraphs take from outside."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping, Sequence

import onnx
from onnx import AttributeProto, NodeProto

from irgrad.errors import CyclicModelError, DanglingNameError, DuplicateNameError
from irgrad.frontends.onnx.check import check_text, shown
from irgrad.graph import Graph, Node, Value

__all__ = ["check_names", "free_names", "ordered", "restore_names", "subgraphs_of"]


def subgraphs_of(node: NodeProto) -> list[onnx.GraphProto]:
    """The subgraphs among the attributes of a node."""
    found = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    return found + [g for a in node.attribute if a.type == AttributeProto.GRAPHS for g in a.graphs]


def check_names(proto: onnx.GraphProto) -> None:
    """Check the names that a graph declares.

    Raises:
        ModelParseError: one is not UTF-8.
        DuplicateNameError: two inputs, or two initializers, carry the same name.
        DanglingNameError: one carries none.
    """
    where = f"the graph {proto.name!r}"
    initializers = [t.name for t in proto.initializer] + [t.values.name for t in proto.sparse_initializer]
    for kind, names in (("input", [i.name for i in proto.input]), ("initializer", initializers)):
        seen: set[str] = set()
        check_text(where, *names)
        for name in names:
            if not name:
                raise DanglingNameError(f"{where} has an {kind} without a name")
            if name in seen:
                raise DuplicateNameError(f"{where} has two {kind}s named {name!r}")
            seen.add(name)
    check_text(where, proto.name, *(i.name for i in proto.output), *(i.name for i in proto.value_info))


def free_names(graph: onnx.GraphProto) -> list[str]:
    """The names that a subgraph reads from the scope around it, in order of first use."""
    bound = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    bound |= {t.values.name for t in graph.sparse_initializer}
    bound |= {name for node in graph.node for name in node.output if name}
    free: dict[str, None] = {}
    for node in graph.node:
        for name in _reads(node):
            if name not in bound:
                free[name] = None
    for info in graph.output:
        if info.name not in bound:
            free[info.name] = None
    return list(free)


def _reads(node: NodeProto) -> list[str]:
    return [n for n in node.input if n] + [n for g in subgraphs_of(node) for n in free_names(g)]


def ordered(nodes: Sequence[NodeProto], scope: Collection[str]) -> list[NodeProto]:
    """The nodes in an order in which names are defined before they are used: the file's own, where it is one.

    Args:
        nodes: of one graph or function body.
        scope: the names that are defined already.

    Raises:
        ModelParseError: a name is not UTF-8.
        DuplicateNameError: a name is defined twice.
        DanglingNameError: a node reads a name that nothing defines.
        CyclicModelError: nodes depend on each other.
    """
    maker: dict[str, int] = {}
    for position, node in enumerate(nodes):
        attributes = [text for a in node.attribute for text in (a.name, a.ref_attr_name)]
        check_text("a node", node.name, node.op_type, node.domain, node.overload, *node.input, *node.output, *attributes)
        for name in node.output:
            if not name:
                continue
            if name in maker or name in scope:
                raise DuplicateNameError(f"the name {name!r} is defined twice, once by {shown(node)}")
            maker[name] = position
    reads = [_reads(node) for node in nodes]
    waits: list[int] = []
    readers: dict[int, list[int]] = {}
    sorted_already = True
    for position, names in enumerate(reads):
        makers = {maker[name] for name in names if name in maker}
        for name in names:
            if name not in maker and name not in scope:
                raise DanglingNameError(f"{shown(nodes[position])} reads {name!r}, which nothing defines")
        waits.append(len(makers))
        sorted_already &= max(makers, default=-1) < position
        for made_by in makers:
            readers.setdefault(made_by, []).append(position)
    if sorted_already:
        return list(nodes)
    order: list[NodeProto] = []
    ready = [position for position, count in enumerate(waits) if not count]
    while ready:
        position = heapq.heappop(ready)
        order.append(nodes[position])
        for reader in readers.get(position, ()):
            waits[reader] -= 1
            if not waits[reader]:
                heapq.heappush(ready, reader)
    if len(order) != len(nodes):
        stuck = next(p for p, count in enumerate(waits) if count)
        raise CyclicModelError(f"the nodes depend on each other in a circle; {shown(nodes[stuck])} is on it or behind it")
    return order


def restore_names(graph: Graph, values: Mapping[str, Value | None], nodes: Mapping[str, Node]) -> None:
    """Give values and nodes the names that the file has for them, where something that the file does not name took one.

    What reading adds (constants for what used to be attributes, the bodies of functions) is named as it comes, and may come
    before the value that the file calls so.
    """
    _restore(graph, {n: v for n, v in values.items() if v is not None}, node=False)
    _restore(graph, nodes, node=True)


def _restore(graph: Graph, wanted: Mapping[str, Value] | Mapping[str, Node], *, node: bool) -> None:
    for name, thing in wanted.items():
        if thing.name == name or wanted.get(thing.name) is thing:
            continue
        if graph.has_node(name) if node else graph.has_value(name):
            holder: Node | Value = graph.node(name) if node else graph.value(name)
            graph.rename(holder, graph.fresh_name(name, node=node))
        graph.rename(thing, name)
