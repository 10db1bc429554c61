"""Pooling and its adjoints on arrays.

A window is a product of one-dimensional windows, so that maxima and sums are taken along one axis after the other: the cost
grows with the sum of the kernel's sizes and not with their product. Images are worked through some planes at a time, so that
what lies between two axes stays in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from irgrad.ops.windows import Windows
from irgrad.runtime.kernels import accumulation_dtype

__all__ = ["divisors", "max_pool", "max_pool_with_indices", "spread", "sum_pool"]

_BLOCK = 1 << 18  # elements of an image at a time


def _planes(x: np.ndarray) -> np.ndarray:
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _parts(planes: int, windows: Windows) -> Iterator[slice]:
    """Planes of an image by the block."""
    step = max(1, _BLOCK // max(1, prod(windows.size), prod(windows.counts)))
    return (slice(first, min(first + step, planes)) for first in range(0, planes, step))


def _at(axis: int, index: slice) -> tuple[slice, ...]:
    """An index into planes [P, *spatial] along one spatial axis."""
    return (*(slice(None),) * (axis + 1), index)


def _along(windows: Windows, axis: int) -> list[tuple[int, slice, slice]]:
    """Which windows read what in the image along an axis, for each position of a window; see `Windows.positions`."""
    found = [(offset, windows.positions(axis, offset)) for offset in range(windows.kernel[axis])]
    return [(offset, *pair) for offset, pair in found if pair is not None]


def lowest(dtype: np.dtype) -> Any:
    """What a maximum over nothing is: negative infinity, or the least integer."""
    return np.array(np.iinfo(dtype).min if dtype.kind in "iu" else -np.inf, dtype)


def _reduced_axis(
    x: np.ndarray, windows: Windows, axis: int, ufunc: np.ufunc, identity: Any, out: np.ndarray | None = None
) -> np.ndarray:
    """Planes reduced over windows along one axis."""
    result = np.empty((*x.shape[: axis + 1], windows.counts[axis], *x.shape[axis + 2 :]), x.dtype) if out is None else out
    # The positions that every window has in the image come first: they need no identity to start from.
    everywhere = slice(0, windows.counts[axis])
    pairs = [pair for _, *pair in _along(windows, axis)]
    pairs.sort(key=lambda pair: pair[0] != everywhere)
    full = sum(which == everywhere for which, _ in pairs)
    if full >= 2:
        ufunc(x[_at(axis, pairs[0][1])], x[_at(axis, pairs[1][1])], out=result)
    elif full:
        result[...] = x[_at(axis, pairs[0][1])]
    else:
        result[...] = identity
    for which, where in pairs[min(full, 2) :]:
        view = result[_at(axis, which)]
        ufunc(view, x[_at(axis, where)], out=view)
    return result


def _reduced(x: np.ndarray, windows: Windows, ufunc: np.ufunc, identity: Any, out: np.ndarray | None) -> np.ndarray:
    """Images reduced over windows, along one axis after the other."""
    y = np.empty((*x.shape[:2], *windows.counts), x.dtype) if out is None else out
    planes, target, last = _planes(x), _planes(y), windows.rank - 1
    for part in _parts(len(planes), windows):
        v = planes[part]
        for axis in range(last):
            v = _reduced_axis(v, windows, axis, ufunc, identity)
        _reduced_axis(v, windows, last, ufunc, identity, target[part])
    return _put(target, y)


def max_pool(x: np.ndarray, windows: Windows, out: np.ndarray | None = None) -> np.ndarray:
    """The maximum of each window, [N, C, *windows.counts]; NaN where it holds one, -inf where it lies in the padding."""
    return _reduced(x, windows, np.maximum, lowest(x.dtype), out)


def sum_pool(x: np.ndarray, windows: Windows, out: np.ndarray | None = None) -> np.ndarray:
    """The sum of each window, [N, C, *windows.counts]."""
    return _reduced(x, windows, np.add, x.dtype.type(0), out)


def _put(target: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`y`, filled from its planes where those had to be a copy."""
    if not np.may_share_memory(target, y):
        y[...] = target.reshape(y.shape)
    return y


def spread(dy: np.ndarray, windows: Windows, out: np.ndarray | None = None) -> np.ndarray:
    """The adjoint of `sum_pool`: each element of dy added to everything that its window reads, [N, C, *windows.size]."""
    dx = np.empty((*dy.shape[:2], *windows.size), dy.dtype) if out is None else out
    planes, target = _planes(dy), _planes(dx)
    for part in _parts(len(planes), windows):
        v = planes[part]
        for axis in reversed(range(windows.rank)):
            shape = (*v.shape[: axis + 1], windows.size[axis], *v.shape[axis + 2 :])
            result = np.zeros(shape, v.dtype)
            for _, which, where in _along(windows, axis):
                view = result[_at(axis, where)]
                np.add(view, v[_at(axis, which)], out=view)
            v = result
        target[part] = v
    return _put(target, dx)


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


def max_pool_with_indices(x: np.ndarray, windows: Windows, column_major: bool) -> tuple[np.ndarray, np.ndarray]:
    """The maximum of each window, and where it was: its index in x as if that had one axis.

    Of several equal maxima the first in row-major order within the window counts, of several NaN the first.

    Args:
        x: images [N, C, *windows.size].
        windows: where.
        column_major: number the positions of a plane with the first spatial axis fastest.

    Returns:
        Both of shape [N, C, *windows.counts]; the value -inf and the index -1 for a window that lies in the padding.
    """
    y = np.empty((*x.shape[:2], *windows.counts), x.dtype)
    indices = np.empty(y.shape, np.int64)
    planes, values, places = _planes(x), _planes(y), _planes(indices)
    weights = [prod(windows.size[:a] if column_major else windows.size[a + 1 :]) for a in range(windows.rank)]
    start = np.zeros((1,) * windows.rank, np.int64)
    for axis, weight in enumerate(weights):
        first = np.arange(windows.counts[axis]) * windows.strides[axis] - windows.begins[axis]
        start = start + (first * weight).reshape(-1, *(1,) * (windows.rank - axis - 1))
    area = prod(windows.size)
    for part in _parts(len(planes), windows):
        winners = _winners(planes[part], windows, values[part])
        plane = np.arange(part.start, part.stop).reshape(-1, *(1,) * windows.rank)
        np.add(plane * area, start, out=places[part])
        for winner, weight, dilation in zip(winners, weights, windows.dilations, strict=True):
            places[part] += winner.astype(np.int64) * (weight * dilation)
    for axis in range(windows.rank):
        read = np.zeros(windows.counts[axis], np.bool_)
        for _, which, _ in _along(windows, axis):
            read[which] = True
        if not read.all():
            np.moveaxis(places, axis + 1, 0)[~read] = -1
    return y, indices


def _winners(v: np.ndarray, windows: Windows, out: np.ndarray) -> list[np.ndarray]:
    """Put the maxima of planes into `out`; for each axis, at which position of its window each of them was."""
    nan = v.dtype.kind not in "iu" and bool(np.isnan(np.max(v, initial=lowest(v.dtype))))
    winners: list[np.ndarray] = []
    # The last axis first: then the first maximum of an axis is the first in row-major order.
    for axis in reversed(range(windows.rank)):
        best = _reduced_axis(v, windows, axis, np.maximum, lowest(v.dtype), out if axis == 0 else None)
        pairs = _along(windows, axis)
        winner = np.zeros(best.shape, np.min_scalar_type(windows.kernel[axis]))
        missed = np.ones(best.shape, np.bool_)
        offsets = {offset: pair for offset, *pair in pairs}
        for offset in range(windows.kernel[axis] - 1):
            if offset in offsets:
                which, where = (_at(axis, index) for index in offsets[offset])
                found = np.not_equal(v[where], best[which])
                if nan:
                    found &= ~np.isnan(v[where])
                np.logical_and(missed[which], found, out=missed[which])
            winner += missed
        winners = [_selected(earlier, winner, windows, axis) for earlier in winners]
        winners.insert(0, winner)
        v = best
    return winners


def _selected(earlier: np.ndarray, winner: np.ndarray, windows: Windows, axis: int) -> np.ndarray:
    """What was found along other axes, where the maximum along this one was."""
    result = np.zeros(winner.shape, earlier.dtype)
    for offset, which, where in _along(windows, axis):
        view = result[_at(axis, which)]
        view += earlier[_at(axis, where)] * (winner[_at(axis, which)] == offset)
    return result
