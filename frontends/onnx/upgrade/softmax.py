"""Softmax and its kin, which used to see every tensor as a matrix."""

from __future__ import annotations

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter
from irgrad.graph import Value

__all__: list[str] = []


@adapter("Softmax", "LogSoftmax", "Hardmax", since=13)
def softmax_13(b: Builder, node: OldNode) -> list[Value] | None:
    """`axis` is the one axis to work along, by default the last.

    It was, by default 1, the first of the axes that were flattened into one to work along.
    """
    data = node.operand(0)
    axis = node.attrs.pop("axis", 1)
    if _is_innermost(data, axis):
        node.attrs["axis"] = axis
        return None
    rows = b.op(node.op, b.op("Flatten", data, axis=axis), axis=-1)
    return [b.reshape_like(rows, data)]


def _is_innermost(data: Value, axis: int) -> bool:
    """Whether only axes of size 1 come after `axis`, so that flattening changes nothing."""
    if data.shape is None:
        return axis == -1
    rank = len(data.shape)
    return -rank <= axis < rank and all(dim == 1 for dim in data.shape[axis % rank + 1 :])
