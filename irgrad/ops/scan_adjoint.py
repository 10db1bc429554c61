"""The adjoint of Scan: a Scan over the same elements in the opposite direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from irgrad.builder import AdjointBuilder, typed_call
from irgrad.graph import Graph, Node, Value
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
from irgrad.ops.loop_parts import ScanParts
from irgrad.ops.sequence_types import as_known_as
from irgrad.ops.subgraphs import plain_operands
from irgrad.transplant import needed_for, restored, transplant

__all__ = ["scan_adjoint"]


@dataclass(frozen=True)
class _Along:
    """A value around a Scan that is gone along, or made along, an axis.

    Attributes:
        value: the value.
        axis: the axis.
        reverse: whether the forward node goes backwards along it.
    """

    value: Value
    axis: int
    reverse: bool


def scan_adjoint(b: AdjointBuilder, node: Node, *dys: Value | None) -> list[Value | Zero]:
    """The elements in the opposite direction.

    The cotangents of states are carried, and so are the sums of what the steps contribute to those of captured values. The
    states before each step are stacked by the forward node where the backward body reads them, and scanned like the others.
    """
    call = typed_call(node)
    parts = ScanParts(call)
    n, first = parts.n_states, plain_operands(call)
    states = [node.operand(k) for k in range(n)]
    scanned = [
        _Along(node.operand(n + k), axis, back) for k, (axis, back) in enumerate(zip(parts.axes, parts.reverse, strict=True))
    ]
    captured = [node.operand(k) for k in range(first, len(node.inputs))]
    given = [dy is not None for dy in dys] + [False] * (n + len(parts.slices) - len(dys))
    wanted = Wanted(
        states=[b.needs(value) for value in states],
        scanned=[b.needs(along.value) for along in scanned],
        captured=[b.needs(value) for value in captured],
        final=given[:n],
        slices=given[n:],
    )
    body = BodyAdjoint(b, parts.body.specialised(parts.inputs), Layout(0, n, len(scanned), 0), wanted)
    if body.is_zero:
        return [ZERO] * len(node.inputs)
    results = [*dys, *[None] * (n - len(dys))]
    final = b.augment(node, n)[:n] if n else ()
    kept, shapes = saved_for(body.graph, body.roots, body.states)
    # A shape that never changes is that of the initial state.
    fixed = {v: states[k] for v in shapes if is_constant_shape(body.states[k := body.state_of(v)].type)}
    saved = _save(b, node, parts, body, [*kept, *(v for v in shapes if v not in fixed)])
    sums = {k: accumulator(b, captured[k]) for k in body.dcaptured}

    # What the backward body reads of each step.
    along = dict(saved)
    for k, stand_in in body.dslices.items():
        dy = results[n + k]
        assert dy is not None
        along[stand_in] = _Along(dy, parts.out_axes[k], parts.out_reverse[k])
    along.update(zip(body.scanned, scanned, strict=True))
    _, read = needed_for(body.graph, body.roots, {*along, *body.dafter.values(), *fixed})
    # One at least says how many steps there are.
    along = {v: a for v, a in along.items() if v in read} or {body.scanned[0]: scanned[0]}

    inner = BackwardBody(f"{body.graph.name}_adjoint", node.name)
    known = {body.dafter[k]: inner.input(body.dafter[k].name, parts.states[k]) for k in body.carried}
    sums_in = {k: inner.input(f"{body.captured[k].name}_sum", total.type) for k, total in sums.items()}
    known.update({v: inner.input(v.name, v.type) for v in along})
    with inner.b as emit:
        for value, state in fixed.items():
            assert value.producer is not None
            known[value] = emit.node(value.producer.op, [inner.capture(state)], value.producer.attrs).outputs[0]
        known.update({v: inner.capture(c) for v, c in zip(body.captured, captured, strict=True) if v in read})
        transplant(body.graph, inner.graph, body.roots, known)
        returned = [
            *(known[d] for d in body.dstates.values()),
            *(accumulated(emit, sums_in[k], known[d]) for k, d in body.dcaptured.items()),
            *(known[d] for d in body.dscanned.values()),
            *(known[v] for pick in body.picks for v in (pick.cotangent, pick.index)),
        ]
    set_named_outputs(inner.graph, returned)

    shaped = [x if is_constant_shape(t) else y for x, y, t in zip(states, final, parts.states, strict=True)]
    initial_states = [b.zeros_if_none(results[k], shaped[k]) for k in body.carried]
    operands = [*initial_states, *sums.values(), *(a.value for a in along.values()), *inner.captured]
    made = [(scanned[k].axis, scanned[k].reverse) for k in body.dscanned] + [(0, True)] * (2 * len(body.picks))
    attrs = {
        "body": inner.graph,
        "captured": len(inner.captured),
        "num_scan_inputs": len(along),
        "scan_input_axes": tuple(a.axis for a in along.values()),
        "scan_input_directions": tuple(int(not a.reverse) for a in along.values()),
        "scan_output_axes": tuple(axis for axis, _ in made),
        "scan_output_directions": tuple(int(not reverse) for _, reverse in made),
    }
    found = iter(b.node(node.op, operands, attrs, outputs=len(returned)).outputs)
    dstates = {k: as_known_as(next(found), states[k]) for k in body.carried}
    totals = {k: next(found) for k in sums}
    dscanned = {k: as_known_as(next(found), scanned[k].value) for k in body.dscanned}
    picks = [(next(found), next(found)) for _ in body.picks]
    return [
        *(dstates.get(k, ZERO) for k in range(n)),
        *(dscanned.get(k, ZERO) for k in range(len(scanned))),
        *contributions(b, body, captured, totals, picks),
    ]


def _save(
    b: AdjointBuilder, node: Node, parts: ScanParts, body: BodyAdjoint, values: Sequence[Value]
) -> dict[Value, _Along]:
    """Let the forward node stack values of every step: value of the body → the stack."""
    n, slices = parts.n_states, body.slices
    saved = {}
    for value in values:
        if value in slices:
            k = slices.index(value)
            saved[value] = _Along(b.augment(node, n + k + 1)[n + k], parts.out_axes[k], parts.out_reverse[k])
    fresh = [value for value in values if value not in saved]
    if not fresh:
        return saved
    graph = Graph(parts.body.graph.name)
    inputs = [*body.states, *body.scanned, *body.captured]
    known = {value: graph.add_input(value.name, value.type) for value in inputs}
    outputs = body.outputs
    made = transplant(body.graph, graph, [*outputs, *fresh], known)
    restored(graph, body.before, node.role)
    set_named_outputs(graph, [*made[:n], *made[len(outputs) :], *made[n : len(outputs)]])
    attrs = {**node.attrs, "body": graph}
    for key in ("scan_output_axes", "scan_output_directions"):
        if attrs.get(key) is not None:
            attrs[key] = (*[0] * len(fresh), *attrs[key])
    stacks = b.augment(node, len(node.outputs) + len(fresh), attrs=attrs, at=n)[n:]
    saved.update({value: _Along(stack, 0, False) for value, stack in zip(fresh, stacks, strict=False)})
    return saved
