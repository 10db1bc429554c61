"""Elementwise arithmetic."""

from __future__ import annotations

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.op import OpTable

ops = OpTable()

add = ops.define("Add", kernel=np.add, broadcasts=True)


@add.adjoint
def _(b: Builder, node: Node, dy: Value) -> tuple[Value, Value]:
    return dy, dy


mul = ops.define("Mul", kernel=np.multiply, broadcasts=True)


@mul.adjoint
def _(b: Builder, node: Node, dy: Value) -> tuple[Value, Value]:
    x, y = node.operand(0), node.operand(1)
    return dy * y, dy * x


tanh = ops.define("Tanh", kernel=np.tanh)


@tanh.adjoint
def _(b: Builder, node: Node, dy: Value) -> Value:
    (y,) = node.outputs
    return dy * (1 - y * y)


relu = ops.define("Relu", kernel=lambda x, out=None: np.maximum(x, x.dtype.type(0), out=out))


@relu.adjoint
def _(b: Builder, node: Node, dy: Value) -> Value:
    return dy * b.cast(node.outputs[0] > 0, dy.dtype)
