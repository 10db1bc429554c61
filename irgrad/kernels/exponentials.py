"""Exponentials of rows, compiled. Imported where numba is installed only."""

from __future__ import annotations

import numpy as np

from irgrad.codegen.device import accumulate, exp, maximum

__all__ = ["exponentials"]


def exponentials(s: np.ndarray, total: np.ndarray, lowest: float) -> None:
    """Exponentials of each row's numbers minus the largest of them, in place, and their sums; see attention_kernels.py.

    Args:
        s: the rows.
        total: their sums, at least 1.
        lowest: the smallest finite number.
    """
    n = s.shape[1]
    one = total.dtype.type(1)
    for i in range(s.shape[0]):
        top = lowest
        for j in range(n):
            top = maximum(top, s[i, j])
        added = one - one
        for j in range(n):
            e = exp(s[i, j] - top)
            s[i, j] = e
            added = accumulate(added, e)  # type: ignore[call-arg]
        total[i] = maximum(added, one)
