"""Standardising: x̂ = (x − mean) / sqrt(var + ε) over some axes, as nodes for adjoint rules.

With g the cotangent of x̂ and averages over the same axes, the cotangent of x is

    dx = (g − avg(g) − x̂ · avg(g · x̂)) / sqrt(var + ε)

(Ioffe and Szegedy, Batch Normalization, 2015, section 3). Without centring (Zhang and Sennrich, Root Mean Square Layer
Normalization, 2019), x̂ has no mean and dx no avg(g).
"""

from __future__ import annotations

from collections.abc import Sequence

from irgrad.builder import Builder
from irgrad.graph import Value

__all__ = ["average", "pulled_back", "standardised"]


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
