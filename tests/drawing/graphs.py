"""Graphs to draw: small ones as text, long ones by a loop."""

from __future__ import annotations

import numpy as np

from irgrad.graph import Graph, Role
from irgrad.op import find_op
from irgrad.types import TensorType

JOINT = """
graph joint opset 28 {
  input %x: f32[N,3]
  input %y_cotangent: f32[N,2]
  param %fc.weight: f32[3,2]{0.5}
  const %one: f32[]{1.0}
  %h: f32[N,2] = MatMul(%x, %fc.weight) @"fc/MatMul"
  %y: f32[N,2] = Tanh(%h) @"act/Tanh"
  %y2: f32[N,2] = Tanh(%h) @again recompute of "act/Tanh"
  %square: f32[N,2] = Mul(%y2, %y2) backward of "act/Tanh"
  %slope: f32[N,2] = Sub(%one, %square) backward of "act/Tanh"
  %dh: f32[N,2] = Mul(%y_cotangent, %slope) backward of "act/Tanh"
  %dw: f32[3,2] = Gemm(%x, %dh, transA=1) backward of "fc/MatMul"
  %w_next: f32[3,2] = Sub(%fc.weight, %dw) update
  output y
  output fc.weight_grad = %dw
  output w_next
  gradient fc.weight = fc.weight_grad
}
"""

CHOICE = """
graph choice opset 28 {
  input %c: bool[]
  input %"x \\"<&>": f32[2]
  %y: f32[2] = If(%c, %"x \\"<&>", captured=1, then_branch=graph then opset 28 {
    input %h: f32[2]
    %r: f32[2] = Relu(%h)
    output r
  }, else_branch=graph else opset 28 {
    input %h: f32[2]
    output h
  })
  output y
}
"""


def scoped(layers: int, per_layer: int, separator: str = "/") -> Graph:
    """A chain of Tanh nodes ``/model/layer.0/mlp/Tanh_0``, and for each of them one of the backward pass."""
    graph = Graph("chain")
    type = TensorType(np.dtype(np.float32), (2,))
    value = graph.add_input("x", type)
    names = [f"/model/layer.{layer}/mlp/Tanh_{k}" for layer in range(layers) for k in range(per_layer)]
    for name in names:
        (value,) = graph.add_node(find_op("Tanh"), [value], [type], name=name.replace("/", separator)).outputs
    outputs = {"y": value}
    for name in reversed(names):
        origin = name.replace("/", separator)
        (value,) = graph.add_node(find_op("Neg"), [value], [type], role=Role.BACKWARD, origin=origin).outputs
    graph.set_outputs({**outputs, "dx": value})
    return graph
