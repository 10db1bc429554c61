"""Attention: how far a mask reaches, and where the numbers of heads are told."""

from __future__ import annotations

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter
from irgrad.types import add_dims

__all__: list[str] = []

_KEY, _MASK, _PAST_KEY = 1, 3, 4


@adapter("Attention", since=24)
def attention_24(b: Builder, node: OldNode) -> None:
    """A mask that is shorter than the keys hides those beyond its end.

    The last axis of a mask used to be broadcast like the others: of size 1, it meant all keys.
    """
    mask = node.input(_MASK)
    if mask is None:
        return
    places = [(node.operand(_KEY), node.rank(_KEY) - 2)]
    past = node.input(_PAST_KEY)
    if past is not None:
        places.append((past, 2))
    total = add_dims(*(None if value.shape is None else value.shape[axis] for value, axis in places))
    if total is not None and mask.shape and mask.shape[-1] == total:
        return
    sizes = [b.op("Shape", value, start=axis, end=axis + 1) for value, axis in places]
    node.set_input(_MASK, b.op("Expand", mask, sizes[0] if past is None else b.op("Add", *sizes)))


@adapter("Attention", since=25)
def attention_25(b: Builder, node: OldNode) -> None:
    """Operands with an axis for their heads may no longer have attributes that tell how many there are."""
    if node.rank(0) == 4:
        node.attrs.pop("q_num_heads", None)
        node.attrs.pop("kv_num_heads", None)
