"""Numbers in few bits on arrays: scales spread over tensors, rounding and saturation, exact products of integers.

Products of 8-bit integers and their sums are formed in float64, where BLAS does them and where they are exact up to 2**53;
they are then brought down to 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from irgrad.ops.cast import numeric_conversion, plain
from irgrad.ops.convolution import select
from irgrad.ops.convolution.problem import Problem
from irgrad.ops.windows import windows_of

__all__ = [
    "centred",
    "convolved",
    "in_32_bits",
    "multiplied",
    "per_column",
    "per_filter",
    "per_row",
    "rounded",
    "spread",
]

_RANGES = {"int2": (-2, 1), "uint2": (0, 3), "int4": (-8, 7), "uint4": (0, 15)}


def spread(value: np.ndarray, shape: tuple[int, ...], axis: int, block_size: int) -> np.ndarray:
    """A scale or a zero point as it applies to the elements of a tensor: an array that broadcasts to its shape.

    Args:
        value: one element for the whole tensor, one for each index along an axis, or (with a block size) one for each block
            along an axis, whose last one may be shorter.
        shape: the tensor's.
        axis: that of the indices or blocks.
        block_size: 0 where there are no blocks.

    Raises:
        ValueError: it does not fit to the tensor.
    """
    rank = len(shape)
    if value.size == 1 and not (block_size and value.ndim == rank):
        return value.reshape(())
    if -rank <= axis < rank:
        axis %= rank
        if not block_size and value.shape == (shape[axis],):
            return value.reshape(-1, *(1,) * (rank - axis - 1))
        blocks = -(-shape[axis] // block_size) if block_size > 0 else 0
        if block_size and value.shape == (*shape[:axis], blocks, *shape[axis + 1 :]):
            return np.repeat(value, block_size, axis)[(slice(None),) * axis + (slice(shape[axis]),)]
    how = f"in blocks of {block_size} along the axis {axis}" if block_size else f"along the axis {axis}"
    raise ValueError(f"scales of the shape {list(value.shape)} do not fit to a tensor of the shape {list(shape)} {how}")


def rounded(x: np.ndarray, zero_point: np.ndarray | None, target: np.dtype, saturate: bool = True) -> np.ndarray:
    """Quotients by a scale as quantised numbers: ``saturate(round(x) + zero_point)``; to a float dtype, rounded at the end.

    Args:
        x: float32 or float64, in both of which integers of 16 bits are exact.
        zero_point: of the dtype `target`; it broadcasts to x.
        target: an integer dtype, or a floating-point one of few bits.
        saturate: whether numbers beyond the range of a float8 dtype become its largest ones.
    """
    whole = target.kind in "iu" or target.name in _RANGES
    result = np.rint(x) if whole else x
    if zero_point is not None:
        result = result + plain(zero_point).astype(x.dtype)
    if not whole:
        return numeric_conversion(target, saturate)(result)
    low, high = _RANGES.get(target.name) or (np.iinfo(target).min, np.iinfo(target).max)
    return np.asarray(np.clip(result, low, high).astype(np.int32).astype(target))


def centred(x: np.ndarray, zero_point: np.ndarray | None, wide: np.dtype) -> np.ndarray:
    """``x − zero_point`` in a floating-point dtype; integers are subtracted exactly, before they are rounded to it."""
    x = plain(x)
    if zero_point is None:
        return x.astype(wide)
    exact = np.int64 if x.dtype.kind in "iu" else wide
    return np.asarray(np.subtract(x, plain(zero_point), dtype=exact).astype(wide, copy=False))


# --- products of integers ---------------------------------------------------------------------------------------------

_EXACT = np.dtype(np.float64)


def multiplied(a: np.ndarray, a_zero_point: np.ndarray | None, b: np.ndarray, b_zero_point: np.ndarray | None) -> np.ndarray:
    """The product of two matrices (or stacks of them) without their zero points, in float64."""
    rows = None if a_zero_point is None else per_row(a_zero_point)
    columns = None if b_zero_point is None else per_column(b_zero_point)
    return np.asarray(np.matmul(centred(a, rows, _EXACT), centred(b, columns, _EXACT)))


def per_row(value: np.ndarray) -> np.ndarray:
    """What belongs to all of a matrix, or (a vector) to its rows, so that it broadcasts."""
    if value.size == 1:
        return value.reshape(())
    return value[:, None] if value.ndim == 1 else value


def per_column(value: np.ndarray) -> np.ndarray:
    """What belongs to all of a matrix, or (a vector) to its columns, so that it broadcasts."""
    return value.reshape(()) if value.size == 1 else value


def convolved(
    x: np.ndarray,
    x_zero_point: np.ndarray | None,
    w: np.ndarray,
    w_zero_point: np.ndarray | None,
    attrs: Mapping[str, Any],
    bias: np.ndarray | None = None,
) -> np.ndarray:
    """The convolution of images with weights, both without their zero points, in float64.

    Padding stands for the number 0, that is for the zero point.

    Args:
        x: images [N, C, ...].
        x_zero_point: one element.
        w: weights [M, C / group, ...].
        w_zero_point: one element, or one for each of the M filters.
        attrs: those of Conv.
        bias: of shape [M], in units of the products.
    """
    windows = windows_of(attrs, x.shape[2:], w.shape[2:])
    images = centred(x, None if x_zero_point is None else x_zero_point.reshape(()), _EXACT)
    weights = centred(w, None if w_zero_point is None else per_filter(w_zero_point, w.ndim - 1), _EXACT)
    problem = Problem(len(x), x.shape[1], len(w), attrs["group"], windows, _EXACT)
    return np.asarray(select.forward(problem)(images, weights, None if bias is None else bias.astype(_EXACT)))


def per_filter(value: np.ndarray, axes: int) -> np.ndarray:
    """What belongs to all filters, or (a vector) to one each, so that it broadcasts over further axes behind theirs."""
    return value.reshape(()) if value.size == 1 else value.reshape(-1, *(1,) * axes)


def in_32_bits(exact: np.ndarray) -> np.ndarray:
    """Sums as int32; one that does not fit is wrapped, as adding up in 32 bits would."""
    return exact.astype(np.int64).astype(np.int32)
