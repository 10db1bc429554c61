"""Oracles of adjoint operations by central differences of what they are the adjoints of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_STEP = 1e-5


def cotangent(function: Callable[..., np.ndarray], position: int) -> Callable[..., np.ndarray]:
    """``oracle(dy, *operands)``: the cotangent of the operand of a function at a position.

    For a function that is linear in the operand, or of second degree, it is exact but for rounding.
    """

    def oracle(dy: np.ndarray, *operands: Any) -> np.ndarray:
        start = operands[position]
        result = np.zeros_like(start)
        for index in np.ndindex(start.shape):
            step = np.zeros_like(start)
            step[index] = _STEP
            low, high = (function(*operands[:position], start + s * step, *operands[position + 1 :]) for s in (-1, 1))
            result[index] = np.vdot(dy, high - low) / (2 * _STEP)
        return result

    return oracle
