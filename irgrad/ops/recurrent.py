"""Recurrent layers: RNN, GRU and LSTM.

The adjoint needs the gates of all steps, which the standard operations do not return. So each has a twin in the domain
`irgrad` with the same operands, attributes and first outputs, which returns them too; the adjoint rule puts it in the place
of the forward node. The adjoint itself is an operation as well, of which one node goes back over the whole sequence.

The twins return, behind the outputs of the standard operation,

- gates [directions, steps, batch, blocks · H]: what the activation functions are applied to, before it is clipped, in the
  order of the weights; of a GRU with linear_before_reset a further block, Ht-1 Rh^T + Rbh. It is 0 in steps that do not
  count, those beyond the end of a sequence;
- of an LSTM, cells [directions, steps, batch, H]: the cells after each step.

Both are float32 where the operands have 16 bits. The bound `clip` holds for the gates, not for the cells that an LSTM
applies h to: the description leaves this open, and runtimes have it so. Clipped gates pass no cotangent on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Cost, Kernel, Op, OpTable, find_op
from irgrad.ops import costs
from irgrad.ops.recurrent_kernels import run, run_adjoint
from irgrad.ops.recurrent_lowering import lower_adjoint, lower_forward
from irgrad.ops.recurrent_settings import B, Recurrence, W, X, adjoint_types, forward_types
from irgrad.runtime.kernels import deliver_all
from irgrad.types import Type

ops = OpTable()


def _saves(op: Op) -> bool:
    return op.domain == IRGRAD_DOMAIN


def _operands_before(recurrence: Recurrence) -> int:
    """How many operands of an adjoint precede those of the layer: cotangents of all outputs, Y and what was saved."""
    further = recurrence.n_states
    return recurrence.n_outputs + further + 1 + further


def _forward_types(call: Call) -> Sequence[Type]:
    return forward_types(call, saving=_saves(call.op))


def _forward(call: Call) -> Kernel:
    recurrence, saving = Recurrence.of(call.op.name, call.attrs), _saves(call.op)

    def kernel(*operands: np.ndarray | None, out: Any = None) -> Any:
        return deliver_all(run(recurrence, operands, saving=saving)[: call.n_outputs], out)

    return kernel


def _adjoint_types(call: Call) -> Sequence[Type]:
    return adjoint_types(call, _operands_before(Recurrence.of(call.op.name, call.attrs)))


def _adjoint(call: Call) -> Kernel:
    recurrence, wrt = Recurrence.of(call.op.name, call.attrs), call.attrs["wrt"]
    n_cotangents, first = recurrence.n_outputs + recurrence.n_states, _operands_before(recurrence)

    def kernel(*operands: Any, out: Any = None) -> Any:
        cotangents, saved, rest = operands[:n_cotangents], operands[n_cotangents:first], operands[first:]
        return deliver_all(run_adjoint(recurrence, cotangents, saved, rest, wrt), out)

    return kernel


def _rule(b: AdjointBuilder, node: Node, *cotangents: Value | None) -> list[Value | None]:
    recurrence = Recurrence.of(node.op.name, node.attrs)
    n_outputs, n_states = recurrence.n_outputs, recurrence.n_states
    wrt = tuple(k for k, operand in enumerate(node.inputs) if b.needs(operand))
    given = (*cotangents, *(None,) * (n_outputs + n_states - len(cotangents)))
    outputs = b.augment(node, n_outputs + n_states, op=find_op(node.op.name, IRGRAD_DOMAIN))
    used = [value if _is_used(k, wrt) else None for k, value in enumerate(node.inputs)]
    adjoint = b.node(
        find_op(f"{node.op.name}Grad", IRGRAD_DOMAIN),
        [*given, outputs[0], *outputs[n_outputs:], *used],
        {**node.attrs, "wrt": wrt},
        outputs=len(wrt),
    )
    found = dict(zip(wrt, adjoint.outputs, strict=True))
    return [found.get(k) for k in range(len(node.inputs))]


def _adjoint_cost(call: Call) -> Cost:
    recurrence = Recurrence.of(call.op.name, call.attrs)
    first = _operands_before(recurrence)
    return costs.recurrent_grad(call, first - recurrence.n_states, first)


def _is_used(position: int, wrt: Sequence[int]) -> bool:
    """Whether the adjoint reads an operand: X goes into the cotangent of W only, and W into that of X; B into none."""
    return position != B and (position != X or W in wrt) and (position != W or X in wrt)


def _lower_forward(b: Builder, node: Node) -> tuple[Value, ...]:
    recurrence = Recurrence.of(node.op.name, node.attrs)
    return lower_forward(b, recurrence, node.inputs, saving=_saves(node.op))[: len(node.outputs)]


def _lower_adjoint(b: Builder, node: Node) -> tuple[Value, ...]:
    recurrence = Recurrence.of(node.op.name, node.attrs)
    n_cotangents, first = recurrence.n_outputs + recurrence.n_states, _operands_before(recurrence)
    saved = [node.operand(k) for k in range(n_cotangents, first)]
    return lower_adjoint(b, recurrence, node.inputs[:n_cotangents], saved, node.inputs[first:], node.attr("wrt"))


def _define(name: str) -> None:
    """Define a standard operation, its twin that saves the gates, and their common adjoint.

    The adjoint ``irgrad.<name>Grad(cotangents of all outputs of the twin, Y, gates, [cells,] operands of the layer)``
    returns the cotangents of the operands whose positions the attribute `wrt` lists; absent cotangents are zero, and the
    operands that none of these needs are absent.
    """
    standard = ops.define(name, cost=costs.recurrent)
    twin = ops.define(name, domain=IRGRAD_DOMAIN, defaults=standard.defaults, cost=costs.recurrent)
    for op in (standard, twin):
        op.infer(_forward_types)
        op.prepare(_forward)
        op.adjoint(_rule)
        op.lower(_lower_forward)
    adjoint = ops.define(f"{name}Grad", domain=IRGRAD_DOMAIN, defaults=standard.defaults, cost=_adjoint_cost)
    adjoint.infer(_adjoint_types)
    adjoint.prepare(_adjoint)
    adjoint.lower(_lower_adjoint)


for _name in ("RNN", "GRU", "LSTM"):
    _define(_name)
