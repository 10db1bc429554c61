"""What a Loop keeps of its iterations for the backward ones.

Tensors are stacked as scan outputs where their shape is surely the same in all iterations; otherwise they are collected in a
sequence that is carried along. Of a state that is a sequence only the changes are kept, where they can be undone: what an
iteration has inserted is taken out again, what it has erased is put back. Any other sequence is appended element by element
to one that has the elements of all iterations, and so is what an optional holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Graph, Node, Role, Value
from irgrad.op import Call
from irgrad.ops.backward_body import set_named_outputs
from irgrad.ops.iteration import BodyAdjoint, is_constant_shape, saved_for
from irgrad.ops.kept_values import Kept, dtype_of, empty, keep
from irgrad.ops.loop_parts import LoopParts
from irgrad.ops.sequence_types import as_known_as
from irgrad.transplant import needed_for, restored, transplant
from irgrad.types import SequenceType, TensorType

__all__ = ["Undone", "less_one", "save", "undo_changes"]


# --- sequences that change in a way that can be undone ----------------------------------------------------------------


@dataclass
class Undone:
    """Sequences that are states, found again by undoing what each iteration does to them.

    Attributes:
        forward: the body as it was.
        after: position of the state → the input of the body that stands for it after the iteration.
        before: position of the state → what it was before the iteration.
        elements: input of the body → the value of `forward` that it stands for: an element that the iteration erases.
    """

    forward: Graph
    after: dict[int, Value] = field(default_factory=dict)
    before: dict[int, Value] = field(default_factory=dict)
    elements: dict[Value, Value] = field(default_factory=dict)


def undo_changes(body: BodyAdjoint) -> Undone:
    """Let a body find the sequences that it reads as states by undoing the one insertion or erasure that it does to them."""
    kept, _ = saved_for(body.graph, body.roots, body.states)
    read = [k for k, state in enumerate(body.states) if state in kept and isinstance(state.type, SequenceType)]
    changes = {k: change for k in read if (change := _change(body, k)) is not None}
    erased = {}
    for k, change in changes.items():
        if change.op.qualified_name == "SequenceErase":
            erased[k] = body.emit.op("SequenceAt", body.states[k], _or_last(body.emit, change.input(1)))
    undone = Undone(body.graph.copy() if changes else body.graph)
    for k, change in changes.items():
        state = body.states[k]
        after = body.stand_in(change.outputs[0], f"{state.name}_after")
        with body.emit as emit:
            if k in erased:
                element = body.stand_in(erased[k], f"{state.name}_erased")
                undone.elements[element] = undone.forward.value(erased[k].name)
                before = emit.op("SequenceInsert", after, element, _place_before(emit, change.input(1), after))
            else:
                before = emit.op("SequenceErase", after, _place_after(emit, change.input(2)))
        body.graph.replace_all_uses(change.outputs[0], after)
        body.graph.replace_all_uses(state, as_known_as(before, state))
        undone.after[k], undone.before[k] = after, before
    return undone


def _change(body: BodyAdjoint, k: int) -> Node | None:
    """The node that makes a state's next value by inserting or erasing an element; None where something else does.

    The place must not depend on states that are sequences, since it has to be known first.
    """
    node = body.after[k].producer
    if (
        node is None
        or node.op.qualified_name not in ("SequenceInsert", "SequenceErase")
        or node.operand(0) is not body.states[k]
    ):
        return None
    place = node.input(2 if node.op.qualified_name == "SequenceInsert" else 1)
    reached = set() if place is None else needed_for(body.graph, [place])[1]
    sequences = [state for state in body.states if isinstance(state.type, SequenceType)]
    return None if any(state in reached for state in sequences) else node


def _or_last(b: Builder, place: Value | None) -> Value:
    return b.constant(np.array(-1)) if place is None else place


def _place_after(b: Builder, place: Value | None) -> Value | None:
    """Where an element is that was inserted at a place: counted from the end, one further in the longer sequence."""
    return None if place is None else b.op("Where", place < 0, place - 1, place)


def _place_before(b: Builder, place: Value | None, shorter: Value) -> Value | None:
    """Where to insert an element that was erased from a place."""
    if place is None:
        return None
    length = b.cast(b.op("SequenceLength", shorter), place.dtype)
    return b.op("Where", place < 0, place + length + 1, place)


# --- what the forward node hands on -----------------------------------------------------------------------------------


def save(
    b: AdjointBuilder,
    node: Node,
    parts: LoopParts,
    call: Call,
    body: BodyAdjoint,
    undone: Undone,
    values: Sequence[Value],
) -> tuple[dict[Value, Kept], Value]:
    """Let a forward node keep values of every iteration.

    Args:
        b: the builder of the rule.
        node: the forward node.
        parts: of it.
        call: likewise, as it was.
        body: the body with its adjoint.
        undone: see there.
        values: what to keep, of `body`.

    Returns:
        Value → what is kept of it; and the number of iterations.
    """
    counted = parts.is_counted(call)
    if not (counted or values or body.slices):
        values = [body.head[0]]
    n = parts.n_states
    source = {v: undone.elements[v] if v in undone.elements else undone.forward.value(v.name) for v in values}
    slices = [undone.forward.outputs[name] for name in list(undone.forward.outputs)[1 + n :]]
    saved: dict[Value, Kept] = {}
    for value, inner in source.items():
        if inner in slices:
            saved[value] = Kept(b.augment(node, n + slices.index(inner) + 1)[n + slices.index(inner)])
    fresh = {value: inner for value, inner in source.items() if value not in saved}
    if fresh:
        saved.update(_keep(b, node, parts, body, undone.forward, fresh))
    if not counted:
        kept = next(iter(saved.values())) if saved else Kept(b.augment(node, n + 1)[n])
        return saved, _length(b, kept.slices)
    limit, known = node.operand(0), parts.trips(call)
    if isinstance(known, int):
        return saved, b.constant(np.array(known, np.int64))
    return saved, limit if limit.rank == 0 else b.op("Reshape", limit, b.ints([]))


def _keep(
    b: AdjointBuilder, node: Node, parts: LoopParts, body: BodyAdjoint, forward: Graph, fresh: dict[Value, Value]
) -> dict[Value, Kept]:
    """Give a forward node a body that keeps values: value of the adjoint's body → value of `forward`."""
    graph = Graph(parts.body.graph.name)
    n = parts.n_states
    known: dict[Value, Value] = {}

    def take(values: Iterable[Value]) -> None:
        for value in values:
            known[forward.value(value.name)] = graph.add_input(value.name, value.type)

    stacked = {v: inner for v, inner in fresh.items() if is_constant_shape(inner.type)}
    collected = {v: inner for v, inner in fresh.items() if v not in stacked}
    take([*body.head, *body.states])
    queues = {
        v: graph.add_input(forward.fresh_name(f"{inner.name}_kept"), SequenceType(TensorType(dtype_of(inner.type), None)))
        for v, inner in collected.items()
    }
    take(body.captured)
    outputs = forward.outputs
    made = transplant(forward, graph, [*outputs.values(), *collected.values(), *stacked.values()], known)
    restored(graph, body.before, node.role)
    b_inner = Builder(graph, role=node.role)
    plain, values = made[: len(outputs)], made[len(outputs) :]
    keeping = {v: keep(b_inner, queue, value) for (v, queue), value in zip(queues.items(), values, strict=False)}
    further = [value for kept in keeping.values() for value in kept.slices]
    results = [*(kept.longer for kept in keeping.values()), *values[len(queues) :], *further]
    set_named_outputs(graph, [*plain[: 1 + n], *results, *plain[1 + n :]])

    with b.at(role=Role.FORWARD, near=node):
        start = [empty(b, queue.type) for queue in queues.values()]
    operands = [*node.inputs[: 2 + n], *start, *node.inputs[2 + n :]]
    added = b.augment(node, len(node.outputs) + len(results), attrs={**node.attrs, "body": graph}, operands=operands, at=n)
    found = dict(zip([*queues, *stacked], added[n:], strict=False))
    slices = iter(added[n + len(found) :])
    saved = {v: Kept(found[v]) for v in stacked}
    saved.update({v: kept.kept(found[v], [next(slices) for _ in kept.slices]) for v, kept in keeping.items()})
    return saved


def _length(b: Builder, kept: Value) -> Value:
    """How many iterations there were."""
    if isinstance(kept.type, SequenceType):
        return b.op("SequenceLength", kept)
    return b.op("Squeeze", b.op("Shape", kept, start=0, end=1), b.ints([0]))


def less_one(b: Builder, trips: Value) -> Value:
    """The number of the last iteration."""
    return b.op("Sub", trips, 1) if trips.constant is None else b.constant(trips.constant - 1)
