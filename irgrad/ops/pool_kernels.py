"""Pooling and its adjoints on arrays.

A window is a product of one-dimensional windows, so that maxima and sums are taken along one axis after the other: the cost
grows with the sum of the kernel's sizes and not with their product. Images are worked through some planes at a time, so that
what lies between two axes stays in the cache; threads share the planes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np

from irgrad.op import Kernel
from irgrad.ops.windows import Windows
from irgrad.runtime.kernels import accumulation_dtype
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Workspace, shares

__all__ = ["divisors", "index_weights", "lowest", "max_pool", "max_pool_with_indices", "spread", "sum_pool"]

_BLOCK = 1 << 17  # elements of an image at a time

Part: TypeAlias = "tuple[slice, slice]"
"""Images and channels."""


@dataclass(frozen=True)
class _Planes:
    """The planes of images [N, C, ...], cut into blocks.

    Attributes:
        shape: N and C.
        windows: over a plane.
    """

    shape: tuple[int, int]
    windows: Windows

    @cached_property
    def largest(self) -> tuple[int, int]:
        """Images and channels of a block."""
        images, channels = self.shape
        area = max(1, prod(self.windows.size), prod(self.windows.counts))
        if area * channels > _BLOCK:
            return min(images, 1), min(channels, max(1, _BLOCK // area))
        return min(images, max(1, _BLOCK // max(1, area * channels))), channels

    @property
    def blocks(self) -> list[Part]:
        """All of the blocks; none where there are no planes."""
        steps = self.largest
        firsts = [range(0, count, max(step, 1)) for count, step in zip(self.shape, steps, strict=True)]
        return [(slice(i, i + steps[0]), slice(k, k + steps[1])) for i in firsts[0] for k in firsts[1]]

    def shares(self) -> list[Sequence[Part]]:
        """The blocks, shared among threads."""
        return shares(self.blocks, prod(self.shape) * max(prod(self.windows.size), prod(self.windows.counts)))


class _Buffer:
    """A temporary array [images, channels, *sizes] that serves blocks of any number of planes."""

    def __init__(self, space: Workspace, planes: _Planes, sizes: Sequence[int], dtype: Any) -> None:
        self._place = space.array((prod((*planes.largest, *sizes)),), dtype)
        self._sizes = tuple(sizes)

    def __call__(self, work: np.ndarray, like: np.ndarray) -> np.ndarray:
        shape = (*like.shape[:2], *self._sizes)
        return self._place(work)[: prod(shape)].reshape(shape)


def _at(axis: int, index: slice) -> tuple[slice, ...]:
    """An index into images [N, C, *spatial] along one spatial axis."""
    return (*(slice(None),) * (axis + 2), index)


def _along(windows: Windows, axis: int) -> list[tuple[int, tuple[slice, ...], tuple[slice, ...]]]:
    """Which windows read what in the image along an axis, for each position of a window; see `Windows.positions`."""
    found = [(offset, windows.positions(axis, offset)) for offset in range(windows.kernel[axis])]
    return [(offset, _at(axis, pair[0]), _at(axis, pair[1])) for offset, pair in found if pair is not None]


def lowest(dtype: np.dtype) -> Any:
    """What a maximum over nothing is: negative infinity, or the least integer."""
    return np.array(np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf, dtype)


# --- reductions -------------------------------------------------------------------------------------------------------


def _axis_reduction(windows: Windows, axis: int, ufunc: np.ufunc, identity: Any) -> Callable[[np.ndarray, np.ndarray], None]:
    """``reduce(x, out)`` over windows along one axis."""
    # The positions that every window has in the image come first: they need no identity to start from.
    everywhere = _at(axis, slice(0, windows.counts[axis]))
    pairs = sorted((pair for _, *pair in _along(windows, axis)), key=lambda pair: pair[0] != everywhere)
    full = min(sum(which == everywhere for which, _ in pairs), 2)

    def reduce(x: np.ndarray, out: np.ndarray) -> None:
        if full == 2:
            ufunc(x[pairs[0][1]], x[pairs[1][1]], out=out)
        elif full:
            np.copyto(out, x[pairs[0][1]])
        else:
            out.fill(identity)
        for which, where in pairs[full:]:
            view = out[which]
            ufunc(view, x[where], out=view)

    return reduce


def _sizes_after(windows: Windows, axis: int) -> tuple[int, ...]:
    """The sizes of a plane that is reduced along the axes up to one."""
    return (*windows.counts[: axis + 1], *windows.size[axis + 1 :])


def _pool(
    shape: tuple[int, int],
    dtype: np.dtype,
    windows: Windows,
    ufunc: np.ufunc,
    identity: Any,
    before: Callable[[np.ndarray, np.ndarray], Any] | None,
    after: Callable[[np.ndarray, Part], Any] | None,
) -> Kernel:
    planes, space = _Planes(shape, windows), Workspace()
    todo, last = planes.shares(), windows.rank - 1
    reductions = [_axis_reduction(windows, axis, ufunc, identity) for axis in range(windows.rank)]
    sizes = [] if before is None else [windows.size]
    sizes += [_sizes_after(windows, axis) for axis in range(last)]
    buffers = [[_Buffer(space, planes, s, dtype) for s in sizes] for _ in todo]

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y = np.empty((*shape, *windows.counts), dtype) if out is None else out

        def run(share: int) -> None:
            for part in todo[share]:
                v, target, places = x[part], y[part], list(buffers[share])
                if before is not None:
                    source, v = v, places.pop(0)(work, v)
                    before(source, v)
                for reduction, place in zip(reductions, [*places, None], strict=True):
                    result = target if place is None else place(work, v)
                    reduction(v, result)
                    v = result
                if after is not None:
                    after(target, part)

        parallel(run, range(len(todo)))
        return y

    return space.kernel(kernel)


def max_pool(shape: tuple[int, int], dtype: np.dtype, windows: Windows) -> Kernel:
    """The maximum of each window, [N, C, *windows.counts]; NaN where it holds one, -inf where it lies in the padding.

    Args:
        shape: N and C of the images that the kernel will be given.
        dtype: theirs.
        windows: where.
    """
    return _pool(shape, dtype, windows, np.maximum, lowest(dtype), None, None)


def sum_pool(
    shape: tuple[int, int],
    dtype: np.dtype,
    windows: Windows,
    *,
    before: Callable[[np.ndarray, np.ndarray], Any] | None = None,
    after: Callable[[np.ndarray], Any] | None = None,
) -> Kernel:
    """The sum of each window, [N, C, *windows.counts].

    Args:
        shape: N and C of the images.
        dtype: theirs.
        windows: where.
        before: ``before(x, out)``, a function of the elements of the image that the sums are of.
        after: ``after(y)``, what is done to the sums, in place.
    """
    finish = None if after is None else (lambda y, part: after(y))
    return _pool(shape, dtype, windows, np.add, dtype.type(0), before, finish)


def spread(shape: tuple[int, int], dtype: np.dtype, windows: Windows, over: np.ndarray) -> Kernel:
    """The adjoint of `sum_pool`: each element of dy over its divisor, added to everything that its window reads.

    Args:
        shape: N and C.
        dtype: that of dy.
        windows: where; the result is [N, C, *windows.size].
        over: the divisors; they broadcast to windows.counts.
    """
    planes, space = _Planes(shape, windows), Workspace()
    todo = planes.shares()
    spreads = [_axis_spread(windows, axis) for axis in reversed(range(windows.rank))]
    sizes = [windows.counts, *(_sizes_after(windows, axis) for axis in reversed(range(windows.rank - 1)))]
    buffers = [[_Buffer(space, planes, s, dtype) for s in sizes] for _ in todo]

    def kernel(dy: np.ndarray, *_: Any, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        dx = np.empty((*shape, *windows.size), dtype) if out is None else out

        def run(share: int) -> None:
            first, *others = buffers[share]
            for part in todo[share]:
                v = first(work, dy[part])
                np.divide(dy[part], over, out=v)
                for along, place in zip(spreads, [*others, None], strict=True):
                    result = dx[part] if place is None else place(work, v)
                    along(v, result)
                    v = result

        parallel(run, range(len(todo)))
        return dx

    return space.kernel(kernel)


def _axis_spread(windows: Windows, axis: int) -> Callable[[np.ndarray, np.ndarray], None]:
    """``spread(v, out)``: the adjoint of the sum over windows along one axis."""
    pairs = [pair for _, *pair in _along(windows, axis)]
    once = windows.strides[axis] >= (windows.kernel[axis] - 1) * windows.dilations[axis] + 1
    reached = np.zeros(windows.size[axis], np.bool_)
    for _, where in pairs:
        reached[where[-1]] = True

    def along(v: np.ndarray, out: np.ndarray) -> None:
        if not (once and reached.all()):
            out.fill(0)
        for which, where in pairs:
            if once:
                out[where] = v[which]
            else:
                view = out[where]
                np.add(view, v[which], out=view)

    return along


def divisors(windows: Windows, include_padding: bool, dtype: np.dtype) -> np.ndarray:
    """How many positions each window averages over: those in the image, or also those in the padding of the attributes.

    Positions past that padding, which ceil_mode can make, never count.

    Returns:
        An array that broadcasts to windows.counts; 0-d where all windows have the same.
    """
    total = np.ones((1,) * windows.rank, np.int64)
    for axis in range(windows.rank):
        begin, end = (windows.begins[axis], windows.ends[axis]) if include_padding else (0, 0)
        first = np.arange(windows.counts[axis])[:, None] * windows.strides[axis] - windows.begins[axis]
        positions = first + np.arange(windows.kernel[axis]) * windows.dilations[axis]
        number = ((positions >= -begin) & (positions < windows.size[axis] + end)).sum(1)
        total = total * number.reshape(-1, *(1,) * (windows.rank - axis - 1))
    if total.size and (total == total.flat[0]).all():
        total = total.reshape(-1)[0]
    return np.asarray(total, accumulation_dtype(dtype))


# --- maxima and where they were ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Search:
    """Finds the maximum along one axis, and at which position of its window it was; the first of several equal ones."""

    windows: Windows
    axis: int
    best: _Buffer | None  # for the maxima; None on the axis that is done last
    winner: _Buffer
    missed: _Buffer
    hit: _Buffer
    number: _Buffer
    carried: tuple[_Buffer, ...]  # for the positions along the axes done before

    def __call__(
        self, work: np.ndarray, v: np.ndarray, earlier: list[np.ndarray], out: np.ndarray, nan: bool
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """The maxima (in `out` where there is no buffer for them) and the positions along this axis and earlier ones."""
        best = out if self.best is None else self.best(work, v)
        _axis_reduction(self.windows, self.axis, np.maximum, lowest(v.dtype))(v, best)
        winner, missed, hit, number = (b(work, v) for b in (self.winner, self.missed, self.hit, self.number))
        pairs = {offset: (which, where) for offset, which, where in _along(self.windows, self.axis)}
        winner.fill(0)
        missed.fill(True)
        for offset in range(self.windows.kernel[self.axis] - 1):
            if offset in pairs:
                which, where = pairs[offset]
                other, here = hit[which], missed[which]
                if nan:
                    np.logical_and(here, np.equal(v[where], v[where], out=other), out=here)
                np.logical_and(here, np.not_equal(v[where], best[which], out=other), out=here)
            np.copyto(number, missed)
            np.add(winner, number, out=winner)
        results = [winner]
        for positions, buffer in zip(earlier, self.carried, strict=True):
            result = buffer(work, v)
            result.fill(0)
            for offset, (which, where) in pairs.items():
                chosen, total = number[which], result[which]
                np.copyto(chosen, np.equal(winner[which], offset, out=hit[which]))
                np.add(total, np.multiply(chosen, positions[where], out=chosen), out=total)
            results.append(result)
        return best, results


def _search(space: Workspace, planes: _Planes, dtype: np.dtype, axis: int) -> _Search:
    windows = planes.windows
    sizes = (*windows.size[:axis], *windows.counts[axis:])
    counting = np.min_scalar_type(max(windows.kernel))

    def buffer(dtype: Any) -> _Buffer:
        return _Buffer(space, planes, sizes, dtype)

    return _Search(
        windows,
        axis,
        buffer(dtype) if axis else None,
        buffer(counting),
        buffer(np.bool_),
        buffer(np.bool_),
        buffer(counting),
        tuple(buffer(counting) for _ in windows.kernel[axis + 1 :]),
    )


def max_pool_with_indices(shape: tuple[int, int], dtype: np.dtype, windows: Windows, column_major: bool) -> Kernel:
    """The maximum of each window, and where it was: its index in x as if that had one axis.

    Of several equal maxima the first in row-major order within the window counts, of several NaN the first.

    Args:
        shape: N and C of the images.
        dtype: theirs.
        windows: where.
        column_major: number the positions of a plane with the first spatial axis fastest.

    Returns:
        A kernel whose results are both of shape [N, C, *windows.counts]; the value -inf and the index -1 for a window that
        lies in the padding.
    """
    planes, space = _Planes(shape, windows), Workspace()
    todo = planes.shares()
    weights = index_weights(windows, column_major)
    start = np.zeros((1,) * windows.rank, np.int64)
    for axis, weight in enumerate(weights):
        first = np.arange(windows.counts[axis]) * windows.strides[axis] - windows.begins[axis]
        start = start + (first * weight).reshape(-1, *(1,) * (windows.rank - axis - 1))
    area = prod(windows.size)
    plane = (np.arange(prod(shape), dtype=np.int64) * area).reshape(*shape, *(1,) * windows.rank)
    unread = _unread(windows)
    # The last axis first: then the first maximum of an axis is the first in row-major order.
    searches = [[_search(space, planes, dtype, axis) for axis in reversed(range(windows.rank))] for _ in todo]
    wide = [_Buffer(space, planes, windows.counts, np.int64) for _ in todo]

    def kernel(x: np.ndarray, *, out: Any = None, work: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = (*shape, *windows.counts)
        y, indices = (np.empty(counts, dtype), np.empty(counts, np.int64)) if out is None else out

        def run(share: int) -> None:
            for part in todo[share]:
                v, target, places, winners = x[part], y[part], indices[part], list[np.ndarray]()
                nan = dtype.kind not in "iu" and bool(np.isnan(np.maximum.reduce(v, None, initial=lowest(dtype))))
                for search in searches[share]:
                    v, winners = search(work, v, winners, target, nan)
                np.add(plane[part], start, out=places)
                step = wide[share](work, target)
                for winner, weight, dilation in zip(winners, weights, windows.dilations, strict=True):
                    np.copyto(step, winner)
                    np.multiply(step, weight * dilation, out=step)
                    np.add(places, step, out=places)
                for index in unread:
                    places[index] = -1

        parallel(run, range(len(todo)))
        return y, indices

    return space.kernel(kernel)


def index_weights(windows: Windows, column_major: bool) -> list[int]:
    """How much the index of a position in a plane grows by a step along each axis."""
    size = windows.size
    return [prod(size[:a] if column_major else size[a + 1 :]) for a in range(windows.rank)]


def _unread(windows: Windows) -> list[tuple[Any, ...]]:
    """Indices of the windows that read nothing of the image, along each axis that has such windows."""
    found = []
    for axis in range(windows.rank):
        read = np.zeros(windows.counts[axis], np.bool_)
        for _, which, _ in _along(windows, axis):
            read[which[-1]] = True
        if not read.all():
            found.append((*(slice(None),) * (axis + 2), ~read))
    return found
