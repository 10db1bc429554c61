"""Softmax, its logarithm and its adjoint along an axis, block by block in a handful of passes over each block."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import numpy as np

from irgrad.kernels.rows import Block, Rows
from irgrad.op import Kernel
from irgrad.runtime.workspace import Workspace

__all__ = ["log_softmax", "softmax", "softmax_grad"]


def _rows(shape: Sequence[int], axis: int) -> Rows:
    if not shape:
        return Rows(1, 1)
    axis %= len(shape)
    return Rows.over(shape, axis, axis + 1)


def _normalised(shape: Sequence[int], axis: int, dtype: np.dtype, finish: Callable[..., Any], temporaries: int) -> Kernel:
    """A kernel that puts the exponentials' exponents into the result, and has `finish` make of them what is asked for."""
    rows, space = _rows(shape, axis), Workspace()
    along = rows.shape[1]
    numbers = rows.statistics(space, dtype)
    spare = rows.temporaries(space, dtype, temporaries)

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        result = np.empty(shape, dtype) if out is None else out
        operand, target = rows.of(x), rows.of(result)

        def block(at: Block) -> None:
            source, y = operand[at.outer, :, at.inner], target[at.outer, :, at.inner]
            count = y.shape[0] * y.shape[2]
            number = numbers[at.share](work)[0, :count].reshape(y.shape[0], 1, y.shape[2])
            np.maximum.reduce(source, 1, out=number, keepdims=True)
            np.subtract(source, number, out=y)
            finish(y, number, *(t[: count * along].reshape(y.shape) for t in spare[at.share](work)))

        rows.run(block)
        return result

    return space.kernel(kernel)


def softmax(shape: Sequence[int], axis: int, dtype: np.dtype) -> Kernel:
    """The softmax of an array of a shape and dtype; the result may be the operand."""

    def finish(y: np.ndarray, number: np.ndarray) -> None:
        np.exp(y, out=y)
        np.add.reduce(y, 1, out=number, keepdims=True)
        np.divide(y, number, out=y)

    return _normalised(shape, axis, dtype, finish, 0)


def log_softmax(shape: Sequence[int], axis: int, dtype: np.dtype) -> Kernel:
    """The logarithm of the softmax; the result may be the operand."""

    def finish(y: np.ndarray, number: np.ndarray, exponentials: np.ndarray) -> None:
        np.exp(y, out=exponentials)
        np.add.reduce(exponentials, 1, out=number, keepdims=True)
        np.log(number, out=number)
        np.subtract(y, number, out=y)

    return _normalised(shape, axis, dtype, finish, 1)


def softmax_grad(shape: Sequence[int], axis: int, dtype: np.dtype) -> Kernel:
    """``y (dy - sum(y dy))``, in which zero times anything is zero; the result may be an operand."""
    rows, space = _rows(shape, axis), Workspace()
    along = rows.shape[1]
    numbers = rows.statistics(space, dtype)
    spare = rows.temporaries(space, dtype)

    def kernel(y: np.ndarray, dy: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        result = np.empty(shape, dtype) if out is None else out
        values, cotangents, target = rows.of(y), rows.of(dy), rows.of(result)

        def block(at: Block) -> None:
            v, g, dx = (a[at.outer, :, at.inner] for a in (values, cotangents, target))
            count = v.shape[0] * v.shape[2]
            total = numbers[at.share](work)[0, :count].reshape(v.shape[0], 1, v.shape[2])
            product = spare[at.share](work)[0, : count * along].reshape(v.shape)
            np.add.reduce(np.multiply(v, g, out=product), 1, out=total, keepdims=True)
            regular = isfinite(np.add.reduce(total, None))
            if not regular:
                np.copyto(product, 0, where=np.equal(g, 0))
                np.add.reduce(product, 1, out=total, keepdims=True)
            np.subtract(g, total, out=product)
            if regular:
                np.multiply(v, product, out=dx)
            else:
                zero = np.equal(product, 0)
                np.multiply(v, product, out=dx)
                np.copyto(dx, 0, where=zero)

        rows.run(block)
        return result

    return space.kernel(kernel)
