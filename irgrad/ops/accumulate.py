"""Kernels' way of putting values at places that may repeat."""

from __future__ import annotations

import numpy as np

__all__ = ["accumulate_rows", "in_range"]

_CHUNK = 1 << 16  # elements at a time: their positions stay in the cache


def in_range(indices: np.ndarray, size: int) -> np.ndarray:
    """Indices along an axis of some size, negative ones counted from the start instead of the end.

    Raises:
        IndexError: one is out of range.
    """
    if indices.size and (indices.min() < -size or indices.max() >= size):
        bad = indices[(indices < -size) | (indices >= size)]
        raise IndexError(f"the index {bad.flat[0]} is out of range for an axis of {size} elements")
    return np.where(indices < 0, indices.astype(np.intp) + size, indices).astype(np.intp, copy=False)


def accumulate_rows(ufunc: np.ufunc, target: np.ndarray, rows: np.ndarray, values: np.ndarray) -> None:
    """``target[rows[k]] = ufunc(target[rows[k]], values[k])`` for k = 0, 1, 2, ..., in place.

    ``ufunc.at`` is fast for one-dimensional operands only (measured: about 2 ns per element, 5 to 10 times less than for
    rows), hence element by element, a chunk of rows at a time.

    Args:
        ufunc: np.add, np.multiply, np.maximum or np.minimum.
        target: contiguous, of shape [n, width].
        rows: of shape [k], each in range(n); a row may come several times.
        values: of shape [k, width].
    """
    width = target.shape[1]
    flat, columns = target.reshape(-1), np.arange(width)
    chunk = max(1, _CHUNK // max(width, 1))
    for first in range(0, len(rows), chunk):
        places = rows[first : first + chunk, None] * width + columns
        ufunc.at(flat, places.reshape(-1), values[first : first + chunk].reshape(-1))
