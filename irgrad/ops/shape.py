"""Shapes: reading them, changing them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import AdjointBuilder
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, OpTable
from irgrad.runtime.kernels import deliver
from irgrad.types import Type

ops = OpTable()

sum_to = ops.define("SumTo", domain=IRGRAD_DOMAIN)
"""``SumTo(x, shape)``: x summed over the axes along which a tensor of `shape` was broadcast to the shape of x."""


@sum_to.kernel
def _sum_to(x: np.ndarray, shape: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    target = tuple(int(d) for d in shape)
    extra = x.ndim - len(target)
    axes = tuple(range(extra)) + tuple(k + extra for k, d in enumerate(target) if d == 1 != x.shape[k + extra])
    result = x.sum(axes, dtype=x.dtype, keepdims=True) if axes else x
    return deliver(np.asarray(result.reshape(target)), out)


@sum_to.infer
def _sum_to_type(call: Call) -> Sequence[Type]:
    contents, shape = call.contents.get(1), call.tensor(1).static_shape
    if contents is not None:
        return [call.tensor(0).with_shape(contents)]
    return [call.tensor(0).with_shape(None if shape is None else (None,) * shape[0])]


@sum_to.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, None]:
    return b.op("Expand", dy, b.shape_of(node.operand(0))), None
