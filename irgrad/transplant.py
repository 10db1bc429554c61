"""Parts of one graph put into another: how the bodies of backward nodes, and of forward nodes that save, are made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, MutableMapping, Sequence

from irgrad.graph import Graph, Node, Role, Value

__all__ = ["marked_as_recomputed", "needed_for", "restored", "transplant"]


def needed_for(graph: Graph, results: Iterable[Value], known: Collection[Value] = ()) -> tuple[list[Node], set[Value]]:
    """The nodes that make some values out of the `known` ones, in order; and all values that take part in it."""
    wanted = set(results)
    nodes: list[Node] = []
    for node in reversed(graph.nodes()):
        if any(value in wanted and value not in known for value in node.outputs):
            nodes.append(node)
            wanted.update(value for value in node.inputs if value is not None)
    return nodes[::-1], wanted


def transplant(source: Graph, target: Graph, results: Sequence[Value], mapped: MutableMapping[Value, Value]) -> list[Value]:
    """Copy into `target` what makes some values of `source`.

    Args:
        source: the graph of the values.
        target: a graph that gets nodes and constants.
        results: values of `source`.
        mapped: value of `source` → what stands for it in `target`: to begin with, all inputs that are needed. It is
            completed by all that is copied, so that nothing is copied twice.

    Returns:
        What stands for each result.
    """
    nodes, wanted = needed_for(source, results, mapped)
    for value, array in source.constants.items():
        if value in wanted and value not in mapped:
            mapped[value] = target.add_constant(array, target.fresh_name(value.name), parameter=value.is_parameter)
    for node in nodes:
        operands = [None if v is None else mapped[v] for v in node.inputs]
        clone = target.add_clone(node, operands, fresh_names=True, subgraphs=True)
        for value, twin in zip(node.outputs, clone.outputs, strict=True):
            # Where a value of the node is known by other means, those who come after go on reading that.
            mapped.setdefault(value, twin)
            twin.contents = value.contents
    return [mapped[value] for value in results]


# --- roles ------------------------------------------------------------------------------------------------------------

Roles = dict[str, tuple[Role, "str | None"]]


def marked_as_recomputed(graph: Graph) -> Roles:
    """Make all nodes of a graph repetitions of those of the same names; what they were before, by name."""
    before: Roles = {}
    for node in graph.nodes():
        before[node.name] = node.role, node.origin
        node.role, node.origin = Role.RECOMPUTE, node.name
    return before


def restored(graph: Graph, before: Roles, role: Role) -> None:
    """Undo `marked_as_recomputed` in a graph that has the nodes, or what some of them were expanded into.

    Nodes that are new in it get the `role`.
    """
    for node in graph.nodes():
        known = before.get(node.origin or "") if node.role is Role.RECOMPUTE else None
        node.role, node.origin = known or (role, None)
