"""Pooling over regions of interest, and its adjoints, on arrays.

A region is cut into bins along each axis, and what a bin reads of an image is a product of what it reads along the two axes.
So sums are two matrix products, and maxima are taken along one axis after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = [
    "Taps",
    "bilinear_taps",
    "max_roi_pool",
    "roi_align",
    "roi_align_image_adjoint",
    "roi_align_region_adjoint",
    "whole_taps",
]


_FAR = 2**40
"""Coordinates of regions further out than this, where no image reaches, are as good as this: integers hold what follows."""


@dataclass(frozen=True)
class Taps:
    """What bins read along one axis of an image; all arrays but `used` are of shape [regions, bins, entries].

    Attributes:
        places: the elements that are read.
        weights: what each of them is multiplied with; not negative.
        by_start: the derivatives of the weights in the coordinate at which the region starts.
        by_end: the same in the coordinate at which it ends.
        used: for each region how many of the entries count.
    """

    places: np.ndarray
    weights: np.ndarray
    by_start: np.ndarray
    by_end: np.ndarray
    used: np.ndarray

    def of(self, region: int) -> Taps:
        """The taps of one region, of shape [bins, entries]."""
        used = int(self.used[region])
        places, weights, by_start, by_end = (
            array[region, :, :used] for array in (self.places, self.weights, self.by_start, self.by_end)
        )
        return Taps(places, weights, by_start, by_end, self.used[region])

    def within(self) -> tuple[slice, Taps]:
        """The part of the axis that is read, and the taps counted from its start."""
        if not self.places.size:
            return slice(0, 0), self
        first = int(self.places.min())
        return slice(first, int(self.places.max()) + 1), replace(self, places=self.places - first)

    def matrix(self, size: int) -> np.ndarray:
        """The taps of one region as a matrix [bins, size]."""
        dense = np.zeros((len(self.places), size), self.weights.dtype)
        np.add.at(dense, (np.arange(len(dense))[:, None], self.places), self.weights)
        return dense


def bilinear_taps(ends: np.ndarray, size: int, bins: int, attrs: Mapping[str, Any]) -> Taps:
    """The taps of RoiAlign along one axis: two for each of the points at which a bin samples the image.

    A point up to one element outside of the image is moved to its border, and one still further out reads zeros. The
    derivatives take the number of points, which sampling_ratio=0 makes depend on the region's length, for constant.

    Args:
        ends: where regions start and end, [regions, 2].
        size: the elements of the image along the axis.
        bins: how many a region is cut into.
        attrs: those of RoiAlign.

    Raises:
        ValueError: a coordinate is not finite, or there is nothing to sample.

    Reference: K. He, G. Gkioxari, P. Dollar, R. Girshick, Mask R-CNN, ICCV 2017, section 3; the ONNX operator specification.
    """
    _check(ends, size)
    scale = attrs["spatial_scale"]
    shifted = attrs["coordinate_transformation_mode"] == "half_pixel"
    start, end = ((ends * scale - (0.5 if shifted else 0.0)).T)[:, :, None, None]
    length = end - start
    stretching = np.ones_like(length) if shifted else (length > 1).astype(ends.dtype)
    if not shifted:
        length = np.maximum(length, 1)
    ratio = attrs["sampling_ratio"]
    points = np.full_like(length, ratio) if ratio > 0 else np.maximum(np.ceil(length / bins), 0)
    entry = np.arange(2 * int(points.max(initial=0)))
    high = (entry % 2).astype(ends.dtype)
    point, some = (entry // 2).astype(ends.dtype), np.maximum(points, 1)
    fraction = (np.arange(bins, dtype=ends.dtype)[:, None] + (np.minimum(point, some - 1) + 0.5) / some) / bins
    at = start + fraction * length
    moved = np.clip(at, 0, size - 1)
    low = np.floor(moved)
    inside = ((at >= -1) & (at <= size)).astype(ends.dtype)
    if attrs["mode"] == "avg":
        inside /= some
    sign = 2 * high - 1
    slope = sign * inside * (at == moved) * scale
    by_end = slope * fraction * stretching
    return Taps(
        places=np.minimum(low + high, size - 1).astype(np.intp),
        weights=(1 - high + sign * (moved - low)) * inside,
        by_start=slope - by_end,
        by_end=by_end,
        used=2 * points.reshape(-1).astype(np.intp),
    )


def whole_taps(ends: np.ndarray, size: int, bins: int, scale: float) -> Taps:
    """The taps of MaxRoiPool along one axis: whole elements, each with the weight 1; a bin without any is all zeros.

    Coordinates are rounded, halves away from zero. The bounds of bins are computed from integers, so that they do not depend
    on the precision; in floating-point numbers a bin may get one more element.

    Args:
        ends: the first and the last coordinate of regions, [regions, 2].
        size: the elements of the image along the axis.
        bins: how many a region is cut into; they may overlap.
        scale: what coordinates are multiplied with.

    Raises:
        ValueError: a coordinate is not finite, or there is nothing to pool.
    """
    _check(ends, size)
    start, last = _rounded(ends * scale).clip(-_FAR, _FAR).astype(np.intp).T[:, :, None]
    length = np.maximum(last - start + 1, 1)
    number = np.arange(bins)
    first = np.clip(start + number * length // bins, 0, size)
    stop = np.clip(start - (number + 1) * length // -bins, 0, size)
    counts = np.maximum(stop - first, 0)
    steps = np.arange(int(counts.max(initial=1)))
    places = np.clip(np.minimum(first[..., None] + steps, stop[..., None] - 1), 0, size - 1)
    weights = np.broadcast_to((counts > 0)[..., None], places.shape)
    nothing = np.broadcast_to(np.zeros((), bool), places.shape)
    return Taps(places, weights, nothing, nothing, np.full(len(ends), len(steps)))


def _check(ends: np.ndarray, size: int) -> None:
    if not np.isfinite(ends).all():
        raise ValueError("a coordinate of a region is infinite or NaN")
    if len(ends) and not size:
        raise ValueError("there are regions in images that have no pixels")


def _rounded(v: np.ndarray) -> np.ndarray:
    size = np.abs(v)
    whole = np.floor(size)
    return np.asarray(np.sign(v) * (whole + (size - whole >= 0.5)))


# --- over all regions -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Region:
    """One region of interest.

    Attributes:
        number: its position among the regions.
        index: the part of the images [N, C, H, W] that it reads.
        rows, columns: what its bins read along the two axes of that part.
    """

    number: int
    index: tuple[int, slice, slice, slice]
    rows: Taps
    columns: Taps

    def of(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(images[self.index])


def _regions(batch: np.ndarray, rows: Taps, columns: Taps, images: int) -> Iterator[_Region]:
    """The regions that read anything of the image that they are said to lie in.

    Raises:
        IndexError: one is said to lie in an image that is not there.
    """
    if batch.size and (batch.min() < 0 or batch.max() >= images):
        bad = batch[(batch < 0) | (batch >= images)][0]
        raise IndexError(f"a region lies in the image {bad}, but the batch has {images}")
    for number, image in enumerate(batch.tolist()):
        (high, r), (wide, c) = rows.of(number).within(), columns.of(number).within()
        if r.places.size and c.places.size:
            yield _Region(number, (image, slice(None), high, wide), r, c)


def _aligned(
    rois: np.ndarray, batch: np.ndarray, images: tuple[int, ...], attrs: Mapping[str, Any], bins: tuple[int, ...]
) -> Iterator[_Region]:
    """The regions of a RoiAlign over images of a shape, with `bins` along the two axes."""
    rows = bilinear_taps(rois[:, 1::2], images[2], bins[0], attrs)
    columns = bilinear_taps(rois[:, 0::2], images[3], bins[1], attrs)
    return _regions(batch, rows, columns, images[0])


@dataclass(frozen=True)
class _Winners:
    """The largest of the weighted elements that each bin of a region reads; arrays of shape [bins, bins, channels].

    Attributes:
        values: the elements times their weights.
        row, column: which of the entries of the bins they are; the first ones in row-major order.
    """

    values: np.ndarray
    row: np.ndarray
    column: np.ndarray

    def of_rows(self, taps: np.ndarray) -> np.ndarray:
        """What taps of the rows [bins, entries] hold for them."""
        return np.asarray(taps[np.arange(len(taps))[:, None, None], self.row])

    def of_columns(self, taps: np.ndarray) -> np.ndarray:
        return np.asarray(taps[np.arange(len(taps))[:, None], self.column])

    def places(self, rows: Taps, columns: Taps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where they stand in the image [h, w, channels]."""
        return self.of_rows(rows.places), self.of_columns(columns.places), np.arange(self.row.shape[2])


def _weighted(image: np.ndarray, taps: Taps) -> np.ndarray:
    """What the taps read along the first axis of [size, n, channels], as [bins, entries, n, channels]."""
    return np.asarray(np.take(image, taps.places, 0) * taps.weights[..., None, None])


def _reduced(by: np.ufunc, image: np.ndarray, rows: Taps, columns: Taps) -> np.ndarray:
    """The sum or the maximum of what bins read, [bins, bins, channels], in an image [h, w, channels]."""
    by_column = by.reduce(_weighted(image.swapaxes(0, 1), columns), 1)  # [bins, h, channels]
    return np.asarray(by.reduce(_weighted(by_column.swapaxes(0, 1), rows), 1))


def _winners(image: np.ndarray, rows: Taps, columns: Taps) -> _Winners:
    best, by_column = _first_largest(_weighted(image.swapaxes(0, 1), columns))
    values, by_row = _first_largest(_weighted(best.swapaxes(0, 1), rows))
    bins, channels = np.arange(len(columns.places))[:, None], np.arange(image.shape[2])
    stands = rows.places[np.arange(len(rows.places))[:, None, None], by_row]
    return _Winners(values, by_row, by_column[bins, stands, channels])


def _first_largest(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The maxima along axis 1, and where the first of them is; numpy's argmax is slow where that axis is short."""
    best = v.max(1)
    index = np.zeros(best.shape, np.intp)
    for k in reversed(range(v.shape[1])):
        np.copyto(index, k, where=v[:, k] == best)
    return best, index


# --- RoiAlign ---------------------------------------------------------------------------------------------------------


def roi_align(
    x: np.ndarray, rois: np.ndarray, batch: np.ndarray, attrs: Mapping[str, Any], out: np.ndarray | None = None
) -> np.ndarray:
    """RoiAlign of images [N, C, H, W]; the result is [regions, C, output_height, output_width].

    With mode="max" that is the largest of the four weighted elements around any point, not the largest of the points'
    interpolated values: so has it onnx's own test data.
    """
    bins = attrs["output_height"], attrs["output_width"]
    shape = (len(rois), x.shape[1], *bins)
    y = np.empty(shape, x.dtype) if out is None else out
    y[...] = 0
    for region in _aligned(rois, batch, x.shape, attrs, bins):
        part = region.of(x)
        summed = attrs["mode"] == "avg"
        if summed:
            across = np.matmul(part, region.columns.matrix(part.shape[2]).T)
            np.matmul(region.rows.matrix(part.shape[1]), across, out=y[region.number])
        if not summed or not np.isfinite(y[region.number]).all():  # pixels that a bin does not read came in with weight 0
            by = np.add if summed else np.maximum
            y[region.number] = _reduced(by, _last(part), region.rows, region.columns).transpose(2, 0, 1)
    return y


def roi_align_image_adjoint(
    dy: np.ndarray,
    rois: np.ndarray,
    batch: np.ndarray,
    shape: tuple[int, ...],
    x: np.ndarray | None,
    attrs: Mapping[str, Any],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The adjoint of `roi_align` in its images.

    Args:
        dy: cotangent of the result, [regions, C, bins, bins].
        rois: the regions, [regions, 4].
        batch: in which image each of them lies.
        shape: that of the images.
        x: the images themselves, by which mode="max" tells what was read.
        attrs: those of RoiAlign.
        out: what the result may be written to.
    """
    dx = np.empty(shape, dy.dtype) if out is None else out
    dx[...] = 0
    for region in _aligned(rois, batch, shape, attrs, dy.shape[2:]):
        target, mine = region.of(dx), dy[region.number]
        rows, columns = region.rows, region.columns
        if attrs["mode"] == "max":
            assert x is not None
            won = _winners(_last(region.of(x)), rows, columns)
            weights = won.of_rows(rows.weights) * won.of_columns(columns.weights)
            np.add.at(_last(target), won.places(rows, columns), _last(mine) * weights)
        else:
            across = np.matmul(rows.matrix(target.shape[1]).T, mine)
            np.add(target, np.matmul(across, columns.matrix(target.shape[2])), out=target)
    return dx


def roi_align_region_adjoint(
    dy: np.ndarray, x: np.ndarray, rois: np.ndarray, batch: np.ndarray, attrs: Mapping[str, Any]
) -> np.ndarray:
    """The adjoint of `roi_align` in the coordinates of its regions; the arguments are those of `roi_align_image_adjoint`."""
    drois = np.zeros_like(rois)
    for region in _aligned(rois, batch, x.shape, attrs, dy.shape[2:]):
        part, mine = region.of(x), dy[region.number]
        rows, columns, result = region.rows, region.columns, drois[region.number]
        if attrs["mode"] == "max":
            won = _winners(_last(part), rows, columns)
            products = _last(mine) * _last(part)[won.places(rows, columns)]
            by_row, by_column = products * won.of_columns(columns.weights), products * won.of_rows(rows.weights)
            result[1::2] = [np.vdot(by_row, won.of_rows(taps)) for taps in (rows.by_start, rows.by_end)]
            result[0::2] = [np.vdot(by_column, won.of_columns(taps)) for taps in (columns.by_start, columns.by_end)]
        else:
            across = np.matmul(part, columns.matrix(part.shape[2]).T)
            down = np.matmul(rows.matrix(part.shape[1]), part)
            drows = np.tensordot(mine, across, ([0, 2], [0, 2]))
            dcolumns = np.tensordot(mine, down, ([0, 1], [0, 1]))
            for first, taps, matrix in ((1, rows, drows), (0, columns, dcolumns)):
                sums = np.take_along_axis(matrix, taps.places, 1)
                result[first::2] = np.vdot(sums, taps.by_start), np.vdot(sums, taps.by_end)
    return drois


# --- MaxRoiPool -------------------------------------------------------------------------------------------------------


def max_roi_pool(
    x: np.ndarray, rois: np.ndarray, bins: tuple[int, ...], scale: float, *, with_places: bool
) -> tuple[np.ndarray, ...]:
    """MaxRoiPool of images [N, C, H, W]; if asked for, also where each maximum stands: its row-major position in x.

    An empty bin is 0, and its position -1.

    Args:
        x: images [N, C, H, W].
        rois: the number of the image and the region's x1, y1, x2 and y2, [regions, 5].
        bins: along the two axes.
        scale: what coordinates are multiplied with.
        with_places: whether to return the positions too.
    """
    shape = (len(rois), x.shape[1], *bins)
    y, places = np.zeros(shape, x.dtype), np.full(shape if with_places else 0, -1)
    rows = whole_taps(rois[:, 2::2], x.shape[2], bins[0], scale)
    columns = whole_taps(rois[:, 1::2], x.shape[3], bins[1], scale)
    for region in _regions(rois[:, 0].astype(np.intp), rows, columns, len(x)):
        part = _last(region.of(x))
        filled = region.rows.weights[:, :1] & region.columns.weights[:, 0]
        if with_places:
            image, _, high, wide = region.index
            won = _winners(part, region.rows, region.columns)
            row, column, channel = won.places(region.rows, region.columns)
            plane = (image * x.shape[1] + channel) * x.shape[2] + high.start + row
            place = plane * x.shape[3] + wide.start + column
            places[region.number] = np.where(filled, place.transpose(2, 0, 1), -1)
        values = won.values if with_places else _reduced(np.maximum, part, region.rows, region.columns)
        y[region.number] = np.where(filled, values.transpose(2, 0, 1), 0)
    return (y, places) if with_places else (y,)


def _last(image: np.ndarray) -> np.ndarray:
    """A view of [channels, h, w] with the channels last."""
    return image.transpose(1, 2, 0)
