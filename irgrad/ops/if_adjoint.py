"""The adjoint of If: an If with the adjoints of the branches."""

from __future__ import annotations

from collections.abc import Sequence

from irgrad.builder import AdjointBuilder, Builder, typed_call
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.graph import Graph, Node, Role, Value
from irgrad.op import ZERO, Call, Zero
from irgrad.ops.backward_body import BackwardBody, set_named_outputs
from irgrad.ops.iteration import saved_for
from irgrad.ops.kept_values import empty, held_as
from irgrad.ops.sequence_types import as_known_as
from irgrad.ops.subgraphs import Body, possible_branches
from irgrad.transplant import Roles, marked_as_recomputed, needed_for, restored, transplant

__all__ = ["if_adjoint"]


def if_adjoint(b: AdjointBuilder, node: Node, *dys: Value | None) -> list[Value | Zero]:
    """The branch that was taken, backwards: what its adjoint reads of it is computed again.

    Random numbers cannot be: the forward node hands them on (and in their place something empty from the other branch).
    """
    call = typed_call(node)
    captured = [node.operand(k) for k in range(1, len(node.inputs))]
    wants = [k for k, value in enumerate(captured) if b.needs(value)]
    branches: list[_Branch] = []
    refused: list[str] = []
    for name in ("then_branch", "else_branch"):
        try:
            branches.append(_Branch(b, call, name, captured, wants, dys))
        except UnsupportedOpError as error:
            refused += error.nodes
    if refused:
        raise UnsupportedOpError(f"{len(refused)} node(s) in its branches cannot be differentiated", refused)
    results = [k for k in wants if any(k in branch.cotangents for branch in branches)]
    if not results:
        return [ZERO] * len(node.inputs)
    for branch in branches:
        branch.complete(results)
    _hand_on(b, node, branches)
    # Both branches of the backward node capture the same: all that one of them reads.
    read = dict.fromkeys(outer for branch in branches for outer in branch.reads())
    bodies = [branch.backward(node, list(read), results) for branch in branches]
    attrs = {"then_branch": bodies[0].graph, "else_branch": bodies[1].graph}
    operands = list(bodies[0].captured)
    made = b.node(node.op, [node.operand(0), *operands], {**attrs, "captured": len(operands)}, outputs=len(results)).outputs
    found = {k: as_known_as(value, captured[k]) for k, value in zip(results, made, strict=True)}
    return [ZERO, *(found.get(k, ZERO) for k in range(len(captured)))]


class _Branch:
    """A branch with its adjoint.

    Attributes:
        plain: the branch of the forward node.
        graph: a copy of it with everything in it; of a branch that cannot be taken, just its inputs.
        cotangents: position of a captured value → its cotangent; those that are zero are left out.
        sources: value of `graph` → what it is around the node.
        drawn: the results of random operations that the adjoint reads.
    """

    def __init__(
        self,
        b: AdjointBuilder,
        call: Call,
        name: str,
        captured: Sequence[Value],
        wants: Sequence[int],
        dys: Sequence[Value | None],
    ) -> None:
        self.plain: Graph = call.attrs[name]
        self.cotangents: dict[int, Value] = {}
        self.drawn: list[Value] = []
        self._before: Roles = {}
        graph = _specialised(call, name)
        self.graph = Graph(self.plain.name) if graph is None else graph
        if graph is None:
            inputs = [
                self.graph.add_input(v.name, outer.type)
                for v, outer in zip(self.plain.inputs.values(), captured, strict=True)
            ]
        else:
            inputs = list(graph.inputs.values())
        self._inputs = inputs
        self.sources = dict(zip(inputs, captured, strict=True))
        if graph is None:
            return
        self._before = marked_as_recomputed(graph)
        seeds = []
        for value, dy in zip(graph.outputs.values(), dys, strict=False):
            if dy is not None:
                seeds.append((value, graph.add_input(graph.fresh_name(f"{value.name}_cotangent"), value.type)))
                self.sources[seeds[-1][1]] = dy
        found = b.pull_back(graph, seeds, [inputs[k] for k in wants])
        self.cotangents = {k: d for k, d in zip(wants, found, strict=True) if d is not None}

    def complete(self, results: Sequence[int]) -> None:
        """Let it return zeros where it does not use a captured value that the other branch does."""
        b = Builder(self.graph, role=Role.BACKWARD)
        for k in results:
            if k not in self.cotangents:
                self.cotangents[k] = b.zeros_like(self._inputs[k])
        self.drawn = saved_for(self.graph, self.cotangents.values(), ())[0]

    def forward(self, count: int, further: Sequence[Value], role: Role) -> Graph:
        """The branch of the forward node with `count` outputs and `further` ones; those of the other branch are empty."""
        graph = Graph(self.plain.name)
        source = self.graph if self.graph.outputs else self.plain
        inputs = list(source.inputs.values())[: len(self._inputs)]
        known = {value: graph.add_input(value.name, value.type) for value in inputs}
        outputs = dict(list(source.outputs.items())[:count])
        made = transplant(source, graph, [*outputs.values(), *self.drawn], known)
        if self._before:
            restored(graph, self._before, role)
        b = Builder(graph)
        places = [known[v] if v in self.drawn else empty(b, v.type) for v in further]
        set_named_outputs(graph, [*made[:count], *places], list(outputs))
        return graph

    def reads(self) -> list[Value]:
        """The values around the node that its adjoint reads."""
        _, wanted = needed_for(self.graph, self.cotangents.values(), self.sources)
        return [outer for value, outer in self.sources.items() if value in wanted]

    def backward(self, node: Node, read: Sequence[Value], results: Sequence[int]) -> BackwardBody:
        """The branch of the backward node, which captures what is `read`, in this order."""
        inner = BackwardBody(f"{self.graph.name}_adjoint", node.name)
        types = {outer: value.type for value, outer in self.sources.items()}
        for outer in read:
            inner.capture(outer, types.get(outer))
        wanted = set(read)
        known = {value: held_as(inner.b, inner.capture(o), value) for value, o in self.sources.items() if o in wanted}
        roots = [self.cotangents[k] for k in results]
        set_named_outputs(inner.graph, transplant(self.graph, inner.graph, roots, known))
        return inner


def _specialised(call: Call, name: str) -> Graph | None:
    """A branch with the types that it has at a node; None if it cannot be taken there."""
    if name not in possible_branches(call):
        return None
    try:
        return Body(call, name).specialised([])
    except TypeInferenceError:
        return None


def _hand_on(b: AdjointBuilder, node: Node, branches: Sequence[_Branch]) -> None:
    """Let the forward node return what random operations in its branches have drawn."""
    further = [value for branch in branches for value in branch.drawn]
    if not further:
        return
    first = len(node.outputs)
    graphs = [branch.forward(first, further, node.role) for branch in branches]
    attrs = {**node.attrs, "then_branch": graphs[0], "else_branch": graphs[1]}
    outputs = b.augment(node, first + len(further), attrs=attrs)
    for branch in branches:
        branch.sources.update({v: outputs[first + further.index(v)] for v in branch.drawn})
