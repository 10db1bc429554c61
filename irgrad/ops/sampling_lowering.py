"""The adjoints of GridSample in standard operations: what is exported, differentiated again, and tested against.

Images become rows of channels, one for each pixel, as in the kernels (see `irgrad.ops.sampling_kernels`); all combinations
of taps are worked on at once. Positions stay differentiable; which pixels they fall between is piecewise constant.
"""

from __future__ import annotations

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.ops.channels import rank_of
from irgrad.ops.dims import Size, as_scalar, int_contents, join_sizes, product_of, reshape_to
from irgrad.ops.sampling_kernels import FAR, filter_of, working_dtype

__all__ = ["lower_grid_adjoint", "lower_image_adjoint"]

_OUTSIDE = -(2**40)  # added to the number of a row: less than 0 whatever else is added
_LETTERS = "ijklopqrstuvwxyz"  # of an Einsum, for the taps along each axis; n, m and c are images, points and channels


def lower_image_adjoint(b: Builder, node: Node) -> Value:
    """`irgrad.GridSampleImageGrad`: the rows of dy, times weights, added to the rows that were read."""
    dy, grid, shape = (node.operand(k) for k in range(3))
    with b:
        taps = _Taps(b, node, grid, shape, working_dtype(dy.dtype, grid.dtype))
        rows = taps.rows(dy, taps.points)
        if node.attr("mode") == "nearest":
            updates = b.op("Unsqueeze", rows, b.ints(range(2, 2 + taps.rank)))
        else:
            terms = ",".join(f"nm{letter}" for letter in taps.letters)
            updates = b.op("Einsum", *taps.weights(), rows, equation=f"{terms},nmc->nm{taps.letters}c")
        zeros = taps.behind_zeros(
            b.op("ConstantOfShape", join_sizes(b, taps.count, taps.channels), value=np.zeros(1, rows.dtype))
        )
        summed = b.op("ScatterND", zeros, b.op("Unsqueeze", taps.index, b.ints([-1])), updates, reduction="add")
        if taps.padded:
            summed = b.op("Slice", summed, b.ints([1]), b.ints([np.iinfo(np.int64).max]))
        images = b.op("Transpose", reshape_to(b, summed, taps.batch, taps.area, taps.channels), perm=(0, 2, 1))
        return b.cast(b.op("Reshape", images, shape, allowzero=1), dy.dtype)


def lower_grid_adjoint(b: Builder, node: Node) -> Value:
    """`irgrad.GridSampleGridGrad`: the products of dy with the rows that were read, times derivatives of the weights."""
    dy, x, grid = (node.operand(k) for k in range(3))
    with b:
        taps = _Taps(b, node, grid, b.shape_of(x), working_dtype(x.dtype, grid.dtype))
        pixels = reshape_to(b, taps.rows(x, taps.area), taps.count, taps.channels)
        values = b.op("Gather", taps.behind_zeros(pixels), taps.index)
        letters = taps.letters
        products = b.op("Einsum", values, taps.rows(dy, taps.points), equation=f"nm{letters}c,nmc->nm{letters}")
        weights, slopes = taps.weights(), taps.slopes()
        terms = ",".join(f"nm{letter}" for letter in letters)
        parts = []
        for k in range(taps.rank):
            factors = [*weights[:k], slopes[k], *weights[k + 1 :]]
            part = b.op("Einsum", products, *factors, equation=f"nm{letters},{terms}->nm")
            parts.append(b.op("Unsqueeze", part, b.ints([-1])))
        joined = parts[0] if len(parts) == 1 else b.op("Concat", *parts, axis=-1)
        return b.cast(b.reshape_like(joined if taps.half is None else joined * taps.half, grid), grid.dtype)


class _Taps:
    """What every element of a result of GridSample reads, for images of a shape that is a one-dimensional value.

    Attributes:
        rank: how many spatial axes there are.
        batch, channels, area, count: how many images, channels, pixels of an image, and pixels of all of them there are.
        points: how many elements a channel of an image has in the result.
        letters: one for each component of the grid.
        padded: whether there is a row of zeros, the first one, for what lies outside.
        half: [rank], the derivative of positions in the grid; None where the grid holds positions.
        index: [batch, points, taps, ..., taps], the row that each combination of taps reads.
    """

    def __init__(self, b: Builder, node: Node, grid: Value, shape: Value, dtype: np.dtype) -> None:
        self._b, self._dtype = b, dtype
        attrs = {name: node.attr(name) for name in ("mode", "padding_mode", "align_corners")}
        self._filter = filter_of(attrs)
        self.rank = rank = rank_of(grid) - 2
        self.letters = _LETTERS[:rank]
        self.padded = attrs["padding_mode"] == "zeros"
        self.batch, self.channels, self.area = (product_of(b, shape, *ends) for ends in ((0, 1), (1, 2), (2, None)))
        self.points = product_of(b, b.shape_of(grid), 1, -1)
        self.count = product_of(b, join_sizes(b, self.batch, self.area), 0, None)
        # The components of a grid are in the opposite order of the axes.
        axes = range(rank + 1, 1, -1)
        sizes = join_sizes(b, *(product_of(b, shape, axis, axis + 1) for axis in axes))
        strides = join_sizes(b, *(product_of(b, shape, axis + 1, rank + 2) for axis in axes))
        corners = int(attrs["align_corners"])
        position = b.cast(reshape_to(b, grid, self.batch, self.points, rank), dtype)
        self.half = None if node.attr("pixels") else self._floats(sizes, -corners) * 0.5
        if self.half is not None:
            position = (position + 1) * self.half
            position = position if corners else position - 0.5
        if attrs["padding_mode"] != "reflection":
            position = b.op("Min", b.op("Max", position, b.scalar(-FAR, position)), self._floats(sizes, FAR - 1))
        pixel = b.op("Round" if attrs["mode"] == "nearest" else "Floor", position)
        self._fraction = b.op("Unsqueeze", position - pixel, b.ints([2]))
        places = b.op("Unsqueeze", b.cast(pixel, np.dtype(np.int64)), b.ints([2])) + self._filter.offsets[:, None]
        self.index = self._joined(_padded(b, places, sizes, strides, attrs["padding_mode"], corners))

    def rows(self, images: Value, pixels: Size) -> Value:
        """[N, C, ...] with some number of pixels as [N, pixels, C], in the dtype of the work."""
        flat = reshape_to(self._b, self._b.cast(images, self._dtype), self.batch, self.channels, pixels)
        return self._b.op("Transpose", flat, perm=(0, 2, 1))

    def behind_zeros(self, rows: Value) -> Value:
        """Rows of all images, with the row of zeros before them where there has to be one."""
        return self._b.op("Pad", rows, self._b.ints([1, 0, 0, 0])) if self.padded else rows

    def weights(self) -> list[Value]:
        """For each component of the grid the weights of its taps, [batch, points, taps]."""
        return self._picked(self._polynomials(self._filter.table))

    def slopes(self) -> list[Value]:
        """The derivatives of the weights in the fractions."""
        return self._picked(self._polynomials(self._filter.slopes))

    def _floats(self, sizes: Value, more: int) -> Value:
        """Sizes plus a number, in the dtype of the work."""
        known = int_contents(sizes)
        if known is not None:
            return self._b.constant(np.array(known) + more, self._dtype)
        return self._b.cast(sizes, self._dtype) + more

    def _polynomials(self, table: np.ndarray) -> Value:
        """Polynomials in the fractions, one per row of coefficients: [batch, points, taps, rank], by Horner's rule."""
        columns = [self._b.constant(column[:, None], self._dtype) for column in table.T]
        total = columns.pop() + self._fraction * 0 if len(columns) == 1 else columns.pop()
        while columns:
            total = total * self._fraction + columns.pop()
        return total

    def _picked(self, values: Value) -> list[Value]:
        """The parts of [batch, points, taps, rank], one for each component of the grid."""
        return [self._b.op("Gather", values, self._b.constant(np.int64(k)), axis=-1) for k in range(self.rank)]

    def _joined(self, places: Value) -> Value:
        """The sums of one number for each component, and of what comes before the rows of an image."""
        b, rank = self._b, self.rank
        total = b.op("Unsqueeze", self._starts(), b.ints(range(1, 2 + rank)))
        for k, part in enumerate(self._picked(places)):
            others = [2 + axis for axis in range(rank) if axis != k]
            total = total + (b.op("Unsqueeze", part, b.ints(others)) if others else part)
        return b.op("Max", total, b.constant(np.int64(0))) if self.padded else total

    def _starts(self) -> Value:
        """The first row of every image."""
        b, first = self._b, int(self.padded)
        if isinstance(self.batch, int) and isinstance(self.area, int):
            return b.ints([first + self.area * image for image in range(self.batch)])
        images = b.op("Range", 0, as_scalar(b, self.batch), 1)
        return images * join_sizes(b, self.area) + first


def _padded(b: Builder, places: Value, sizes: Value, strides: Value, padding: str, corners: int) -> Value:
    """Places along axes, led to where an image is continued from, as what they add to the number of a row."""
    if padding == "border":
        return b.op("Min", b.op("Max", places, b.constant(np.int64(0))), sizes - 1) * strides
    if padding == "reflection":
        period = b.op("Max", (sizes - corners) * 2, b.ints([1]))
        place = b.op("Mod", places, period)
        return b.op("Min", place, period - (1 - corners) - place) * strides
    outside = b.op("Or", places < 0, places >= sizes)
    return b.op("Where", outside, b.constant(np.int64(_OUTSIDE)), places * strides)
