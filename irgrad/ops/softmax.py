"""Softmax, its logarithm, and hardmax."""

from __future__ import annotations

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import ZERO, OpTable
from irgrad.runtime.kernels import accumulation_dtype, deliver

__all__ = ["log_softmax_of", "log_softmax_pulled_back", "ops", "softmax_of"]

ops = OpTable()


def _shifted(x: np.ndarray, axis: int, out: np.ndarray | None) -> np.ndarray:
    """The elements minus the largest along an axis, in the dtype that sums are formed in; into `out` if it has that."""
    wide = accumulation_dtype(x.dtype)
    top = np.maximum.reduce(x, axis, keepdims=True, initial=-np.inf)
    y: np.ndarray = np.subtract(x, top, out=out if out is not None and out.dtype == wide else None, dtype=wide)
    return y


def softmax_of(x: np.ndarray, axis: int, out: np.ndarray | None = None) -> np.ndarray:
    """The softmax of x along an axis, in float32 where x has 16 bits; into `out` if that has the dtype of the result."""
    y = _shifted(x, axis, out)
    np.exp(y, out=y)
    np.divide(y, np.add.reduce(y, axis, keepdims=True), out=y)
    return y


def log_softmax_of(x: np.ndarray, axis: int, out: np.ndarray | None = None) -> np.ndarray:
    """The logarithm of the softmax of x along an axis; dtype and `out` as for `softmax_of`."""
    y = _shifted(x, axis, out)
    np.subtract(y, np.log(np.add.reduce(np.exp(y), axis, keepdims=True)), out=y)
    return y


softmax = ops.define("Softmax")
log_softmax = ops.define("LogSoftmax")


@softmax.kernel
def _softmax(x: np.ndarray, *, axis: int = -1, out: np.ndarray | None = None) -> np.ndarray:
    y = softmax_of(x, axis, out)
    return y if y is out else deliver(y.astype(x.dtype, copy=False), out)


@log_softmax.kernel
def _log_softmax(x: np.ndarray, *, axis: int = -1, out: np.ndarray | None = None) -> np.ndarray:
    y = log_softmax_of(x, axis, out)
    return y if y is out else deliver(y.astype(x.dtype, copy=False), out)


@softmax.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return y * (dy - b.reduce_sum(dy * y, [node.attr("axis")], keepdims=True))


@log_softmax.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return log_softmax_pulled_back(b, node.operand(0), node.outputs[0], dy, node.attr("axis"))


def log_softmax_pulled_back(b: Builder, x: Value, y: Value, dy: Value, axis: int) -> Value:
    """Emit the cotangent of x, given y, the logarithm of its softmax, and the cotangent of that."""
    # Of 16 bits, the rounding error of the logarithm would be the relative error of the exponential.
    probabilities = b.op("Exp", y) if accumulation_dtype(y.dtype) == y.dtype else b.op("Softmax", x, axis=axis)
    return dy - probabilities * b.reduce_sum(dy, [axis], keepdims=True)


@ops.define("Hardmax", gradient=ZERO).kernel
def _hardmax(x: np.ndarray, *, axis: int = -1, out: np.ndarray | None = None) -> np.ndarray:
    y = np.empty_like(x) if out is None else out
    y.fill(0)
    if x.size:
        np.put_along_axis(y, np.argmax(x, axis, keepdims=True), 1, axis)
    return y
