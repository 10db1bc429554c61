"""Picking and placing elements: TopK, OneHot, Scatter."""

from __future__ import annotations

import numpy as np

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter

__all__: list[str] = []


@adapter("TopK", since=10)
def topk_10(b: Builder, node: OldNode) -> None:
    """`k` becomes the second operand."""
    node.set_input(1, b.ints([node.take("k")]))


@adapter("OneHot", since=11)
def onehot_11(b: Builder, node: OldNode) -> None:
    """A negative index counts from the back; it used to be out of range, and to select nothing."""
    indices = node.operand(0)
    if indices.dtype.kind == "u" or (indices.constant is not None and (indices.constant > -1).all()):
        return
    if indices.dtype.kind != "i":
        indices = b.cast(indices, np.dtype(np.int64))
    out_of_range = np.array(np.iinfo(indices.dtype).max, indices.dtype)
    node.set_input(0, b.op("Where", b.op("Less", indices, 0), out_of_range, indices))


@adapter("Scatter", since=11)
def scatter_11(b: Builder, node: OldNode) -> None:
    """Renamed to ScatterElements."""
    node.op = "ScatterElements"
