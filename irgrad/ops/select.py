"""Elements chosen by what they are: TopK, Compress, NonZero, Unique; and OneHot, which goes the other way."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import ZERO, Call, Kernel, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.dims import count_of, join_sizes, shaped_like
from irgrad.ops.index import added_elements
from irgrad.runtime.kernels import accumulation_dtype, deliver, deliver_all
from irgrad.runtime.workspace import Workspace, planned

ops = OpTable()

# --- the largest ------------------------------------------------------------------------------------------------------

top_k = ops.define("TopK", cost=costs.per_operand(1))


@top_k.kernel
def _top_k(
    x: np.ndarray,
    k: np.ndarray,
    *,
    axis: int = -1,
    largest: int = 1,
    sorted: int = 1,
    out: Any = None,
) -> tuple[np.ndarray, ...]:
    """Of equal elements the one of the lower index comes first. NaN counts as the largest."""
    count, lines = int(k.item()), np.moveaxis(x, axis, -1)
    length = lines.shape[-1]
    if not 0 <= count <= length:
        raise ValueError(f"k is {count}, but there are {length} elements along axis {axis}")
    wide = lines.astype(accumulation_dtype(x.dtype), copy=False)
    if 0 < 8 * count < length and not np.isnan(wide).any():
        candidates = _candidates(wide, count, bool(largest))
        order = np.take_along_axis(candidates, _order(np.take_along_axis(wide, candidates, -1), count, bool(largest)), -1)
    else:
        order = _order(wide, count, bool(largest))
    values = np.moveaxis(np.take_along_axis(lines, order, -1), -1, axis)
    return deliver_all((values, np.moveaxis(order, -1, axis).astype(np.int64, copy=False)), out)


def _order(lines: np.ndarray, count: int, largest: bool) -> np.ndarray:
    """The positions of the first `count` elements of each line in order."""
    if not largest:
        return np.argsort(lines, -1, kind="stable")[..., :count]
    # A stable sort puts equal elements in the order of their indices; read from the end, that must be the reverse.
    order: np.ndarray = lines.shape[-1] - 1 - np.argsort(lines[..., ::-1], -1, kind="stable")[..., : -count - 1 : -1]
    return order


def _candidates(lines: np.ndarray, count: int, largest: bool) -> np.ndarray:
    """The positions of those elements in ascending order, without sorting the others."""
    last = lines.shape[-1] - count if largest else count - 1
    bound = np.partition(lines, last, -1)[..., last, None]
    better, tied = (lines > bound if largest else lines < bound), lines == bound
    chosen = better | (tied & (np.cumsum(tied, -1) <= count - np.count_nonzero(better, -1, keepdims=True)))
    return np.nonzero(chosen)[-1].reshape(*lines.shape[:-1], count)


@top_k.adjoint
def _(b: AdjointBuilder, node: Node, dvalues: Value | None, dindices: None = None) -> Sequence[Value | None]:
    """The indices count as constant: where two elements are equal the gradient is that of the one that was chosen."""
    x = node.operand(0)
    if dvalues is None:
        return []
    # No index comes twice, so that adding is putting; its own adjoint is the simpler one.
    return [added_elements(b, dvalues, node.outputs[1], b.shape_of(x), node.attr("axis"))]


# --- by a condition ---------------------------------------------------------------------------------------------------

compress = ops.define("Compress", cost=costs.moves)


@compress.kernel
def _compress(x: np.ndarray, condition: np.ndarray, *, axis: int | None = None, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(np.compress(condition, x, axis), out)


@compress.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    chosen = b.op("Squeeze", b.op("NonZero", node.operand(1)), b.ints([0]))
    return (_taken(b, node.operand(0), chosen, dy, node.attr("axis")),)


non_zero = ops.define("NonZero", gradient=ZERO, cost=costs.per_operand(1))


@non_zero.kernel
def _non_zero(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    places = np.nonzero(x.reshape(1) if x.ndim == 0 else x)
    return deliver(np.array(places if x.ndim else places[:0], np.int64).reshape(x.ndim, len(places[0])), out)


unique = ops.define("Unique", cost=costs.per_operand(1))


@unique.kernel
def _unique(x: np.ndarray, *, axis: int | None = None, sorted: int = 1, out: Any = None) -> tuple[np.ndarray, ...]:
    values, first, inverse, counts = np.unique(x, True, True, True, axis)
    inverse = inverse.reshape(-1)
    if not sorted:
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        values, first, inverse, counts = np.take(values, order, axis or 0), first[order], rank[inverse], counts[order]
    return deliver_all([values, *(v.astype(np.int64, copy=False) for v in (first, inverse, counts))], out)


@unique.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value | None, *others: None) -> Sequence[Value | None]:
    """Of equal elements the first one, which the output `indices` tells, gets the whole cotangent."""
    if dy is None:
        return []
    return [_taken(b, node.operand(0), b.further_output(node, 1), dy, node.attr("axis"))]


def _taken(b: Builder, x: Value, indices: Value, dy: Value, axis: int | None) -> Value:
    """The cotangent of an operand whose slices at some indices along an axis have been taken (of all of it for no axis)."""
    if axis is not None:
        return b.op("irgrad.GatherGrad", dy, indices, b.shape_of(x), axis=axis)
    flat = b.op("irgrad.GatherGrad", dy, indices, join_sizes(b, count_of(b, x)))
    return shaped_like(b, flat, x)


# --- one-hot ----------------------------------------------------------------------------------------------------------

one_hot = ops.define("OneHot", cost=costs.moves)


@one_hot.prepare
@planned(1)
def _one_hot(call: Call) -> Kernel:
    """An index beyond the depth on either side makes no position hot."""
    indices, dtype, space = call.tensor(0), call.tensor(2).dtype, Workspace()
    assert indices.static_shape is not None
    shape, size, fractions = indices.static_shape, int(call.constants[1].item()), indices.dtype.kind == "f"
    axis = call.attrs["axis"] % (len(shape) + 1)
    inner, result = prod(shape[axis:]), (*shape[:axis], size, *shape[axis:])
    starts = (np.arange(prod(shape[:axis]))[:, None] * (size * inner) + np.arange(inner)).reshape(shape)
    numbers, places = space.array(shape, np.float64 if fractions else np.int64), space.array(shape, np.intp)
    whole, nowhere, beyond = (space.array(shape, t) for t in (np.float64, np.bool_, np.bool_))
    hot = None if dtype.hasobject else space.array(shape, dtype)

    def kernel(
        indices: np.ndarray, _: np.ndarray, values: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        y = np.empty(result, dtype) if out is None else out
        y[...] = values[0]
        if not y.size:
            return y
        given, found, missed, other = numbers(work), places(work), nowhere(work), beyond(work)
        np.copyto(given, indices, casting="unsafe")
        if fractions:
            np.not_equal(given, np.trunc(given, out=whole(work)), out=missed)
        else:
            missed.fill(False)
        np.copyto(found, given, casting="unsafe")
        for limit, outside in ((-size, np.less), (size, np.greater_equal)):
            np.logical_or(missed, outside(found, limit, out=other), out=missed)
        # What is nowhere puts the cold value into its line, which has no other.
        marks = np.empty(shape, dtype) if hot is None else hot(work)
        marks[...] = values[1]
        np.putmask(marks, missed, values[0])
        np.remainder(found, size, out=found)
        np.add(np.multiply(found, inner, out=found), starts, out=found)
        np.put(y, found, marks, mode="clip")
        return y

    return space.kernel(kernel)


@one_hot.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Sequence[Value | Zero | None]:
    """Each of the two values gets the sum over the positions where it is; indices and depth count in steps."""
    if not b.needs(node.operand(2)):
        return [ZERO, ZERO, None]
    indices, depth = node.operand(0), node.operand(1)
    # onnxruntime has no kernel that makes truth values at once.
    hot = b.cast(b.op("OneHot", indices, depth, np.array([0, 1], np.float32), axis=node.attr("axis")), np.dtype(np.bool_))
    zero = b.scalar(0, dy)
    parts = [b.op("Where", hot, zero, dy), b.op("Where", hot, dy, zero)]
    sums = [b.op("Reshape", b.reduce_sum(part, None), b.ints([1])) for part in parts]
    return [ZERO, ZERO, b.op("Concat", *sums, axis=0)]
