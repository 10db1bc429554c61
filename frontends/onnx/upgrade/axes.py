"""Operations whose axes move from an attribute to an operand: reductions, Squeeze, Unsqueeze, DFT."""

from __future__ import annotations

import numpy as np

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter

__all__: list[str] = []


@adapter("ReduceSum", "Squeeze", since=13)
@adapter(
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"),
    "ReduceSumSquare",
    since=18,
)
def axes_operand(b: Builder, node: OldNode) -> None:
    """`axes` becomes the second operand. Absent or empty it goes on meaning every axis (of size 1, for Squeeze)."""
    axes = node.attrs.pop("axes", ())
    if axes:
        node.set_input(1, b.ints(axes))


@adapter("Unsqueeze", since=13)
def unsqueeze_13(b: Builder, node: OldNode) -> None:
    """`axes` becomes the second operand."""
    node.set_input(1, b.ints(node.take("axes")))


@adapter("DFT", since=20)
def dft_20(b: Builder, node: OldNode) -> None:
    """`axis` becomes the third operand, and its default changes from 1 to -2."""
    node.set_input(2, b.constant(np.array(node.attrs.pop("axis", 1), np.int64)))
