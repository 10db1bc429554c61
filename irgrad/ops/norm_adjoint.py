"""The adjoints of layer, RMS, instance and group normalisation, each in one node that goes through the rows once."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.kernels.normalise import grouped_grad, normalise_grad
from irgrad.kernels.shapes import shape_of
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import per_channel, rank_of, sum_per_channel
from irgrad.ops.compiled import compiled
from irgrad.ops.standardise import pulled_back, standardised
from irgrad.runtime.workspace import Workspace, planned
from irgrad.types import Type

ops = OpTable()

# --- layer and RMS normalisation --------------------------------------------------------------------------------------

_GRAD_DEFAULTS = {"axis": -1, "epsilon": 1e-5, "centred": 1, "wrt": (0, 1, 2)}
layer_norm_grad = ops.define(
    "LayerNormalizationGrad", domain=IRGRAD_DOMAIN, defaults=_GRAD_DEFAULTS, cost=costs.per_operand(16)
)
"""``LayerNormalizationGrad(dy, x, scale)`` → the cotangents of those operands of LayerNormalization that the attribute `wrt`
lists: 0 for x, 1 scale, 2 bias, ascending. Scale and bias have the shape of x from `axis` on.

With ``centred=0`` the operation is RMSNormalization. The statistics are computed again, while the rows are in the cache.
"""


@layer_norm_grad.infer
def _grad_types(call: Call) -> Sequence[Type]:
    x, scale = call.tensor(1), call.tensor(2)
    return [x if k == 0 else scale for k in call.attrs["wrt"]]


@layer_norm_grad.prepare
@compiled
@planned()
def _layer_norm_grad(call: Call) -> Kernel:
    shape, dtype, wrt = shape_of(call, 1), call.tensor(1).dtype, call.attrs["wrt"]
    space = Workspace()
    compute = space.part(
        normalise_grad(
            shape, call.attrs["axis"] % len(shape), dtype, call.attrs["epsilon"], centred=bool(call.attrs["centred"])
        )
    )
    shapes = {0: shape, 1: shape_of(call, 2), 2: shape_of(call, 2)}

    return space.kernel(_of_wanted(compute, [shapes[k] for k in wrt], wrt, dtype))


def _of_wanted(compute: Kernel, shapes: Sequence[tuple[int, ...]], wrt: Sequence[int], dtype: np.dtype) -> Kernel:
    """A kernel of the cotangents that `wrt` lists out of one that takes a place, or None, for each of the three."""

    def kernel(
        dy: np.ndarray, x: np.ndarray, scale: np.ndarray, *, out: Any = None, work: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        given = (None,) * len(shapes) if out is None else out if isinstance(out, tuple) else (out,)
        places = [np.empty(shape, dtype) if a is None else a for shape, a in zip(shapes, given, strict=True)]
        wanted: dict[int, np.ndarray] = dict(zip(wrt, places, strict=True))
        compute(dy, x, scale, out=(wanted.get(0), wanted.get(1), wanted.get(2)), work=work)
        return tuple(places)

    return kernel


@layer_norm_grad.lower
def _(b: Builder, node: Node) -> tuple[Value, ...]:
    dy, x, scale = (node.operand(k) for k in range(3))
    rank, centred, wrt = rank_of(x), bool(node.attr("centred")), node.attr("wrt")
    axes = list(range(node.attr("axis") % rank, rank))
    leading = list(range(rank - len(axes)))
    results: dict[int, Value] = {}
    if 0 in wrt or 1 in wrt:
        normalised, inverse = standardised(b, x, axes, node.attr("epsilon"), centred=centred)
        if 0 in wrt:
            results[0] = pulled_back(b, dy * scale, normalised, inverse, axes, centred=centred)
        if 1 in wrt:
            results[1] = b.reduce_sum(dy * normalised, leading) if leading else dy * normalised
    if 2 in wrt:
        results[2] = b.reduce_sum(dy, leading) if leading else b.op("Identity", dy)
    return tuple(results[k] for k in wrt)


# --- instance and group normalisation ---------------------------------------------------------------------------------

group_norm_grad = ops.define(
    "GroupNormalizationGrad",
    domain=IRGRAD_DOMAIN,
    defaults={"epsilon": 1e-5, "num_groups": 0, "wrt": (0, 1, 2)},
    cost=costs.per_operand(16),
)
"""``GroupNormalizationGrad(dy, x, scale)`` → the cotangents of those operands of GroupNormalization that the attribute `wrt`
lists: 0 for x, 1 scale, 2 bias, ascending. With ``num_groups=0`` each channel is a group: InstanceNormalization.
"""


group_norm_grad.infer(_grad_types)


@group_norm_grad.prepare
@compiled
@planned()
def _group_norm_grad(call: Call) -> Kernel:
    shape, dtype, wrt = shape_of(call, 1), call.tensor(1).dtype, call.attrs["wrt"]
    batch, channels, *image = shape
    groups = call.attrs["num_groups"] or channels
    space = Workspace()
    compute = space.part(grouped_grad(batch, groups, channels // max(groups, 1), prod(image), dtype, call.attrs["epsilon"]))
    shapes = {0: shape, 1: shape_of(call, 2), 2: shape_of(call, 2)}
    return space.kernel(_of_wanted(compute, [shapes[k] for k in wrt], wrt, dtype))


@group_norm_grad.lower
def _(b: Builder, node: Node) -> tuple[Value, ...]:
    """X is standardised in the shape [N, groups, rest], then scaled and shifted per channel."""
    dy, x, scale = (node.operand(k) for k in range(3))
    groups, wrt, rank = node.attr("num_groups"), node.attr("wrt"), rank_of(x)
    shape = b.ints([0, groups, -1])
    axes = [2] if groups else list(range(2, rank))

    def grouped(v: Value) -> Value:
        return b.op("Reshape", v, shape) if groups else v

    def ungrouped(v: Value) -> Value:
        return b.reshape_like(v, x) if groups else v

    results: dict[int, Value] = {}
    if 0 in wrt or 1 in wrt:
        normalised, inverse = standardised(b, grouped(x), axes, node.attr("epsilon"))
        if 0 in wrt:
            results[0] = ungrouped(pulled_back(b, grouped(dy * per_channel(b, scale, x)), normalised, inverse, axes))
        if 1 in wrt:
            results[1] = sum_per_channel(b, dy * ungrouped(normalised))
    if 2 in wrt:
        results[2] = sum_per_channel(b, dy)
    return tuple(results[k] for k in wrt)
