"""Picking elements by integer indices, and the sum that undoes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.accumulate import added_rows, wrapped
from irgrad.ops.channels import rank_of
from irgrad.ops.dims import count_of, dim_of, join_sizes, product_of, reshape_to, shape_operand
from irgrad.ops.index_compiled import picking_elements
from irgrad.ops.positions import summed_at, zeros_for
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Workspace, planned, shared_ranges, widened
from irgrad.types import Type

__all__ = ["added_elements", "added_slices", "element_rows", "nd_rows", "ops"]

ops = OpTable()

Locate: TypeAlias = "Callable[[np.ndarray, np.ndarray], np.ndarray]"
"""``locate(indices, work)`` → positions, flat."""


def _static(call: Call, operand: int) -> tuple[int, ...]:
    shape = call.tensor(operand).static_shape
    assert shape is not None
    return shape


# --- Gather -----------------------------------------------------------------------------------------------------------

gather = ops.define("Gather", cost=costs.gather)


@gather.prepare
@planned()
def _gather(call: Call) -> Kernel:
    shape, places = _static(call, 0), _static(call, 1)
    axis = call.attrs["axis"] % len(shape)
    size, inner, result = shape[axis], prod(shape[axis + 1 :]), (*shape[:axis], *places, *shape[axis + 1 :])
    space = Workspace()
    numbers = space.array(places, np.intp)
    # Along the first axis threads can share the indices.
    todo = shared_ranges(prod(places), prod(result) if prod(shape[:axis]) == 1 and inner else 0)

    def kernel(x: np.ndarray, indices: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        which = wrapped(indices, size, numbers(work))
        y = np.empty(result, x.dtype) if out is None else out
        if len(todo) == 1 or not x.flags.c_contiguous:
            return np.asarray(np.take(x, which, axis, y, mode="clip"))
        rows, flat, target = x.reshape(size, inner), which.reshape(-1), y.reshape(-1, inner)

        def some(share: int) -> None:
            for first, last in todo[share]:
                np.take(rows, flat[first:last], 0, target[first:last], mode="clip")

        parallel(some, range(len(todo)))
        return y

    return space.kernel(kernel)


@gather.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    x, indices = node.operand(0), node.operand(1)
    return (b.op("irgrad.GatherGrad", dy, indices, b.shape_of(x), axis=node.attr("axis")),)


gather_grad = ops.define("GatherGrad", domain=IRGRAD_DOMAIN, defaults={"axis": 0}, cost=costs.per_operand(1))
"""``GatherGrad(dy, indices, shape)``: zeros of `shape` to which each slice of dy is added at its index along `axis`.

The adjoint of ``Gather(x, indices)`` with x of `shape`: an index that comes several times gets the sum.
"""


@gather_grad.prepare
@planned(2)
@widened
def _gather_grad(call: Call) -> Kernel:
    target, places = tuple(call.constants[2].tolist()), _static(call, 1)
    axis = call.attrs["axis"] % len(target)
    outer, size, inner, count = prod(target[:axis]), target[axis], prod(target[axis + 1 :]), prod(places)
    space = Workspace()
    numbers = space.array((outer, count), np.intp)
    starts = np.arange(outer)[:, None] * size
    add = added_rows(space, (outer * size, inner), outer * count, call.tensor(0).dtype)

    def kernel(
        dy: np.ndarray, indices: np.ndarray, _: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        result = np.zeros(target, dy.dtype) if out is None else out
        if out is not None:
            result.fill(0)
        if not outer * count * inner:
            return result
        rows = numbers(work)
        wrapped(indices, size, rows[0].reshape(places))
        np.add(starts[1:], rows[0], out=rows[1:])
        add(result.reshape(outer * size, inner), rows.reshape(-1), dy.reshape(-1, inner), work)
        return result

    return space.kernel(kernel)


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


def element_rows(space: Workspace, shape: tuple[int, ...], indices: tuple[int, ...], axis: int) -> Locate:
    """Where the indices of GatherElements and ScatterElements lead to: to elements of x, counted through all of them.

    Args:
        space: where the positions are kept.
        shape: that of x.
        indices: the shape of the indices.
        axis: along which they are.
    """
    if not shape:
        raise ValueError("a tensor without axes has no elements along one")
    axis %= len(shape)
    numbers, size, step = space.array(indices, np.intp), shape[axis], prod(shape[axis + 1 :])
    others = np.zeros((1,) * len(shape), np.intp), np.zeros((1,) * len(shape), np.intp)
    before, behind = (
        sum((np.arange(indices[a]).reshape(-1, *(1,) * (len(shape) - a - 1)) * prod(shape[a + 1 :]) for a in axes), start)
        for axes, start in zip((range(axis), range(axis + 1, len(shape))), others, strict=True)
    )

    def locate(places: np.ndarray, work: np.ndarray) -> np.ndarray:
        rows = wrapped(places, size, numbers(work))
        if step != 1:
            np.multiply(rows, step, out=rows)
        for offset in (before, behind):
            if offset.size != 1:
                np.add(rows, offset, out=rows)
        return rows.reshape(-1)

    return locate


gather_elements = ops.define("GatherElements", cost=costs.gather)


@gather_elements.prepare
@planned()
def _gather_elements(call: Call) -> Kernel:
    shapes = _static(call, 0), _static(call, 1)
    return picking_elements(call, _picked(call, lambda space: element_rows(space, *shapes, call.attrs["axis"]), ()))


def _picked(call: Call, find: Callable[[Workspace], Locate], inner: tuple[int, ...], lead: int | None = None) -> Kernel:
    """Slices of x of the shape `inner`, at places that its second operand tells, in the shape of its first axes."""
    places, space = _static(call, 1), Workspace()
    locate, result = find(space), (*places[:lead], *inner)

    def kernel(x: np.ndarray, indices: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y = np.empty(result, x.dtype) if out is None else out
        if not y.size:
            return y
        rows = locate(indices, work)
        if not inner:
            np.take(x.reshape(-1), rows, 0, y.reshape(-1), mode="clip")
        else:
            np.take(x.reshape(-1, prod(inner)), rows, 0, y.reshape(len(rows), prod(inner)), mode="clip")
        return y

    return space.kernel(kernel)


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


def nd_rows(space: Workspace, shape: tuple[int, ...], indices: tuple[int, ...], batch_dims: int = 0) -> Locate:
    """Where the indices of GatherND and ScatterND lead to: to slices of the last axes of x, counted through all of them.

    Args:
        space: where the positions are kept.
        shape: that of x.
        indices: the shape of the indices, of which the last axis makes a place.
        batch_dims: how many first axes x and the indices share.
    """
    *grid, count = indices
    numbers, coordinate = space.array(grid, np.intp), space.array(grid, np.intp)
    sizes = shape[batch_dims : batch_dims + count]
    steps = [prod(sizes[k + 1 :]) for k in range(count)]
    start = np.zeros((1,) * len(grid), np.intp)
    for axis in range(batch_dims):
        step = prod(shape[axis + 1 : batch_dims + count])
        start = start + np.arange(grid[axis]).reshape(-1, *(1,) * (len(grid) - axis - 1)) * step

    def locate(places: np.ndarray, work: np.ndarray) -> np.ndarray:
        rows, part = numbers(work), coordinate(work)
        np.copyto(rows, start)
        for k, (size, step) in enumerate(zip(sizes, steps, strict=True)):
            wrapped(places[..., k], size, part)
            if step != 1:
                np.multiply(part, step, out=part)
            np.add(rows, part, out=rows)
        return rows.reshape(-1)

    return locate


gather_nd = ops.define("GatherND", cost=costs.gather)


@gather_nd.prepare
@planned()
def _gather_nd(call: Call) -> Kernel:
    shape, indices, batch_dims = _static(call, 0), _static(call, 1), call.attrs["batch_dims"]
    inner = shape[batch_dims + indices[-1] :]
    return _picked(call, lambda space: nd_rows(space, shape, indices, batch_dims), inner, -1)


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
