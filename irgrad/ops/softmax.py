"""Softmax, its logarithm, and hardmax."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.kernels import softmax as kernels
from irgrad.kernels.shapes import shape_of
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.compiled import compiled
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import planned, widened
from irgrad.types import Type, merge_types, types_compatible

__all__ = ["log_softmax_pulled_back", "ops"]

ops = OpTable()


softmax = ops.define("Softmax", in_place=True, cost=costs.per_element(5))
log_softmax = ops.define("LogSoftmax", in_place=True, cost=costs.per_element(5))


@softmax.prepare
@partial(compiled, along_last=True)
@planned()
@widened
def _softmax(call: Call) -> Kernel:
    return kernels.softmax(shape_of(call, 0), call.attrs["axis"], call.tensor(0).dtype)


@log_softmax.prepare
@partial(compiled, along_last=True)
@planned()
@widened
def _log_softmax(call: Call) -> Kernel:
    return kernels.log_softmax(shape_of(call, 0), call.attrs["axis"], call.tensor(0).dtype)


@softmax.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return b.op("irgrad.SoftmaxGrad", node.outputs[0], dy, axis=node.attr("axis"))


softmax_grad = ops.define(
    "SoftmaxGrad", domain=IRGRAD_DOMAIN, defaults={"axis": -1}, in_place=True, cost=costs.per_element(4)
)
"""``SoftmaxGrad(y, dy)``: y (dy - sum(y dy)), the cotangent of what y is the softmax of, along `axis`.

Zero times anything is zero here. A row that a mask takes out as a whole has a softmax of NaN; a graph that puts something
else in its place sends it no cotangent, and then it has none to hand on.
"""


@softmax_grad.infer
def _softmax_grad_type(call: Call) -> Sequence[Type]:
    y, dy = call.tensor(0), call.tensor(1)
    if not types_compatible(y, dy):
        raise TypeInferenceError(f"SoftmaxGrad takes a softmax and its cotangent, of one type, not {y} and {dy}")
    return [merge_types(y, dy)]


@softmax_grad.prepare
@partial(compiled, along_last=True)
@planned()
@widened
def _softmax_grad(call: Call) -> Kernel:
    return kernels.softmax_grad(shape_of(call, 0), call.attrs["axis"], call.tensor(0).dtype)


@softmax_grad.lower
def _(b: Builder, node: Node) -> Value:
    y, dy = node.operand(0), node.operand(1)
    total = b.reduce_sum(_product(b, y, dy), [node.attr("axis")], keepdims=True)
    return _product(b, y, b.op("Sub", dy, total))


def _product(b: Builder, y: Value, factor: Value) -> Value:
    """The product, 0 where the factor is."""
    return b.op("Where", b.op("Equal", factor, 0), b.scalar(0, y), b.op("Mul", y, factor))


@softmax_grad.adjoint
def _(b: AdjointBuilder, node: Node, dx: Value) -> tuple[Value | None, Value | None]:
    """Its Jacobian by dy is symmetric."""
    y, dy = node.operand(0), node.operand(1)
    axis = node.attr("axis")
    by_y = by_dy = None
    if b.needs(y):
        total = b.reduce_sum(_product(b, y, dy), [axis], keepdims=True)
        by_y = dx * (dy - total) - _product(b, b.reduce_sum(y * dx, [axis], keepdims=True), dy)
    if b.needs(dy):
        by_dy = b.op("irgrad.SoftmaxGrad", y, dx, axis=axis)
    return by_y, by_dy


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
