"""Scan: its types and its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.errors import ExecutionError
from irgrad.op import Call, Cost, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.loop_parts import ScanParts, stack, stacked
from irgrad.ops.scan_adjoint import scan_adjoint
from irgrad.ops.subgraphs import plain_operands
from irgrad.runtime.kernels import deliver_all
from irgrad.types import Type

ops = OpTable()

scan = ops.define("Scan", gradient=scan_adjoint, defaults={"captured": 0})


@scan.infer
def _types(call: Call) -> Sequence[Type]:
    parts = ScanParts(call)
    trips = parts.trips()
    stacks = [stacked(t, trips, axis) for t, axis in zip(parts.slices, parts.out_axes, strict=True)]
    return [*parts.states, *stacks][: call.n_outputs]


@scan.cost
def _cost(call: Call) -> Cost | None:
    parts = ScanParts(call)
    trips = parts.trips()
    return costs.of_graph(parts.body.specialised(parts.inputs), trips) if isinstance(trips, int) else None


@scan.prepare
def _prepare(call: Call) -> Kernel:
    parts = ScanParts(call)
    step = parts.body.compiled(parts.inputs)
    first_captured, n_states = plain_operands(call), parts.n_states

    def kernel(*operands: Any, out: Any = None) -> Any:
        states, captured = list(operands[:n_states]), operands[first_captured:]
        scanned = [np.moveaxis(x, axis, 0) for x, axis in zip(operands[n_states:first_captured], parts.axes, strict=True)]
        scanned = [x[::-1] if reverse else x for x, reverse in zip(scanned, parts.reverse, strict=True)]
        lengths = sorted({len(x) for x in scanned})
        if len(lengths) > 1:
            raise ExecutionError(f"the scanned axes have different lengths: {', '.join(map(str, lengths))}")
        collected: list[list[np.ndarray]] = [[] for _ in parts.slices]
        for trip in range(lengths[0]):
            result = step(*states, *(x[trip, ...] for x in scanned), *captured)
            states = result[:n_states]
            for slices, part in zip(collected, result[n_states:], strict=True):
                slices.append(part)
        stacks = [
            stack(slices[::-1] if reverse else slices, t, axis)
            for slices, t, axis, reverse in zip(collected, parts.slices, parts.out_axes, parts.out_reverse, strict=True)
        ]
        return deliver_all([*states, *stacks][: call.n_outputs], out)

    return kernel
