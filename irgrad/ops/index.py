"""Picking elements by integer indices, and the sum that undoes it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, OpTable
from irgrad.ops import costs
from irgrad.ops.accumulate import accumulate_rows, in_range
from irgrad.ops.channels import rank_of
from irgrad.ops.dims import count_of, dim_of, join_sizes, product_of, reshape_to, shape_operand
from irgrad.ops.positions import summed_at, zeros_for
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import Type

__all__ = ["added_elements", "added_slices", "element_index", "nd_index", "ops"]

ops = OpTable()

# --- Gather -----------------------------------------------------------------------------------------------------------

gather = ops.define("Gather", cost=costs.gather)


@gather.kernel
def _gather(x: np.ndarray, indices: np.ndarray, *, axis: int = 0, out: np.ndarray | None = None) -> np.ndarray:
    return np.asarray(np.take(x, indices, axis, out))


@gather.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    x, indices = node.operand(0), node.operand(1)
    return (b.op("irgrad.GatherGrad", dy, indices, b.shape_of(x), axis=node.attr("axis")),)


gather_grad = ops.define("GatherGrad", domain=IRGRAD_DOMAIN, defaults={"axis": 0}, cost=costs.per_operand(1))
"""``GatherGrad(dy, indices, shape)``: zeros of `shape` to which each slice of dy is added at its index along `axis`.

The adjoint of ``Gather(x, indices)`` with x of `shape`: an index that comes several times gets the sum.
"""


@gather_grad.kernel
def _gather_grad(
    dy: np.ndarray, indices: np.ndarray, shape: np.ndarray, *, axis: int, out: np.ndarray | None = None
) -> np.ndarray:
    target = tuple(shape.tolist())
    axis %= len(target)
    outer, size, inner = prod(target[:axis]), target[axis], prod(target[axis + 1 :])
    rows = in_range(indices.reshape(-1), size)
    values = dy.reshape(outer, len(rows), inner)
    result = np.zeros((outer, size, inner), accumulation_dtype(dy.dtype))
    if (rows[1:] > rows[:-1]).all():  # none comes twice
        result[:, rows] = values
    else:
        if outer != 1:
            rows = (np.arange(outer)[:, None] * size + rows).reshape(-1)
        accumulate_rows(np.add, result.reshape(-1, inner), rows, values.reshape(-1, inner))
    return deliver(result.reshape(target).astype(dy.dtype, copy=False), out)


@gather_grad.infer
def _gather_grad_type(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 2))]


@gather_grad.adjoint
def _(b: AdjointBuilder, node: Node, dx: Value) -> tuple[Value]:
    return (b.op("Gather", dx, node.operand(1), axis=node.attr("axis")),)


@gather_grad.lower
def _(b: Builder, node: Node) -> Value:
    return added_slices(b, node.operand(0), node.operand(1), node.operand(2), node.attr("axis"))


def added_slices(b: Builder, dy: Value, indices: Value, shape: Value, axis: int) -> Value:
    """What GatherGrad means, in standard operations.

    A ScatterND onto zeros whose indexed axis comes first, all axes before it and all behind it made one.
    """
    indices = b.cast(indices, np.dtype(np.int64))
    if axis == 0:
        return _added_rows(b, dy, b.op("Unsqueeze", indices, b.ints([-1])), shape)
    after = None if axis == -1 else axis + 1
    outer, size = product_of(b, shape, 0, axis), product_of(b, shape, axis, after)
    inner = 1 if after is None else product_of(b, shape, after, None)
    values = b.op("Transpose", reshape_to(b, dy, outer, count_of(b, indices), inner), perm=(1, 0, 2))
    summed = _added_rows(b, values, b.op("Reshape", indices, b.ints([-1, 1])), join_sizes(b, size, outer, inner))
    return b.op("Reshape", b.op("Transpose", summed, perm=(1, 0, 2)), shape, allowzero=1)


def _added_rows(b: Builder, rows: Value, places: Value, shape: Value) -> Value:
    """Zeros of a shape with rows added at places, as ScatterND takes them."""
    return summed_at(b, rows, lambda r: b.op("ScatterND", zeros_for(b, r, shape), places, r, reduction="add"))


# --- GatherElements ---------------------------------------------------------------------------------------------------


def element_index(x: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """The index of numpy that means what GatherElements and ScatterElements mean by `indices` along an axis of x."""
    grid: list[np.ndarray] = list(np.ogrid[tuple(slice(size) for size in indices.shape)])
    grid[axis] = in_range(indices, x.shape[axis])
    return tuple(grid)


gather_elements = ops.define("GatherElements", cost=costs.gather)


@gather_elements.kernel
def _gather_elements(x: np.ndarray, indices: np.ndarray, *, axis: int = 0, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(x[element_index(x, indices, axis)], out)


@gather_elements.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    x, indices = node.operand(0), node.operand(1)
    return (added_elements(b, dy, indices, b.shape_of(x), node.attr("axis")),)


def added_elements(b: Builder, values: Value, indices: Value, shape: Value, axis: int) -> Value:
    """Zeros of a shape with values added where indices along an axis say, as ScatterElements takes them."""

    def scatter(v: Value) -> Value:
        return b.op("ScatterElements", zeros_for(b, v, shape), indices, v, axis=axis, reduction="add")

    return summed_at(b, values, scatter)


# --- GatherND ---------------------------------------------------------------------------------------------------------


def nd_index(x: np.ndarray, indices: np.ndarray, batch_dims: int = 0) -> tuple[np.ndarray, ...]:
    """The index of numpy that means what GatherND and ScatterND mean by the last axis of `indices` into x."""
    count = indices.shape[-1]
    sizes = x.shape[batch_dims : batch_dims + count]
    places = [in_range(indices[..., k], size) for k, size in enumerate(sizes)]
    grid = np.ogrid[tuple(slice(size) for size in indices.shape[:-1])]
    return (*grid[:batch_dims], *places)


gather_nd = ops.define("GatherND", cost=costs.gather)


@gather_nd.kernel
def _gather_nd(x: np.ndarray, indices: np.ndarray, *, batch_dims: int = 0, out: np.ndarray | None = None) -> np.ndarray:
    return deliver(x[nd_index(x, indices, batch_dims)], out)


@gather_nd.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    x, indices = node.operand(0), node.operand(1)
    full = [*_batch_coordinates(b, indices, node.attr("batch_dims")), indices]
    everywhere = b.op("Concat", *full, axis=-1) if len(full) > 1 else indices
    return (_added_rows(b, dy, everywhere, b.shape_of(x)),)


def _batch_coordinates(b: Builder, indices: Value, batch_dims: int) -> list[Value]:
    """What to put before the indices of a GatherND with batch axes so that they mean the same without."""
    if not batch_dims:
        return []
    rank = rank_of(indices)
    static = indices.tensor_type.static_shape
    if static is not None:
        grid = np.indices(static[:-1], np.int64)[:batch_dims]
        return [b.constant(np.moveaxis(grid, 0, -1))]
    zeros = b.op("Slice", indices, b.ints([0]), b.ints([1]), b.ints([rank - 1])) * 0
    found = []
    for axis in range(batch_dims):
        size = b.op("Squeeze", join_sizes(b, dim_of(b, indices, axis)))
        others = b.ints([k for k in range(rank) if k != axis])
        found.append(b.op("Unsqueeze", b.op("Range", 0, size, 1), others) + zeros)
    return found
