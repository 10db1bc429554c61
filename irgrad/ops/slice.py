"""Slices, and what undoes them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.contents import slice_range
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.dims import count_of, int_contents, shape_operand
from irgrad.ops.positions import scatter_by_position
from irgrad.runtime.kernels import deliver
from irgrad.runtime.workspace import planned
from irgrad.types import Type

ops = OpTable()


def _slices(
    shape: Sequence[int],
    starts: np.ndarray | None,
    ends: np.ndarray | None,
    axes: np.ndarray | None,
    steps: np.ndarray | None,
) -> tuple[slice, ...]:
    """The operands of a Slice of a tensor of some shape as Python's slices, one per axis."""
    assert starts is not None and ends is not None
    slices = [slice(None)] * len(shape)
    which = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), which, strides, strict=True):
        kept = slice_range(start, end, step, shape[axis])
        # From the last to the first element, Python's slice has no number for the end.
        slices[axis] = slice(kept.start, kept.stop if kept.stop >= 0 else None, kept.step) if kept else slice(0, 0)
    return tuple(slices)


slice_ = ops.define("Slice", view=True)


@slice_.prepare
@planned(1, 2, 3, 4)
def _slice(call: Call) -> Kernel:
    shape = call.tensor(0).static_shape
    assert shape is not None
    index = _slices(shape, *(call.constants.get(k) for k in range(1, 5)))

    def kernel(x: np.ndarray, *_: np.ndarray | None, out: np.ndarray | None = None) -> np.ndarray:
        return deliver(x[index], out)

    return kernel


@slice_.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    """The cotangent among zeros: a Pad where the slice is one block at a known place."""
    x = node.operand(0)
    block = _known_block(node)
    if block is not None:
        axes, pads = block
        return (b.op("Pad", dy, b.ints(pads), None, b.ints(axes)) if any(pads) else dy,)
    return (b.op("irgrad.SliceGrad", dy, b.shape_of(x), *node.inputs[1:]),)


def _known_block(node: Node) -> tuple[list[int], list[int]] | None:
    """The axes that a slice cuts and the numbers of elements before and behind it, where all of that is known."""
    x = node.operand(0)
    starts, ends = int_contents(node.operand(1)), int_contents(node.operand(2))
    if x.shape is None or starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if node.input(3) is None else int_contents(node.input(3))
    steps = (1,) * len(starts) if node.input(4) is None else int_contents(node.input(4))
    if axes is None or steps is None or any(step != 1 for step in steps):
        return None
    before, behind = [], []
    for start, end, axis in zip(starts, ends, axes, strict=True):
        size = x.shape[axis]
        if not isinstance(size, int):
            return None
        kept = slice_range(start, end, 1, size)
        before.append(kept.start)
        behind.append(size - kept.start - len(kept))
    return list(axes), before + behind


slice_grad = ops.define("SliceGrad", domain=IRGRAD_DOMAIN, cost=costs.moves)
"""``SliceGrad(dy, shape, starts, ends, axes, steps)``: zeros of `shape` whose slice by the other operands is dy."""


@slice_grad.prepare
@planned(1, 2, 3, 4, 5)
def _slice_grad(call: Call) -> Kernel:
    shape = tuple(call.constants[1].tolist())
    index = _slices(shape, *(call.constants.get(k) for k in range(2, 6)))

    def kernel(dy: np.ndarray, *_: np.ndarray | None, out: np.ndarray | None = None) -> np.ndarray:
        result = np.empty(shape, dy.dtype) if out is None else out
        result.fill(0)
        result[index] = dy
        return result

    return kernel


@slice_grad.infer
def _slice_grad_type(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 1))]


@slice_grad.adjoint
def _(b: AdjointBuilder, node: Node, dx: Value) -> tuple[Value]:
    return (b.op("Slice", dx, *node.inputs[2:]),)


@slice_grad.lower
def _(b: Builder, node: Node) -> Value:
    dy, shape, starts, ends = (node.operand(k) for k in range(4))
    axes, steps = node.input(4), node.input(5)
    if steps is None or set(steps.contents or (None,)) == {1}:
        return _padded(b, dy, shape, starts, axes)
    return scatter_by_position(b, dy, shape, lambda p: b.op("Slice", p, starts, ends, axes, steps))


def _padded(b: Builder, dy: Value, shape: Value, starts: Value, axes: Value | None) -> Value:
    """A Pad whose numbers are computed: before the block what the start says, behind it what is left."""
    if axes is None:
        count = count_of(b, starts)
        axes = b.ints(range(count)) if isinstance(count, int) else b.op("Range", 0, b.op("Squeeze", count), 1)
    sizes, have = (b.op("Gather", v, axes) for v in (shape, b.shape_of(dy)))
    starts = b.cast(starts, shape.dtype)
    before = b.op("Where", starts < 0, starts + sizes, starts)
    before = b.op("Min", b.op("Max", before, b.ints([0])), sizes)
    pads = b.op("Concat", before, sizes - before - have, axis=0)
    return b.op("Pad", dy, pads, None, axes)
