"""Shapes: reading them, changing them without moving elements, making tensors out of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

import numpy as np
from onnx import helper

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.kernels.shapes import shape_of
from irgrad.kernels.sums import Sum
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, Kernel, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.dims import shape_operand, shaped_like
from irgrad.runtime.kernels import deliver
from irgrad.runtime.workspace import Workspace, planned, widened
from irgrad.types import Dim, TensorType, Type

ops = OpTable()

# --- the same elements under another shape ----------------------------------------------------------------------------


reshape = ops.define("Reshape", view=True)


@reshape.kernel
def _reshape(x: np.ndarray, shape: np.ndarray, *, allowzero: int = 0, out: np.ndarray | None = None) -> np.ndarray:
    target = shape.tolist()
    if not allowzero:
        target = [x.shape[axis] if size == 0 and axis < x.ndim else size for axis, size in enumerate(target)]
    return deliver(x.reshape(target), out)


@reshape.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    return (shaped_like(b, dy, node.operand(0)),)


flatten = ops.define("Flatten", view=True)


@flatten.kernel
def _flatten(x: np.ndarray, *, axis: int = 1, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(x.reshape(prod(x.shape[:axis]), prod(x.shape[axis:])), out)


@flatten.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return shaped_like(b, dy, node.operand(0))


squeeze = ops.define("Squeeze", view=True)


@squeeze.kernel
def _squeeze(x: np.ndarray, axes: np.ndarray | None = None, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.squeeze(x, None if axes is None else tuple(axes.reshape(-1).tolist())), out)


@squeeze.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    return (_undone_by(b, node, "Unsqueeze", dy),)


unsqueeze = ops.define("Unsqueeze", view=True)


@unsqueeze.kernel
def _unsqueeze(x: np.ndarray, axes: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.expand_dims(x, tuple(axes.reshape(-1).tolist())), out)


@unsqueeze.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    return (_undone_by(b, node, "Squeeze", dy),)


def _undone_by(b: Builder, node: Node, inverse: str, dy: Value) -> Value:
    """The cotangent of a Squeeze or Unsqueeze: the other one, whose axes count in the same, larger, number of axes."""
    axes = node.input(1)
    if axes is not None and axes.contents:  # an empty list means every axis of size 1 to some runtimes
        return b.op(inverse, dy, axes)
    return shaped_like(b, dy, node.operand(0))


# --- broadcasting to a shape, and back --------------------------------------------------------------------------------

expand = ops.define("Expand", broadcasts=(0,), view=True)


@expand.kernel
def _expand(x: np.ndarray, shape: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape.tolist()))), out)


@expand.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    return (dy,)


sum_to = ops.define("SumTo", domain=IRGRAD_DOMAIN, cost=costs.sum_to)
"""``SumTo(x, shape)``: x summed over the axes along which a tensor of `shape` was broadcast to the shape of x."""


@sum_to.prepare
@planned(1)
@widened
def _sum_to(call: Call) -> Kernel:
    shape, target, dtype = shape_of(call, 0), tuple(call.constants[1].tolist()), call.tensor(0).dtype
    extra = len(shape) - len(target)
    axes = [*range(extra), *(k + extra for k, d in enumerate(target) if d == 1 != shape[k + extra])]
    space = Workspace()
    total = Sum(space, shape, axes, dtype)

    def kernel(x: np.ndarray, to: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        return total(x, out=np.empty(target, dtype) if out is None else out, work=work)

    return space.kernel(kernel)


@sum_to.infer
def _sum_to_type(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 1))]


@sum_to.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, None]:
    return b.op("Expand", dy, b.shape_of(node.operand(0))), None


@sum_to.lower
def _(b: Builder, node: Node) -> Value:
    """A ReduceSum over the axes where the shape, filled up with ones from the left, is 1; then a Reshape.

    An axis of size 1 on both sides is summed over its only element, so that the axes follow from the shape alone.
    """
    x, shape = node.operand(0), node.operand(1)
    length = shape.tensor_type.static_shape
    if x.rank is None or length is None:
        extra = b.op("Sub", b.op("Size", b.op("Shape", x)), b.op("Size", shape))
        missing = b.op("Reshape", extra, b.ints([1]))
        ones: Value | None = b.op("ConstantOfShape", missing, value=np.ones(1, np.int64))
    else:
        ones = b.ints([1] * (x.rank - length[0])) if x.rank > length[0] else None
    full = shape if ones is None else b.op("Concat", ones, shape, axis=0)
    if full.contents is not None and all(isinstance(d, int) for d in full.contents):
        axes = [axis for axis, size in enumerate(full.contents) if size == 1]
        summed = b.reduce_sum(x, axes, keepdims=True)
    else:
        places = b.op("Reshape", b.op("NonZero", b.op("Equal", full, b.ints([1]))), b.ints([-1]))
        summed = b.op("ReduceSum", x, places, keepdims=1, noop_with_empty_axes=1)
    return summed if ones is None else b.op("Reshape", summed, shape, allowzero=1)


# --- shapes as tensors ------------------------------------------------------------------------------------------------

shape_ = ops.define("Shape", gradient=ZERO, cost=costs.nothing)


@shape_.kernel
def _shape(x: np.ndarray, *, start: int = 0, end: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.array(x.shape[start:end], np.int64), out)


size_of = ops.define("Size", gradient=ZERO, cost=costs.nothing)


@size_of.kernel
def _size(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.array(x.size, np.int64), out)


# Only in graphs that were written by hand: readers make a constant of it.
ops.define("Constant", gradient=ZERO, cost=costs.nothing)

constant_of_shape = ops.define("ConstantOfShape", gradient=ZERO, cost=costs.moves)


@constant_of_shape.kernel
def _constant_of_shape(shape: np.ndarray, *, value: np.ndarray | None = None, out: np.ndarray | None = None) -> np.ndarray:
    fill = np.zeros((), np.float32) if value is None else value.reshape(())
    if out is not None:
        out.fill(fill)
        return out
    if not any(fill.tobytes()):  # memory that is zero already, and not touched before it is used
        return np.zeros(tuple(shape.tolist()), fill.dtype)
    return np.full(tuple(shape.tolist()), fill, fill.dtype)


eye_like = ops.define("EyeLike", gradient=ZERO, cost=costs.moves)


@eye_like.kernel
def _eye_like(x: np.ndarray, *, k: int = 0, dtype: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
    element = x.dtype if dtype is None else helper.tensor_dtype_to_np_dtype(dtype)
    return deliver(np.eye(x.shape[0], x.shape[1], k).astype(element), out)


range_ = ops.define("Range")


def _float_count(start: np.ndarray, limit: np.ndarray, delta: np.ndarray) -> int:
    """How many elements a Range of floating-point numbers has.

    The quotient is formed in float64, as onnxruntime and numpy do; the type inference of onnx subtracts in the operands'
    own type and may be one off.
    """
    return max(ceil((float(limit.item()) - float(start.item())) / float(delta.item())), 0)


@range_.infer
def _range_type(call: Call) -> Sequence[Type]:
    operands = [call.tensor(k) for k in range(3)]
    dtype = operands[0].dtype
    # Real files, and onnx's own definition of AffineGrid, hand over tensors of one element too.
    if any(operand.dtype != dtype or operand.shape not in (None, (), (1,), (None,)) for operand in operands):
        raise TypeInferenceError(f"a Range takes three scalars of one type, not {', '.join(map(str, operands))}")
    return [TensorType(dtype, (_range_size(call, dtype),))]


def _range_size(call: Call, dtype: np.dtype) -> Dim:
    bounds = [call.contents[k][0] for k in range(3) if k in call.contents]
    arrays = [call.constants[k] for k in range(3) if k in call.constants]
    if dtype.kind not in "iu":
        return _float_count(*arrays) if len(arrays) == 3 and arrays[2] != 0 else None
    numbers = [bound for bound in bounds if isinstance(bound, int)]
    if len(numbers) == 3:
        if numbers[2] == 0:
            raise TypeInferenceError("a Range has a delta of 0")
        return len(range(*numbers))
    # A symbol is a size, hence not negative.
    return bounds[1] if len(bounds) == 3 and bounds[0] == 0 and bounds[2] == 1 else None


@range_.prepare
def _range(call: Call) -> Kernel:
    """The elements are formed in float64 (integers: exactly) and rounded once, whatever ``stash_type`` allows."""
    dtype = call.tensor(0).dtype
    exact = dtype.kind in "iu"

    def kernel(start: np.ndarray, limit: np.ndarray, delta: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        if exact:
            whole = range(start.item(), limit.item(), delta.item())
            return deliver(np.arange(len(whole), dtype=np.int64).astype(dtype) * delta + start, out)
        numbers = float(start.item()) + float(delta.item()) * np.arange(_float_count(start, limit, delta))
        return deliver(numbers.astype(dtype), out)

    return kernel


@range_.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, Zero, Value | None]:
    """Element i is ``start + i * delta``; the limit only decides how many there are."""
    start, _, delta = (node.operand(k) for k in range(3))
    dstart = ddelta = None
    if b.needs(start):
        dstart = shaped_like(b, b.reduce_sum(dy, None), start)
    if b.needs(delta):
        counter = b.cast(b.op("Range", 0, b.op("Size", dy), 1), dy.dtype)
        ddelta = shaped_like(b, b.reduce_sum(dy * counter, None), delta)
    return dstart, ZERO, ddelta
