"""Loop: its types and its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np

from irgrad.errors import ExecutionError
from irgrad.op import Call, Cost, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.loop_adjoint import loop_adjoint
from irgrad.ops.loop_parts import LoopParts, stack, stacked
from irgrad.ops.subgraphs import plain_operands, single
from irgrad.runtime.kernels import deliver_all
from irgrad.types import Type

ops = OpTable()

loop = ops.define("Loop", gradient=loop_adjoint, defaults={"captured": 0})


@loop.infer
def _types(call: Call) -> Sequence[Type]:
    parts = LoopParts(call)
    trips = parts.trips(call)
    return [*parts.states, *(stacked(t, trips, 0) for t in parts.slices)][: call.n_outputs]


@loop.cost
def _cost(call: Call) -> Cost | None:
    parts = LoopParts(call)
    trips = parts.trips(call)
    return costs.of_graph(parts.body.specialised(parts.inputs()), trips) if isinstance(trips, int) else None


@loop.prepare
def _prepare(call: Call) -> Kernel:
    """The meaning of absent operands is the table in ONNX's own description: without `cond`, the body's does not count."""
    parts = LoopParts(call)
    if not parts.has_count and not parts.has_condition:
        raise ExecutionError("a Loop with neither a trip count nor a condition would never end")
    step = parts.body.compiled(parts.inputs())
    number_type, condition_type = parts.head
    first_captured, n_states = plain_operands(call), parts.n_states

    def kernel(*operands: Any, out: Any = None) -> Any:
        limit = single(operands[0], "the trip count") if parts.has_count else None
        going = bool(single(operands[1], "the condition")) if parts.has_condition else True
        states, captured = list(operands[2:first_captured]), operands[first_captured:]
        collected: list[list[np.ndarray]] = [[] for _ in parts.slices]
        for trip in count():
            if not going or (limit is not None and trip >= limit):
                break
            number = np.full(number_type.static_shape or (), trip, number_type.dtype)
            condition = np.full(condition_type.static_shape or (), going)
            result = step(number, condition, *states, *captured)
            if parts.has_condition:
                going = bool(single(result[0], "the condition"))
            states = result[1 : 1 + n_states]
            for slices, part in zip(collected, result[1 + n_states :], strict=True):
                slices.append(part)
        stacks = [stack(slices, t, 0) for slices, t in zip(collected, parts.slices, strict=True)]
        return deliver_all([*states, *stacks][: call.n_outputs], out)

    return kernel
