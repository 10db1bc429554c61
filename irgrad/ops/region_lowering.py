"""The adjoints of pooling over regions in standard operations: what is exported, and what kernels are tested against.

What bins read is gathered into one tensor [channels, regions, bins, entries, bins, entries], along the two axes of the image
in turn. Regions that have fewer entries than others are filled up: for a sum with entries of weight 0, for a maximum with
repetitions of the last one. See `irgrad.ops.region_kernels` for the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.ops.dims import Size, join_sizes, product_of
from irgrad.ops.elementwise import keep_where
from irgrad.runtime.kernels import accumulation_dtype

__all__ = ["lower_image_adjoint", "lower_max_roi_pool", "lower_region_adjoint"]

_INTEGER = np.dtype(np.int64)
_ENTRIES = (3, 5)  # the axes of the gathered tensor over which a bin reads


@dataclass(frozen=True)
class _Taps:
    """What bins read along one axis, see `region_kernels.Taps`; values of shape [regions, bins, entries]."""

    places: Value
    weights: Value
    by_start: Value
    by_end: Value


@dataclass(frozen=True)
class _Images:
    """Images [N, C, H, W] by their shape, and as matrices in which each position of the batch has its number."""

    b: Builder
    shape: Value

    def size(self, axis: int) -> Size:
        return product_of(self.b, self.shape, axis, axis + 1)

    def length(self, axis: int) -> Value:
        """The size along an axis as a value of shape [1]."""
        return join_sizes(self.b, self.size(axis))

    def numbers(self, batch: Value, rows: Value, columns: Value) -> Value:
        """The numbers of positions, [regions, bins, entries, bins, entries], in images told by `batch`."""
        image = self.b.op("Unsqueeze", batch, self.b.ints([1, 2, 3, 4]))
        return (image * self.length(2) + _by_row(self.b, rows)) * self.length(3) + _by_column(self.b, columns)

    def gather(self, images: Value, numbers: Value) -> Value:
        """What stands at numbered positions, with an axis for the channels before."""
        lines = self.b.op("Transpose", images, perm=(1, 0, 2, 3))
        flat = self.b.op("Reshape", lines, join_sizes(self.b, self.size(1), -1))
        return self.b.op("Gather", flat, numbers, axis=1)

    def scatter(self, values: Value, numbers: Value) -> Value:
        """The adjoint of `gather`."""
        area = product_of(self.b, join_sizes(self.b, self.size(0), self.size(2), self.size(3)), 0, None)
        sizes = join_sizes(self.b, area, self.size(1))
        zeros = self.b.op("ConstantOfShape", sizes, value=np.zeros(1, values.dtype))
        updates = self.b.op("Transpose", values, perm=(1, 2, 3, 4, 5, 0))
        places = self.b.op("Unsqueeze", numbers, self.b.ints([-1]))
        summed = self.b.op("ScatterND", zeros, places, updates, reduction="add")
        planes = join_sizes(self.b, *(self.size(axis) for axis in (0, 2, 3, 1)))
        return self.b.op("Transpose", self.b.op("Reshape", summed, planes, allowzero=1), perm=(0, 3, 1, 2))


def _by_row(b: Builder, taps: Value) -> Value:
    """Taps of the image's rows so that they broadcast to [regions, bins, entries, bins, entries]."""
    return b.op("Unsqueeze", taps, b.ints([3, 4]))


def _by_column(b: Builder, taps: Value) -> Value:
    return b.op("Unsqueeze", taps, b.ints([1, 2]))


def _per_bin(b: Builder, v: Value) -> Value:
    """A tensor [regions, channels, bins, bins] so that it broadcasts to the gathered tensor."""
    return b.op("Unsqueeze", b.op("Transpose", v, perm=(1, 0, 2, 3)), b.ints(_ENTRIES))


def _coordinate(b: Builder, rois: Value, index: int) -> Value:
    """One of the numbers that tell each region, as [regions, 1, 1]."""
    return b.op("Unsqueeze", b.op("Gather", rois, b.ints([index]), axis=1), b.ints([2]))


def _first_largest(b: Builder, candidates: Value) -> Value:
    """Which of the entries of each bin is the largest one, the first of them in row-major order."""
    row_count, column_count = (b.op("Shape", candidates, start=axis, end=axis + 1) for axis in _ENTRIES)
    count = b.op("Mul", row_count, column_count)
    largest = b.op("ReduceMax", candidates, b.ints(_ENTRIES), keepdims=1)
    order = b.op("Reshape", _range(b, count), b.op("Concat", row_count, b.ints([1]), column_count, axis=0))
    mine = b.op("Where", b.op("Equal", candidates, largest), order, count)
    return b.op("Equal", b.op("ReduceMin", mine, b.ints(_ENTRIES), keepdims=1), order)


def _range(b: Builder, count: Value) -> Value:
    """0, 1, 2, ... below an integer of shape [1]."""
    return b.op("Range", 0, b.op("Squeeze", count), 1)


def _most(b: Builder, counts: Value) -> Value:
    """The largest of some counts, of which there may be none, and at least 1; an integer of shape [1]."""
    largest = b.op("ReduceMax", b.op("Reshape", b.cast(counts, _INTEGER), b.ints([-1])), keepdims=1)
    return b.op("Max", largest, b.ints([1]))


# --- RoiAlign ---------------------------------------------------------------------------------------------------------


def _bilinear(b: Builder, node: Node, rois: Value, images: _Images, axis: int) -> _Taps:
    """See `region_kernels.bilinear_taps`; `axis` is 2 for the rows of the image, 3 for its columns."""
    scale, ratio, largest = node.attr("spatial_scale"), node.attr("sampling_ratio"), node.attr("mode") == "max"
    bins = node.attr("output_height" if axis == 2 else "output_width")
    shifted = node.attr("coordinate_transformation_mode") == "half_pixel"
    size = b.cast(images.length(axis), rois.dtype)
    start, end = (_coordinate(b, rois, index) * scale for index in (3 - axis, 5 - axis))
    if shifted:
        start, end = start - 0.5, end - 0.5
    length = end - start
    stretching = None if shifted else b.cast(length > 1, rois.dtype)
    if not shifted:
        length = b.op("Max", length, 1.0)
    if ratio > 0:
        points, most = b.constant(np.array([ratio], rois.dtype)), b.ints([2 * ratio])
    else:
        points = b.op("Max", b.op("Ceil", length / bins), 0.0)
        most = 2 * _most(b, points)
    entry = b.cast(_range(b, most), rois.dtype)
    point = b.op("Floor", entry / 2)
    high = entry - 2 * point
    some = b.op("Max", points, 1.0)
    number = b.constant(np.arange(bins)[:, None], rois.dtype)
    fraction = (number + (b.op("Min", point, some - 1) + 0.5) / some) / bins
    at = start + fraction * length
    moved = b.op("Min", b.op("Max", at, 0.0), size - 1)
    low = b.op("Floor", moved)
    inside = b.cast(b.op("And", at >= -1.0, at <= size), rois.dtype)
    inside = inside * b.cast(points > 0.0 if largest else point < points, rois.dtype)
    if not largest:
        inside = inside / some
    sign = 2 * high - 1
    slope = sign * inside * b.cast(b.op("Equal", at, moved), rois.dtype) * scale
    by_end = slope * fraction if stretching is None else slope * fraction * stretching
    return _Taps(
        places=b.cast(b.op("Min", low + high, size - 1), _INTEGER),
        weights=(1 - high + sign * (moved - low)) * inside,
        by_start=slope - by_end,
        by_end=by_end,
    )


def lower_image_adjoint(b: Builder, node: Node) -> Value:
    """``RoiAlignGrad(dy, rois, batch_indices, x_shape, x)``."""
    dy, rois, batch = (node.operand(k) for k in range(3))
    x, images, wide = node.input(4), _Images(b, node.operand(3)), accumulation_dtype(dy.dtype)
    rows, columns = (_bilinear(b, node, b.cast(rois, wide), images, axis) for axis in (2, 3))
    numbers = images.numbers(batch, rows.places, columns.places)
    weights = _by_row(b, rows.weights) * _by_column(b, columns.weights)
    values = _per_bin(b, b.cast(dy, wide)) * weights
    if node.attr("mode") == "max":
        assert x is not None
        candidates = images.gather(b.cast(x, wide), numbers) * weights
        values = keep_where(b, _first_largest(b, candidates), values)
    return b.cast(images.scatter(values, numbers), dy.dtype)


def lower_region_adjoint(b: Builder, node: Node) -> Value:
    """``RoiAlignRegionGrad(dy, x, rois, batch_indices)``."""
    dy, x, rois, batch = (node.operand(k) for k in range(4))
    images, wide = _Images(b, b.shape_of(x)), accumulation_dtype(dy.dtype)
    rows, columns = (_bilinear(b, node, b.cast(rois, wide), images, axis) for axis in (2, 3))
    row_weights, column_weights = _by_row(b, rows.weights), _by_column(b, columns.weights)
    gathered = images.gather(b.cast(x, wide), images.numbers(batch, rows.places, columns.places))
    products = _per_bin(b, b.cast(dy, wide)) * gathered
    if node.attr("mode") == "max":
        products = keep_where(b, _first_largest(b, gathered * (row_weights * column_weights)), products)
    by_row = b.reduce_sum(products * column_weights, [0, 4, 5])
    by_column = b.reduce_sum(products * row_weights, [0, 2, 3])
    parts = (by_column * columns.by_start, by_row * rows.by_start, by_column * columns.by_end, by_row * rows.by_end)
    sums = b.op("Concat", *(b.reduce_sum(part, [1, 2], keepdims=True) for part in parts), axis=1)
    return b.cast(b.op("Squeeze", sums, b.ints([2])), rois.dtype)


# --- MaxRoiPool -------------------------------------------------------------------------------------------------------


def _whole(b: Builder, node: Node, rois: Value, images: _Images, axis: int) -> tuple[Value, Value]:
    """The places that bins read, see `region_kernels.whole_taps`, and whether there are any, [regions, bins, 1]."""
    bins, size = node.attr("pooled_shape")[axis - 2], images.length(axis)
    start, last = (_rounded(b, _coordinate(b, rois, k) * node.attr("spatial_scale")) for k in (4 - axis, 6 - axis))
    length = b.op("Max", last - start + 1, 1)
    number = b.constant(np.arange(bins)[:, None])
    first, stop = start + number * length / bins, start + ((number + 1) * length + (bins - 1)) / bins
    first, stop = (b.op("Min", b.op("Max", v, 0), size) for v in (first, stop))
    steps = _range(b, _most(b, stop - first))
    places = b.op("Min", b.op("Max", b.op("Min", first + steps, stop - 1), 0), size - 1)
    return places, stop > first


def _rounded(b: Builder, v: Value) -> Value:
    """To integers, halves away from zero."""
    size = b.op("Abs", v)
    whole = b.op("Floor", size)
    return b.cast(b.op("Sign", v) * (whole + b.cast(size - whole >= 0.5, v.dtype)), _INTEGER)


def lower_max_roi_pool(b: Builder, node: Node) -> tuple[Value, Value]:
    """The values are those of the standard operation; the places of the maxima are searched for."""
    x, rois = node.operand(0), node.operand(1)
    images, wide = _Images(b, b.shape_of(x)), accumulation_dtype(x.dtype)
    values = b.op("MaxRoiPool", x, rois, **node.attrs)
    coordinates = b.cast(rois, wide)
    (rows, any_row), (columns, any_column) = (_whole(b, node, coordinates, images, axis) for axis in (2, 3))
    batch = b.op("Squeeze", b.cast(b.op("Gather", rois, b.ints([0]), axis=1), _INTEGER), b.ints([1]))
    won = _first_largest(b, images.gather(x, images.numbers(batch, rows, columns)))
    # In x the channels lie between the images and their rows.
    channel = b.op("Reshape", _range(b, images.length(1)), b.ints([-1, 1, 1, 1, 1, 1]))
    plane = b.op("Unsqueeze", batch, b.ints([1, 2, 3, 4])) * images.length(1) + channel
    places = (plane * images.length(2) + _by_row(b, rows)) * images.length(3) + _by_column(b, columns)
    place = b.op("Transpose", b.reduce_sum(keep_where(b, won, places), _ENTRIES), perm=(1, 0, 2, 3))
    filled = b.op("And", any_row, b.op("Transpose", any_column, perm=(0, 2, 1)))
    return values, b.op("Where", b.op("Unsqueeze", filled, b.ints([1])), place, b.scalar(-1, place))
