"""Products of matrices: as few and as large calls of BLAS as the operands' shapes and strides allow."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irgrad.op import Kernel
from irgrad.runtime.threads import parallel, threads

__all__ = ["matmul", "multiply"]

_WORTH = 1 << 23
"""Multiplications from which on a batch of products is shared out among threads; about 100 µs on one of them."""

_LARGE = 1 << 27
"""Multiplications from which on a single product is better shared out by the BLAS library itself."""

# numpy 2.4 copies what BLAS cannot step through; older ones did without BLAS.
_NUMPY_COPIES = tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4)


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """``np.matmul``, with BLAS whatever the strides."""
    if not _NUMPY_COPIES:
        a, b = _for_blas(a), _for_blas(b)
    product: np.ndarray = np.matmul(a, b, out=out)
    return product


def _for_blas(a: np.ndarray) -> np.ndarray:
    """`a`, copied where BLAS could not step through its matrices (a broadcast row, say)."""
    if a.ndim < 2 or a.dtype.kind != "f" or a.flags.c_contiguous:
        return a
    (rows, columns), (down, across), item = a.shape[-2:], a.strides[-2:], a.itemsize
    if across == item and (down >= columns * item or rows == 1) and down % item == 0:
        return a
    if down == item and (across >= rows * item or columns == 1) and across % item == 0:
        return a
    return np.ascontiguousarray(a)


def matmul(a: Sequence[int], b: Sequence[int]) -> Kernel:
    """A kernel for ``np.matmul`` of arrays of two shapes."""
    if len(a) > 2 >= len(b):
        return _one_product
    if len(a) > 2 or len(b) > 2:
        batch = np.broadcast_shapes(tuple(a[:-2]), tuple(b[:-2]))
        rows = a[-2] if len(a) > 1 else 1
        columns = b[-1] if len(b) > 1 else 1
        size = rows * columns * a[-1]
        if len(a) > 1 and len(b) > 1 and size < _LARGE and prod(batch) * size >= _WORTH and max(batch) > 1:
            return _shared_out(batch)
    return np.matmul if _NUMPY_COPIES else multiply


def _one_product(a: np.ndarray, b: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """Matrices of a batch that are all multiplied by one: a single product over the rows of all of them."""
    if not a.flags.c_contiguous or not a.size or (out is not None and not out.flags.c_contiguous):
        return multiply(a, b, out)
    shape = (*a.shape[:-1], *b.shape[1:])
    result = np.empty(shape, a.dtype) if out is None else out
    multiply(a.reshape(-1, a.shape[-1]), b, result.reshape(-1, *b.shape[1:]))
    return result


def _shared_out(batch: Sequence[int]) -> Kernel:
    """A batch of products, of which each is too small for BLAS to use several threads well."""
    axis = next((k for k, size in enumerate(batch) if size % 2 == 0), max(range(len(batch)), key=batch.__getitem__))
    before: tuple[slice, ...] = (slice(None),) * axis

    def kernel(a: np.ndarray, b: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        count = min(threads(), batch[axis])
        if count < 2:
            return multiply(a, b, out)
        a = np.broadcast_to(a, (*batch, *a.shape[-2:]))
        b = np.broadcast_to(b, (*batch, *b.shape[-2:]))
        result = np.empty((*batch, a.shape[-2], b.shape[-1]), a.dtype) if out is None else out

        def part(k: int) -> None:
            at = (*before, slice(k * batch[axis] // count, (k + 1) * batch[axis] // count))
            multiply(a[at], b[at], result[at])

        parallel(part, range(count))
        return result

    return kernel
