"""Standardising: x̂ = (x − mean) / sqrt(var + ε) over some axes, as arrays for kernels and as nodes for adjoint rules.

With g the cotangent of x̂ and averages over the same axes, the cotangent of x is

    dx = (g − avg(g) − x̂ · avg(g · x̂)) / sqrt(var + ε)

(Ioffe and Szegedy, Batch Normalization, 2015, section 3). Without centring (Zhang and Sennrich, Root Mean Square Layer
Normalization, 2019), x̂ has no mean and dx no avg(g).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Value
from irgrad.runtime.kernels import accumulation_dtype, deliver

__all__ = ["affine", "average", "pulled_back", "standardise", "standardised"]


def standardise(
    x: np.ndarray, axes: tuple[int, ...], epsilon: float, *, centred: bool = True
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]:
    """The array x̂, the mean (None if not centred), the variance, and 1 / sqrt(var + ε), the last three with axes kept.

    All are in the dtype that sums over x are formed in.
    """
    wide = accumulation_dtype(x.dtype)
    mean = np.mean(x, axes, wide, keepdims=True) if centred else None
    y = x.astype(wide) if mean is None else np.subtract(x, mean, dtype=wide)
    variance = np.mean(np.square(y), axes, wide, keepdims=True)
    inverse = 1 / np.sqrt(variance + wide.type(epsilon))
    return np.multiply(y, inverse, out=y), mean, variance, inverse


def affine(y: np.ndarray, scale: np.ndarray, bias: np.ndarray | None, out: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """The array y · scale + bias, computed in place of y and delivered in a dtype of its own."""
    np.multiply(y, scale, out=y)
    if bias is not None:
        np.add(y, bias, out=y)
    return deliver(y.astype(dtype, copy=False), out)


def average(b: Builder, v: Value, axes: Sequence[int]) -> Value:
    """Emit the mean of v over some axes, which are kept with size 1."""
    return b.op("ReduceMean", v, b.ints(axes), keepdims=1) if axes else v


def standardised(b: Builder, x: Value, axes: Sequence[int], epsilon: float, *, centred: bool = True) -> tuple[Value, Value]:
    """Emit x̂ and 1 / sqrt(var + ε) for x."""
    difference = x - average(b, x, axes) if centred else x
    variance = average(b, difference * difference, axes)
    inverse = b.op("Reciprocal", b.op("Sqrt", variance + epsilon))
    return difference * inverse, inverse


def pulled_back(
    b: Builder, g: Value, normalised: Value, inverse: Value, axes: Sequence[int], *, centred: bool = True
) -> Value:
    """Emit the cotangent of x, given that of x̂ (the formula at the top of this file)."""
    common = normalised * average(b, g * normalised, axes)
    return inverse * (g - (average(b, g, axes) + common if centred else common))
