"""The adjoint of Loop: a Loop over the same iterations from the last to the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import AdjointBuilder, typed_call
from irgrad.graph import Node, Value
from irgrad.op import ZERO, Zero
from irgrad.ops.backward_body import BackwardBody, set_named_outputs
from irgrad.ops.iteration import (
    BodyAdjoint,
    Layout,
    Wanted,
    accumulated,
    accumulator,
    contributions,
    is_constant_shape,
    saved_for,
)
from irgrad.ops.kept_values import Kept, held_as, read_kept
from irgrad.ops.loop_parts import LoopParts
from irgrad.ops.loop_saving import less_one, save, undo_changes
from irgrad.ops.sequence_types import as_known_as
from irgrad.ops.subgraphs import plain_operands
from irgrad.transplant import needed_for, transplant
from irgrad.types import TensorType

__all__ = ["loop_adjoint"]


def loop_adjoint(b: AdjointBuilder, node: Node, *dys: Value | None) -> list[Value | Zero]:
    """The iterations backwards, as many as there were.

    The cotangents of states are carried, and so are the sums of what the iterations contribute to those of captured values.
    What the backward body reads of each iteration is kept by the forward node, see `irgrad.ops.loop_saving`.
    """
    call = typed_call(node)
    parts = LoopParts(call)
    states = [node.operand(2 + k) for k in range(parts.n_states)]
    captured = [node.operand(k) for k in range(plain_operands(call), len(node.inputs))]
    body = _body(b, parts, states, captured, dys)
    if body.is_zero:
        return [ZERO] * len(node.inputs)
    results = [*dys, *[None] * (len(states) - len(dys))]
    final = b.augment(node, len(states))[: len(states)] if states else ()
    undone = undo_changes(body)
    roots = [*body.roots, *undone.before.values()]
    kept, shapes = saved_for(body.graph, roots, body.states)
    # A shape that never changes is that of the initial state.
    fixed = {v: states[k] for v in shapes if is_constant_shape(body.states[k := body.state_of(v)].type)}
    values = [*kept, *undone.elements, *(v for v in shapes if v not in fixed)]
    saved, trips = save(b, node, parts, call, body, undone, values)
    sums = {k: accumulator(b, captured[k]) for k in body.dcaptured}

    inner = BackwardBody(f"{body.graph.name}_adjoint", node.name)
    number = inner.input("iteration", TensorType(np.dtype(np.int64), ()))
    going = inner.input("condition", TensorType(np.dtype(bool), ()))
    carried_in = {k: inner.input(body.dafter[k].name, parts.states[k]) for k in body.carried}
    sums_in = {k: inner.input(f"{body.captured[k].name}_sum", total.type) for k, total in sums.items()}
    known = {after: inner.input(after.name, after.type) for after in undone.after.values()}
    _, read = needed_for(body.graph, roots, {*body.dafter.values(), *known, *saved, *fixed})
    with inner.b as emit:
        known.update({body.dafter[k]: held_as(emit, value, body.dafter[k]) for k, value in carried_in.items()})
        trip = emit.op("Sub", inner.capture(less_one(b, trips)), number)
        for value, here in zip(body.head, (trip, going), strict=True):
            if value in read:
                known[value] = here if value.rank == 0 else emit.op("Reshape", here, emit.ints([1]))
        known.update({v: read_kept(inner, saved[v], trip, v) for v in saved if v in read and v not in known})
        for k, stand_in in body.dslices.items():
            dy = results[len(states) + k]
            if stand_in in read and dy is not None:
                known[stand_in] = read_kept(inner, Kept(dy), trip, stand_in)
        for value, state in fixed.items():
            assert value.producer is not None
            known[value] = emit.node(value.producer.op, [inner.capture(state)], value.producer.attrs).outputs[0]
        known.update({v: inner.capture(c) for v, c in zip(body.captured, captured, strict=True) if v in read})
        transplant(body.graph, inner.graph, roots, known)
        returned = [
            going,
            *(known[d] for d in body.dstates.values()),
            *(accumulated(emit, sums_in[k], known[d]) for k, d in body.dcaptured.items()),
            *(known[before] for before in undone.before.values()),
            *(known[v] for pick in body.picks for v in (pick.cotangent, pick.index)),
        ]
    set_named_outputs(inner.graph, returned)

    shaped = [x if is_constant_shape(t) else y for x, y, t in zip(states, final, parts.states, strict=True)]
    initial = [held_as(b, b.zeros_if_none(results[k], shaped[k]), body.states[k]) for k in body.carried]
    carried = [*initial, *sums.values(), *(final[k] for k in undone.after)]
    attrs = {"body": inner.graph, "captured": len(inner.captured)}
    operands = [trips, b.constant(np.array(True)), *carried, *inner.captured]
    found = iter(b.node(node.op, operands, attrs, outputs=len(returned) - 1).outputs)
    dstates = {k: as_known_as(next(found), states[k]) for k in body.carried}
    totals = {k: next(found) for k in sums}
    for _ in undone.after:
        next(found)
    picks = [(next(found), next(found)) for _ in body.picks]
    added = len(node.inputs) - 2 - len(states) - len(captured)
    dcaptured = contributions(b, body, captured, totals, picks)
    return [ZERO, ZERO, *(dstates.get(k, ZERO) for k in range(len(states))), *[ZERO] * added, *dcaptured]


def _body(
    b: AdjointBuilder, parts: LoopParts, states: Sequence[Value], captured: Sequence[Value], dys: Sequence[Value | None]
) -> BodyAdjoint:
    n = len(states)
    given = [dy is not None for dy in dys] + [False] * (n + len(parts.slices) - len(dys))
    wanted = Wanted(
        states=[b.needs(value) for value in states],
        scanned=(),
        captured=[b.needs(value) for value in captured],
        final=given[:n],
        slices=given[n:],
    )
    # The condition is true wherever the body runs.
    return BodyAdjoint(b, parts.body.specialised(parts.inputs((1,))), Layout(head=2, states=n, scanned=0, lead=1), wanted)
