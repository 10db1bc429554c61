"""Normalisation by an operand's own statistics or norm: layer, RMS, instance, group, mean-variance and Lp normalisation.

The statistics of 16-bit operands are formed in float32, as the attribute `stash_type` has it by default.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import Call, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import channel_view, per_channel, rank_of, sum_per_channel
from irgrad.ops.reduce import element_count
from irgrad.ops.standardise import affine, average, pulled_back, standardise, standardised
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import TensorType, Type, dtype_of_element

ops = OpTable()

# --- what they share --------------------------------------------------------------------------------------------------


def _type_of_x(call: Call) -> Sequence[Type]:
    """The result's type where it is that of x and onnx does not infer it."""
    return [call.tensor(0)]


def _trailing_axes(node: Node) -> list[int]:
    """The axes from the attribute `axis` on, counted from the last one where the rank is unknown."""
    axis = node.attr("axis")
    if node.operand(0).rank is None and axis < 0:
        return list(range(axis, 0))
    rank = rank_of(node.operand(0))
    return list(range(axis % rank, rank))


# --- layer and RMS normalisation --------------------------------------------------------------------------------------

layer_norm = ops.define("LayerNormalization", broadcasts=(1, 2), cost=costs.per_operand(7))


@layer_norm.kernel
def _layer_norm(
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    out: Any = None,
) -> tuple[np.ndarray, ...]:
    y, mean, _, inverse = standardise(x, tuple(range(axis % x.ndim, x.ndim)), epsilon)
    assert mean is not None
    stash = dtype_of_element(stash_type)
    target = out[0] if isinstance(out, tuple) else out
    return affine(y, scale, bias, target, x.dtype), mean.astype(stash, copy=False), inverse.astype(stash, copy=False)


@layer_norm.infer
def _layer_norm_types(call: Call) -> Sequence[Type]:
    """As onnx has it, except that statistics may be stashed in float64 too."""
    x, axis = call.tensor(0), call.attrs["axis"]
    statistics = x.with_shape(None)
    if x.shape is not None:
        if not -len(x.shape) <= axis < len(x.shape):
            raise TypeInferenceError(f"LayerNormalization has the axis {axis} for an operand of type {x}")
        axis %= len(x.shape)
        statistics = x.with_shape((*x.shape[:axis], *(1,) * (len(x.shape) - axis)))
    stashed = TensorType(dtype_of_element(call.attrs["stash_type"]), statistics.shape)
    return [x, stashed, stashed][: call.n_outputs]


@layer_norm.adjoint
def _(b: AdjointBuilder, node: Node, *cotangents: Value | None) -> tuple[Value | None, ...]:
    """Also of the further outputs: the mean passes on dmean / n, 1 / std passes on −dinv · x̂ / std² / n."""
    x, scale = node.operand(0), node.operand(1)
    dy, dmean, dinverse = (*cotangents, None, None)[:3]
    if not (b.needs(x) or b.needs(scale)):
        return (None, None, dy)[: len(node.inputs)]
    wide = accumulation_dtype(x.dtype)
    axes = _trailing_axes(node)
    x_wide = b.cast(x, wide)
    if dtype_of_element(node.attr("stash_type")) == wide:
        mean, inverse = b.further_output(node, 1), b.further_output(node, 2)
        normalised = (x_wide - mean) * inverse
    else:
        normalised, inverse = standardised(b, x_wide, axes, node.attr("epsilon"))
    dscale: Value | None = None
    parts = []
    if dy is not None:
        dy_wide = b.cast(dy, wide)
        if b.needs(x):
            parts.append(pulled_back(b, dy_wide * b.cast(scale, wide), normalised, inverse, axes))
        if b.needs(scale):
            dscale = b.cast(dy_wide * normalised, dy.dtype)
    if b.needs(x) and dinverse is not None:
        parts.append(b.cast(dinverse, wide) * (inverse * inverse) * normalised / -element_count(b, x, axes, wide))
    if b.needs(x) and dmean is not None:
        parts.append(b.op("Expand", b.cast(dmean, wide) / element_count(b, x, axes, wide), b.shape_of(x)))
    dx = b.cast(sum(parts[1:], start=parts[0]), x.dtype) if parts else None
    return (dx, dscale, dy)[: len(node.inputs)]


rms_norm = ops.define("RMSNormalization", broadcasts=(1,), cost=costs.per_operand(4))


@rms_norm.kernel
def _rms_norm(
    x: np.ndarray,
    scale: np.ndarray,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    out: np.ndarray | None = None,
) -> np.ndarray:
    y, _, _, _ = standardise(x, tuple(range(axis % x.ndim, x.ndim)), epsilon, centred=False)
    if accumulation_dtype(scale.dtype).itemsize > y.dtype.itemsize:
        y = y.astype(scale.dtype)
    return affine(y, scale, None, out, scale.dtype)


@rms_norm.infer
def _rms_norm_type(call: Call) -> Sequence[Type]:
    """The result has the dtype of the scale, which onnx's inference overlooks."""
    return [TensorType(call.tensor(1).dtype, call.tensor(0).shape)]


@rms_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, ...]:
    x, scale = node.operand(0), node.operand(1)
    wide = accumulation_dtype(np.promote_types(x.dtype, scale.dtype))
    axes = _trailing_axes(node)
    normalised, inverse = standardised(b, b.cast(x, wide), axes, node.attr("epsilon"), centred=False)
    dy_wide = b.cast(dy, wide)
    dx = dscale = None
    if b.needs(x):
        g = dy_wide * b.cast(scale, wide)
        dx = b.cast(pulled_back(b, g, normalised, inverse, axes, centred=False), x.dtype)
    if b.needs(scale):
        dscale = b.cast(dy_wide * normalised, scale.dtype)
    return dx, dscale


# --- instance and group normalisation ---------------------------------------------------------------------------------

instance_norm = ops.define("InstanceNormalization", cost=costs.per_operand(7))
group_norm = ops.define("GroupNormalization", cost=costs.per_operand(7))
group_norm.infer(_type_of_x)


@instance_norm.kernel
def _instance_norm(
    x: np.ndarray, scale: np.ndarray, bias: np.ndarray, *, epsilon: float = 1e-5, out: np.ndarray | None = None
) -> np.ndarray:
    y, _, _, _ = standardise(x, tuple(range(2, x.ndim)), epsilon)
    return affine(y, channel_view(scale, x.ndim), channel_view(bias, x.ndim), out, x.dtype)


@group_norm.kernel
def _group_norm(
    x: np.ndarray,
    scale: np.ndarray,
    bias: np.ndarray,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    out: np.ndarray | None = None,
) -> np.ndarray:
    groups = x.reshape(x.shape[0], num_groups, -1)
    y, _, _, _ = standardise(groups, (2,), epsilon)
    return affine(y.reshape(x.shape), channel_view(scale, x.ndim), channel_view(bias, x.ndim), out, x.dtype)


@instance_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    axes = list(range(2, rank_of(node.operand(0))))
    return _channelwise(b, node, dy, axes, lambda v: v, lambda v: v)


@group_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    grouped = b.ints([0, node.attr("num_groups"), -1])
    return _channelwise(
        b, node, dy, [2], lambda v: b.op("Reshape", v, grouped), lambda v: b.reshape_like(v, node.operand(0))
    )


def _channelwise(
    b: AdjointBuilder,
    node: Node,
    dy: Value,
    axes: Sequence[int],
    group: Callable[[Value], Value],
    ungroup: Callable[[Value], Value],
) -> list[Value | None]:
    """The adjoint where x is standardised over `axes` of ``group(x)``, then scaled and shifted per channel."""
    x, scale, bias = (node.operand(k) for k in range(3))
    wide = accumulation_dtype(x.dtype)
    results: list[Value | None] = [None, None, sum_per_channel(b, dy) if b.needs(bias) else None]
    if b.needs(x) or b.needs(scale):
        normalised, inverse = standardised(b, group(b.cast(x, wide)), axes, node.attr("epsilon"))
        dy_wide = b.cast(dy, wide)
        if b.needs(x):
            g = group(dy_wide * per_channel(b, b.cast(scale, wide), x))
            results[0] = b.cast(ungroup(pulled_back(b, g, normalised, inverse, axes)), x.dtype)
        if b.needs(scale):
            results[1] = b.cast(sum_per_channel(b, dy_wide * ungroup(normalised)), scale.dtype)
    return results


# --- normalisation without parameters ---------------------------------------------------------------------------------

mean_variance_norm = ops.define("MeanVarianceNormalization", cost=costs.per_operand(5))
mean_variance_norm.infer(_type_of_x)
lp_norm = ops.define("LpNormalization", cost=costs.per_operand(3))

_STD_EPSILON = 1e-9  # what the specification's function body adds to the standard deviation


@mean_variance_norm.kernel
def _mean_variance_norm(x: np.ndarray, *, axes: Sequence[int] = (0, 2, 3), out: np.ndarray | None = None) -> np.ndarray:
    wide = accumulation_dtype(x.dtype)
    y = np.subtract(x, np.mean(x, tuple(axes), wide, keepdims=True), dtype=wide)
    deviation = np.sqrt(np.mean(np.square(y), tuple(axes), wide, keepdims=True))
    np.divide(y, deviation + wide.type(_STD_EPSILON), out=y)
    return deliver(y.astype(x.dtype, copy=False), out)


@mean_variance_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """As in irgrad/ops/standardise.py, but ε is added to the standard deviation, whose subgradient at 0 is 0."""
    x, wide, axes = node.operand(0), accumulation_dtype(dy.dtype), list(node.attr("axes"))
    x_wide, g, y = b.cast(x, wide), b.cast(dy, wide), b.cast(node.outputs[0], wide)
    difference = x_wide - average(b, x_wide, axes)
    deviation = b.op("Sqrt", average(b, difference * difference, axes))
    nonzero = b.op("Where", b.op("Equal", deviation, 0), b.scalar(1, deviation), deviation)
    dx = (g - average(b, g, axes)) / (deviation + _STD_EPSILON) - y * (average(b, g * y, axes) / nonzero)
    return b.cast(dx, x.dtype)


@lp_norm.kernel
def _lp_norm(x: np.ndarray, *, axis: int = -1, p: int = 2, out: np.ndarray | None = None) -> np.ndarray:
    wide = x.astype(accumulation_dtype(x.dtype), copy=False)
    norm = np.linalg.norm(wide, p, axis, keepdims=True)
    y = np.divide(wide, norm, out=np.zeros_like(wide), where=norm != 0)
    return deliver(y.astype(x.dtype, copy=False), out)


@lp_norm.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The cotangent is (dy − t · sum(dy · y)) / |x| with t = y for p = 2, sign(x) for p = 1.

    It is 0 for a zero vector, whose result is 0.
    """
    p, axis = node.attr("p"), node.attr("axis")
    x, wide = node.operand(0), accumulation_dtype(dy.dtype)
    x_wide, g, y = b.cast(x, wide), b.cast(dy, wide), b.cast(node.outputs[0], wide)
    norm = b.op("ReduceL2" if p == 2 else "ReduceL1", x_wide, b.ints([axis]), keepdims=1)
    nonzero = b.op("Where", b.op("Equal", norm, 0), b.scalar(np.inf, norm), norm)
    along = y if p == 2 else b.op("Sign", x_wide)
    return b.cast((g - along * b.reduce_sum(g * y, [axis], keepdims=True)) / nonzero, x.dtype)
