"""Elementwise arithmetic, and choices between operands: Max, Min, Clip, Where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.kernels.elementwise import spread
from irgrad.op import ZERO, Call, Kernel, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.special import choosing
from irgrad.runtime.kernels import accumulation_dtype, deliver

__all__ = ["keep_where", "ops"]

ops = OpTable()


def keep_where(b: Builder, condition: Value, v: Value) -> Value:
    """The elements of v where a condition holds, 0 elsewhere: unlike a product, without NaN out of 0 times infinity."""
    return b.op("Where", condition, v, b.scalar(0, v))


def _is_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iu"


# --- sums and products ------------------------------------------------------------------------------------------------

add = ops.define("Add", kernel=np.add, broadcasts=True)
sub = ops.define("Sub", kernel=np.subtract, broadcasts=True)
mul = ops.define("Mul", kernel=np.multiply, broadcasts=True)
div = ops.define("Div", broadcasts=True, in_place=True)
neg = ops.define("Neg", kernel=np.negative)
abs_ = ops.define("Abs", kernel=np.absolute)
reciprocal = ops.define("Reciprocal", kernel=np.reciprocal)
sqrt = ops.define("Sqrt", kernel=np.sqrt)
for _op, _ufunc in {
    add: np.add,
    sub: np.subtract,
    mul: np.multiply,
    neg: np.negative,
    abs_: np.absolute,
    reciprocal: np.reciprocal,
    sqrt: np.sqrt,
}.items():
    _op.prepare(spread(_ufunc))


@div.prepare
def _div(call: Call) -> Kernel:
    return _truncating_quotient if _is_integer(call.tensor(0).dtype) else spread(np.divide)(call)


def _truncating_quotient(x: np.ndarray, y: np.ndarray, *, out: np.ndarray | None = None) -> Any:
    """The quotient of integers rounded towards zero."""
    return np.floor_divide(np.subtract(x, np.fmod(x, y)), y, out=out)


@add.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, Value]:
    return dy, dy


@sub.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, Value | None]:
    return dy, -dy if b.needs(node.inputs[1]) else None


@mul.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, Value | None]:
    x, y = node.operand(0), node.operand(1)
    return dy * y if b.needs(x) else None, dy * x if b.needs(y) else None


@div.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, Value | None]:
    y, (quotient,) = node.operand(1), node.outputs
    dx = dy / y
    return dx, -(dx * quotient) if b.needs(y) else None


@neg.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return -dy


@abs_.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The subgradient at 0 is 0."""
    return dy * b.op("Sign", node.operand(0))


@reciprocal.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return -(dy * (y * y))


@sqrt.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return dy / (2 * y)


# --- remainders -------------------------------------------------------------------------------------------------------

mod = ops.define("Mod", broadcasts=True, in_place=True)


@mod.prepare
def _mod(call: Call) -> Kernel:
    return spread(np.fmod if call.attrs["fmod"] else np.remainder, 8)(call)


@mod.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, Value | None]:
    """The result is x - q y with an integer q, whose jumps have no gradient.

    q is read off the result: the quotient x / y itself may have been rounded up to the next integer.
    """
    x, y = node.operand(0), node.operand(1)
    if not b.needs(y):
        return dy, None
    return dy, -(dy * b.op("Round", (x - node.outputs[0]) / y))


# --- powers -----------------------------------------------------------------------------------------------------------

power = ops.define("Pow", broadcasts=True)

_CHEAP_POWERS: dict[float, np.ufunc] = {-1: np.reciprocal, 1: np.positive, 2: np.square}


@power.prepare
def _power(call: Call) -> Kernel:
    """The result has the dtype of x, whatever that of the exponent."""
    dtype, exponents = call.tensor(0).dtype, call.tensor(1).dtype
    if _is_integer(dtype):
        return lambda x, exponent, out=None: deliver(_integer_power(x, exponent).astype(dtype, copy=False), out)
    wide = accumulation_dtype(dtype)
    plain = spread(np.power, 8)(call) if dtype == exponents == wide else None

    def kernel(x: np.ndarray, exponent: np.ndarray, *, out: np.ndarray | None = None) -> Any:
        number = exponent.item() if exponent.size == 1 and exponent.ndim <= x.ndim else None
        if number == 3:
            square = np.asarray(np.square(x, out=out))
            return np.multiply(square, x, out=square)
        if number in _CHEAP_POWERS:
            return _CHEAP_POWERS[number](x, out=out)
        if plain is not None:
            return plain(x, exponent, out=out)
        return deliver(np.asarray(np.power(x.astype(wide, copy=False), exponent)).astype(dtype, copy=False), out)

    return kernel


def _integer_power(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Powers of integers, rounded towards zero; integer exponents are exact up to wrapping around."""
    if not _is_integer(exponent.dtype):
        return np.asarray(np.power(x.astype(np.float64), exponent))
    exponent = exponent.astype(np.int64)
    negative = exponent < 0
    if not negative.any():
        return np.asarray(np.power(x, exponent))
    # A negative power is 0 but of 1 and -1, where only its parity counts.
    result = np.power(x, np.where(negative, exponent & 1, exponent))
    return np.where(negative & (np.abs(x) != 1), 0, result)


@power.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | Zero | None, Value | None]:
    x, exponent = node.operand(0), node.operand(1)
    return (
        _power_by_base(b, x, exponent, dy) if b.needs(x) else None,
        _power_by_exponent(b, x, exponent, node.outputs[0], dy) if b.needs(exponent) else None,
    )


def _power_by_base(b: AdjointBuilder, x: Value, exponent: Value, dy: Value) -> Value | Zero:
    """Of x^y that is y x^(y-1), and 0 where both x and y are: there the exponent is not lowered."""
    fixed = None if exponent.is_parameter or b.needs(exponent) else exponent.constant
    if fixed is None:
        one = b.scalar(1, exponent)
        both_zero = b.op("And", b.op("Equal", x, 0), b.op("Equal", exponent, 0))
        lowered = b.op("Where", both_zero, one, exponent) - one
        return dy * (b.cast(exponent, x.dtype) * b.op("Pow", x, lowered))
    if fixed.size == 1 and fixed.item() == 0:
        return ZERO
    if fixed.size == 1 and fixed.item() == 1:
        return dy
    if fixed.size == 1 and fixed.item() == 2:
        return dy * (2 * x)
    # A factor of 0 needs no lower power, which might be infinite.
    lowered = b.constant(np.where(fixed == 0, fixed, fixed - fixed.dtype.type(1)), fixed.dtype)
    return dy * (b.constant(fixed, x.dtype) * b.op("Pow", x, lowered))


def _power_by_exponent(b: AdjointBuilder, x: Value, exponent: Value, result: Value, dy: Value) -> Value:
    """Of x^y that is x^y log(x): 0 where x is 0 and y >= 0, NaN where it does not exist (x is negative, or 0 and y < 0)."""
    positive = b.op("Where", b.op("Equal", x, 0), b.scalar(1, x), x)
    return b.cast(dy * (result * b.op("Log", positive)), exponent.dtype)


# --- any number of operands -------------------------------------------------------------------------------------------


def _accumulate(ufunc: np.ufunc, operands: Sequence[np.ndarray], out: np.ndarray | None, dtype: np.dtype) -> np.ndarray:
    """A binary function over two or more operands from left to right, in a dtype."""
    if out is None or out.dtype != dtype:
        out = np.empty(np.broadcast_shapes(*(x.shape for x in operands)), dtype)
    ufunc(operands[0], operands[1], out=out, dtype=dtype)
    for x in operands[2:]:
        ufunc(out, x, out=out, dtype=dtype)
    return out


def _extreme(ufunc: np.ufunc) -> Callable[[Call], Kernel]:
    def kernel(*operands: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if len(operands) == 1:
            return deliver(operands[0], out)
        return _accumulate(ufunc, operands, out, operands[0].dtype)

    return lambda call: spread(ufunc)(call) if len(call.inputs) == 2 else kernel


# The third operand and those after it are read when the first two have become the result.
maximum = ops.define("Max", broadcasts=True, in_place=(0, 1), cost=costs.variadic)
maximum.prepare(_extreme(np.maximum))
minimum = ops.define("Min", broadcasts=True, in_place=(0, 1), cost=costs.variadic)
minimum.prepare(_extreme(np.minimum))
total = ops.define("Sum", broadcasts=True, in_place=(0, 1), cost=costs.variadic)
mean = ops.define("Mean", broadcasts=True, in_place=(0, 1), cost=costs.variadic)


@total.prepare
def _total(call: Call) -> Kernel:
    return spread(np.add)(call) if len(call.inputs) == 2 else _sum


def _sum(*operands: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return _sum_over(1, operands, out)


@mean.kernel
def _mean(*operands: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    return _sum_over(len(operands), operands, out)


def _sum_over(divisor: int, operands: Sequence[np.ndarray], out: np.ndarray | None) -> np.ndarray:
    """The sum of one or more operands over a number; in between, sums of 16-bit floats are float32."""
    if len(operands) == 1:
        return deliver(operands[0], out)
    dtype = operands[0].dtype
    result = _accumulate(np.add, operands, out, accumulation_dtype(dtype))
    if divisor != 1:
        np.divide(result, result.dtype.type(divisor), out=result)
    return result if result is out else deliver(result.astype(dtype, copy=False), out)


def _extreme_adjoint(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    """The cotangent goes to the operand that attains the extreme; operands that tie share it equally."""
    operands, (y,) = [node.operand(k) for k in range(len(node.inputs))], node.outputs
    if len(operands) == 1:
        return [dy]
    hits = [b.op("Equal", x, y) for x in operands]
    if len(operands) == 2:
        half = dy * 0.5
        shares = [
            b.op("Where", other, half, dy) if b.needs(x) else dy for x, other in zip(operands, hits[::-1], strict=True)
        ]
    else:
        shares = [dy / b.op("Sum", *(b.cast(hit, dy.dtype) for hit in hits))] * len(operands)
    return [keep_where(b, hit, share) if b.needs(x) else None for x, hit, share in zip(operands, hits, shares, strict=True)]


maximum.adjoint(_extreme_adjoint)
minimum.adjoint(_extreme_adjoint)


@total.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    return [dy] * len(node.inputs)


@mean.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value]:
    count = len(node.inputs)
    return [dy if count == 1 else dy / count] * count


# --- choices ----------------------------------------------------------------------------------------------------------

where = ops.define("Where", broadcasts=True, in_place=(1, 2))
where.prepare(choosing)
clip = ops.define("Clip", broadcasts=(1, 2), in_place=(0,))


@where.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[None, Value | None, Value | None]:
    condition, x, y = (node.operand(k) for k in range(3))
    return (
        None,
        keep_where(b, condition, dy) if b.needs(x) else None,
        b.op("Where", condition, b.scalar(0, dy), dy) if b.needs(y) else None,
    )


@clip.kernel
def _clip(
    x: np.ndarray, low: np.ndarray | None = None, high: np.ndarray | None = None, *, out: np.ndarray | None = None
) -> np.ndarray:
    """Min(high, Max(x, low)). Bounds of shape [1], which older exporters wrote, are taken for scalars."""
    if low is None and high is None:
        return deliver(x, out)
    y = np.empty(x.shape, x.dtype) if out is None else out
    if low is not None:
        x = np.maximum(x, low.reshape(()), out=y)
    if high is not None:
        np.minimum(x, high.reshape(()), out=y)
    return y


@clip.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Sequence[Value | Zero | None]:
    """Elements within the bounds, or on one, pass the cotangent on; others give it to the bound that they were set to.

    Where min > max, every element is max, and so gets the cotangent.
    """
    x, low, high, (y,) = node.operand(0), node.input(1), node.input(2), node.outputs
    if low is None and high is None:
        return [dy]
    ordered = _bounds_ordered(low, high)
    if ordered is False:
        return [ZERO, ZERO, dy]
    results: list[Value | None] = []
    for operand, comparison in zip(node.inputs, ("Equal", "Less", "Greater"), strict=False):
        if not b.needs(operand):
            results.append(None)
            continue
        mask = b.op(comparison, x, y)
        if isinstance(ordered, Value):
            mask = b.op("And", mask, ordered) if comparison != "Greater" else b.op("Or", mask, b.op("Not", ordered))
        results.append(keep_where(b, mask, dy))
    return results


def _bounds_ordered(low: Value | None, high: Value | None) -> Value | bool:
    """Whether min <= max: a bool where that can be told at compile time, else a 0-d value."""
    if low is None or high is None:
        return True
    if low.constant is None or high.constant is None or low.is_parameter or high.is_parameter:
        return low <= high
    return bool((low.constant <= high.constant).all())
