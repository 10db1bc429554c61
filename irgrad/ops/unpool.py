"""The partial inverse of a maximum pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.graph import Node, Value
from irgrad.op import Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.conv_lowering import cut, known_sizes
from irgrad.ops.dims import shape_operand
from irgrad.ops.windows import explicit_pads, image_dims, per_axis
from irgrad.runtime.workspace import Workspace, planned
from irgrad.types import Type

ops = OpTable()

max_unpool = ops.define("MaxUnpool", cost=costs.moves)


@max_unpool.prepare
@planned(2)
def _(call: Call) -> Kernel:
    type, attrs, space = call.tensor(0), call.attrs, Workspace()
    assert type.static_shape is not None
    counts = type.static_shape[2:]
    sizes = [int(d) for d in image_dims(attrs, counts, attrs["kernel_shape"]) if isinstance(d, int)]
    shape = (*type.static_shape[:2], *sizes)
    result = tuple(call.constants[2].tolist()) if call.has(2) else shape
    place = space.array(shape, type.dtype) if call.has(2) else None
    within = tuple(slice(0, n) for n in shape)

    def kernel(x: np.ndarray, indices: np.ndarray, *_: Any, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        y = np.empty(result, x.dtype) if out is None else out
        y.fill(0)
        inner = y if place is None else place(work)
        inner.fill(0)
        np.put(inner, indices, x)
        if inner is not y:
            y[within] = inner
        return y

    return space.kernel(kernel)


@max_unpool.infer
def _(call: Call) -> Sequence[Type]:
    x = call.tensor(0)
    if call.has(2):
        return [x.with_shape(shape_operand(call, 2))]
    if x.shape is None:
        return [x]
    return [x.with_shape((*x.shape[:2], *image_dims(call.attrs, x.shape[2:], call.attrs["kernel_shape"])))]


@max_unpool.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    """What stands where each element was put; where several were put at one place, that is the last one's.

    Windows that do not overlap have no such places.
    """
    x, indices = node.operand(0), node.operand(1)
    kernel, rank = node.attr("kernel_shape"), len(node.attr("kernel_shape"))
    strides = per_axis(node.attrs, "strides", rank, 1)
    if node.input(2) is not None:
        dy = cut(b, dy, _unpooled_sizes(b, node), rank)
    flat = b.ints([-1])
    dx = b.op("Gather", b.op("Reshape", dy, flat), indices)
    if all(stride >= k for stride, k in zip(strides, kernel, strict=True)):
        return [dx, None, None][: len(node.inputs)]
    order = b.op("Reshape", b.op("Range", 0, b.op("Size", x), 1), b.shape_of(x))
    empty = b.op("ConstantOfShape", b.op("Shape", b.op("Reshape", dy, flat)), value=np.zeros(1, np.int64))
    last = b.op(
        "ScatterElements", empty, b.op("Reshape", indices, flat), b.op("Reshape", order, flat), axis=0, reduction="max"
    )
    dx = b.op("Where", b.op("Equal", b.op("Gather", last, indices), order), dx, b.scalar(0, dx))
    return [dx, None, None][: len(node.inputs)]


def _unpooled_sizes(b: Builder, node: Node) -> Value:
    """The spatial sizes that the indices of a MaxUnpool refer to."""
    x, kernel = node.operand(0), node.attr("kernel_shape")
    rank = len(kernel)
    counts = known_sizes(x.shape, rank)
    if counts is not None:
        return b.ints([int(d) for d in image_dims(node.attrs, counts, kernel) if d is not None])
    pads = explicit_pads(node.attrs, rank) or ((0, 0),) * rank
    rest = [k - begin - end for k, (begin, end) in zip(kernel, pads, strict=True)]
    return (b.op("Shape", x, start=2) - 1) * b.ints(per_axis(node.attrs, "strides", rank, 1)) + b.ints(rest)
