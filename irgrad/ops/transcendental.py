"""Exponentials, trigonometric and hyperbolic functions, and their inverses."""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.kernels.elementwise import spread
from irgrad.op import Op, OpTable
from irgrad.ops.special import erf as erf_kernel

ops = OpTable()


def _define(name: str, ufunc: np.ufunc) -> Op:
    op = ops.define(name, kernel=ufunc)
    op.prepare(spread(ufunc, _WEIGHT))
    return op


_WEIGHT = 4  # times the work of an addition that an element takes, at least

exp = _define("Exp", np.exp)
log = _define("Log", np.log)
sin = _define("Sin", np.sin)
cos = _define("Cos", np.cos)
tan = _define("Tan", np.tan)
asin = _define("Asin", np.arcsin)
acos = _define("Acos", np.arccos)
atan = _define("Atan", np.arctan)
sinh = _define("Sinh", np.sinh)
cosh = _define("Cosh", np.cosh)
tanh = _define("Tanh", np.tanh)
asinh = _define("Asinh", np.arcsinh)
acosh = _define("Acosh", np.arccosh)
atanh = _define("Atanh", np.arctanh)
erf = ops.define("Erf", in_place=True)
erf.prepare(erf_kernel.prepare)


@exp.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return dy * y


@log.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy / node.operand(0)


@sin.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy * b.op("Cos", node.operand(0))


@cos.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return -(dy * b.op("Sin", node.operand(0)))


@tan.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return dy * (1 + y * y)


def _one_minus_square(x: Value) -> Value:
    """1 - x², without the cancellation that x² rounded would bring near 1."""
    return (1 - x) * (1 + x)


@asin.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy / b.op("Sqrt", _one_minus_square(node.operand(0)))


@acos.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return -(dy / b.op("Sqrt", _one_minus_square(node.operand(0))))


@atan.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    x = node.operand(0)
    return dy / (1 + x * x)


@sinh.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy * b.op("Cosh", node.operand(0))


@cosh.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy * b.op("Sinh", node.operand(0))


@tanh.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return dy * (1 - y * y)


@asinh.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """1 / sqrt(x² + 1), which is 1 / cosh(y): nothing is squared that might overflow."""
    return dy / b.op("Cosh", node.outputs[0])


@acosh.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    """1 / sqrt(x² - 1), which is 1 / sinh(y): nothing cancels near 1."""
    return dy / b.op("Sinh", node.outputs[0])


@atanh.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy / _one_minus_square(node.operand(0))


@erf.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Value:
    return dy * ((2 / sqrt(pi)) * gaussian(b, node.operand(0)))


def gaussian(b: Builder, x: Value) -> Value:
    """exp(-x²)."""
    return b.op("Exp", -(x * x))
