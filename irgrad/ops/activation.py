"""Activations.

At a kink the derivative is that of the branch at lower x: Relu'(0) = 0, LeakyRelu'(0) = alpha. At theirs, Shrink and
HardSigmoid have 0, HardSwish the slope further out (0 at -3, 1 at 3). Where the sign of the result tells the branch, the
rule reads it off the result, so that the operand need not be kept.
"""

from __future__ import annotations

from math import pi, sqrt
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder
from irgrad.graph import Node, Value
from irgrad.op import OpTable
from irgrad.ops.elementwise import keep_where
from irgrad.ops.special import blockwise, erf, select, sigmoid, softplus
from irgrad.ops.transcendental import gaussian
from irgrad.runtime.kernels import accumulation_dtype, deliver

ops = OpTable()

# --- rectifiers -------------------------------------------------------------------------------------------------------

relu = ops.define("Relu")
leaky_relu = ops.define("LeakyRelu")
prelu = ops.define("PRelu", broadcasts=(1,))
thresholded_relu = ops.define("ThresholdedRelu")
shrink = ops.define("Shrink")


@relu.kernel
def _relu(x: np.ndarray, *, out: np.ndarray | None = None) -> Any:
    return np.maximum(x, x.dtype.type(0), out=out)


@relu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return keep_where(b, node.outputs[0] > 0, dy)


@leaky_relu.kernel
@blockwise
def _leaky_relu(x: np.ndarray, y: np.ndarray, *, alpha: float = 0.01) -> None:
    np.minimum(x, 0, out=y)
    y *= alpha
    y += np.maximum(x, 0)


@leaky_relu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    alpha = node.attr("alpha")
    telling = node.outputs[0] if alpha >= 0 else node.operand(0)
    return b.op("Where", telling > 0, dy, alpha * dy)


@prelu.kernel
def _prelu(x: np.ndarray, slope: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    return select(np.less(x, x.dtype.type(0)), np.multiply(slope, x), x, out)


@prelu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, Value | None]:
    x, slope = node.operand(0), node.operand(1)
    positive = x > 0
    return (
        b.op("Where", positive, dy, dy * slope) if b.needs(x) else None,
        b.op("Where", positive, b.scalar(0, dy), dy * x) if b.needs(slope) else None,
    )


@thresholded_relu.kernel
@blockwise
def _thresholded_relu(x: np.ndarray, y: np.ndarray, *, alpha: float = 1.0) -> None:
    select(x > alpha, x, np.zeros(1, x.dtype), y)


@thresholded_relu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    alpha = node.attr("alpha")
    telling = node.outputs[0] if alpha >= 0 else node.operand(0)
    return keep_where(b, telling > alpha, dy)


@shrink.kernel
def _shrink(x: np.ndarray, *, bias: float = 0.0, lambd: float = 0.5, out: np.ndarray | None = None) -> np.ndarray:
    """Of integers, the result is rounded towards zero."""
    if x.dtype.kind in "iu":
        return deliver(_shrink_floats(x.astype(np.float64), bias=bias, lambd=lambd).astype(x.dtype), out)
    return _shrink_floats(x, bias=bias, lambd=lambd, out=out)


@blockwise
def _shrink_floats(x: np.ndarray, y: np.ndarray, *, bias: float, lambd: float) -> None:
    high = select(x > lambd, x - bias, np.zeros(1, x.dtype))
    select(x < -lambd, x + bias, high, y)


@shrink.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return keep_where(b, b.op("Abs", node.operand(0)) > node.attr("lambd"), dy)


# --- exponential linear units -----------------------------------------------------------------------------------------

elu = ops.define("Elu")
celu = ops.define("Celu")
selu = ops.define("Selu")


def _exponential_unit(x: np.ndarray, y: np.ndarray, slope: float, scale: float, width: float) -> None:
    """The value slope · x for x > 0, scale (exp(x / width) - 1) below."""
    np.minimum(x, 0, out=y)
    if width != 1:
        y /= width
    np.expm1(y, out=y)
    y *= scale
    positive = np.maximum(x, 0)
    if slope != 1:
        positive *= slope
    y += positive


def _exponential_unit_adjoint(b: AdjointBuilder, node: Node, dy: Value, slope: float, scale: float, width: float) -> Value:
    """For x <= 0, scale / width exp(x / width) is (y + scale) / width."""
    (y,) = node.outputs
    telling = y if slope >= 0 and scale * width >= 0 else node.operand(0)
    below = y + scale if width == 1 else (y + scale) / width
    return dy * b.op("Where", telling > 0, b.scalar(slope, y), below)


@elu.kernel
@blockwise
def _elu(x: np.ndarray, y: np.ndarray, *, alpha: float = 1.0) -> None:
    _exponential_unit(x, y, 1, alpha, 1)


@elu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return _exponential_unit_adjoint(b, node, dy, 1, node.attr("alpha"), 1)


@celu.kernel
@blockwise
def _celu(x: np.ndarray, y: np.ndarray, *, alpha: float = 1.0) -> None:
    _exponential_unit(x, y, 1, alpha, alpha)


@celu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    alpha = node.attr("alpha")
    return _exponential_unit_adjoint(b, node, dy, 1, alpha, alpha)


@selu.kernel
@blockwise
def _selu(
    x: np.ndarray, y: np.ndarray, *, alpha: float = 1.67326319217681884765625, gamma: float = 1.0507010221481323
) -> None:
    _exponential_unit(x, y, gamma, gamma * alpha, 1)


@selu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    gamma = node.attr("gamma")
    return _exponential_unit_adjoint(b, node, dy, gamma, gamma * node.attr("alpha"), 1)


# --- sigmoids ---------------------------------------------------------------------------------------------------------

sigmoid_ = ops.define("Sigmoid", kernel=sigmoid)
softplus_ = ops.define("Softplus", kernel=softplus)
softsign = ops.define("Softsign")
hard_sigmoid = ops.define("HardSigmoid")


@sigmoid_.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return dy * (y * (1 - y))


@softplus_.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy * b.op("Sigmoid", node.operand(0))


@softsign.kernel
@blockwise
def _softsign(x: np.ndarray, y: np.ndarray) -> None:
    np.abs(x, out=y)
    y += 1
    np.divide(x, y, out=y)


@softsign.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """1 / (1 + |x|)², divided by twice, since the square may overflow."""
    size = 1 + b.op("Abs", node.operand(0))
    return dy / size / size


@hard_sigmoid.kernel
@blockwise
def _hard_sigmoid(x: np.ndarray, y: np.ndarray, *, alpha: float = 0.2, beta: float = 0.5) -> None:
    np.multiply(x, alpha, out=y)
    y += beta
    np.minimum(y, 1, out=y)
    np.maximum(y, 0, out=y)


@hard_sigmoid.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return keep_where(b, b.op("And", y > 0, y < 1), node.attr("alpha") * dy)


# --- gates: x times a sigmoid of x ------------------------------------------------------------------------------------

hard_swish = ops.define("HardSwish")
swish = ops.define("Swish")
swiglu = ops.define("SwiGLU")
mish = ops.define("Mish")
gelu = ops.define("Gelu")


@hard_swish.kernel
@blockwise
def _hard_swish(x: np.ndarray, y: np.ndarray) -> None:
    _hard_sigmoid(x, out=y, alpha=1 / 6)
    y *= x


@hard_swish.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The derivative is 0 for x <= -3, 1 for x >= 3, and x / 3 + 1 / 2 between."""
    x = node.operand(0)
    slope = b.op("Where", x < 3, x / 3 + 0.5, b.scalar(1, x))
    return keep_where(b, x > -3, dy * slope)


@swish.kernel
@blockwise
def _swish(x: np.ndarray, y: np.ndarray, *, alpha: float = 1.0) -> None:
    sigmoid(x if alpha == 1 else x * alpha, out=y)
    y *= x


@swish.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    x, alpha = node.operand(0), node.attr("alpha")
    gate = b.op("Sigmoid", x if alpha == 1 else alpha * x)
    return dy * slope_of_gated(node.outputs[0], gate, alpha)


def slope_of_gated(y: Value, gate: Value, slope: float | Value) -> Value:
    """The derivative of y = x s(u(x)) with the logistic s, given s(u) and u': s + y (1 - s) u'."""
    rest = y * (1 - gate)
    return gate + (rest if isinstance(slope, float) and slope == 1 else rest * slope)


@swiglu.kernel
def _swiglu(a: np.ndarray, b: np.ndarray, *, alpha: float = 1.0, out: np.ndarray | None = None) -> np.ndarray:
    y = _swish(a.astype(accumulation_dtype(a.dtype), copy=False), alpha=alpha)
    return deliver(np.multiply(y, b, out=y).astype(a.dtype, copy=False), out)


@swiglu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, Value | None]:
    """The derivative of Swish(x) z by x is z times that of Swish; by z it is Swish(x)."""
    x, z, alpha = node.operand(0), node.operand(1), node.attr("alpha")
    gate = b.op("Sigmoid", x if alpha == 1 else alpha * x)
    swish_of_x = x * gate
    return (
        dy * z * slope_of_gated(swish_of_x, gate, alpha) if b.needs(x) else None,
        dy * swish_of_x if b.needs(z) else None,
    )


@mish.kernel
@blockwise
def _mish(x: np.ndarray, y: np.ndarray) -> None:
    """tanh(log(1 + e)) with e = exp(x) is w / (w + 2) with w = e (e + 2); from x = 40 on it is 1 to the last bit."""
    np.minimum(x, 40, out=y)
    np.exp(y, out=y)
    y *= y + 2
    y /= y + 2
    y *= x


@mish.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """With t = tanh(softplus(x)) = y / x, the derivative is t + x (1 - t²) sigmoid(x)."""
    x, (y,) = node.operand(0), node.outputs
    t = b.op("Tanh", b.op("Softplus", x))
    return dy * (t + (x - y * t) * b.op("Sigmoid", x))


_CUBIC = 0.044715


@gelu.kernel
@blockwise
def _gelu(x: np.ndarray, y: np.ndarray, *, approximate: str = "none") -> None:
    """With the normal distribution function Φ, x Φ(x); (1 + tanh u) / 2 of the approximation is sigmoid(2u)."""
    if approximate == "tanh":
        argument = x * x
        argument *= 2 * sqrt(2 / pi) * _CUBIC
        argument += 2 * sqrt(2 / pi)
        argument *= x
        sigmoid(argument, out=y)
    else:
        erf(x * sqrt(0.5), out=y)
        y += 1
        y *= 0.5
    y *= x


@gelu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """Φ(x) + x φ(x) with the normal density φ, or the derivative of the approximation x sigmoid(2u)."""
    x, c = node.operand(0), sqrt(2 / pi)
    if node.attr("approximate") == "tanh":
        wide = accumulation_dtype(x.dtype)  # in float16 the square is infinite from x = 256 on
        x = b.cast(x, wide)
        square = x * x
        gate = b.op("Sigmoid", x * (2 * c * _CUBIC * square + 2 * c))
        slope = slope_of_gated(b.cast(node.outputs[0], wide), gate, 6 * c * _CUBIC * square + 2 * c)
        return dy * b.cast(slope, dy.dtype)
    t = x * sqrt(0.5)
    return dy * (0.5 * (1 + b.op("Erf", t) + c * (x * gaussian(b, t))))
