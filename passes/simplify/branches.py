"""The rule that replaces an If whose condition is known by the nodes of the branch that it takes."""

from __future__ import annotations

from irgrad.builder import Builder
from irgrad.graph import Graph, Node, Value
from irgrad.passes.simplify.facts import uniform
from irgrad.pattern import OpPattern, Rule, Var, op, rule
from irgrad.types import merge_types, types_compatible

__all__ = ["RULES"]


@rule
def known_branch(condition: Var) -> OpPattern:
    """If(true, then, else) → the nodes of then."""
    return op("If", condition, ...)


@known_branch.check
def _(root: Node, condition: Value) -> str | None:
    if uniform(condition) is None:
        return f"{condition!r} is not known"
    branch = _taken(root, condition)
    fits = len(branch.outputs) == len(root.outputs) and all(
        types_compatible(old.type, new.type) for old, new in zip(root.outputs, branch.outputs.values(), strict=True)
    )
    return None if fits else f"the branch {branch.name!r} returns something else than the node"


@known_branch.replace
def _(b: Builder, root: Node, condition: Value) -> tuple[Value, ...]:
    return _inline(b, _taken(root, condition), root.inputs[1:])


RULES: tuple[Rule, ...] = (known_branch,)


def _taken(node: Node, condition: Value) -> Graph:
    branch = node.attrs["then_branch" if uniform(condition) else "else_branch"]
    assert isinstance(branch, Graph)
    return branch


def _inline(b: Builder, inner: Graph, operands: tuple[Value | None, ...]) -> tuple[Value, ...]:
    """Emit the nodes of a graph on operands of another; its results."""
    graph = b.graph
    mapped: dict[Value, Value | None] = dict(zip(inner.inputs.values(), operands, strict=True))
    for value, array in inner.constants.items():
        mapped[value] = graph.add_constant(array, graph.fresh_name(value.name), parameter=value.is_parameter)
    for node in inner.nodes():
        made = b.node(
            node.op,
            [None if v is None else mapped[v] for v in node.inputs],
            {key: value.copy() if isinstance(value, Graph) else value for key, value in node.attrs.items()},
            outputs=len(node.outputs),
            name=graph.fresh_name(node.name, node=True),
            output_names=[graph.fresh_name(v.name) for v in node.outputs],
        )
        for old, new in zip(node.outputs, made.outputs, strict=True):
            mapped[old] = new
            if types_compatible(new.type, old.type):
                graph.set_type(new, merge_types(new.type, old.type))
    results = [mapped[value] for value in inner.outputs.values()]
    return tuple(value for value in results if value is not None)
