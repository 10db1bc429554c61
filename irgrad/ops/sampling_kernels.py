"""GridSample and its adjoints on arrays: rows of channels, gathered from and added to flat places.

An element of the result is a sum over the taps around its position: the image, continued beyond its border in the way of
padding_mode, times one weight for each spatial axis. A weight is a polynomial in the fraction by which the position lies
behind the pixel before it. The tables of these polynomials are shared with the lowerings.

Continuing the image, and leaving positions as they are, is what PyTorch and onnxruntime do in every mode; onnx.reference
does too, but for mode cubic with padding_mode border, where it moves positions to the border first.

Sources: the ONNX operator specification, GridSample (version 22); for the cubic filter R. Keys, Cubic convolution
interpolation for digital image processing, IEEE Transactions on Acoustics, Speech, and Signal Processing 29(6), 1981,
equation (4), with a = -0.75.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from irgrad.ops.accumulate import accumulate_rows
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import is_differentiable

__all__ = ["FAR", "Filter", "filter_of", "grid_adjoint", "image_adjoint", "sample", "working_dtype"]

FAR = 3
"""Positions that lie further than this outside of an image see what those there do, where padding is no reflection."""

_BLOCK = 1 << 18  # bytes of gathered rows at a time: what the first levels of cache hold


class Filter:
    """The taps of an interpolation along one axis.

    Attributes:
        offsets: their places relative to the pixel before a position.
        table: a row of coefficients per tap, of the powers 0, 1, 2, ... of the fraction, whose sum is its weight.
    """

    def __init__(self, offsets: Sequence[int], table: Sequence[Sequence[float]]) -> None:
        self.offsets = np.array(offsets, np.int64)
        self.table = np.array(table, np.float64)

    @property
    def slopes(self) -> np.ndarray:
        """The table of the weights' derivatives."""
        return self.table[:, 1:] * np.arange(1, self.table.shape[1])


def _cubic(a: float) -> Filter:
    return Filter(
        (-1, 0, 1, 2),
        ((0, a, -2 * a, a), (1, 0, -(a + 3), a + 2), (0, -a, 2 * a + 3, -(a + 2)), (0, 0, a, -a)),
    )


_FILTERS = {
    "nearest": Filter((0,), ((1,),)),
    "linear": Filter((0, 1), ((1, -1), (0, 1))),
    "cubic": _cubic(-0.75),
}


def filter_of(attrs: Mapping[str, Any]) -> Filter:
    """The filter of a mode.

    Raises:
        ValueError: there is no such mode, or no such padding_mode.
    """
    if attrs["padding_mode"] not in ("zeros", "border", "reflection"):
        raise ValueError(f"GridSample knows no padding_mode {attrs['padding_mode']!r}")
    if attrs["mode"] not in _FILTERS:
        raise ValueError(f"GridSample knows no mode {attrs['mode']!r}")
    return _FILTERS[attrs["mode"]]


def working_dtype(x: np.dtype, grid: np.dtype) -> np.dtype:
    """The dtype in which samples are formed: that of sums over x, widened to that of positions; float64 for integers."""
    wide = accumulation_dtype(x) if is_differentiable(x) or x.kind == "c" else np.dtype(np.float64)
    return np.result_type(wide, accumulation_dtype(grid))


class _Taps:
    """What every element of a result of GridSample reads.

    Args:
        shape: of the images, [N, C, *sizes].
        grid: [N, *lengths, rank].
        attrs: those of GridSample.
        dtype: of positions and weights.
    """

    def __init__(self, shape: Sequence[int], grid: np.ndarray, attrs: Mapping[str, Any], dtype: np.dtype) -> None:
        sizes = list(shape[2:])
        if grid.ndim != len(shape) or grid.shape[-1] != len(sizes) or len(grid) != shape[0]:
            raise ValueError(f"a grid of shape {grid.shape} does not fit images of shape {tuple(shape)}")
        self.filter = filter_of(attrs)
        self.count = prod(grid.shape[:-1])
        self.rows = shape[0] * prod(sizes)
        if self.count and not self.rows and attrs["padding_mode"] != "zeros":
            raise ValueError(f"images of shape {tuple(shape)} have no pixels to sample")
        self._images = np.repeat(np.arange(shape[0]) * prod(sizes), self.count // max(shape[0], 1))
        self._places: list[np.ndarray] = []  # for each component of the grid [taps, count]
        self._fractions: list[np.ndarray] = []
        points = grid.reshape(self.count, len(sizes))
        for component, axis in enumerate(reversed(range(len(sizes)))):
            position = _position(points[:, component].astype(dtype), sizes[axis], attrs)
            pixel = np.rint(position) if attrs["mode"] == "nearest" else np.floor(position)
            place = pixel.astype(np.int64) + self.filter.offsets[:, None]
            self._places.append(self._padded(place, sizes[axis], attrs) * prod(sizes[axis + 1 :]))
            self._fractions.append(position - pixel)

    def _padded(self, place: np.ndarray, size: int, attrs: Mapping[str, Any]) -> np.ndarray:
        """Places along an axis led to where in the image they are continued from; to `self.rows` where that is nowhere."""
        if attrs["padding_mode"] == "zeros":
            return np.where((place < 0) | (place >= size), self.rows, place)
        if attrs["padding_mode"] == "border":
            return place.clip(0, size - 1)
        corners = int(attrs["align_corners"])
        period = max(2 * (size - corners), 1)
        place = place % period
        return np.asarray(np.minimum(place, period - 1 + corners - place))

    def blocks(self, width: int) -> Iterator[slice]:
        """Elements of the result, some at a time, for rows of `width` bytes."""
        step = max(_BLOCK // max(width, 1), 64)
        return (slice(first, min(first + step, self.count)) for first in range(0, self.count, step))

    def __call__(self, block: slice) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
        """For every combination of taps which they are, and the row that they read; `self.rows` is beyond the last one."""
        for taps in product(range(len(self.filter.offsets)), repeat=len(self._places)):
            row = self._images[block].copy()
            for place, tap in zip(self._places, taps, strict=True):
                row += place[tap, block]
            yield taps, np.minimum(row, self.rows, out=row)

    def weights(self, block: slice) -> list[np.ndarray]:
        """For each component of the grid the weights of its taps, [taps, elements of the block]."""
        return [_polynomials(self.filter.table, t[block]) for t in self._fractions]

    def slopes(self, block: slice) -> list[np.ndarray]:
        """The derivatives of the weights in the fractions."""
        return [_polynomials(self.filter.slopes, t[block]) for t in self._fractions]


def _position(g: np.ndarray, size: int, attrs: Mapping[str, Any]) -> np.ndarray:
    """Where a coordinate of a grid lies along an axis, in pixels; with `pixels` it says so itself."""
    if attrs.get("pixels"):
        position = g
    else:
        position = (g + 1) * ((size - 1) / 2) if attrs["align_corners"] else (g + 1) * (size / 2) - 0.5
    return position if attrs["padding_mode"] == "reflection" else position.clip(-FAR, size - 1 + FAR)


def _polynomials(table: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Polynomials at some points, one for each row of coefficients: [rows, points], by Horner's rule."""
    columns = list(table.astype(t.dtype).T[:, :, None])
    total = np.broadcast_to(columns.pop(), (len(table), len(t)))
    while columns:
        total = total * t + columns.pop()
    return total


def _product(factors: Sequence[np.ndarray], taps: Sequence[int]) -> np.ndarray:
    """The product of one row of each factor."""
    result: np.ndarray = factors[0][taps[0]]
    for factor, tap in zip(factors[1:], taps[1:], strict=True):
        result = result * factor[tap]
    return result


def _rows(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Images as rows of channels, one for each pixel, and one of zeros (empty strings) behind the last."""
    n, channels = x.shape[:2]
    area = prod(x.shape[2:])
    rows = np.empty((n * area + 1, channels), dtype)
    rows[:-1].reshape(n, area, channels)[...] = x.reshape(n, channels, area).swapaxes(1, 2)
    rows[-1] = "" if dtype.kind == "O" else 0
    return rows


def _images(rows: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Rows of channels as images of a shape; a view."""
    return rows.reshape(shape[0], prod(shape[2:]), shape[1]).swapaxes(1, 2).reshape(shape)


def sample(x: np.ndarray, grid: np.ndarray, attrs: Mapping[str, Any], out: np.ndarray | None = None) -> np.ndarray:
    """GridSample. Nearest pixels are copied as they are; elsewhere integers are truncated at the end and saturate.

    Args:
        x: images [N, C, *sizes] of any dtype; of strings in mode nearest only.
        grid: [N, *lengths, rank], normalised positions, the last spatial axis first.
        attrs: mode, padding_mode and align_corners; `pixels` too, where positions are not normalised.
        out: what the result may be written to.

    Returns:
        [N, C, *lengths] in the dtype of x.

    Raises:
        ValueError: the operands do not fit each other, or an attribute has a value that it does not take.
    """
    picked = attrs["mode"] == "nearest"
    dtype = np.dtype(np.float32) if x.dtype == object else working_dtype(x.dtype, grid.dtype)
    taps = _Taps(x.shape, grid, attrs, np.zeros(0, dtype).real.dtype)
    rows = _rows(x, x.dtype if picked else dtype)
    result = np.zeros((taps.count, x.shape[1]), rows.dtype)
    for block in taps.blocks(rows.itemsize * rows.shape[1]):
        if picked:
            ((_, row),) = taps(block)
            result[block] = np.take(rows, row, 0)
            continue
        weights = taps.weights(block)
        for which, row in taps(block):
            part = np.take(rows, row, 0)
            np.multiply(part, _product(weights, which)[:, None], out=part)
            np.add(result[block], part, out=result[block])
    if x.dtype.kind in "iu" and not picked:
        result = _whole(result, x.dtype)
    y = _images(result, (*x.shape[:2], *grid.shape[1:-1]))
    return deliver(y.astype(x.dtype, copy=False), out)


def _whole(samples: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Samples as integers of a dtype: truncated, unless they are whole but for rounding errors, and saturated."""
    nearest, limits = np.rint(samples), np.iinfo(dtype)
    close = np.abs(samples - nearest) <= 1e-12 * np.maximum(np.abs(nearest), 1)
    return np.asarray(np.where(close, nearest, np.trunc(samples)).clip(limits.min, limits.max))


def image_adjoint(
    dy: np.ndarray, grid: np.ndarray, shape: Sequence[int], attrs: Mapping[str, Any], out: np.ndarray | None = None
) -> np.ndarray:
    """The adjoint of `sample` in the images: every element of dy is added, times its weights, to what it was made of.

    Args:
        dy: [N, C, *lengths].
        grid: [N, *lengths, rank].
        shape: of the images.
        attrs: those of GridSample.
        out: what the result may be written to.

    Returns:
        An array of `shape` in the dtype of dy.
    """
    dtype = working_dtype(dy.dtype, grid.dtype)
    taps, rows = _Taps(shape, grid, attrs, dtype), _rows(dy, dtype)
    target = np.zeros((taps.rows + 1, shape[1]), dtype)
    for block in taps.blocks(rows.itemsize * rows.shape[1]):
        weights = taps.weights(block)
        for which, row in taps(block):
            accumulate_rows(np.add, target, row, rows[block] * _product(weights, which)[:, None])
    return deliver(_images(target[:-1], shape).astype(dy.dtype, copy=False), out)


def grid_adjoint(
    dy: np.ndarray, x: np.ndarray, grid: np.ndarray, attrs: Mapping[str, Any], out: np.ndarray | None = None
) -> np.ndarray:
    """The adjoint of `sample` in the grid.

    Args:
        dy: [N, C, *lengths].
        x: [N, C, *sizes].
        grid: [N, *lengths, rank].
        attrs: those of GridSample.
        out: what the result may be written to.

    Returns:
        An array of the shape and dtype of the grid.
    """
    dtype = working_dtype(x.dtype, grid.dtype)
    taps, rows, cotangents = _Taps(x.shape, grid, attrs, dtype), _rows(x, dtype), _rows(dy, dtype)
    result = np.zeros((taps.count, grid.shape[-1]), dtype)
    for block in taps.blocks(rows.itemsize * rows.shape[1]):
        weights, slopes = taps.weights(block), taps.slopes(block)
        for which, row in taps(block):
            share = np.einsum("pc,pc->p", np.take(rows, row, 0), cotangents[block])
            for k in range(grid.shape[-1]):
                factors = [*weights[:k], slopes[k], *weights[k + 1 :]]
                result[block, k] += share * _product(factors, which)
    if not attrs.get("pixels"):
        corners = int(attrs["align_corners"])
        result *= np.array([(size - corners) / 2 for size in reversed(x.shape[2:])], dtype)
    return deliver(result.reshape(grid.shape).astype(grid.dtype, copy=False), out)
