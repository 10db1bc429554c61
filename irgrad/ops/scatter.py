"""Putting elements at places told by integer indices: ScatterElements, ScatterND and TensorScatter.

The first two differ only in how indices tell places, which `_Places` hides. Where an index comes twice and the reduction is
"none", the specification leaves the result open: here the later update wins (in the order of the updates' elements), and
only the one that wins gets a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.op import Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.accumulate import accumulate_rows, added_rows, places_size, put_rows
from irgrad.ops.channels import rank_of
from irgrad.ops.dims import count_of, dim_of, join_sizes
from irgrad.ops.index import Locate, element_rows, nd_rows
from irgrad.ops.index_compiled import adding_elements
from irgrad.ops.positions import positions
from irgrad.runtime.workspace import Workspace, planned, widened

ops = OpTable()

_UFUNCS: dict[str, np.ufunc | None] = {"none": None, "add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}

# --- kernels ----------------------------------------------------------------------------------------------------------


def _scattering(call: Call, find: Callable[[Workspace], Locate]) -> Kernel:
    """A copy of x with the updates at places; these are elements of x, or slices of its last axes."""
    reduction = call.attrs["reduction"]
    if reduction not in _UFUNCS:
        raise ValueError(f"the reduction {reduction!r} is none of {', '.join(_UFUNCS)}")
    ufunc, space = _UFUNCS[reduction], Workspace()
    locate, (shape, indices, updates) = find(space), (call.tensor(k).static_shape for k in range(3))
    assert shape is not None and indices is not None and updates is not None
    count = prod(indices[:-1] if call.op is scatter_nd else indices)
    width = prod(updates) // max(count, 1)
    height = prod(shape) // max(width, 1)
    if ufunc is np.add:
        add = added_rows(space, (height, width), count, call.tensor(0).dtype)
    else:
        place = space.array((places_size(count, width),), np.intp)

    def kernel(
        x: np.ndarray, places: np.ndarray, updates: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        result = np.empty(shape, x.dtype) if out is None else out
        np.copyto(result, x)
        if not (x.size and updates.size):
            return result
        rows, target, values = locate(places, work), result.reshape(height, width), updates.reshape(count, width)
        # In their order, so that of several updates of one place the last one is written last.
        if ufunc is None:
            put_rows(target, rows, values)
        elif ufunc is np.add:
            add(target, rows, values, work)
        else:
            accumulate_rows(ufunc, target, rows, values, place(work))
        return result

    return space.kernel(kernel)


def _shapes(call: Call) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape, indices = (call.tensor(k).static_shape for k in (0, 1))
    assert shape is not None and indices is not None
    return shape, indices


scatter_elements = ops.define("ScatterElements", cost=costs.scatter, in_place=(0,))


@scatter_elements.prepare
@planned()
@widened
def _scatter_elements(call: Call) -> Kernel:
    plain = _scattering(call, lambda space: element_rows(space, *_shapes(call), call.attrs["axis"]))
    return adding_elements(call, plain) if call.attrs["reduction"] == "add" else plain


scatter_nd = ops.define("ScatterND", cost=costs.scatter, in_place=(0,))


@scatter_nd.prepare
@planned()
@widened
def _scatter_nd(call: Call) -> Kernel:
    return _scattering(call, lambda space: nd_rows(space, *_shapes(call)))


# --- adjoints ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Places:
    """The places that a node's indices tell, in tensors of the shape of its data."""

    b: Builder
    node: Node

    def pick(self, source: Value) -> Value:
        """What a tensor holds at the places, in the shape of the updates."""
        indices = self.node.operand(1)
        if self.node.op.name == "ScatterND":
            return self.b.op("GatherND", source, indices)
        return self.b.op("GatherElements", source, indices, axis=self.node.attr("axis"))

    def put(self, target: Value, updates: Value, reduction: str | None = None) -> Value:
        """A tensor with updates at the places."""
        axis = None if self.node.op.name == "ScatterND" else self.node.attr("axis")
        return self.b.op(self.node.op.name, target, self.node.operand(1), updates, axis=axis, reduction=reduction)

    def positions(self) -> Value:
        """The position in the data, counted through all of its elements, that each element of the updates goes to."""
        return self.pick(positions(self.b, self.b.shape_of(self.node.operand(0))))

    @property
    def distinct(self) -> bool:
        """Whether no place is known to come twice."""
        data, array = self.node.operand(0), self.node.operand(1).constant
        if array is None:
            return False
        by_tuple = self.node.op.name == "ScatterND"
        if (array < 0).any():
            axis = self.node.attr("axis")
            sizes = None if data.shape is None else data.shape[: array.shape[-1]] if by_tuple else (data.shape[axis],)
            known = [size for size in sizes or () if isinstance(size, int)]
            if sizes is None or len(known) < len(sizes):
                return False
            array = np.where(array < 0, array + np.array(known), array)
        if by_tuple:
            tuples = array.reshape(-1, array.shape[-1])
            return len(np.unique(tuples, axis=0)) == len(tuples)
        axis = self.node.attr("axis")
        return bool((np.diff(np.sort(array, axis), axis=axis) > 0).all())


def _adjoint(b: AdjointBuilder, node: Node, dy: Value) -> Sequence[Value | None]:
    rule = _ADJOINTS.get(node.attr("reduction"))
    if rule is None:
        raise UnsupportedOpError(f"the reduction {node.attr('reduction')!r} is none of {', '.join(_ADJOINTS)}")
    ddata, dupdates = rule(_Places(b, node), b, node, dy)
    return [ddata, None, dupdates]


scatter_elements.adjoint(_adjoint)
scatter_nd.adjoint(_adjoint)

_Pair: TypeAlias = "tuple[Value | None, Value | None]"


def _of_none(places: _Places, b: AdjointBuilder, node: Node, dy: Value) -> _Pair:
    data, updates = node.operand(0), node.operand(2)
    ddata = dupdates = None
    if b.needs(data):
        ddata = places.put(dy, b.zeros_like(updates))
    if b.needs(updates):
        dupdates = places.pick(dy)
        if not places.distinct:
            dupdates = b.op("Where", _winners(places, b, data, updates), dupdates, b.scalar(0, dy))
    return ddata, dupdates


def _winners(places: _Places, b: Builder, data: Value, updates: Value) -> Value:
    """Which elements of the updates are the last ones written to their place."""
    numbers = positions(b, b.shape_of(updates))
    unwritten = b.op("ConstantOfShape", b.shape_of(data), value=np.zeros(1, np.int64))
    return b.op("Equal", places.pick(places.put(unwritten, numbers)), numbers)


def _of_add(places: _Places, b: AdjointBuilder, node: Node, dy: Value) -> _Pair:
    return dy, places.pick(dy) if b.needs(node.operand(2)) else None


def _of_mul(places: _Places, b: AdjointBuilder, node: Node, dy: Value) -> _Pair:
    """Each factor's cotangent is dy times the other factors; nothing is divided by, so that zeros are nothing special."""
    data, updates = node.operand(0), node.operand(2)
    ddata = dupdates = None
    if b.needs(data):
        ddata = places.put(dy, updates, "mul")
    if b.needs(updates):
        dupdates = places.pick(dy) * places.pick(data)
        if not places.distinct:
            dupdates = dupdates * _product_of_others(places, b, updates)
    return ddata, dupdates


def _product_of_others(places: _Places, b: Builder, updates: Value) -> Value:
    """For each element of the updates the product of the others that go to the same place.

    Sorted by place, the updates of one place lie side by side; the product of those before an element and the product of
    those behind it are linear recurrences that start anew with each place.
    """
    flat = b.ints([-1])
    keys, order = b.multi(
        "TopK",
        b.op("Reshape", places.positions(), flat),
        join_sizes(b, count_of(b, updates)),
        outputs=2,
        axis=0,
        largest=0,
    )
    factors = b.op("Gather", b.op("Reshape", updates, flat), order)
    # A neighbour that belongs to no place on either side, so that the first and the last start anew too.
    keys = b.op("Pad", keys, b.ints([1, 1]), b.scalar(-1, keys))
    factors = b.op("Pad", factors, b.ints([1, 1]), b.scalar(1, factors))
    first, second, last = b.ints([0]), b.ints([1]), b.ints([-1])
    end = b.ints([np.iinfo(np.int64).max])
    joined = b.cast(b.op("Equal", b.op("Slice", keys, first, last), b.op("Slice", keys, second, end)), factors.dtype)
    with_next, with_previous = (b.op("Pad", joined, b.ints(pads)) for pads in ([0, 1], [1, 0]))
    before = b.op("irgrad.LinearRecurrence", 1 - with_next, with_next * factors)
    behind = b.op("irgrad.LinearRecurrence", 1 - with_previous, with_previous * factors, reverse=1)
    others = b.op("Slice", before * behind, second, last)
    return b.reshape_like(b.op("irgrad.GatherGrad", others, order, b.shape_of(order)), updates)


def _of_extreme(places: _Places, b: AdjointBuilder, node: Node, dy: Value) -> _Pair:
    """All candidates of a place that are equal to the result share its cotangent equally."""
    data, updates, y = node.operand(0), node.operand(2), node.outputs[0]
    kept, hit = b.op("Equal", data, y), b.op("Equal", updates, places.pick(y))
    share = dy / places.put(b.cast(kept, dy.dtype), b.cast(hit, dy.dtype), "add")
    zero = b.scalar(0, dy)
    return (
        b.op("Where", kept, share, zero) if b.needs(data) else None,
        b.op("Where", hit, places.pick(share), zero) if b.needs(updates) else None,
    )


_ADJOINTS: dict[str, Callable[[_Places, AdjointBuilder, Node, Value], _Pair]] = {
    "none": _of_none,
    "add": _of_add,
    "mul": _of_mul,
    "min": _of_extreme,
    "max": _of_extreme,
}


# --- TensorScatter ----------------------------------------------------------------------------------------------------

tensor_scatter = ops.define("TensorScatter", cost=costs.moves, in_place=(0,))


@tensor_scatter.kernel
def _tensor_scatter(
    cache: np.ndarray,
    update: np.ndarray,
    starts: np.ndarray | None = None,
    *,
    mode: str = "linear",
    axis: int = -2,
    out: np.ndarray | None = None,
) -> np.ndarray:
    length, size = update.shape[axis], cache.shape[axis]
    result = np.empty_like(cache, order="C") if out is None else out
    np.copyto(result, cache)
    for k in range(len(cache)):
        start = 0 if starts is None else int(starts[k])
        target, source = (np.moveaxis(a[k], axis if axis < 0 else axis - 1, 0) for a in (result, update))
        if mode == "circular" or -size <= start < 0:
            start %= max(size, 1)
        if mode != "circular" and not 0 <= start <= size - length:
            raise IndexError(f"{length} elements from {start} on are out of range for an axis of {size} elements")
        before = min(length, size - start)
        target[start : start + before] = source[:before]
        target[: length - before] = source[before:]
    return result


@tensor_scatter.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Sequence[Value | None]:
    """No place is written twice: the sequence of updates is not longer than the cache."""
    cache, update = node.operand(0), node.operand(1)
    axis, places = node.attr("axis"), _cache_places(b, node)
    dcache = dupdate = None
    if b.needs(cache):
        dcache = b.op("ScatterElements", dy, places, b.zeros_like(update), axis=axis)
    if b.needs(update):
        dupdate = b.op("GatherElements", dy, places, axis=axis)
    return [dcache, dupdate, None][: len(node.inputs)]


def _cache_places(b: Builder, node: Node) -> Value:
    """Where along the axis each element of the update of a TensorScatter goes, in the shape of the update."""
    cache, update, starts = node.operand(0), node.operand(1), node.input(2)
    rank = rank_of(update)
    axis = node.attr("axis") % rank
    length = dim_of(b, update, axis)
    steps = b.ints(range(length)) if isinstance(length, int) else b.op("Range", 0, b.op("Squeeze", length), 1)
    places = b.op("Unsqueeze", steps, b.ints([0]))
    if starts is not None:
        places = places + b.op("Unsqueeze", starts, b.ints([1]))
    if node.attr("mode") == "circular":
        places = b.op("Mod", places, join_sizes(b, dim_of(b, cache, axis)))
    others = [k for k in range(1, rank) if k != axis]
    return b.op("Expand", b.op("Unsqueeze", places, b.ints(others)) if others else places, b.shape_of(update))
