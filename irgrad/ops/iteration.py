"""What the adjoints of Loop and Scan share: the adjoint of a body, and what it needs of the forward iterations.

The backward node runs over the iterations from the last to the first. Its body is made out of a copy of the forward body to
which the adjoint pass has added backward nodes. What that reads of the states at the start of an iteration is saved by the
forward node; the rest is computed again out of it. Only what cannot be computed again, random numbers, is saved besides.

Reference: Griewank and Walther, Evaluating Derivatives, 2nd edition, SIAM 2008, section 12.1 (a checkpoint per step).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from irgrad.activity import active_values, useful_values
from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Graph, Node, Role, Value
from irgrad.op import ZERO, Zero
from irgrad.ops.sequence_types import as_known_as
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.transplant import marked_as_recomputed
from irgrad.types import TensorType, Type

__all__ = [
    "BodyAdjoint",
    "Layout",
    "Pick",
    "Wanted",
    "accumulated",
    "accumulator",
    "contributions",
    "draws_numbers",
    "is_constant_shape",
    "saved_for",
]


@dataclass(frozen=True)
class Layout:
    """How the inputs and outputs of a body are laid out.

    Attributes:
        head: how many inputs come before the states (Loop: iteration number and condition).
        states: how many states there are.
        scanned: how many slices of scanned operands come after the states.
        lead: how many outputs come before the states (Loop: the condition).
    """

    head: int
    states: int
    scanned: int
    lead: int


@dataclass(frozen=True)
class Wanted:
    """Which operands of the forward node want a cotangent, and which results have one."""

    states: Sequence[bool]
    scanned: Sequence[bool]
    captured: Sequence[bool]
    final: Sequence[bool]
    slices: Sequence[bool]


@dataclass(frozen=True)
class Pick:
    """A Gather out of a captured value by an index that belongs to the iteration, like ``x[i]``.

    The cotangents of what is picked are handed out as slices and put in their places all at once after the last iteration:
    adding an array of the captured value's size in each iteration would cost the square of the number of iterations.

    Attributes:
        captured: the position of the captured value.
        axis: the axis of it that is indexed, counted from the first.
        index: the index.
        cotangent: of what is picked.
    """

    captured: int
    axis: int
    index: Value
    cotangent: Value


class BodyAdjoint:
    """A body with the adjoint nodes of one iteration in it.

    Args:
        b: the builder of the rule.
        graph: a copy of the body of its own; it is changed.
        layout: of the body.
        wanted: what is asked for.

    Attributes:
        graph: the body with everything in it.
        before: the roles that its forward nodes had.
        head, states, scanned, captured: inputs.
        carried: positions of the states whose cotangents are carried from iteration to iteration.
        dafter: position of a carried state → the input that stands for its cotangent after the iteration.
        dslices: position of a slice → the input that stands for its cotangent.
        dstates: position of a carried state → its cotangent before the iteration.
        dscanned, dcaptured: position → cotangent; those that are zero are left out.
        picks: see `Pick`.
    """

    def __init__(self, b: AdjointBuilder, graph: Graph, layout: Layout, wanted: Wanted) -> None:
        self.graph, self._layout = graph, layout
        inputs = list(graph.inputs.values())
        first, last = layout.head + layout.states, layout.head + layout.states + layout.scanned
        self.head, self.states = inputs[: layout.head], inputs[layout.head : first]
        self.scanned, self.captured = inputs[first:last], inputs[last:]
        self.before = marked_as_recomputed(graph)
        self.carried = self._carried(wanted)
        self.dafter = {k: self.stand_in(self.after[k], f"{self.states[k].name}_cotangent") for k in self.carried}
        self.dslices = {
            k: self.stand_in(v, f"{v.name}_slice_cotangent") for k, v in enumerate(self.slices) if wanted.slices[k]
        }
        scanned = [k for k, wants in enumerate(wanted.scanned) if wants]
        captured = [k for k, wants in enumerate(wanted.captured) if wants]
        picked = self._picked(captured)
        seeds = [(self.after[k], d) for k, d in self.dafter.items()] + [(self.slices[k], d) for k, d in self.dslices.items()]
        sources = [
            *(self.states[k] for k in self.carried),
            *(self.scanned[k] for k in scanned),
            *(self.captured[k] for k in captured),
            *(node.outputs[0] for _, node in picked),
        ]
        found = iter(b.pull_back(graph, seeds, sources, [node.outputs[0] for _, node in picked]))
        states = {k: next(found) for k in self.carried}
        # A state that has no say in the iteration gets zeros in the shape that it has there.
        self.dstates = {k: self.emit.zeros_like(self.states[k]) if d is None else d for k, d in states.items()}
        self.dscanned = {k: d for k in scanned if (d := next(found)) is not None}
        self.dcaptured = {k: d for k in captured if (d := next(found)) is not None}
        self.picks = [
            Pick(k, node.attr("axis") % (self.captured[k].rank or 1), node.operand(1), d)
            for k, node in picked
            if (d := next(found)) is not None
        ]

    @property
    def outputs(self) -> list[Value]:
        """All outputs of the body, of which an expansion may have renewed some."""
        return list(self.graph.outputs.values())

    @property
    def after(self) -> list[Value]:
        """The states after the iteration."""
        return self.outputs[self._layout.lead : self._layout.lead + self._layout.states]

    @property
    def slices(self) -> list[Value]:
        """The slices of scan outputs."""
        return self.outputs[self._layout.lead + self._layout.states :]

    @property
    def is_zero(self) -> bool:
        """Whether no operand gets any cotangent."""
        return not (self.carried or self.dscanned or self.dcaptured or self.picks)

    @property
    def roots(self) -> list[Value]:
        """The values that the backward body has to hand out, each once."""
        picks = [value for pick in self.picks for value in (pick.cotangent, pick.index)]
        return list(dict.fromkeys([*self.dstates.values(), *self.dscanned.values(), *self.dcaptured.values(), *picks]))

    def state_of(self, shape: Value) -> int:
        """The position of the state that a shape (see `saved_for`) is of."""
        assert shape.producer is not None
        return self.states.index(shape.producer.operand(0))

    @property
    def emit(self) -> Builder:
        """Emits further backward nodes in the body."""
        return Builder(self.graph, role=Role.BACKWARD)

    def stand_in(self, like: Value, name: str) -> Value:
        """A further input of the type of `like`."""
        return self.graph.add_input(self.graph.fresh_name(name), like.type)

    def _carried(self, wanted: Wanted) -> list[int]:
        """The states that depend on an operand that wants a cotangent, and that a result with one depends on.

        Both hold for a state as soon as they do after any number of iterations.
        """
        after, slices = self.after, self.slices
        active = {k for k, wants in enumerate(wanted.states) if wants}
        while True:
            operands = [*_chosen(self.scanned, wanted.scanned), *_chosen(self.captured, wanted.captured)]
            values = active_values(self.graph, [*operands, *(self.states[k] for k in active)])
            more = {k for k, value in enumerate(after) if value in values} - active
            if not more:
                break
            active |= more
        useful = {k for k, given in enumerate(wanted.final) if given}
        while True:
            results = [*_chosen(slices, wanted.slices), *(after[k] for k in useful)]
            values = useful_values(self.graph, results)
            more = {k for k, value in enumerate(self.states) if value in values} - useful
            if not more:
                break
            useful |= more
        return sorted(active & useful)

    def _picked(self, captured: Collection[int]) -> list[tuple[int, Node]]:
        moving = _dependent(self.graph, [*self.head, *self.states, *self.scanned])
        found = []
        for k in captured:
            value = self.captured[k]
            for node in value.users:
                if node.op.qualified_name != "Gather" or node.operand(0) is not value:
                    continue
                index = node.operand(1)
                placed = value.rank is not None or node.attr("axis") == 0
                if index is not value and index in moving and is_constant_shape(index.type) and placed:
                    found.append((k, node))
        return found


def _chosen(values: Sequence[Value], chosen: Sequence[bool]) -> list[Value]:
    return [value for value, wants in zip(values, chosen, strict=True) if wants]


def _dependent(graph: Graph, sources: Iterable[Value]) -> set[Value]:
    """The values that depend on one of `sources` in any way (those included)."""
    found = set(sources)
    for node in graph.nodes():
        if any(value in found for value in node.inputs if value is not None):
            found.update(node.outputs)
    return found


# --- what is saved ----------------------------------------------------------------------------------------------------


_ABOUT = frozenset({"Shape", "Size", "SequenceLength", "OptionalHasElement"})


def saved_for(graph: Graph, roots: Iterable[Value], states: Collection[Value]) -> tuple[list[Value], list[Value]]:
    """What the forward iterations have to save so that some values can be computed again.

    Args:
        graph: a body.
        roots: values of it.
        states: the inputs that are not known any more when the backward node runs.

    Returns:
        The states and other values that are needed; and what is asked about states (their shapes, the lengths of sequences)
        while they themselves are not needed.
    """
    wanted = set(roots)
    drawn: list[Value] = []
    shapes: list[Value] = []
    for node in reversed(graph.nodes()):
        used = [value for value in node.outputs if value in wanted]
        if not used:
            continue
        if draws_numbers(node):
            drawn += used
        elif node.op.qualified_name in _ABOUT and node.operand(0) in states:
            shapes += used
        else:
            wanted.update(value for value in node.inputs if value is not None)
    return (
        [*(value for value in states if value in wanted), *drawn[::-1]],
        [shape for shape in shapes[::-1] if shape.producer is not None and shape.producer.operand(0) not in wanted],
    )


def draws_numbers(node: Node) -> bool:
    """Whether a node gives other results when it runs again: it draws random numbers, or a node inside of it does."""
    return node.op.random or any(n.op.random for inner in node.subgraphs for g in inner.walk() for n in g.nodes())


def is_constant_shape(type: Type) -> bool:
    """Whether a tensor in a body surely has the same shape in all iterations: no dimension is unknown."""
    return isinstance(type, TensorType) and type.shape is not None and None not in type.shape


# --- what is accumulated ----------------------------------------------------------------------------------------------


def accumulator(b: Builder, captured: Value) -> Value:
    """Zeros to which all iterations add what they contribute to the cotangent of a captured value.

    They are of float32 where that is of half the precision, since a sum over many iterations would lose its digits.
    """
    zeros = b.zeros_like(captured)
    return b.cast(zeros, accumulation_dtype(captured.dtype)) if isinstance(captured.type, TensorType) else zeros


def accumulated(b: Builder, total: Value, part: Value) -> Value:
    """An accumulator after an iteration that contributes `part`."""
    return b.total([total, b.cast(part, total.dtype) if isinstance(part.type, TensorType) else part])


def put_back(b: Builder, pick: Pick, indices: Value, cotangents: Value, captured: Value) -> Value:
    """The cotangent of a captured value out of those of all that was picked from it.

    Args:
        b: emits nodes around the backward node.
        pick: what was picked.
        indices: the indices of all iterations, stacked along axis 0.
        cotangents: likewise.
        captured: the value around the backward node.
    """
    if pick.axis:
        rank = cotangents.rank
        assert rank is not None
        before = range(1, 1 + pick.axis)
        cotangents = b.op("Transpose", cotangents, perm=(*before, 0, *range(1 + pick.axis, rank)))
    return b.op("irgrad.GatherGrad", cotangents, indices, b.shape_of(captured), axis=pick.axis)


def contributions(
    b: Builder, body: BodyAdjoint, captured: Sequence[Value], sums: Mapping[int, Value], picks: Sequence[tuple[Value, Value]]
) -> list[Value | Zero]:
    """The cotangents of the captured values of a forward node.

    Args:
        b: emits nodes around the backward node.
        body: what the backward body was made of.
        captured: the captured values of the forward node.
        sums: position → the accumulator after the last iteration.
        picks: for each of `body.picks`, the stacked cotangents and indices.
    """
    parts: dict[int, list[Value]] = {}
    for k, total in sums.items():
        value = captured[k]
        total = b.cast(total, value.dtype) if isinstance(value.type, TensorType) else total
        parts.setdefault(k, []).append(as_known_as(total, value))
    for pick, (cotangents, indices) in zip(body.picks, picks, strict=True):
        value = captured[pick.captured]
        parts.setdefault(pick.captured, []).append(put_back(b, pick, indices, cotangents, value))
    return [b.total(parts[k]) if k in parts else ZERO for k in range(len(captured))]
