"""Functions on arrays that numpy lacks or is slow at: erf, sigmoid, softplus, and choosing between arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from math import prod
from typing import Any

import numpy as np

from irgrad.kernels.rows import BLOCK
from irgrad.kernels.shapes import shape_of
from irgrad.op import Call, Kernel, WorkspaceKernel
from irgrad.ops.compiled import compiled
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Place, Workspace, planned, shares

__all__ = ["Blockwise", "bits_of", "blockwise", "choose", "choosing", "erf", "select", "sigmoid", "softplus"]


_KEPT = 64  # kernels for shapes that other kernels call again and again


class Blockwise:
    """A kernel of one floating-point operand, which goes through a large array block by block; see `blockwise`."""

    def __init__(self, compute: Callable[..., None], temporaries: int) -> None:
        update_wrapper(self, compute)
        self.compute = compute
        self.temporaries = temporaries
        self._kernels: dict[tuple[Any, ...], WorkspaceKernel] = {}

    def __call__(self, x: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
        key = (x.shape, x.dtype, *attrs.items())
        kernel = self._kernels.get(key)
        if kernel is None:
            if len(self._kernels) == _KEPT:
                self._kernels.clear()
            kernel = self._kernels[key] = self.kernel(x.shape, x.dtype, attrs)
        result: np.ndarray = kernel(x, out=out)
        return result

    def prepare(self, call: Call) -> Kernel:
        """What `Op.prepare` takes."""
        return _prepared(call, self)

    def kernel(self, shape: Sequence[int], dtype: np.dtype, attrs: Mapping[str, Any]) -> WorkspaceKernel:
        """The kernel for an operand of some shape and dtype."""
        size, wide = prod(shape), accumulation_dtype(dtype)
        widening = wide != dtype
        space = Workspace()
        starts = shares(range(0, size, BLOCK), 2 * size)
        count = self.temporaries + 2 * widening
        places = [space.array((count, min(size, BLOCK)), wide) if count else None for _ in starts]
        shared = list(zip(starts, places, strict=True))

        def function(x: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
            y = out if out is not None and out.flags.c_contiguous else np.empty(shape, dtype)
            source, target = x.reshape(-1), y.reshape(-1)
            if size <= BLOCK and not widening:
                self.compute(source, target, *(() if places[0] is None else places[0](work)), **attrs)
                return y if y is out else deliver(y, out)

            def run(item: tuple[Sequence[int], Place | None]) -> None:
                spare = () if item[1] is None else item[1](work)
                for start in item[0]:
                    part, result = source[start : start + BLOCK], target[start : start + BLOCK]
                    rooms = [room[: part.size] for room in spare]
                    if widening:
                        *rooms, wider, wider_result = rooms
                        np.copyto(wider, part)
                        self.compute(wider, wider_result, *rooms, **attrs)
                        np.copyto(result, wider_result, casting="same_kind")
                    else:
                        self.compute(part, result, *rooms, **attrs)

            parallel(run, shared)
            return y if y is out else deliver(y, out)

        return space.kernel(function)


def _prepared(call: Call, function: Blockwise) -> Kernel:
    @compiled
    @planned()
    def plan(call: Call) -> Kernel:
        return function.kernel(shape_of(call, 0), call.tensor(0).dtype, call.attrs)

    return plan(call)


def blockwise(temporaries: int = 0) -> Callable[[Callable[..., None]], Blockwise]:
    """Decorator: a kernel out of ``compute(x, y, *spare, **attrs)``, which writes an elementwise function of x into y.

    `compute` gets one-dimensional contiguous blocks, float32 ones where the operand has 16 bits, and so many spare ones. It
    must not write to x, but as it may be y: then what first writes to y has to be the last that reads x. Going through a
    large array block by block keeps the temporaries of a long formula in cache.
    """
    return lambda compute: Blockwise(compute, temporaries)


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


def bits_of(x: np.ndarray) -> np.ndarray:
    """The elements as integers of their size: a view."""
    return x.view(_BITS[x.dtype.itemsize])


def choose(condition: np.ndarray, x: np.ndarray, y: np.ndarray, out: np.ndarray, mask: np.ndarray) -> None:
    """What `select` does with arrays of bits (see `bits_of`), without temporary arrays; `out` may be x or y.

    Args:
        condition: truth values.
        x: what is taken where they hold.
        y: what is taken elsewhere.
        out: the result.
        mask: room for integers of the elements' size, in the shape of the condition.
    """
    np.copyto(mask, condition.view(np.int8))
    np.negative(mask, out=mask)  # all bits or none
    if _is_zero(y):
        np.bitwise_and(x, mask, out=out)
    elif _is_zero(x):
        np.bitwise_and(y, np.invert(mask, out=mask), out=out)
    else:
        if np.may_share_memory(out, y):
            x, y = y, x
            np.invert(mask, out=mask)
        np.bitwise_xor(x, y, out=out)
        np.bitwise_and(out, mask, out=out)
        np.bitwise_xor(out, y, out=out)


@planned()
def choosing(call: Call) -> Kernel:
    """What `Op.prepare` takes: ``(condition, x, y) → select(condition, x, y)``."""
    dtype, shapes = call.tensor(1).dtype, [shape_of(call, k) for k in range(3)]
    if dtype.kind in "Oc":
        return select
    shape = np.broadcast_shapes(*shapes)
    size, bits, space = prod(shape), _BITS[dtype.itemsize], Workspace()
    flat = all(other == shape or prod(other) == 1 for other in shapes)
    starts = shares(range(0, size, BLOCK), size) if flat else [[0]]
    room = shapes[0] if not flat else (min(size, BLOCK),)
    masks = [space.array(room, bits) for _ in starts]

    def kernel(
        condition: np.ndarray, x: np.ndarray, other: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        result = np.empty(shape, dtype) if out is None else out
        arrays = [condition, bits_of(x), bits_of(other), bits_of(result)]
        if not flat:
            choose(arrays[0], arrays[1], arrays[2], arrays[3], masks[0](work))
            return result
        whole = [a.reshape(-1) for a in arrays]

        def run(item: tuple[Sequence[int], Place]) -> None:
            mask = item[1](work)
            for start in item[0]:
                where, a, b, y = (part if part.size == 1 else part[start : start + BLOCK] for part in whole)
                choose(where, a, b, y, mask[: where.size])

        parallel(run, list(zip(starts, masks, strict=True)))
        return result

    return space.kernel(kernel)


# --- the error function -----------------------------------------------------------------------------------------------


def _horner(x: np.ndarray, coefficients: Sequence[float], total: np.ndarray) -> np.ndarray:
    """A polynomial, its coefficients from the highest power down, into `total`."""
    np.multiply(x, coefficients[0], out=total)
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

# erf(x) = tanh(x E(x²)) for |x| <= 4: a minimax fit of E, weighted for the relative error of erf (1e-7).
_E = (
    *(1.4185110597448004e-07, -5.668455076529336e-06, 8.763719475030317e-05, -6.197842856918889e-04),
    *(-1.9183126186106856e-04, 1.0276900600845727e-01, 1.1283792742808303),
)
_SATURATED_SINGLE = 4.0  # the same in float32


@blockwise(5)
def erf(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, e: np.ndarray) -> None:
    """The error function, to a relative error of 4e-16 in float64 and 3e-7 in float32.

    In float64 these are two of the rational approximations of W. J. Cody, Rational Chebyshev Approximations for the Error
    Function, Mathematics of Computation 23 (1969), 631-637: the second one is still good enough for 1 - erfc(x) where Cody
    goes over to a third.
    """
    if x.dtype == np.float64:
        _erf_double(x, y, a, b, c, d, e)
        return
    with np.errstate(over="ignore"):
        np.multiply(x, x, out=a)
        np.minimum(a, _SATURATED_SINGLE**2, out=a)
        _horner(a, _E, b)
        np.multiply(b, x, out=b)
    np.tanh(b, out=y)


def _erf_double(
    x: np.ndarray, y: np.ndarray, size: np.ndarray, square: np.ndarray, small: np.ndarray, large: np.ndarray, e: np.ndarray
) -> None:
    np.abs(x, out=size)
    np.minimum(size, _SATURATED, out=size)
    np.multiply(size, size, out=square)
    _horner(square, _A, small)
    small /= _horner(square, _B, e)
    small *= size
    np.negative(square, out=square)
    np.exp(square, out=large)
    large *= _horner(size, _C, e)
    large /= _horner(size, _D, e)
    np.subtract(1.0, large, out=large)
    condition = e.view(np.bool_)[: e.size]
    np.less_equal(size, _SMALL, out=condition)
    choose(condition, bits_of(small), bits_of(large), bits_of(large), bits_of(square))
    np.copysign(large, x, out=y)


# --- the logistic function and its integral ---------------------------------------------------------------------------


@blockwise()
def sigmoid(x: np.ndarray, y: np.ndarray) -> None:
    """1 / (1 + exp(-x)); an exp that overflows makes the 0 that is right."""
    np.negative(x, out=y)
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    np.reciprocal(y, out=y)


@blockwise(1)
def softplus(x: np.ndarray, y: np.ndarray, a: np.ndarray) -> None:
    """log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)), in which nothing overflows."""
    np.abs(x, out=a)
    np.negative(a, out=a)
    np.exp(a, out=a)
    np.log1p(a, out=a)
    np.maximum(x, 0, out=y)
    y += a
