"""``example.SoftClip(x, limit=...)``: limit · tanh(x / limit), which is x for small x and never exceeds the limit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Node, Value
from irgrad.op import Call, Op
from irgrad.types import Type

__all__ = ["soft_clip"]

soft_clip = Op("SoftClip", domain="example", defaults={"limit": 1.0})


@soft_clip.kernel
def _(x: np.ndarray, *, limit: float, out: np.ndarray | None = None) -> np.ndarray:
    result = np.divide(x, x.dtype.type(limit), out=out)
    np.tanh(result, out=result)
    return np.multiply(result, x.dtype.type(limit), out=result)


@soft_clip.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(0)]


@soft_clip.adjoint
def _(b: Builder, node: Node, dy: Value) -> Value:
    share = node.outputs[0] / node.attr("limit")
    return dy * (1 - share * share)


@soft_clip.lower
def _(b: Builder, node: Node) -> Value:
    limit = node.attr("limit")
    return b.op("Tanh", node.operand(0) / limit) * limit
