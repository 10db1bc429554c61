"""Pooling and its adjoints.

A window's maximum sends its cotangent to one place, the first maximum in row-major order (the Indices of MaxPool); over a
whole plane (GlobalMaxPool) equal maxima share it, as with ReduceMax.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import rank_of
from irgrad.ops.conv_lowering import cut, known_sizes, lower_input_grad
from irgrad.ops.dims import shape_operand
from irgrad.ops.elementwise import keep_where
from irgrad.ops.pool_kernels import divisors, max_pool, max_pool_with_indices, spread, sum_pool
from irgrad.ops.reduce import element_count
from irgrad.ops.windows import Windows, count_dims, explicit_pads, per_axis, windows_of
from irgrad.runtime.kernels import accumulation_dtype, deliver, widened
from irgrad.types import TensorType, Type

__all__ = ["max_positions_adjoint", "ops"]

ops = OpTable()

_GEOMETRY = ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides")


def _windows(attrs: Any, size: Sequence[int]) -> Windows:
    return windows_of(attrs, size, attrs["kernel_shape"])


def _pooled_type(call: Call) -> TensorType:
    x, kernel = call.tensor(0), call.attrs.get("kernel_shape")
    if not kernel:
        raise TypeInferenceError(f"{call.op.name} needs the attribute kernel_shape")
    if x.shape is None:
        return x
    if len(x.shape) < 3:
        raise TypeInferenceError(f"{call.op.name} takes an operand of at least three axes, not {x}")
    return x.with_shape((*x.shape[:2], *count_dims(call.attrs, x.shape[2:], kernel)))


def _geometry(node: Node, *more: str) -> dict[str, Any]:
    """The attributes that say where windows are, and others that are named."""
    return {name: node.attrs[name] for name in (*_GEOMETRY, *more) if name in node.attrs}


def _pooled_axes(x: Value) -> list[int]:
    return list(range(2, rank_of(x)))


def _nonzero(b: Builder, y: Value) -> Value:
    """`y` with ones for its zeros: a divisor where what is divided is zero, too."""
    return b.op("Where", b.op("Equal", y, 0), b.scalar(1, y), y)


# --- MaxPool ----------------------------------------------------------------------------------------------------------

max_pool_op = ops.define("MaxPool", cost=costs.window)


@max_pool_op.prepare
def _(call: Call) -> Kernel:
    attrs, column_major = call.attrs, bool(call.attrs["storage_order"])

    def values(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        return max_pool(x, _windows(attrs, x.shape[2:]), out)

    def values_and_places(x: np.ndarray, *, out: Any = None) -> tuple[np.ndarray, ...]:
        results = max_pool_with_indices(x, _windows(attrs, x.shape[2:]), column_major)
        return tuple(deliver(result, space) for result, space in zip(results, out or (None, None), strict=True))

    return values if call.n_outputs == 1 else values_and_places


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
    if _may_lie_in_padding(node):
        dy, indices = _without_absent(b, dy, indices)
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
    dy, positions = _without_absent(b, dy, positions)
    return b.op("irgrad.MaxPoolGrad", dy, positions, x_shape)


def _without_absent(b: Builder, dy: Value, positions: Value) -> tuple[Value, Value]:
    """Cotangents of maxima and their positions, with zeros at the position 0 where the position is -1: none."""
    present = b.op("GreaterOrEqual", positions, b.scalar(0, positions))
    return keep_where(b, present, dy), b.op("Max", positions, b.scalar(0, positions))


def _may_lie_in_padding(node: Node) -> bool:
    """Whether some window of a MaxPool may read nothing of the image: it is nowhere, and its index is -1."""
    x, kernel = node.operand(0), node.attr("kernel_shape")
    rank = len(kernel)
    sizes = x.shape[2:] if x.shape is not None else (None,) * rank
    pads = explicit_pads(node.attrs, rank)
    for axis, (size, k, dilation) in enumerate(zip(sizes, kernel, per_axis(node.attrs, "dilations", rank, 1), strict=True)):
        widest = max(pads[axis]) if pads is not None else (k - 1) * dilation
        # Padding narrower than a window is stepped over, unless by holes that are wider than the image.
        if widest > (k - 1) * dilation or (widest and dilation > 1 and (not isinstance(size, int) or size < dilation)):
            return True
    return False


max_pool_grad = ops.define("MaxPoolGrad", domain=IRGRAD_DOMAIN, defaults={"distinct": 0}, cost=costs.per_operand(1))
"""``MaxPoolGrad(dy, indices, x_shape)``: zeros of shape x_shape, with the elements of dy added at flat row-major indices.

Attributes:
    distinct: 1 where no index occurs twice.
"""


@max_pool_grad.kernel
@widened
def _(
    dy: np.ndarray, indices: np.ndarray, x_shape: np.ndarray, *, distinct: int = 0, out: np.ndarray | None = None
) -> np.ndarray:
    usable = out is not None and out.flags.c_contiguous
    dx = out if out is not None and usable else np.empty(tuple(x_shape.tolist()), dy.dtype)
    dx[...] = 0
    if distinct:
        dx.reshape(-1)[indices.reshape(-1)] = dy.reshape(-1)
    else:
        np.add.at(dx.reshape(-1), indices.reshape(-1), dy.reshape(-1))
    return dx if usable else deliver(dx, out)


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


@average_pool.kernel
@widened
def _(x: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
    windows = _windows(attrs, x.shape[2:])
    y = sum_pool(x, windows, out)
    np.divide(y, divisors(windows, bool(attrs["count_include_pad"]), y.dtype), out=y)
    return y


@average_pool.infer
def _(call: Call) -> Sequence[Type]:
    return [_pooled_type(call)]


@average_pool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return b.op("irgrad.AveragePoolGrad", dy, b.shape_of(node.operand(0)), **_geometry(node, "count_include_pad"))


average_pool_grad = ops.define(
    "AveragePoolGrad",
    domain=IRGRAD_DOMAIN,
    defaults={"auto_pad": "NOTSET", "ceil_mode": 0, "count_include_pad": 0},
    cost=costs.window_grad,
)
"""``AveragePoolGrad(dy, x_shape)``: the cotangent of x, of shape x_shape, where dy is that of AveragePool(x).

Attributes: those of AveragePool.
"""


@average_pool_grad.kernel
@widened
def _(dy: np.ndarray, x_shape: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
    windows = _windows(attrs, tuple(x_shape[2:].tolist()))
    return spread(dy / divisors(windows, bool(attrs["count_include_pad"]), dy.dtype), windows, out)


@average_pool_grad.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 1))]


@average_pool_grad.adjoint
def _(b: AdjointBuilder, node: Node, c: Value) -> list[Value | None]:
    return [b.op("AveragePool", c, **_geometry(node, "count_include_pad")), None]


@average_pool_grad.lower
def _(b: Builder, node: Node) -> Value:
    """Each plane as an image of one channel, in the adjoint of a convolution with ones."""
    dy, shape, kernel = node.operand(0), node.operand(1), node.attr("kernel_shape")
    share = dy / _window_sizes(b, node, shape, dy, include_padding=bool(node.attr("count_include_pad")))
    counts = known_sizes(dy.shape, len(kernel))
    if counts is not None:
        planes = b.ints([-1, 1, *counts])
    else:
        planes = b.op("Concat", b.ints([-1, 1]), b.op("Shape", dy, start=2), axis=0)
    ones = b.constant(np.ones((1, 1, *kernel), dy.dtype))
    return b.op("Reshape", lower_input_grad(b, b.op("Reshape", share, planes), ones, shape, _geometry(node)), shape)


def _window_sizes(b: Builder, node: Node, x_shape: Value, y: Value, *, include_padding: bool) -> Value:
    """How many positions each window of a pooling has, see `divisors`; it broadcasts to the pooling's result.

    Args:
        b: emits.
        node: has the attributes.
        x_shape: the shape of the pooling's operand.
        y: a value of the shape and dtype of its result.
        include_padding: count positions in the padding too.
    """
    attrs, rank = _geometry(node), len(node.attr("kernel_shape"))
    sizes = known_sizes(x_shape.contents, rank)
    if sizes is not None:
        return b.constant(divisors(_windows(attrs, sizes), include_padding, y.dtype), y.dtype)
    pads = explicit_pads(attrs, rank)
    if include_padding and (pads is None or not attrs.get("ceil_mode")):
        return b.scalar(prod(attrs["kernel_shape"]), y)
    # Otherwise they are counted when it runs, as the sums over a plane of ones.
    sides = b.op("Slice", x_shape, b.ints([2]), b.ints([rank + 2]), b.ints([0]))
    if include_padding and pads is not None:
        sides = sides + b.ints([begin + end for begin, end in pads])
        attrs = {name: value for name, value in attrs.items() if name not in ("auto_pad", "pads")}
    plane = b.op("ConstantOfShape", b.op("Concat", b.ints([1, 1]), sides, axis=0), value=np.ones(1, y.dtype))
    sums = b.op("LpPool", plane, p=1, **attrs)
    # A plane that has the padding in it may have one more window, which would start behind the image.
    return cut(b, sums, b.op("Shape", y, start=2), rank) if include_padding else sums


# --- LpPool -----------------------------------------------------------------------------------------------------------


def _powers(x: np.ndarray, p: int) -> np.ndarray:
    if p == 1:
        return np.asarray(np.absolute(x))
    return np.asarray(np.square(x) if p == 2 else np.power(np.absolute(x), x.dtype.type(p)))


def _root(sums: np.ndarray, p: int, out: np.ndarray | None) -> np.ndarray:
    if p == 1:
        return deliver(sums, out)
    return np.asarray(np.sqrt(sums, out=out) if p == 2 else np.power(sums, sums.dtype.type(1 / p), out=out))


def _norm_adjoint(b: Builder, node: Node, pull: Callable[[Value], Value], dy: Value) -> Value:
    """The adjoint of ``y = (sum of |x| ** p) ** (1 / p)``, which is ``sign(x) * |x| ** (p - 1) * pull(dy / y ** (p - 1))``.

    At a window of zeros the gradient is taken to be 0.

    Args:
        b: emits.
        node: has p, x and y.
        pull: the adjoint of the sum.
        dy: cotangent of y.
    """
    x = node.operand(0)
    p: int = node.attr("p")
    if p < 1:
        raise UnsupportedOpError(f"the norm of order {p} has no gradient; p must be at least 1")
    if p == 1:
        return b.op("Sign", x) * pull(dy)
    y = _nonzero(b, node.outputs[0])
    weight = x if p == 2 else x * _power(b.op("Abs", x), p - 2)
    return weight * pull(dy / _power(y, p - 1))


def _power(v: Value, exponent: int) -> Value:
    return v if exponent == 1 else v * v if exponent == 2 else v**exponent


lp_pool = ops.define("LpPool", cost=costs.window)


@lp_pool.kernel
@widened
def _(x: np.ndarray, *, p: int = 2, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
    return _root(sum_pool(_powers(x, p), _windows(attrs, x.shape[2:])), p, out)


@lp_pool.infer
def _(call: Call) -> Sequence[Type]:
    return [_pooled_type(call)]


@lp_pool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The sum over a window is its average times its size; with ceil_mode windows at the end may be smaller."""
    shape, even = b.shape_of(node.operand(0)), not node.attr("ceil_mode")

    def pull(v: Value) -> Value:
        sizes = _window_sizes(b, node, shape, dy, include_padding=even)
        return b.op("irgrad.AveragePoolGrad", v * sizes, shape, count_include_pad=int(even), **_geometry(node))

    return _norm_adjoint(b, node, pull, dy)


# --- over whole planes ------------------------------------------------------------------------------------------------


def _global_type(call: Call) -> Sequence[Type]:
    x = call.tensor(0)
    return [x if x.shape is None else x.with_shape((*x.shape[:2], *(1 for _ in x.shape[2:])))]


def _spatial(x: np.ndarray) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


global_average_pool = ops.define("GlobalAveragePool", cost=costs.per_operand(1))
global_average_pool.infer(_global_type)


@global_average_pool.kernel
@widened
def _(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return np.asarray(np.mean(x, _spatial(x), keepdims=True, out=out))


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


@global_lp_pool.kernel
@widened
def _(x: np.ndarray, *, p: int = 2, out: np.ndarray | None = None) -> np.ndarray:
    return _root(np.add.reduce(_powers(x, p), _spatial(x), keepdims=True), p, out)


@global_lp_pool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return _norm_adjoint(b, node, lambda v: v, dy)
