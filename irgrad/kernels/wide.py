"""Operands and results of 16 bits, whose kernels compute in wider numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.runtime.workspace import Place, Workspace

__all__ = ["Wide"]


class Wide:
    """An operand or a result of a kernel that computes in another dtype: as it is where it has that, else by way of a copy.

    Args:
        space: where the copy gets its place.
        shape: the array's shape.
        dtype: its dtype.
        wide: the dtype to compute in.
    """

    def __init__(self, space: Workspace, shape: Sequence[int], dtype: np.dtype, wide: np.dtype) -> None:
        self._shape, self._dtype, self._wide = tuple(shape), dtype, wide
        self._copy: Place | None = None if dtype == wide else space.array(shape, wide)

    def of(self, array: np.ndarray, work: np.ndarray) -> np.ndarray:
        """An operand in the dtype to compute in."""
        if self._copy is None:
            return array
        copy = self._copy(work)
        np.copyto(copy, array)
        return copy

    def place(self, out: np.ndarray | None, work: np.ndarray) -> np.ndarray:
        """Where to compute a result that is asked for in `out`, or anywhere."""
        if self._copy is not None:
            return self._copy(work)
        return np.empty(self._shape, self._wide) if out is None else out

    def done(self, result: np.ndarray, out: np.ndarray | None) -> np.ndarray:
        """What was computed in `place`, in its own dtype and where it was asked for."""
        if self._copy is None:
            return result
        if out is None:
            return result.astype(self._dtype)
        np.copyto(out, result, casting="same_kind")
        return out
