"""Pooling and its adjoints.

A window's maximum sends its cotangent to one place, the first maximum in row-major order (the Indices of MaxPool); over a
whole plane (GlobalMaxPool) equal maxima share it, as with ReduceMax.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import rank_of
from irgrad.ops.conv_lowering import known_sizes, lower_input_grad
from irgrad.ops.dims import shape_operand
from irgrad.ops.pool_compiled import max_pool_and_places, sent_to_maxima
from irgrad.ops.pool_kernels import divisors, max_pool, spread, sum_pool
from irgrad.ops.pool_rules import geometry_of, may_lie_in_padding, norm_adjoint, pool_windows, window_sizes, without_absent
from irgrad.ops.reduce import element_count
from irgrad.ops.windows import count_dims, per_axis
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.workspace import Workspace, planned, widened
from irgrad.types import TensorType, Type

__all__ = ["max_positions_adjoint", "ops"]

ops = OpTable()


def _images(call: Call, operand: int = 0) -> tuple[tuple[int, int], np.dtype, tuple[int, ...]]:
    """N and C, the dtype, and the spatial sizes of images."""
    type = call.tensor(operand)
    assert type.static_shape is not None
    n, c, *sizes = type.static_shape
    return (n, c), type.dtype, tuple(sizes)


def _pooled_type(call: Call) -> TensorType:
    x, kernel = call.tensor(0), call.attrs.get("kernel_shape")
    if not kernel:
        raise TypeInferenceError(f"{call.op.name} needs the attribute kernel_shape")
    if x.shape is None:
        return x
    if len(x.shape) < 3:
        raise TypeInferenceError(f"{call.op.name} takes an operand of at least three axes, not {x}")
    return x.with_shape((*x.shape[:2], *count_dims(call.attrs, x.shape[2:], kernel)))


def _pooled_axes(x: Value) -> list[int]:
    return list(range(2, rank_of(x)))


# --- MaxPool ----------------------------------------------------------------------------------------------------------

max_pool_op = ops.define("MaxPool", cost=costs.window)


@max_pool_op.prepare
@planned()
def _(call: Call) -> Kernel:
    shape, dtype, size = _images(call)
    windows = pool_windows(call.attrs, size)
    if call.n_outputs == 1:
        return max_pool(shape, dtype, windows)
    return max_pool_and_places(shape, dtype, windows, bool(call.attrs["storage_order"]))


@max_pool_op.infer
def _(call: Call) -> Sequence[Type]:
    y = _pooled_type(call)
    return [y, TensorType(np.dtype(np.int64), y.shape)][: call.n_outputs]


@max_pool_op.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value, *_: None) -> Value:
    x, indices = node.operand(0), b.further_output(node, 1)
    kernel = node.attr("kernel_shape")
    rank, strides = len(kernel), per_axis(node.attrs, "strides", len(kernel), 1)
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, per_axis(node.attrs, "dilations", rank, 1), strict=True)]
    distinct = int(all(s >= extent for s, extent in zip(strides, extents, strict=True)))
    if may_lie_in_padding(node):
        dy, indices = without_absent(b, dy, indices)
        distinct = 0
    if not node.attr("storage_order") or rank == 1:
        return b.op("irgrad.MaxPoolGrad", dy, indices, b.shape_of(x), distinct=distinct)
    # Column-major numbers are the row-major ones of the image with its spatial axes reversed.
    order = (0, 1, *reversed(range(2, rank + 2)))
    static = x.tensor_type.static_shape
    shape = b.ints([static[a] for a in order]) if static is not None else b.op("Gather", b.op("Shape", x), b.ints(order))
    return b.op("Transpose", b.op("irgrad.MaxPoolGrad", dy, indices, shape, distinct=distinct), perm=order)


def max_positions_adjoint(b: Builder, dy: Value, positions: Value, x_shape: Value) -> Value:
    """The cotangent of x, of shape x_shape, where dy is that of maxima of x: of what stands at flat row-major positions.

    A position of -1 says that a maximum was over nothing.
    """
    dy, positions = without_absent(b, dy, positions)
    return b.op("irgrad.MaxPoolGrad", dy, positions, x_shape)


max_pool_grad = ops.define("MaxPoolGrad", domain=IRGRAD_DOMAIN, defaults={"distinct": 0}, cost=costs.per_operand(1))
"""``MaxPoolGrad(dy, indices, x_shape)``: zeros of shape x_shape, with the elements of dy added at flat row-major indices.

Attributes:
    distinct: 1 where no index occurs twice.
"""


@max_pool_grad.prepare
@planned(2)
@widened
def _(call: Call) -> Kernel:
    dy, distinct = call.tensor(0), bool(call.attrs["distinct"])
    shape, counts = tuple(call.constants[2].tolist()), dy.static_shape
    assert counts is not None

    def kernel(dy: np.ndarray, indices: np.ndarray, _: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        dx = np.zeros(shape, dy.dtype) if out is None else out
        if out is not None:
            dx.fill(0)
        if distinct:
            dx.reshape(-1)[indices.reshape(-1)] = dy.reshape(-1)
        else:
            np.add.at(dx.reshape(-1), indices.reshape(-1), dy.reshape(-1))
        return dx

    return sent_to_maxima(shape, counts, dy.dtype, kernel)


@max_pool_grad.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 2))]


@max_pool_grad.adjoint
def _(b: AdjointBuilder, node: Node, c: Value) -> list[Value | None]:
    return [b.op("Gather", b.op("Reshape", c, b.ints([-1])), node.operand(1)), None, None]


@max_pool_grad.lower
def _(b: Builder, node: Node) -> Value:
    dy, indices, shape = node.operand(0), node.operand(1), node.operand(2)
    size = b.op("ReduceProd", shape, keepdims=1)
    flat = b.op(
        "ScatterElements",
        b.op("ConstantOfShape", size, value=np.zeros(1, dy.dtype)),
        b.op("Reshape", indices, b.ints([-1])),
        b.op("Reshape", dy, b.ints([-1])),
        axis=0,
        reduction="none" if node.attr("distinct") else "add",
    )
    return b.op("Reshape", flat, shape)


# --- AveragePool ------------------------------------------------------------------------------------------------------

average_pool = ops.define("AveragePool", cost=costs.window)


@average_pool.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    shape, dtype, size = _images(call)
    windows = pool_windows(call.attrs, size)
    over = divisors(windows, bool(call.attrs["count_include_pad"]), dtype)
    return sum_pool(shape, dtype, windows, after=lambda y: np.divide(y, over, out=y))


@average_pool.infer
def _(call: Call) -> Sequence[Type]:
    return [_pooled_type(call)]


@average_pool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return b.op("irgrad.AveragePoolGrad", dy, b.shape_of(node.operand(0)), **geometry_of(node, "count_include_pad"))


average_pool_grad = ops.define(
    "AveragePoolGrad",
    domain=IRGRAD_DOMAIN,
    defaults={"auto_pad": "NOTSET", "ceil_mode": 0, "count_include_pad": 0},
    cost=costs.window_grad,
)
"""``AveragePoolGrad(dy, x_shape)``: the cotangent of x, of shape x_shape, where dy is that of AveragePool(x).

Attributes: those of AveragePool.
"""


@average_pool_grad.prepare
@planned(1)
@widened
def _(call: Call) -> Kernel:
    shape, dtype, _ = _images(call)
    windows = pool_windows(call.attrs, tuple(call.constants[1][2:].tolist()))
    return spread(shape, dtype, windows, divisors(windows, bool(call.attrs["count_include_pad"]), dtype))


@average_pool_grad.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 1))]


@average_pool_grad.adjoint
def _(b: AdjointBuilder, node: Node, c: Value) -> list[Value | None]:
    return [b.op("AveragePool", c, **geometry_of(node, "count_include_pad")), None]


@average_pool_grad.lower
def _(b: Builder, node: Node) -> Value:
    """Each plane as an image of one channel, in the adjoint of a convolution with ones."""
    dy, shape, kernel = node.operand(0), node.operand(1), node.attr("kernel_shape")
    share = dy / window_sizes(b, node, shape, dy, include_padding=bool(node.attr("count_include_pad")))
    counts = known_sizes(dy.shape, len(kernel))
    if counts is not None:
        planes = b.ints([-1, 1, *counts])
    else:
        planes = b.op("Concat", b.ints([-1, 1]), b.op("Shape", dy, start=2), axis=0)
    ones = b.constant(np.ones((1, 1, *kernel), dy.dtype))
    return b.op("Reshape", lower_input_grad(b, b.op("Reshape", share, planes), ones, shape, geometry_of(node)), shape)


# --- LpPool -----------------------------------------------------------------------------------------------------------


def _powers(x: np.ndarray, p: int, out: np.ndarray) -> None:
    if p == 2:
        np.square(x, out=out)
        return
    np.absolute(x, out=out)
    if p != 1:
        np.power(out, out.dtype.type(p), out=out)


def _root(sums: np.ndarray, p: int) -> None:
    if p == 2:
        np.sqrt(sums, out=sums)
    elif p != 1:
        np.power(sums, sums.dtype.type(1 / p), out=sums)


lp_pool = ops.define("LpPool", cost=costs.window)


@lp_pool.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    (shape, dtype, size), p = _images(call), call.attrs["p"]
    windows = pool_windows(call.attrs, size)
    return sum_pool(shape, dtype, windows, before=lambda x, out: _powers(x, p, out), after=lambda y: _root(y, p))


@lp_pool.infer
def _(call: Call) -> Sequence[Type]:
    return [_pooled_type(call)]


@lp_pool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The sum over a window is its average times its size; with ceil_mode windows at the end may be smaller."""
    shape, even = b.shape_of(node.operand(0)), not node.attr("ceil_mode")

    def pull(v: Value) -> Value:
        sizes = window_sizes(b, node, shape, dy, include_padding=even)
        return b.op("irgrad.AveragePoolGrad", v * sizes, shape, count_include_pad=int(even), **geometry_of(node))

    return norm_adjoint(b, node, pull, dy)


# --- over whole planes ------------------------------------------------------------------------------------------------


def _global_type(call: Call) -> Sequence[Type]:
    x = call.tensor(0)
    return [x if x.shape is None else x.with_shape((*x.shape[:2], *(1 for _ in x.shape[2:])))]


def _spatial(x: np.ndarray) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


global_average_pool = ops.define("GlobalAveragePool", cost=costs.per_operand(1))
global_average_pool.infer(_global_type)


@global_average_pool.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    def kernel(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        y = np.asarray(np.add.reduce(x, _spatial(x), keepdims=True, out=out))
        return np.asarray(np.divide(y, y.dtype.type(prod(x.shape[2:])), out=y))

    return kernel


@global_average_pool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    x = node.operand(0)
    wide = accumulation_dtype(x.dtype)  # the count may be beyond what 16 bits can hold
    share = b.cast(b.cast(dy, wide) / element_count(b, x, _pooled_axes(x), wide), dy.dtype)
    return b.op("Expand", share, b.shape_of(x))


global_max_pool = ops.define("GlobalMaxPool", cost=costs.per_operand(1))
global_max_pool.infer(_global_type)


@global_max_pool.kernel
def _(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return np.maximum.reduce(x, _spatial(x), out=out, keepdims=True)


@global_max_pool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """Equal maxima share the cotangent equally."""
    x, y = node.operand(0), node.outputs[0]
    largest = b.cast(b.op("Equal", x, y), dy.dtype)
    return largest * (dy / b.reduce_sum(largest, _pooled_axes(x), keepdims=True))


global_lp_pool = ops.define("GlobalLpPool", cost=costs.per_operand(2))
global_lp_pool.infer(_global_type)


@global_lp_pool.prepare
@planned()
@widened
def _(call: Call) -> Kernel:
    (shape, dtype, size), p, space = _images(call), call.attrs["p"], Workspace()
    powers = space.array((*shape, *size), dtype)

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        _powers(x, p, powers(work))
        y = np.asarray(np.add.reduce(powers(work), _spatial(x), keepdims=True, out=out))
        _root(y, p)
        return y

    return space.kernel(kernel)


@global_lp_pool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return norm_adjoint(b, node, lambda v: v, dy)
