"""Convolution and its two adjoints on arrays: windows gathered into columns, then one matrix product (im2col).

The three functions are the three ways to contract ``y[n, m, o] = sum over c, k of x[n, c, o * stride + k * dilation - begin]
* w[m, c, k]``, for any number of spatial axes and of groups. Columns are made block by block, so that their buffer stays in
the cache: some images at once where maps are small, some rows of one image where they are large. Groups are a batch axis of
the matrix product; with one channel to a group (a depthwise convolution) that is a batch of matrix-vector products, which
was measured to be three times as fast as adding shifted products.

Reference: K. Chellapilla, S. Puri, P. Simard, High Performance Convolutional Neural Networks for Document Processing, 2006.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from irgrad.ops.windows import Windows
from irgrad.runtime.kernels import deliver

__all__ = ["add_windows", "convolve", "image_adjoint", "view_windows", "weight_adjoint"]

_BLOCK = 4 << 20  # bytes of columns at a time: about what the second-level cache holds
_WIDE = 512  # columns that a matrix product should have, where enough images are there to make them


@dataclass(frozen=True)
class _Block:
    """Some images as a whole, or some rows of windows of one image.

    Attributes:
        images: which.
        windows: the windows of the rows.
        area: the positions of these rows among those of the flattened result.
    """

    images: slice
    windows: Windows
    area: slice

    @property
    def count(self) -> int:
        return int(self.images.stop - self.images.start)

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.count * int(self.area.stop - self.area.start)


def _blocks(images: int, height: int, windows: Windows, itemsize: int) -> Iterator[_Block]:
    """The blocks of a convolution whose columns are `height` elements high (over all groups)."""
    area = prod(windows.counts)
    size = height * area * itemsize
    if not images or not size:
        return
    rows = windows.counts[0]
    together = min(images, max(_BLOCK // size, -(-_WIDE // area)))
    if together > 1 or size <= _BLOCK:
        for first in range(0, images, max(together, 1)):
            yield _Block(slice(first, min(first + max(together, 1), images)), windows, slice(0, area))
        return
    step = max(1, min(rows, _BLOCK * rows // size))
    across = area // rows
    for image in range(images):
        for first in range(0, rows, step):
            stop = min(first + step, rows)
            yield _Block(slice(image, image + 1), windows.rows(first, stop), slice(first * across, stop * across))


class _Columns:
    """Makes the columns of one block after another, in one buffer.

    Args:
        x: images [N, C, *windows.size].
        groups: of channels.
        windows: all of them, of which blocks are parts.
    """

    def __init__(self, x: np.ndarray, groups: int, windows: Windows) -> None:
        self._x = x
        self._groups = groups
        self._maps = x.reshape(len(x), groups, x.shape[1] // groups, prod(windows.size)) if windows.pointwise else None
        self._buffer = np.empty(0, x.dtype)

    def __call__(self, block: _Block) -> np.ndarray:
        """Columns of shape [groups, channels of a group * kernel, images * windows]; valid until the next call."""
        if self._maps is not None:
            return _packed(self._maps, block)
        view = np.moveaxis(view_windows(self._x[block.images], block.windows), 0, block.windows.rank + 1)
        if self._buffer.size < view.size:
            self._buffer = np.empty(view.size, self._x.dtype)
        columns = self._buffer[: view.size]
        columns.reshape(view.shape)[...] = view
        return columns.reshape(self._groups, -1, block.width)


def view_windows(x: np.ndarray, windows: Windows) -> np.ndarray:
    """What every window reads of images [N, C, *windows.size], as a view [N, C, *windows.kernel, *windows.counts]."""
    image = _reached(x, windows)
    strides = image.strides
    return as_strided(
        image,
        (*image.shape[:2], *windows.kernel, *windows.counts),
        (
            *strides[:2],
            *(s * d for s, d in zip(strides[2:], windows.dilations, strict=True)),
            *(s * d for s, d in zip(strides[2:], windows.strides, strict=True)),
        ),
        writeable=False,
    )


def add_windows(x: np.ndarray, columns: np.ndarray, windows: Windows) -> None:
    """The adjoint of `view_windows`, in place: what every window has, added to where in the images x it reads that.

    Args:
        x: images [N, C, *windows.size].
        columns: [C, *windows.kernel, N, *windows.counts].
        windows: where.
    """
    target = x.swapaxes(0, 1)
    for offset, where, position in windows.offsets():
        view = target[(slice(None), slice(None), *position)]
        place: tuple[Any, ...] = (slice(None), *offset, slice(None), *where)
        np.add(view, columns[place], out=view)


def _reached(x: np.ndarray, windows: Windows) -> np.ndarray:
    """The part of images that windows reach, zeros where that is padding."""
    if not any(windows.begins) and all(tail <= 0 for tail in windows.tails):
        return x
    reach = [n + begin + tail for n, begin, tail in zip(windows.size, windows.begins, windows.tails, strict=True)]
    padded = np.zeros((*x.shape[:2], *reach), x.dtype)
    inside: list[slice] = []
    source: list[slice] = []
    for n, begin, tail in zip(windows.size, windows.begins, windows.tails, strict=True):
        first, stop = max(0, -begin), n + min(tail, 0)
        source.append(slice(first, max(first, stop)))
        inside.append(slice(first + begin, max(first, stop) + begin))
    padded[(slice(None), slice(None), *inside)] = x[(slice(None), slice(None), *source)]
    return padded


def _result(shape: tuple[int, ...], dtype: np.dtype, out: np.ndarray | None) -> np.ndarray:
    """An array to compute in, so that its axes can be merged: `out` where that is contiguous."""
    return out if out is not None and out.flags.c_contiguous else np.empty(shape, dtype)


def _finish(result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    return result if result is out else deliver(result, out)


def _packed(maps: np.ndarray, block: _Block) -> np.ndarray:
    """A block of maps [images, groups, channels, area] as matrices [groups, channels, images * area]."""
    part = maps[block.images, :, :, block.area].transpose(1, 2, 0, 3)
    return part.reshape(*maps.shape[1:3], block.width)


def convolve(
    x: np.ndarray,
    w: np.ndarray,
    bias: np.ndarray | None,
    groups: int,
    windows: Windows,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The convolution (cross-correlation) of images with weights.

    Args:
        x: images [N, C, *windows.size].
        w: weights [M, C / groups, *windows.kernel].
        bias: [M], or None.
        groups: of channels; both C and M are multiples.
        windows: where.
        out: what the result may be written to.

    Returns:
        [N, M, *windows.counts].
    """
    weights = w.reshape(groups, len(w) // groups, prod(w.shape[1:]))
    return _convolve(x, weights, bias, windows, out)


def _convolve(
    x: np.ndarray, weights: np.ndarray, bias: np.ndarray | None, windows: Windows, out: np.ndarray | None
) -> np.ndarray:
    """`convolve` with weights [groups, M / groups, C / groups * kernel], which may be a transposed view."""
    groups, height, depth = weights.shape
    y = _result((len(x), groups * height, *windows.counts), x.dtype, out)
    if not depth:
        y[...] = 0
    maps = y.reshape(len(x), groups, height, prod(windows.counts))
    shift = None if bias is None else bias.reshape(groups, height, 1)
    columns = _Columns(x, groups, windows)
    for block in _blocks(len(x), groups * depth, windows, x.itemsize):
        part = maps[block.images, :, :, block.area]
        if block.count == 1:
            np.matmul(weights, columns(block), out=part[0])
        else:
            product = np.matmul(weights, columns(block))
            part[...] = product.reshape(groups, height, block.count, maps.shape[3]).transpose(2, 0, 1, 3)
        if shift is not None:
            np.add(part, shift, out=part)
    if shift is not None and not depth:
        np.add(maps, shift, out=maps)
    return _finish(y, out)


def image_adjoint(
    dy: np.ndarray,
    w: np.ndarray,
    groups: int,
    windows: Windows,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The adjoint of `convolve` in its images: every element of dy adds the weights, times itself, to what its window read.

    Args:
        dy: maps [N, M, *windows.counts].
        w: weights [M, C / groups, *windows.kernel].
        groups: of channels.
        windows: where.
        out: what the result may be written to.

    Returns:
        [N, C, *windows.size].
    """
    upright = w.reshape(groups, len(w) // groups, prod(w.shape[1:])).transpose(0, 2, 1)
    if windows.pointwise:
        return _convolve(dy, upright, None, windows, out)
    if _reversible(dy, w, groups, windows):
        return convolve(dy, _reversed(w, groups), None, groups, windows.transposed(), out)
    channels = w.shape[1] * groups
    dx = _result((len(dy), channels, *windows.size), dy.dtype, out)
    dx[...] = 0
    maps = dy.reshape(len(dy), groups, len(w) // groups, prod(windows.counts))
    for block in _blocks(len(dy), groups * upright.shape[1], windows, dy.itemsize):
        columns = np.matmul(upright, _packed(maps, block))
        columns = columns.reshape(channels, *windows.kernel, block.count, *block.windows.counts)
        add_windows(dx[block.images], columns, block.windows)
    return _finish(dx, out)


def _reversible(dy: np.ndarray, w: np.ndarray, groups: int, windows: Windows) -> bool:
    """Whether the adjoint in the images is faster as a convolution of dy with the reversed kernel.

    That gathers columns of dy where the other way adds columns to dx, but has to reverse the weights first.
    """
    if set(windows.strides) != {1}:
        return False
    return len(w) <= 1.25 * w.shape[1] * groups and 4 * w.size <= dy.size * prod(windows.kernel)


def _reversed(w: np.ndarray, groups: int) -> np.ndarray:
    """Weights [M, C / groups, *kernel] as those of the adjoint convolution, [C, M / groups, *kernel reversed]."""
    flipped = w[(slice(None), slice(None), *(slice(None, None, -1) for _ in w.shape[2:]))]
    split = flipped.reshape(groups, len(w) // groups, *w.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(split).reshape(groups * w.shape[1], len(w) // groups, *w.shape[2:])


def weight_adjoint(
    x: np.ndarray,
    dy: np.ndarray,
    groups: int,
    windows: Windows,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The adjoint of `convolve` in its weights.

    Args:
        x: images [N, C, *windows.size].
        dy: maps [N, M, *windows.counts].
        groups: of channels.
        windows: where.
        out: what the result may be written to.

    Returns:
        [M, C / groups, *windows.kernel].
    """
    shape = (dy.shape[1], x.shape[1] // groups, *windows.kernel)
    dw = _result(shape, x.dtype, out)
    total = dw.reshape(groups, dy.shape[1] // groups, prod(shape[1:]))
    maps = dy.reshape(len(dy), groups, dy.shape[1] // groups, prod(windows.counts))
    columns = _Columns(x, groups, windows)
    empty = True
    for block in _blocks(len(x), groups * total.shape[2], windows, x.itemsize):
        product = np.matmul(_packed(maps, block), columns(block).transpose(0, 2, 1), out=total if empty else None)
        if not empty:
            np.add(total, product, out=total)
        empty = False
    if empty:
        dw[...] = 0
    return _finish(dw, out)
