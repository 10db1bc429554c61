"""Functions on arrays that numpy lacks or is slow at: erf, sigmoid, softplus, and choosing between arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Protocol

import numpy as np

from irgrad.runtime.kernels import accumulation_dtype, deliver

__all__ = ["UnaryKernel", "blockwise", "erf", "select", "sigmoid", "softplus"]

_BLOCK = 16384  # elements: a handful of temporaries of a block stay in the processor's cache


class UnaryKernel(Protocol):
    """A kernel of one floating-point operand."""

    def __call__(self, x: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray: ...


def blockwise(compute: Callable[..., None]) -> UnaryKernel:
    """Decorator: a kernel out of ``compute(x, y, **attrs)``, which writes an elementwise function of x into y.

    `compute` gets one-dimensional contiguous blocks, float32 ones where the operand has 16 bits; x and y do not overlap, and
    x must not be written to. Going through a large array block by block keeps the temporaries of a long formula in cache.
    """

    @wraps(compute)
    def kernel(x: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
        y = out if out is not None and out.flags.c_contiguous else np.empty(x.shape, x.dtype)
        source, target, wide = x.reshape(-1), y.reshape(-1), accumulation_dtype(x.dtype)
        for start in range(0, source.size, _BLOCK):
            part, result = source[start : start + _BLOCK], target[start : start + _BLOCK]
            if wide == x.dtype:
                compute(part, result, **attrs)
            else:
                widened = np.empty(part.shape, wide)
                compute(part.astype(wide), widened, **attrs)
                result[...] = widened.astype(x.dtype)
        return y if y is out else deliver(y, out)

    return kernel


# --- choosing ---------------------------------------------------------------------------------------------------------

_BITS: dict[int, Any] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def select(condition: np.ndarray, x: np.ndarray, y: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The elements of x where a condition holds, else those of y; as `np.where`, into `out` if it is given.

    numpy branches at each element, which costs ten times as much as arithmetic where the condition is irregular. Here the
    bits of the two are combined with integer arithmetic, so that infinities, NaN and signed zeros pass unchanged.
    """
    if x.dtype.kind in "Oc":
        return deliver(np.where(condition, x, y), out)
    if out is None:
        out = np.empty(np.broadcast_shapes(condition.shape, x.shape, y.shape), x.dtype)
    bits = _BITS[x.dtype.itemsize]
    a, b, result, chosen = x.view(bits), y.view(bits), out.view(bits), condition.view(np.int8)
    if _is_zero(b):
        np.multiply(a, chosen, out=result)
    elif _is_zero(a):
        np.multiply(b, np.logical_not(condition).view(np.int8), out=result)
    else:
        np.bitwise_xor(a, b, out=result)
        np.multiply(result, chosen, out=result)
        np.bitwise_xor(result, b, out=result)
    return out


def _is_zero(bits: np.ndarray) -> bool:
    return bits.size == 1 and not bits.any()


# --- the error function -----------------------------------------------------------------------------------------------


def _horner(x: np.ndarray, coefficients: Sequence[float]) -> np.ndarray:
    """A polynomial, its coefficients from the highest power down."""
    total = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        total += coefficient
        total *= x
    total += coefficients[-1]
    return total


# erf(x) = x A(x²) / B(x²) for |x| <= 0.46875, 1 - exp(-x²) C(x) / D(x) above.
_A = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3)
_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_C = (
    *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2),
    *(8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
)
_D = (
    *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
    *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)
_SMALL = 0.46875
_SATURATED = 6.0  # from here on erf(x) is 1 in float64

# erf(x) = -expm1(-x E(x)) for 0 <= x <= 4: a least-squares fit of E, weighted for the relative error of erf (4e-9).
_E = (
    *(-9.256349585484713e-06, 1.1764198279706761e-4, -6.328392773866653e-4, 1.6670315526425838e-3),
    *(-1.603998534847051e-4, -1.9153062254190445e-2, 1.0277783125638962e-1, 6.366193890571594e-1, 1.128379225730896),
)
_SATURATED_SINGLE = 4.0  # the same in float32


@blockwise
def erf(x: np.ndarray, y: np.ndarray) -> None:
    """The error function, to a relative error of 4e-16 in float64 and 2e-7 in float32.

    In float64 these are two of the rational approximations of W. J. Cody, Rational Chebyshev Approximations for the Error
    Function, Mathematics of Computation 23 (1969), 631-637: the second one is still good enough for 1 - erfc(x) where Cody
    goes over to a third.
    """
    size = np.abs(x)
    if x.dtype == np.float64:
        np.minimum(size, _SATURATED, out=size)
        square = size * size
        small = size * _horner(square, _A)
        small /= _horner(square, _B)
        np.negative(square, out=square)
        large = np.exp(square, out=square)
        large *= _horner(size, _C)
        large /= _horner(size, _D)
        np.subtract(1.0, large, out=large)
        select(size <= _SMALL, small, large, y)
    else:
        np.minimum(size, _SATURATED_SINGLE, out=size)
        exponent = _horner(size, _E)
        exponent *= size
        np.negative(exponent, out=exponent)
        np.expm1(exponent, out=y)
    np.copysign(y, x, out=y)


# --- the logistic function and its integral ---------------------------------------------------------------------------


@blockwise
def sigmoid(x: np.ndarray, y: np.ndarray) -> None:
    """1 / (1 + exp(-x)); an exp that overflows makes the 0 that is right."""
    np.negative(x, out=y)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    np.reciprocal(y, out=y)


@blockwise
def softplus(x: np.ndarray, y: np.ndarray) -> None:
    """log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)), in which nothing overflows."""
    np.abs(x, out=y)
    np.negative(y, out=y)
    np.exp(y, out=y)
    np.log1p(y, out=y)
    y += np.maximum(x, 0)
