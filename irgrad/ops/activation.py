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
from irgrad.kernels.shapes import shape_of
from irgrad.op import Call, Kernel, OpTable
from irgrad.ops.compiled import compiled
from irgrad.ops.elementwise import keep_where
from irgrad.ops.special import bits_of, blockwise, choose, erf, sigmoid, softplus
from irgrad.ops.transcendental import gaussian
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.runtime.workspace import Workspace, planned, widened

ops = OpTable()

# --- rectifiers -------------------------------------------------------------------------------------------------------

relu = ops.define("Relu")
leaky_relu = ops.define("LeakyRelu", in_place=True)
prelu = ops.define("PRelu", broadcasts=(1,), in_place=(0,))
thresholded_relu = ops.define("ThresholdedRelu", in_place=True)
shrink = ops.define("Shrink")


@relu.kernel
def _relu(x: np.ndarray, *, out: np.ndarray | None = None) -> Any:
    return np.maximum(x, x.dtype.type(0), out=out)


@relu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return keep_where(b, node.outputs[0] > 0, dy)


@blockwise(1)
def _leaky_relu(x: np.ndarray, y: np.ndarray, a: np.ndarray, *, alpha: float = 0.01) -> None:
    np.minimum(x, 0, out=a)
    a *= alpha
    np.maximum(x, 0, out=y)
    y += a


leaky_relu.prepare(_leaky_relu.prepare)


@leaky_relu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    alpha = node.attr("alpha")
    telling = node.outputs[0] if alpha >= 0 else node.operand(0)
    return b.op("Where", telling > 0, dy, alpha * dy)


@prelu.prepare
@planned()
def _prelu(call: Call) -> Kernel:
    shape, dtype = shape_of(call, 0), call.tensor(0).dtype
    space = Workspace()
    product = space.array(shape, dtype)
    negative, mask = space.array(shape, np.bool_), space.array(shape, f"i{dtype.itemsize}")

    def kernel(x: np.ndarray, slope: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y = np.empty(shape, dtype) if out is None else out
        scaled, below = np.multiply(slope, x, out=product(work)), np.less(x, dtype.type(0), out=negative(work))
        choose(below, bits_of(scaled), bits_of(x), bits_of(y), mask(work))
        return y

    return space.kernel(kernel)


@prelu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value | None, Value | None]:
    x, slope = node.operand(0), node.operand(1)
    positive = x > 0
    return (
        b.op("Where", positive, dy, dy * slope) if b.needs(x) else None,
        b.op("Where", positive, b.scalar(0, dy), dy * x) if b.needs(slope) else None,
    )


@blockwise(2)
def _thresholded_relu(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, *, alpha: float = 1.0) -> None:
    above = np.greater(x, alpha, out=a.view(np.bool_)[: x.size])
    choose(above, bits_of(x), _NOTHING[x.dtype.itemsize], bits_of(y), bits_of(b))


_NOTHING = {size: np.zeros(1, f"i{size}") for size in (4, 8)}
thresholded_relu.prepare(_thresholded_relu.prepare)


@thresholded_relu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    alpha = node.attr("alpha")
    telling = node.outputs[0] if alpha >= 0 else node.operand(0)
    return keep_where(b, telling > alpha, dy)


@shrink.prepare
def _shrink(call: Call) -> Kernel:
    """Of integers, the result is rounded towards zero."""
    dtype, attrs = call.tensor(0).dtype, call.attrs
    if dtype.kind not in "iu":
        return _shrink_floats.prepare(call)

    def kernel(x: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        return deliver(_shrink_floats(x.astype(np.float64), **attrs).astype(dtype), out)

    return kernel


@blockwise(2)
def _shrink_floats(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, *, bias: float, lambd: float) -> None:
    """Of x > lambd it is x - bias, of x < -lambd x + bias, and 0 of others."""
    number = x.dtype.type
    chosen = b.view(np.bool_)[: 2 * x.size].reshape(2, -1)
    np.greater(x, number(lambd), out=chosen[0])
    np.less(x, number(-lambd), out=chosen[1])
    np.multiply(chosen[0], number(-bias), out=a)
    np.copyto(a, number(bias), where=chosen[1])
    np.add(a, x, out=a)
    np.logical_or(chosen[0], chosen[1], out=chosen[0])
    choose(chosen[0], bits_of(a), _NOTHING[x.dtype.itemsize], bits_of(y), bits_of(y))


@shrink.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return keep_where(b, b.op("Abs", node.operand(0)) > node.attr("lambd"), dy)


# --- exponential linear units -----------------------------------------------------------------------------------------

elu = ops.define("Elu", in_place=True)
celu = ops.define("Celu", in_place=True)
selu = ops.define("Selu", in_place=True)


def _exponential_unit(x: np.ndarray, y: np.ndarray, a: np.ndarray, slope: float, scale: float, width: float) -> None:
    """The value slope · x for x > 0, scale (exp(x / width) - 1) below."""
    np.minimum(x, 0, out=a)
    if width != 1:
        a /= width
    np.expm1(a, out=a)
    a *= scale
    np.maximum(x, 0, out=y)
    if slope != 1:
        y *= slope
    y += a


def _exponential_unit_adjoint(b: AdjointBuilder, node: Node, dy: Value, slope: float, scale: float, width: float) -> Value:
    """For x <= 0, scale / width exp(x / width) is (y + scale) / width."""
    (y,) = node.outputs
    telling = y if slope >= 0 and scale * width >= 0 else node.operand(0)
    below = y + scale if width == 1 else (y + scale) / width
    return dy * b.op("Where", telling > 0, b.scalar(slope, y), below)


@blockwise(1)
def _elu(x: np.ndarray, y: np.ndarray, a: np.ndarray, *, alpha: float = 1.0) -> None:
    _exponential_unit(x, y, a, 1, alpha, 1)


elu.prepare(_elu.prepare)


@elu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return _exponential_unit_adjoint(b, node, dy, 1, node.attr("alpha"), 1)


@blockwise(1)
def _celu(x: np.ndarray, y: np.ndarray, a: np.ndarray, *, alpha: float = 1.0) -> None:
    _exponential_unit(x, y, a, 1, alpha, alpha)


celu.prepare(_celu.prepare)


@celu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    alpha = node.attr("alpha")
    return _exponential_unit_adjoint(b, node, dy, 1, alpha, alpha)


@blockwise(1)
def _selu(x: np.ndarray, y: np.ndarray, a: np.ndarray, *, alpha: float, gamma: float) -> None:
    _exponential_unit(x, y, a, gamma, gamma * alpha, 1)


selu.prepare(_selu.prepare)


@selu.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    gamma = node.attr("gamma")
    return _exponential_unit_adjoint(b, node, dy, gamma, gamma * node.attr("alpha"), 1)


# --- sigmoids ---------------------------------------------------------------------------------------------------------

sigmoid_ = ops.define("Sigmoid", in_place=True)
sigmoid_.prepare(sigmoid.prepare)
softplus_ = ops.define("Softplus", in_place=True)
softplus_.prepare(softplus.prepare)
softsign = ops.define("Softsign", in_place=True)
hard_sigmoid = ops.define("HardSigmoid", in_place=True)


@sigmoid_.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return dy * (y * (1 - y))


@softplus_.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy * b.op("Sigmoid", node.operand(0))


@blockwise(1)
def _softsign(x: np.ndarray, y: np.ndarray, a: np.ndarray) -> None:
    np.abs(x, out=a)
    a += 1
    np.divide(x, a, out=y)


softsign.prepare(_softsign.prepare)


@softsign.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """1 / (1 + |x|)², divided by twice, since the square may overflow."""
    size = 1 + b.op("Abs", node.operand(0))
    return dy / size / size


@blockwise()
def _hard_sigmoid(x: np.ndarray, y: np.ndarray, *, alpha: float = 0.2, beta: float = 0.5) -> None:
    np.multiply(x, alpha, out=y)
    y += beta
    np.minimum(y, 1, out=y)
    np.maximum(y, 0, out=y)


hard_sigmoid.prepare(_hard_sigmoid.prepare)


@hard_sigmoid.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return keep_where(b, b.op("And", y > 0, y < 1), node.attr("alpha") * dy)


# --- gates: x times a sigmoid of x ------------------------------------------------------------------------------------

hard_swish = ops.define("HardSwish", in_place=True)
swish = ops.define("Swish", in_place=True)
swiglu = ops.define("SwiGLU")
mish = ops.define("Mish", in_place=True)
gelu = ops.define("Gelu", in_place=True)


@blockwise(1)
def _hard_swish(x: np.ndarray, y: np.ndarray, a: np.ndarray) -> None:
    _hard_sigmoid.compute(x, a, alpha=1 / 6)
    np.multiply(a, x, out=y)


hard_swish.prepare(_hard_swish.prepare)


@hard_swish.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """The derivative is 0 for x <= -3, 1 for x >= 3, and x / 3 + 1 / 2 between."""
    x = node.operand(0)
    slope = b.op("Where", x < 3, x / 3 + 0.5, b.scalar(1, x))
    return keep_where(b, x > -3, dy * slope)


@blockwise(1)
def _swish(x: np.ndarray, y: np.ndarray, a: np.ndarray, *, alpha: float = 1.0) -> None:
    sigmoid.compute(x if alpha == 1 else np.multiply(x, alpha, out=a), a)
    np.multiply(a, x, out=y)


swish.prepare(_swish.prepare)


@swish.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    x, alpha = node.operand(0), node.attr("alpha")
    gate = b.op("Sigmoid", x if alpha == 1 else alpha * x)
    return dy * slope_of_gated(node.outputs[0], gate, alpha)


def slope_of_gated(y: Value, gate: Value, slope: float | Value) -> Value:
    """The derivative of y = x s(u(x)) with the logistic s, given s(u) and u': s + y (1 - s) u'."""
    rest = y * (1 - gate)
    return gate + (rest if isinstance(slope, float) and slope == 1 else rest * slope)


@swiglu.prepare
@compiled
@planned()
@widened
def _swiglu(call: Call) -> Kernel:
    space = Workspace()
    first = space.part(_swish.kernel(shape_of(call, 0), call.tensor(0).dtype, call.attrs))

    def kernel(a: np.ndarray, b: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y = np.empty(a.shape, a.dtype) if out is None else out
        np.multiply(first(a, out=y, work=work), b, out=y)
        return y

    return space.kernel(kernel)


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


@blockwise(2)
def _mish(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """tanh(log(1 + e)) with e = exp(x) is w / (w + 2) with w = e (e + 2); from x = 40 on it is 1 to the last bit."""
    np.minimum(x, 40, out=a)
    np.exp(a, out=a)
    np.add(a, 2, out=b)
    a *= b
    np.add(a, 2, out=b)
    a /= b
    np.multiply(a, x, out=y)


mish.prepare(_mish.prepare)


@mish.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """With t = tanh(softplus(x)) = y / x, the derivative is t + x (1 - t²) sigmoid(x)."""
    x, (y,) = node.operand(0), node.outputs
    t = b.op("Tanh", b.op("Softplus", x))
    return dy * (t + (x - y * t) * b.op("Sigmoid", x))


_CUBIC = 0.044715


@blockwise(6)
def _gelu(x: np.ndarray, y: np.ndarray, a: np.ndarray, *spare: np.ndarray, approximate: str = "none") -> None:
    """With the normal distribution function Φ, x Φ(x); (1 + tanh u) / 2 of the approximation is sigmoid(2u)."""
    if approximate == "tanh":
        np.multiply(x, x, out=a)
        a *= 2 * sqrt(2 / pi) * _CUBIC
        a += 2 * sqrt(2 / pi)
        a *= x
        sigmoid.compute(a, a)
    else:
        np.multiply(x, sqrt(0.5), out=a)
        erf.compute(a, a, *spare)
        a += 1
        a *= 0.5
    np.multiply(a, x, out=y)


gelu.prepare(_gelu.prepare)


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
