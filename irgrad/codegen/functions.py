"""Functions of one real number as branch-free LLVM code, so that loops over them become vector instructions.

Each takes a `Real` and returns one; they serve float32 and float64. "Error" below is the largest one seen against extended
precision, in units of the last place (1.2e-7 and 2.2e-16 at most, relative to the result). NaN and infinities give
what the functions mean there, and results that are denormal are right too. There are selections in place of branches: a loop
with a branch in it is not vectorised.

References: the reduction of exp and log to a short interval is Cody and Waite's (Software Manual for the Elementary
Functions, 1980); the polynomials of log and the rational functions of tanh in float64 are those of S. L. Moshier's Cephes
library, those of log in float64 of Sun's fdlibm, those of tanh and erf in float32 of the Eigen library, and erf in float64
is W. J. Cody, Rational Chebyshev Approximations for the Error Function, Mathematics of Computation 23 (1969).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import e, factorial, inf, log2, nan, pi, sqrt
from typing import Any

import numpy as np
from llvmlite import ir

__all__ = ["FUNCTIONS", "Real", "extreme"]

_CONTRACT = ("contract",)


class Real:
    """A floating-point number in the making: operators emit instructions, which may be fused to multiply-adds."""

    def __init__(self, builder: ir.IRBuilder, value: Any) -> None:
        self.builder = builder
        self.value = value

    @property
    def single(self) -> bool:
        """Whether this is a float32."""
        return isinstance(self.value.type, ir.FloatType)

    def of(self, number: float) -> Real:
        """A constant of the same type."""
        return Real(self.builder, ir.Constant(self.value.type, float(np.float32(number) if self.single else number)))

    def _operand(self, other: Real | float) -> Any:
        return other.value if isinstance(other, Real) else self.of(other).value

    def __add__(self, other: Real | float) -> Real:
        return Real(self.builder, self.builder.fadd(self.value, self._operand(other), flags=_CONTRACT))

    def __sub__(self, other: Real | float) -> Real:
        return Real(self.builder, self.builder.fsub(self.value, self._operand(other), flags=_CONTRACT))

    def __rsub__(self, other: float) -> Real:
        return self.of(other) - self

    def __mul__(self, other: Real | float) -> Real:
        return Real(self.builder, self.builder.fmul(self.value, self._operand(other), flags=_CONTRACT))

    def __truediv__(self, other: Real | float) -> Real:
        return Real(self.builder, self.builder.fdiv(self.value, self._operand(other)))

    def __rtruediv__(self, other: float) -> Real:
        return self.of(other) / self

    def __neg__(self) -> Real:
        return Real(self.builder, self.builder.fneg(self.value))

    def compare(self, relation: str, other: Real | float) -> Any:
        """A bit: the relation holds, and neither is NaN."""
        return self.builder.fcmp_ordered(relation, self.value, self._operand(other))

    def where(self, condition: Any, other: Real | float) -> Real:
        """The number itself where a bit is set, else the other one."""
        return Real(self.builder, self.builder.select(condition, self.value, self._operand(other)))

    def call(self, name: str, *others: Real) -> Real:
        """One of LLVM's own functions: "fabs", "sqrt", "copysign"."""
        operands = [self.value, *(other.value for other in others)]
        kind = ir.FunctionType(self.value.type, [operand.type for operand in operands])
        full = f"llvm.{name}.{'f32' if self.single else 'f64'}"
        module = self.builder.module
        function = module.globals.get(full) or ir.Function(module, kind, full)
        return Real(self.builder, self.builder.call(function, operands))

    # --- as bits --------------------------------------------------------------------------------------------------------

    @property
    def word(self) -> Any:
        """The type of an integer of as many bits."""
        return ir.IntType(32 if self.single else 64)

    @property
    def fraction_bits(self) -> int:
        return 23 if self.single else 52

    @property
    def bias(self) -> int:
        """What the exponent of 1 is stored as."""
        return 127 if self.single else 1023

    def bits(self) -> Any:
        return self.builder.bitcast(self.value, self.word)

    def from_bits(self, word: Any) -> Real:
        return Real(self.builder, self.builder.bitcast(word, self.value.type))

    def from_integer(self, word: Any) -> Real:
        return Real(self.builder, self.builder.sitofp(word, self.value.type))

    def integer(self, number: int) -> Any:
        return ir.Constant(self.word, number)


def horner(x: Real, coefficients: Sequence[float]) -> Real:
    """A polynomial, its coefficients from the highest power down."""
    total = x.of(coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def extreme(x: Real, y: Real, *, largest: bool) -> Real:
    """The larger or smaller of two numbers, NaN where one is."""
    return x.call("maximum" if largest else "minimum", y)


# --- exp and log --------------------------------------------------------------------------------------------------------

_LN2_SINGLE = (0.693359375, -2.12194440e-4)  # the first has so few bits that its products with small integers are exact
_LN2_DOUBLE = (6.93147180369123816490e-1, 1.90821492927058770002e-10)
_EXP_SINGLE = tuple(1 / factorial(k) for k in range(7, 1, -1))
_EXP_DOUBLE = tuple(1 / factorial(k) for k in range(13, 1, -1))


def exp(x: Real) -> Real:
    """The exponential function, as a power of 2 times a Taylor polynomial of some |r| <= ln(2) / 2. Error: 1.1."""
    lowest, highest = (-105.0, 89.0) if x.single else (-746.0, 710.0)
    x = x.where(x.builder.not_(x.compare("<", lowest)), lowest)
    x = x.where(x.builder.not_(x.compare(">", highest)), highest)
    # Adding 1.5 · 2²³ (2⁵²) rounds to an integer, which the last bits of the sum then hold.
    magic = 1.5 * 2.0**x.fraction_bits
    shifted = x * log2(e) + magic
    n = shifted - magic
    high, low = _LN2_SINGLE if x.single else _LN2_DOUBLE
    r = x - n * high - n * low
    power = horner(r, _EXP_SINGLE if x.single else _EXP_DOUBLE) * (r * r) + r + 1
    exponent = x.builder.sub(shifted.bits(), x.of(magic).bits())
    half = x.builder.ashr(exponent, x.integer(1))  # in two factors, since 2ⁿ itself may be too large or too small
    for part in (half, x.builder.sub(exponent, half)):
        biased = x.builder.add(part, x.integer(x.bias))
        power = power * x.from_bits(x.builder.shl(biased, x.integer(x.fraction_bits)))
    return power


_LOG_SINGLE = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
_LOG_DOUBLE = (
    *(1.479819860511658591e-1, 1.531383769920937332e-1, 1.818357216161805012e-1, 2.222219843214978396e-1),
    *(2.857142874366239149e-1, 3.999999999940941908e-1, 6.666666666666735130e-1),
)


def log(x: Real) -> Real:
    """The natural logarithm, from those of a power of 2 and of a number between √½ and √2. Error: 0.9."""
    builder = x.builder
    tiny = x.compare("<", 2.0 ** (2 - 2 ** (7 if x.single else 10)))  # denormal: brought up by a power of two
    scale = 2.0 ** (x.fraction_bits + 1)
    normal = (x * scale).where(tiny, x)
    base = x.of(sqrt(0.5)).bits()
    offset = builder.sub(normal.bits(), base)
    n = x.from_integer(builder.ashr(offset, x.integer(x.fraction_bits)))
    n = (n - (x.fraction_bits + 1)).where(tiny, n)
    mantissa = builder.add(builder.and_(offset, x.integer((1 << x.fraction_bits) - 1)), base)
    f = x.from_bits(mantissa) - 1
    if x.single:
        high, low = _LN2_SINGLE
        result = f * (f * f) * horner(f, _LOG_SINGLE) + n * low - f * f * 0.5 + f + n * high
    else:
        high, low = _LN2_DOUBLE
        s, half = f / (f + 2), f * f * 0.5
        series = s * s * horner(s * s, _LOG_DOUBLE)
        result = n * high - ((half - (s * (half + series) + n * low)) - f)
    result = x.where(builder.not_(x.compare("<", inf)), result)  # infinity and NaN stay what they are
    result = result.where(builder.not_(x.compare("==", 0.0)), -inf)
    return result.where(builder.not_(x.compare("<", 0.0)), nan)


def log1p(x: Real) -> Real:
    """log(1 + x), with what rounding 1 + x loses put back. Error: 2."""
    u = x + 1
    lost = (x - (u - 1)) / u
    finite = x.builder.and_(u.compare(">", 0.0), u.compare("<", inf))
    return log(u) + lost.where(finite, 0.0)


_EXPM1_SINGLE = tuple(1 / factorial(k) for k in range(9, 1, -1))
_EXPM1_DOUBLE = tuple(1 / factorial(k) for k in range(17, 1, -1))


def expm1(x: Real) -> Real:
    """exp(x) - 1, by its Taylor polynomial where |x| < ¾. Error: 2."""
    near = x * x * horner(x, _EXPM1_SINGLE if x.single else _EXPM1_DOUBLE) + x
    return near.where(x.call("fabs").compare("<", 0.75), exp(x) - 1)


# --- tanh, erf and the logistic function ----------------------------------------------------------------------------------

_NEAR_ZERO = 4e-4  # below this, in float32, the first term of the series is all there is; denormals need it

_TANH_P_SINGLE = (
    *(-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08),
    *(1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03),
)
_TANH_Q_SINGLE = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
_TANH_P_DOUBLE = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
_TANH_Q_DOUBLE = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)


def tanh(x: Real) -> Real:
    """The hyperbolic tangent. Error: 5 in float32, 2 in float64."""
    if x.single:
        size = x.call("fabs")
        clamped = x.where(
            x.builder.not_(size.compare(">", 7.90531110763549805)), x.of(7.90531110763549805).call("copysign", x)
        )
        square = clamped * clamped
        ratio = clamped * horner(square, _TANH_P_SINGLE) / horner(square, _TANH_Q_SINGLE)
        ratio = x.where(size.compare("<", _NEAR_ZERO), ratio)
        return ratio.where(x.builder.not_(size.compare(">", 9.01)), x.of(1.0).call("copysign", x))
    size, square = x.call("fabs"), x * x
    near = x + x * square * (horner(square, _TANH_P_DOUBLE) / horner(square, _TANH_Q_DOUBLE))
    decay = exp(size * -2)
    far = ((1 - decay) / (decay + 1)).call("copysign", x)
    return near.where(size.compare("<", 0.625), far)


_ERF_P_SINGLE = (
    *(-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05),
    *(-7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02),
)
_ERF_Q_SINGLE = (
    *(-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03),
    -1.42647390514189e-02,
)
_ERF_A = (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3)
_ERF_B = (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3)
_ERF_C = (
    *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2),
    *(8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
)
_ERF_D = (
    *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
    *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)


def erf(x: Real) -> Real:
    """The error function. Error: 6 in float32, 4 in float64."""
    if x.single:
        size = x.call("fabs")
        clamped = x.where(x.builder.not_(size.compare(">", 4.0)), x.of(4.0).call("copysign", x))
        square = clamped * clamped
        ratio = clamped * horner(square, _ERF_P_SINGLE) / horner(square, _ERF_Q_SINGLE)
        return (x * (2 / sqrt(pi))).where(size.compare("<", _NEAR_ZERO), ratio)
    size = x.call("fabs")
    size = size.where(x.builder.not_(size.compare(">", 6.0)), 6.0)
    square = size * size
    small = size * horner(square, _ERF_A) / horner(square, _ERF_B)
    large = 1 - exp(-square) * horner(size, _ERF_C) / horner(size, _ERF_D)
    return small.where(size.compare("<=", 0.46875), large).call("copysign", x)


def sigmoid(x: Real) -> Real:
    """1 / (1 + exp(-x)); an exp that overflows makes the 0 that is right. Error: 2.4."""
    return 1 / (exp(-x) + 1)


def softplus(x: Real) -> Real:
    """log(1 + exp(x)), as max(x, 0) + log(1 + exp(-|x|)), in which nothing overflows. Error: 2."""
    return extreme(x, x.of(0.0), largest=True) + log1p(exp(-x.call("fabs")))


FUNCTIONS = {function.__name__: function for function in (exp, expm1, log, log1p, tanh, erf, sigmoid, softplus)}
"""Name → function, for those that the generated code calls by name."""
