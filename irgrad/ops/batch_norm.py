"""Batch normalisation: y = scale · (x − mean) / sqrt(var + ε) + B, per channel.

In inference mode mean and var are operands like the others and get gradients like the others. In training mode they are the
batch's own, and the operands `input_mean` and `input_var` only move the running statistics that the further outputs return.

The adjoint is one node, so that the joint graph of a convolutional network stays small.
"""

from __future__ import annotations

from collections.abc import Sequence

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.batch_norm_kernels import (
    normalise_by_given,
    normalise_in_training,
    pull_back_by_given,
    pull_back_in_training,
)
from irgrad.ops.channels import per_channel, rank_of, sum_per_channel
from irgrad.ops.compiled import compiled
from irgrad.ops.reduce import element_count
from irgrad.ops.standardise import average, pulled_back, standardised
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import planned
from irgrad.types import Type

ops = OpTable()

X, SCALE, BIAS, MEAN, VAR = range(5)  # the operands


def _statistics_axes(ndim: int) -> tuple[int, ...]:
    return tuple(k for k in range(ndim) if k != 1)


batch_norm = ops.define("BatchNormalization", in_place=(0,), cost=costs.batch_norm)


@batch_norm.prepare
@compiled
@planned()
def _batch_norm(call: Call) -> Kernel:
    return normalise_in_training(call) if call.attrs["training_mode"] else normalise_by_given(call)


@batch_norm.adjoint
def _(b: AdjointBuilder, node: Node, *cotangents: Value | None) -> list[Value | None]:
    dy, drunning_mean, drunning_var = (*cotangents, None, None)[:3]
    x, training = node.operand(X), bool(node.attr("training_mode"))
    results: list[Value | None] = [None] * 5
    wrt = tuple(k for k in ((X, SCALE, BIAS) if training else range(5)) if b.needs(node.inputs[k]))
    if dy is not None and wrt:
        needs_x = SCALE in wrt or VAR in wrt or (training and X in wrt)
        operands = [dy, x if needs_x else None, node.inputs[SCALE], *(() if training else node.inputs[MEAN:])]
        found = b.multi(
            "irgrad.BatchNormalizationGrad",
            *operands,
            outputs=len(wrt),
            epsilon=node.attr("epsilon"),
            training_mode=int(training),
            wrt=wrt,
        )
        for position, cotangent in zip(wrt, found, strict=True):
            results[position] = cotangent
    parts = [results[X]]
    if drunning_mean is not None:
        results[MEAN] = drunning_mean * node.attr("momentum")
        parts.append(b.op("Expand", _share(b, node, drunning_mean), b.shape_of(x)))
    if drunning_var is not None:
        results[VAR] = drunning_var * node.attr("momentum")
        difference = x - average(b, x, _statistics_axes(rank_of(x)))
        parts.append(_share(b, node, 2 * drunning_var) * difference)
    given = [part for part in parts if part is not None]
    results[X] = sum(given[1:], start=given[0]) if given else None
    return results


def _share(b: Builder, node: Node, cotangent: Value) -> Value:
    """What of the cotangent of a running average falls to each element of x."""
    x = node.operand(X)
    count = element_count(b, x, _statistics_axes(rank_of(x)), cotangent.dtype)
    return b.cast(per_channel(b, cotangent * (1 - node.attr("momentum")) / count, x), x.dtype)


# --- its adjoint ------------------------------------------------------------------------------------------------------

batch_norm_grad = ops.define(
    "BatchNormalizationGrad",
    domain=IRGRAD_DOMAIN,
    defaults={"epsilon": 1e-5, "training_mode": 0, "wrt": (X, SCALE, BIAS)},
    cost=costs.batch_norm_grad,
)
"""``BatchNormalizationGrad(dy, x, scale, mean, var)`` → the cotangents of those operands of BatchNormalization that the
attribute `wrt` lists: 0 for x, 1 scale, 2 B, 3 mean, 4 var, ascending.

With ``training_mode=1`` the statistics are x's own, there is no operand mean and var, and `wrt` stays below 3. x may be
absent where it is not needed: in training mode unless `wrt` has x or scale, in inference mode unless it has scale or var.
"""


@batch_norm_grad.infer
def _batch_norm_grad_types(call: Call) -> Sequence[Type]:
    dy, scale = call.tensor(0), call.tensor(2)
    types = {X: dy, SCALE: scale, BIAS: scale}
    if not call.attrs["training_mode"]:
        types |= {MEAN: call.tensor(3), VAR: call.tensor(4)}
    return [types[k] for k in call.attrs["wrt"]]


@batch_norm_grad.prepare
@compiled
@planned()
def _batch_norm_grad(call: Call) -> Kernel:
    return pull_back_in_training(call) if call.attrs["training_mode"] else pull_back_by_given(call)


@batch_norm_grad.lower
def _(b: Builder, node: Node) -> tuple[Value, ...]:
    dy, scale, wrt, epsilon = node.operand(0), node.operand(2), node.attr("wrt"), node.attr("epsilon")
    wide = accumulation_dtype(dy.dtype)
    g = b.cast(dy, wide)
    results: dict[int, Value] = {}
    if BIAS in wrt or MEAN in wrt:
        results[BIAS] = sum_per_channel(b, g)
    if node.attr("training_mode"):
        axes = _statistics_axes(rank_of(dy))
        if X in wrt or SCALE in wrt:
            normalised, inverse = standardised(b, b.cast(node.operand(1), wide), axes, epsilon)
            results[SCALE] = sum_per_channel(b, g * normalised)
            results[X] = per_channel(b, b.cast(scale, wide), dy) * pulled_back(b, g, normalised, inverse, axes)
    else:
        inverse = b.op("Reciprocal", b.op("Sqrt", b.cast(node.operand(4), wide) + epsilon))
        factor = b.cast(scale, wide) * inverse
        if SCALE in wrt or VAR in wrt:
            difference = b.cast(node.operand(1), wide) - per_channel(b, b.cast(node.operand(3), wide), dy)
            results[SCALE] = sum_per_channel(b, g * difference) * inverse
            results[VAR] = factor * inverse * results[SCALE] * -0.5
        if MEAN in wrt:
            results[MEAN] = -factor * results[BIAS]
        if X in wrt:
            results[X] = g * per_channel(b, factor, dy)
    return tuple(b.cast(results[k], output.dtype) for k, output in zip(wrt, node.outputs, strict=True))
