"""Functions compiled by numba, each once for the element types that it is wanted for; see `irgrad.runtime.fast`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

__all__ = ["jit", "read", "reals", "write"]


def read(dtype: Any, rank: int) -> str:
    """The type of a contiguous array that is only read, and that may be read-only."""
    return f"Array({np.dtype(dtype).name}, {rank}, 'C', readonly=True)"


def write(dtype: Any, rank: int) -> str:
    """The type of a contiguous array that is written to."""
    return f"Array({np.dtype(dtype).name}, {rank}, 'C')"


def reals(*dtypes: np.dtype) -> bool:
    """Whether all of these are numbers that compiled code computes with as they are: float32 or float64."""
    return all(dtype in (np.float32, np.float64) for dtype in dtypes)


@cache
def jit(function: Callable[..., Any], *types: str, result: str = "void", reorder: bool = False) -> Callable[..., Any]:
    """A function in the part of Python that numba knows, compiled for operands of some types.

    Args:
        function: a function of a module; what it needs of other modules it finds among its operands.
        types: of the operands, as `read` and `write` say, or numba's names of scalars and tuples of them.
        result: what it returns.
        reorder: whether sums may be formed in another order, so that they are formed in vectors. Infinities and NaN keep
            their meaning.
    """
    from numba import njit

    fast: Any = {"reassoc", "contract"} if reorder else False
    compiled: Callable[..., Any] = njit(f"{result}({', '.join(types)})", nogil=True, cache=True, fastmath=fast)(function)
    return compiled
