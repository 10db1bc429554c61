"""Operations on single elements: what each means in items, and how the tensors it takes meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf, pi, sqrt
from typing import TypeAlias

import numpy as np

from irgrad.codegen.items import Item, Maker, Unsupported
from irgrad.codegen.layout import Layouts
from irgrad.graph import Node
from irgrad.types import dtype_name

__all__ = ["ELEMENTWISE", "Context", "Meaning"]

_CUBIC = 0.044715
_HIGHEST_PRODUCT = 8  # the largest exponent that is written out as multiplications


class Context:
    """What the meaning of a node is told with.

    Attributes:
        maker: makes items.
        layouts: where the tensors lie.
        node: the node.
        args: the items of its operands, None for absent ones and for those that are no data (axes, shapes).
    """

    def __init__(self, maker: Maker, layouts: Layouts, node: Node, args: list[Item | None]) -> None:
        self.maker = maker
        self.layouts = layouts
        self.node = node
        self.args = args
        self.checks: list[tuple[Item, str]] = []
        """Items of truth values that must hold, and what to say where one does not."""

    def arg(self, position: int) -> Item:
        """An operand that must be there."""
        item = self.args[position]
        assert item is not None, f"operand {position} of {self.node!r} is no data"
        return item

    def op(self, name: str, *operands: Item | float) -> Item:
        return self.maker.op(name, *operands)


Meaning: TypeAlias = "Callable[[Context], Item | tuple[Item | None, ...]]"
"""``meaning(context)`` → the item of each output; None for one that nothing uses."""


def _plain(name: str) -> Meaning:
    return lambda c: c.op(name, *(item for item in c.args if item is not None))


def _real(name: str) -> Meaning:
    def meaning(c: Context) -> Item:
        if c.arg(0).dtype.kind != "f":
            raise Unsupported(f"{c.node.op.name} of {dtype_name(c.arg(0).dtype)}")
        return c.op(name, c.arg(0))

    return meaning


def _folded(name: str) -> Meaning:
    def meaning(c: Context) -> Item:
        result = c.arg(0)
        for k in range(1, len(c.args)):
            result = c.op(name, result, c.arg(k))
        return result

    return meaning


def _average(c: Context) -> Item:
    total = _folded("add")(c)
    assert isinstance(total, Item)
    return c.op("div", total, len(c.args))


def _div(c: Context) -> Item:
    if c.arg(0).dtype.kind != "f":
        raise Unsupported("Div of integers")
    return c.op("div", c.arg(0), c.arg(1))


def _abs(c: Context) -> Item:
    x = c.arg(0)
    return c.op("fabs", x) if x.dtype.kind == "f" else c.op("maximum", x, c.op("neg", x))


def _where(c: Context) -> Item:
    return c.op("where", c.arg(0), c.arg(1), c.arg(2))


def _clip(c: Context) -> Item:
    y = c.arg(0)
    for k, name in ((1, "maximum"), (2, "minimum")):
        bound = c.args[k] if k < len(c.args) else None
        if bound is not None:
            y = c.op(name, y, bound)
    return y


def _cast(c: Context) -> Item:
    return c.maker.cast(c.arg(0), c.node.outputs[0].dtype)


def _sign(c: Context) -> Item:
    x = c.arg(0)
    below = c.op("where", c.op("less", x, 0), c.maker.number(-1, x.dtype), x)  # 0 and NaN stay what they are
    return c.op("where", c.op("greater", x, 0), c.maker.number(1, x.dtype), below)


def _isinf(c: Context) -> Item:
    x = c.arg(0)
    found = [
        c.op("equal", x, bound) for bound, name in ((inf, "detect_positive"), (-inf, "detect_negative")) if c.node.attr(name)
    ]
    if not found:
        return c.maker.number(False, np.dtype(np.bool_))
    return found[0] if len(found) == 1 else c.op("or", *found)


# --- powers -------------------------------------------------------------------------------------------------------------


def _power(c: Context) -> Item:
    x, exponent = c.arg(0), c.arg(1)
    if x.dtype.kind != "f":
        raise Unsupported("Pow of integers")
    if exponent.op != "number":
        return c.op("power", x, c.maker.cast(exponent, x.dtype))
    number = float(exponent.data)
    if abs(number) == 0.5:
        # Unlike a square root, a power of -0 or -inf has no sign and is no NaN.
        root = c.op("where", c.op("equal", x, -inf), c.maker.number(inf, x.dtype), c.op("sqrt", c.op("add", x, 0.0)))
        return root if number > 0 else c.op("reciprocal", root)
    if number.is_integer() and abs(number) <= _HIGHEST_PRODUCT:
        positive = _product(c, x, int(abs(number)))
        return positive if number >= 0 else c.op("reciprocal", positive)
    return c.op("power", x, number)


def _product(c: Context, x: Item, count: int) -> Item:
    if count == 0:
        return c.maker.number(1, x.dtype)
    if count == 1:
        return x
    half = _product(c, x, count // 2)
    square = c.op("mul", half, half)
    return c.op("mul", square, x) if count % 2 else square


# --- activations --------------------------------------------------------------------------------------------------------


def _relu(c: Context) -> Item:
    return c.op("maximum", c.arg(0), 0)


def _signed(c: Context, below: Item, above: Item | None = None) -> Item:
    """One item where the operand is not positive (or NaN), another, by default the operand, where it is."""
    return c.op("where", c.op("greater", c.arg(0), 0), above or c.arg(0), below)


def _leaky_relu(c: Context) -> Item:
    return _signed(c, c.op("mul", c.arg(0), c.node.attr("alpha")))


def _prelu(c: Context) -> Item:
    x = c.arg(0)
    return c.op("where", c.op("less", x, 0), c.op("mul", c.arg(1), x), x)


def _thresholded_relu(c: Context) -> Item:
    x = c.arg(0)
    return c.op("where", c.op("greater", x, c.node.attr("alpha")), x, 0)


def _shrink(c: Context) -> Item:
    x, bias, limit = c.arg(0), c.node.attr("bias"), c.node.attr("lambd")
    if x.dtype.kind != "f":
        raise Unsupported("Shrink of integers")
    above = c.op("where", c.op("greater", x, limit), c.op("sub", x, bias), 0)
    return c.op("where", c.op("less", x, -limit), c.op("add", x, bias), above)


def _exponential_unit(c: Context, slope: float, scale: float, width: float) -> Item:
    x = c.arg(0)
    below = c.op("mul", c.op("expm1", x if width == 1 else c.op("div", x, width)), scale)
    return _signed(c, below, x if slope == 1 else c.op("mul", x, slope))


def _elu(c: Context) -> Item:
    return _exponential_unit(c, 1, c.node.attr("alpha"), 1)


def _celu(c: Context) -> Item:
    return _exponential_unit(c, 1, c.node.attr("alpha", 1.0), c.node.attr("alpha", 1.0))


def _selu(c: Context) -> Item:
    gamma = c.node.attr("gamma")
    return _exponential_unit(c, gamma, gamma * c.node.attr("alpha"), 1)


def _softsign(c: Context) -> Item:
    x = c.arg(0)
    return c.op("div", x, c.op("add", c.op("fabs", x), 1))


def _hard_sigmoid(c: Context, alpha: float | None = None, beta: float = 0.5) -> Item:
    if alpha is None:
        alpha, beta = c.node.attr("alpha"), c.node.attr("beta")
    line = c.op("add", c.op("mul", c.arg(0), alpha), beta)
    return c.op("maximum", c.op("minimum", line, 1), 0)


def _hard_swish(c: Context) -> Item:
    return c.op("mul", c.arg(0), _hard_sigmoid(c, 1 / 6))


def _swish(c: Context) -> Item:
    x, alpha = c.arg(0), c.node.attr("alpha", 1.0)
    return c.op("mul", x, c.op("sigmoid", x if alpha == 1 else c.op("mul", x, alpha)))


def _swiglu(c: Context) -> Item:
    return c.op("mul", _swish(c), c.arg(1))


def _mish(c: Context) -> Item:
    """As the kernel of irgrad/ops/activation.py has it."""
    x = c.arg(0)
    e = c.op("exp", c.op("minimum", x, 40))
    w = c.op("mul", e, c.op("add", e, 2))
    return c.op("mul", x, c.op("div", w, c.op("add", w, 2)))


def _gelu(c: Context) -> Item:
    x = c.arg(0)
    if c.node.attr("approximate") == "tanh":
        outer = 2 * sqrt(2 / pi)
        argument = c.op("mul", c.op("add", c.op("mul", c.op("mul", x, x), outer * _CUBIC), outer), x)
        return c.op("mul", x, c.op("sigmoid", argument))
    normal = c.op("mul", c.op("add", c.op("erf", c.op("mul", x, sqrt(0.5))), 1), 0.5)
    return c.op("mul", x, normal)


# --- numbers out of nothing ---------------------------------------------------------------------------------------------


def _constant_of_shape(c: Context) -> Item:
    value = c.node.attr("value")
    return c.maker.number(0 if value is None else value.reshape(()).item(), c.node.outputs[0].dtype)


def _same(c: Context) -> Item:
    return c.arg(0)


ELEMENTWISE: Mapping[str, Meaning] = {
    **{
        onnx: _plain(name)
        for onnx, name in {
            **{"Add": "add", "Sub": "sub", "Mul": "mul", "Neg": "neg", "And": "and", "Or": "or", "Xor": "xor", "Not": "not"},
            **{"Equal": "equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Less": "less"},
            **{"LessOrEqual": "less_equal", "IsNaN": "isnan"},
        }.items()
    },
    **{
        name: _real(name.lower())
        for name in (
            *("Sqrt", "Reciprocal", "Exp", "Log", "Tanh", "Erf", "Sigmoid", "Softplus", "Sin", "Cos", "Floor", "Ceil"),
            *("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
        )
    },
    "Round": _real("rint"),
    "Div": _div,
    "Abs": _abs,
    "Pow": _power,
    "Max": _folded("maximum"),
    "Min": _folded("minimum"),
    "Sum": _folded("add"),
    "Mean": _average,
    "Clip": _clip,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast,
    "Sign": _sign,
    "IsInf": _isinf,
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "PRelu": _prelu,
    "ThresholdedRelu": _thresholded_relu,
    "Shrink": _shrink,
    "Elu": _elu,
    "Celu": _celu,
    "Selu": _selu,
    "Softsign": _softsign,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Swish": _swish,
    "SwiGLU": _swiglu,
    "Mish": _mish,
    "Gelu": _gelu,
    "Identity": _same,
    "irgrad.StopGradient": _same,
    "Expand": _same,
    "ConstantOfShape": _constant_of_shape,
}
"""Qualified name → meaning, for operations whose operands are broadcast to the result."""
