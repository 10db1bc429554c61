"""Local response normalisation: y = x · s^−β with s = bias + α/size · (sum of x² over a window of channels)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.kernels.rows import Block, Rows
from irgrad.kernels.shapes import shape_of
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops.channels import rank_of
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import Workspace, planned, widened
from irgrad.types import Type

ops = OpTable()

_DEFAULTS: Mapping[str, Any] = {"alpha": 1e-4, "beta": 0.75, "bias": 1.0}


def _reach(size: int) -> tuple[int, int]:
    """How many channels before and after its own a window takes in; one of even size takes one more after."""
    return (size - 1) // 2, size // 2


def _window_sum(x: np.ndarray, before: int, after: int, total: np.ndarray) -> None:
    """For each channel (axis 1) the sum of x over the channels from `before` before it to `after` after it."""
    channels = x.shape[1]
    np.copyto(total, x)
    for shift in range(1, min(before, channels - 1) + 1):
        total[:, shift:] += x[:, :-shift]
    for shift in range(1, min(after, channels - 1) + 1):
        total[:, :-shift] += x[:, shift:]


class _Setting:
    """The attributes of a node, and how its operand is cut into blocks of whole windows."""

    def __init__(self, call: Call, temporaries: int) -> None:
        self.shape, self.dtype, attrs = shape_of(call, 0), call.tensor(0).dtype, call.attrs
        self.space, self.rows = Workspace(), Rows.over(self.shape, 1, 2)
        self.size, self.bias, self.beta = attrs["size"], self.dtype.type(attrs["bias"]), self.dtype.type(attrs["beta"])
        self.factor = self.dtype.type(attrs["alpha"] / self.size)
        self.minus_beta = self.dtype.type(-attrs["beta"])
        self._spare = self.rows.temporaries(self.space, self.dtype, temporaries)

    def spare(self, at: Block, like: np.ndarray, work: np.ndarray) -> list[np.ndarray]:
        """Room for arrays like a block."""
        return [room[: like.size].reshape(like.shape) for room in self._spare[at.share](work)]

    def base(self, x: np.ndarray, square: np.ndarray, out: np.ndarray) -> None:
        """The s of the formula at the top of this file."""
        _window_sum(np.multiply(x, x, out=square), *_reach(self.size), out)
        np.multiply(out, self.factor, out=out)
        np.add(out, self.bias, out=out)


lrn = ops.define("LRN", in_place=True)


@lrn.prepare
@planned()
@widened
def _lrn(call: Call) -> Kernel:
    setting = _Setting(call, 2)
    rows = setting.rows

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y = np.empty(setting.shape, setting.dtype) if out is None else out
        operand, target = rows.of(x), rows.of(y)

        def block(at: Block) -> None:
            v = operand[at.outer, :, at.inner]
            square, base = setting.spare(at, v, work)
            setting.base(v, square, base)
            np.power(base, setting.minus_beta, out=base)
            np.multiply(base, v, out=target[at.outer, :, at.inner])

        rows.run(block)
        return y

    return setting.space.kernel(kernel)


@lrn.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    attrs = {name: node.attr(name) for name in ("size", *_DEFAULTS)}
    return b.op("irgrad.LRNGrad", dy, node.operand(0), **attrs)


lrn_grad = ops.define("LRNGrad", domain=IRGRAD_DOMAIN, defaults=_DEFAULTS, in_place=True)
"""``LRNGrad(dy, x)`` with the attributes of LRN → dx = dy · s^−β − 2αβ/size · x · W'(dy · x · s^(−β−1)).

W' sums over a window that lies the other way round: over the channels whose own window takes this one in.
"""


@lrn_grad.prepare
@planned()
@widened
def _lrn_grad(call: Call) -> Kernel:
    setting = _Setting(call, 3)
    rows, (before, after) = setting.rows, _reach(setting.size)

    def kernel(dy: np.ndarray, x: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        dx = np.empty(setting.shape, setting.dtype) if out is None else out
        cotangent, operand, target = rows.of(dy), rows.of(x), rows.of(dx)

        def block(at: Block) -> None:
            v = operand[at.outer, :, at.inner]
            a, base, scaled = setting.spare(at, v, work)
            setting.base(v, a, base)
            np.power(base, setting.minus_beta, out=scaled)
            np.multiply(scaled, cotangent[at.outer, :, at.inner], out=scaled)
            np.multiply(scaled, v, out=a)
            np.divide(a, base, out=a)
            _window_sum(a, after, before, base)
            np.multiply(base, v, out=base)
            np.multiply(base, 2 * setting.factor * setting.beta, out=base)
            np.subtract(scaled, base, out=target[at.outer, :, at.inner])

        rows.run(block)
        return dx

    return setting.space.kernel(kernel)


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
