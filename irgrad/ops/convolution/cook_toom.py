"""Short convolutions with few multiplications (Cook, Toom, Winograd), as matrices.

F(m, k) computes m outputs of a correlation with k weights by n = m + k − 1 multiplications: ``y = Aᵀ [(G g) ⊙ (Bᵀ d)]`` for
n elements d and k weights g. It is the transpose of a product of polynomials that is found from its values at n points, one
of them infinity. The numbers are found exactly; each point's rows of Bᵀ and of G are then balanced by a power of two, which
costs no digit.

References: S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin, S. Gray, Fast Algorithms for Convolutional
Neural Networks, CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import frexp, prod
from typing import NamedTuple

import numpy as np

__all__ = ["Short", "short_convolution"]

_POINTS = tuple(Fraction(*p) for p in ((0, 1), (1, 1), (-1, 1), (2, 1), (-2, 1), (1, 2), (-1, 2)))
"""Where polynomials are evaluated, apart from infinity: small powers of two, whose powers lose no digits. With
one more point an error in float32 is a hundred times as large."""


class Short(NamedTuple):
    """The matrices of F(m, k), float64.

    Attributes:
        outputs: Aᵀ, [m, n].
        weights: G, [n, k].
        inputs: Bᵀ, [n, n].
    """

    outputs: np.ndarray
    weights: np.ndarray
    inputs: np.ndarray


@lru_cache
def short_convolution(m: int, k: int) -> Short:
    """F(m, k).

    Raises:
        ValueError: it needs more points than there are.
    """
    n = m + k - 1
    if n - 1 > len(_POINTS):
        raise ValueError(f"F({m}, {k}) needs {n} points; there are {len(_POINTS) + 1}")
    points = _POINTS[: n - 1]
    outputs = [[*(p**i for p in points), Fraction(int(i == m - 1))] for i in range(m)]
    weights, inputs = [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = prod((p - q for q in others), start=Fraction(1))
        weights.append([p**j / scale for j in range(k)])
        inputs.append([*_polynomial(others), Fraction(0)])
    weights.append([Fraction(int(j == k - 1)) for j in range(k)])
    inputs.append(_polynomial(points))
    for g, b in zip(weights, inputs, strict=True):
        factor = Fraction(2) ** ((_exponent(b) - _exponent(g)) // 2)
        g[:], b[:] = [v * factor for v in g], [v / factor for v in b]
    return Short(*(np.array([[float(v) for v in row] for row in rows]) for rows in (outputs, weights, inputs)))


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """The coefficients of the monic polynomial with these roots, that of degree 0 first."""
    found = [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _exponent(row: Sequence[Fraction]) -> int:
    return frexp(float(max(abs(v) for v in row)))[1]
