"""What a convolution and its two adjoints are about, whatever the algorithm: shapes, sums, work.

The three functions are the three ways to contract ``y[n, m, o] = sum over c, k of x[n, c, o * stride + k * dilation - begin]
* w[m, c, k]``, for any number of spatial axes and of groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

import numpy as np

from irgrad.ops.windows import Windows
from irgrad.runtime.workspace import ranges, shares

__all__ = ["SMALL", "Problem", "add_bias", "add_products", "crews", "multiply", "result"]

T = TypeVar("T")

SMALL = 10**6
"""Products of matrices of up to so many multiplications are done without packing in OpenBLAS."""

_NARROW = 128  # columns below which a product is too narrow to be split off
_PER_ELEMENT = 64  # products that take a thread about as long as one element of an elementwise kernel


@dataclass(frozen=True)
class Problem:
    """A convolution of images [N, C, *windows.size] with weights [M, C / groups, *windows.kernel].

    Attributes:
        images: N.
        channels: C.
        filters: M.
        groups: of channels; both C and M are multiples.
        windows: where; ``windows.counts`` are the spatial sizes of the result.
        dtype: of all arrays, float32 or float64 (of integers for convolutions of quantised numbers).
    """

    images: int
    channels: int
    filters: int
    groups: int
    windows: Windows
    dtype: np.dtype

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.images, self.channels, *self.windows.size)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.filters, self.group_channels, *self.windows.kernel)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.images, self.filters, *self.windows.counts)

    @property
    def group_channels(self) -> int:
        return self.channels // self.groups

    @property
    def group_filters(self) -> int:
        return self.filters // self.groups

    @property
    def area(self) -> int:
        """The number of windows of an image."""
        return prod(self.windows.counts)

    @property
    def products(self) -> int:
        """The multiplications of the definition, padding included."""
        return self.images * self.area * prod(self.w_shape)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to multiply: an axis of size 0."""
        return not (self.products and prod(self.windows.size))

    def transposed(self) -> Problem:
        """The convolution of the cotangent of y that gives that of x, for stride 1; its weights are reversed."""
        return replace(self, channels=self.filters, filters=self.channels, windows=self.windows.transposed())


def crews(items: Sequence[T], products: int) -> list[Sequence[T]]:
    """Items shared out among as many threads as are worth it for so many products; at least one share."""
    return shares(items, products // _PER_ELEMENT)


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """The products of matrices [..., m, k] and [any, k, n], some columns at a time where those are small products."""
    for first, end in _pieces(b.shape[2], a.shape[-2] * a.shape[-1]):
        np.matmul(a, b[:, :, first:end], out=out[:, :, first:end])


def add_products(a: np.ndarray, b: np.ndarray, total: np.ndarray, room: np.ndarray, *, fresh: bool) -> None:
    """Add the products of matrices [any, m, k] and [any, k, n] to a sum, some terms at a time where those are small.

    Args:
        a: left operands.
        b: right operands.
        total: the sum, [any, m, n].
        room: of the same shape.
        fresh: whether nothing is in the sum yet.
    """
    for first, end in _pieces(b.shape[1], a.shape[1] * b.shape[2]):
        if fresh:
            np.matmul(a[:, :, first:end], b[:, first:end], out=total)
        else:
            np.matmul(a[:, :, first:end], b[:, first:end], out=room)
            np.add(total, room, out=total)
        fresh = False


def _pieces(count: int, each: int) -> list[tuple[int, int]]:
    """Ranges of `count` columns with `each` multiplications, for small products; one where those would be too narrow."""
    width = SMALL // max(each, 1)
    if not _NARROW <= width < count:
        return [(0, count)]
    return ranges(count, -(-count // width))


def result(shape: tuple[int, ...], dtype: np.dtype, out: np.ndarray | None) -> np.ndarray:
    """An array to compute in: `out`, which is contiguous, or a new one."""
    return np.empty(shape, dtype) if out is None else out


def add_bias(y: np.ndarray, bias: np.ndarray | None) -> None:
    """Add an element of the bias [M] to each channel of y [N, M, ...], in place."""
    if bias is not None:
        np.add(y, bias.reshape(-1, *(1,) * (y.ndim - 2)), out=y)
