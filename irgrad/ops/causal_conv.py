"""Causal depthwise convolution with a state: what Mamba and Gated DeltaNet do to a sequence before they mix it.

With z the past state (zeros where there is none) and the input behind it, y[t] = Σⱼ w[j] z[t + j]. Both cotangents are such
convolutions again. dz[u] = Σⱼ w[j] dy[u − j] is that of dy, followed by zeros, with w reversed. dw[j] = Σₜ dy[t] z[t + j] is
that of z with the kernel dy, where every channel of every sample is a channel of its own, summed over the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import Call, OpTable
from irgrad.ops import costs
from irgrad.ops.activation import slope_of_gated
from irgrad.ops.dims import Size, dim_of, join_sizes, product_of, reshape_to
from irgrad.ops.special import sigmoid
from irgrad.runtime.kernels import accumulation_dtype, deliver_all
from irgrad.types import Dim, Type, dims_differ, merge_dims

ops = OpTable()

causal_conv = ops.define("CausalConvWithState", cost=costs.causal_conv)

_BIAS, _PAST = 2, 3


@causal_conv.kernel
def _causal_conv(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    past: np.ndarray | None = None,
    *,
    activation: str = "none",
    out: Any = None,
) -> tuple[np.ndarray, ...]:
    (batch, channels, length), size, wide = x.shape, weight.shape[2], accumulation_dtype(x.dtype)
    before = np.zeros((batch, channels, size - 1), x.dtype) if past is None else past
    padded = np.concatenate((before, x), 2)
    z, w = padded.astype(wide, copy=False), weight[:, 0].astype(wide, copy=False)
    if size <= length:
        y = z[:, :, :length] * w[:, :1]
        for j in range(1, size):
            y += z[:, :, j : j + length] * w[:, j : j + 1]
    else:
        y = np.empty(x.shape, wide)
        for t in range(length):
            np.einsum("bck,ck->bc", z[:, :, t : t + size], w, out=y[:, :, t])
    if bias is not None:
        y += bias.astype(wide, copy=False)[:, None]
    if activation != "none":
        y *= sigmoid(y)
    return deliver_all((y.astype(x.dtype, copy=False), padded[:, :, length:]), out)


@causal_conv.infer
def _causal_conv_types(call: Call) -> Sequence[Type]:
    """As onnx has it, which however does not take float64."""
    activation = call.attrs["activation"]
    if activation not in ("none", "silu", "swish"):
        raise TypeInferenceError(f"CausalConvWithState has the activation {activation!r}, which is not none, silu or swish")
    batch, channels, length = _dims(call, 0, 3)
    channels_of_weight, one, size = _dims(call, 1, 3)
    before = size - 1 if isinstance(size, int) else None
    past = _dims(call, _PAST, 3)
    pairs = [(one, 1), (channels, channels_of_weight), (channels, _dims(call, _BIAS, 1)[0])]
    pairs += list(zip(past, (batch, channels, before), strict=True))
    if size == 0 or any(dims_differ(a, b) for a, b in pairs):
        shown = ", ".join("_" if t is None else str(t) for t in call.inputs)
        raise TypeInferenceError(f"the shapes of the operands of CausalConvWithState do not fit each other: {shown}")
    batch, channels = merge_dims(batch, past[0]), merge_dims(channels, channels_of_weight, past[1])
    shapes = (batch, channels, length), (batch, channels, merge_dims(before, past[2]))
    return [call.tensor(0).with_shape(shape) for shape in shapes[: call.n_outputs]]


def _dims(call: Call, index: int, rank: int) -> tuple[Dim, ...]:
    shape = call.tensor(index).shape if call.has(index) else None
    if shape is not None and len(shape) != rank:
        raise TypeInferenceError(f"operand {index} of CausalConvWithState has {rank} axes, not {call.tensor(index)}")
    return (None,) * rank if shape is None else shape


# --- the adjoint ------------------------------------------------------------------------------------------------------


@causal_conv.adjoint
def _(b: AdjointBuilder, node: Node, *cotangents: Value | None) -> list[Value | None]:
    """See the top of this file; a state is a part of z."""
    dy, dpresent = (*cotangents, None)[:2]
    x, weight, bias, past = node.operand(0), node.operand(1), node.input(_BIAS), node.input(_PAST)
    length, size = dim_of(b, x, 2), dim_of(b, weight, 2)
    before = size - 1
    results: list[Value | None] = [None] * len(node.inputs)
    dconv = None if dy is None else _before_activation(b, node, dy)
    dz = None
    if dconv is not None and (b.needs(x) or b.needs(past)):
        dz = _convolved(b, _padded(b, dconv, 0, before), _reversed(b, weight, size))
    if dpresent is not None and (b.needs(x) or b.needs(past)):
        from_state = _padded(b, dpresent, length, 0)
        dz = from_state if dz is None else dz + from_state
    if dz is not None:
        if past is not None:
            results[_PAST], results[0] = b.multi("Split", dz, join_sizes(b, before, length), axis=2, outputs=2)
        elif before == 0:
            results[0] = dz
        else:
            results[0] = b.op("Slice", dz, join_sizes(b, before), b.ints([np.iinfo(np.int64).max]), b.ints([2]))
    if dconv is not None and b.needs(weight):
        # A kernel has an element at least: where there may be no step, one of zeros is added.
        end = 0 if isinstance(length, int) and length > 0 else 1
        z = _padded(b, x, before, end) if past is None else _padded(b, b.op("Concat", past, x, axis=2), 0, end)
        results[1] = _weight_cotangent(b, z, _padded(b, dconv, 0, end), length + end, size)
    if dconv is not None and b.needs(bias):
        results[_BIAS] = b.reduce_sum(dconv, [0, 2])
    return results


def _before_activation(b: Builder, node: Node, dy: Value) -> Value:
    """The cotangent of what the activation is applied to, x · sigmoid(x) if any."""
    if node.attr("activation") == "none":
        return dy
    convolved = b.node(node.op, node.inputs, outputs=2).outputs[0]
    gate = b.op("Sigmoid", convolved)
    return dy * slope_of_gated(convolved * gate, gate, 1.0)


def _weight_cotangent(b: Builder, z: Value, dconv: Value, length: Size, size: Size) -> Value:
    batch, channels = dim_of(b, dconv, 0), dim_of(b, dconv, 1)
    rows = product_of(b, b.shape_of(dconv), 0, 2)
    kernel = reshape_to(b, dconv, rows, 1, length)
    state, current = b.multi("Split", z, join_sizes(b, length - 1, size), axis=2, outputs=2)
    state, current = reshape_to(b, state, 1, rows, length - 1), reshape_to(b, current, 1, rows, size)
    per_sample = _convolved(b, current, kernel, state)
    return b.reduce_sum(reshape_to(b, per_sample, batch, channels, 1, size), [0])


def _convolved(b: Builder, x: Value, weight: Value, past: Value | None = None) -> Value:
    return b.multi("CausalConvWithState", x, weight, *(() if past is None else (None, past)), outputs=2)[0]


def _padded(b: Builder, x: Value, left: Size, right: Size) -> Value:
    """A value with three axes, with zeros before and behind it along the last one."""
    if left == 0 == right:
        return x
    return b.op("Pad", x, join_sizes(b, 0, 0, left, 0, 0, right))


def _reversed(b: Builder, weight: Value, size: Size) -> Value:
    if size == 1:
        return weight
    return b.op("Slice", weight, b.ints([-1]), b.ints([np.iinfo(np.int64).min]), b.ints([2]), b.ints([-1]))
