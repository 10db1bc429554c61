"""Matrix products."""

from __future__ import annotations

import numpy as np

from irgrad.builder import AdjointBuilder
from irgrad.graph import Node, Value
from irgrad.op import OpTable

ops = OpTable()

matmul = ops.define("MatMul", kernel=np.matmul)


@matmul.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, Value]:
    x, w = node.operand(0), node.operand(1)
    return dy @ b.op("Transpose", w, perm=(1, 0)), b.op("Transpose", x, perm=(1, 0)) @ dy
