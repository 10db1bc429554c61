"""Local response normalisation: y = x · s^−β with s = bias + α/size · (sum of x² over a window of channels)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, OpTable
from irgrad.ops.channels import rank_of
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import Type

ops = OpTable()

_DEFAULTS: Mapping[str, Any] = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}


def _reach(size: int) -> tuple[int, int]:
    """How many channels before and after its own a window takes in; one of even size takes one more after."""
    return (size - 1) // 2, size // 2


def _window_sum(x: np.ndarray, before: int, after: int) -> np.ndarray:
    """For each channel (axis 1) the sum of x over the channels from `before` before it to `after` after it."""
    total, channels = x.copy(), x.shape[1]
    for shift in range(1, min(before, channels - 1) + 1):
        total[:, shift:] += x[:, :-shift]
    for shift in range(1, min(after, channels - 1) + 1):
        total[:, :-shift] += x[:, shift:]
    return total


def _base(x: np.ndarray, alpha: float, bias: float, size: int) -> np.ndarray:
    """The s of the formula at the top of this file; x is in the dtype to compute in."""
    total = _window_sum(np.square(x), *_reach(size))
    np.multiply(total, x.dtype.type(alpha / size), out=total)
    np.add(total, x.dtype.type(bias), out=total)
    return total


lrn = ops.define("LRN")


@lrn.kernel
def _lrn(x: np.ndarray, *, size: int, alpha: float, beta: float, bias: float, out: np.ndarray | None = None) -> np.ndarray:
    wide = x.astype(accumulation_dtype(x.dtype), copy=False)
    y = np.power(_base(wide, alpha, bias, size), wide.dtype.type(-beta))
    np.multiply(y, wide, out=y)
    return deliver(y.astype(x.dtype, copy=False), out)


@lrn.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    attrs = {name: node.attr(name) for name in ("size", *_DEFAULTS)}
    return b.op("irgrad.LRNGrad", dy, node.operand(0), **attrs)


lrn_grad = ops.define("LRNGrad", domain=IRGRAD_DOMAIN, defaults=_DEFAULTS)
"""``LRNGrad(dy, x)`` with the attributes of LRN → dx = dy · s^−β − 2αβ/size · x · W'(dy · x · s^(−β−1)).

W' sums over a window that lies the other way round: over the channels whose own window takes this one in.
"""


@lrn_grad.kernel
def _lrn_grad(
    dy: np.ndarray,
    x: np.ndarray,
    *,
    size: int,
    alpha: float,
    beta: float,
    bias: float,
    out: np.ndarray | None = None,
) -> np.ndarray:
    dtype = x.dtype
    x, dy = (a.astype(accumulation_dtype(dtype), copy=False) for a in (x, dy))
    base = _base(x, alpha, bias, size)
    scaled = dy * np.power(base, x.dtype.type(-beta))
    before, after = _reach(size)
    total = _window_sum(scaled * x / base, after, before)
    np.multiply(total, x, out=total)
    np.multiply(total, x.dtype.type(2 * alpha * beta / size), out=total)
    return deliver(np.subtract(scaled, total, out=scaled).astype(dtype, copy=False), out)


@lrn_grad.infer
def _lrn_grad_type(call: Call) -> Sequence[Type]:
    return [call.tensor(1)]


@lrn_grad.lower
def _(b: Builder, node: Node) -> Value:
    dtype = node.outputs[0].dtype
    wide = accumulation_dtype(dtype)
    dy, x = b.cast(node.operand(0), wide), b.cast(node.operand(1), wide)
    size, alpha, beta, bias = (node.attr(name) for name in ("size", *_DEFAULTS))
    before, after = _reach(size)
    base = alpha * _window_average(b, x * x, before, after) + bias
    scaled = dy * b.op("Pow", base, b.scalar(-beta, base))
    pulled = x * _window_average(b, scaled * x / base, after, before)
    return b.cast(scaled - 2 * alpha * beta * pulled, dtype)


def _window_average(b: Builder, x: Value, before: int, after: int) -> Value:
    """The sum over a window of channels divided by the window's size, as a pooling along the channels."""
    spatial = rank_of(x) - 2
    pooled = b.op(
        "AveragePool",
        b.op("Unsqueeze", x, b.ints([1])),
        kernel_shape=(before + 1 + after, *(1,) * spatial),
        pads=(before, *(0,) * spatial, after, *(0,) * spatial),
        count_include_pad=1,
    )
    return b.op("Squeeze", pooled, b.ints([1]))
