"""Elementwise functions of numpy, shared out among threads where the arrays are large."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from irgrad.kernels.shapes import result_of
from irgrad.op import Call, Kernel
from irgrad.runtime.threads import parallel, threads

__all__ = ["add_rows", "cuts", "spread"]

_WORTH = 1 << 18
"""Elements from which on a second thread is worth waking for a function that the memory feeds; about 100 µs."""


def spread(ufunc: np.ufunc, weight: int = 1) -> Callable[[Call], Kernel]:
    """What `Op.prepare` takes: the function itself, or for large arrays one that calls it on several threads.

    Args:
        ufunc: the function.
        weight: how many times the work of an addition an element takes.
    """

    def plan(call: Call) -> Kernel:
        result = result_of(call)
        if result is None:
            return ufunc
        shape = result.static_shape
        assert shape is not None
        if prod(shape) * weight < _WORTH or any(type is None for type in call.inputs):
            return ufunc
        axis = next(k for k, size in enumerate(shape) if size > 1)

        def kernel(*operands: np.ndarray, out: np.ndarray | None = None) -> Any:
            if threads() < 2:
                return ufunc(*operands, out=out)
            y = np.empty(shape, result.dtype) if out is None else out

            def part(cut: tuple[int, int]) -> None:
                ufunc(*(_between(a, axis - len(shape), *cut) for a in operands), out=_between(y, axis - len(shape), *cut))

            parallel(part, cuts(shape[axis]))
            return y

        return kernel

    return plan


def cuts(size: int, most: int | None = None) -> list[tuple[int, int]]:
    """The ends of equal parts of an axis, one for each thread (or at most so many)."""
    count = max(1, min(threads() if most is None else most, size))
    return [(k * size // count, (k + 1) * size // count) for k in range(count)]


def _between(a: np.ndarray, axis: int, start: int, stop: int) -> np.ndarray:
    """A part of an operand that is broadcast along axes of size 1 and along those that it lacks; `axis` is negative."""
    if a.ndim < -axis or a.shape[axis] == 1:
        return a
    return a[(*(slice(None),) * (a.ndim + axis), slice(start, stop))]


def add_rows(y: np.ndarray, c: np.ndarray) -> None:
    """Add to y an array that is broadcast to its shape."""
    if y.size < _WORTH or threads() < 2:
        np.add(y, c, out=y)
        return

    def part(cut: tuple[int, int]) -> None:
        place = y[slice(*cut)]
        np.add(place, _between(c, -y.ndim, *cut), out=place)

    parallel(part, cuts(len(y)))
