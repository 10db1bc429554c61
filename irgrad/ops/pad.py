"""Padding and cropping."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.accumulate import accumulate_rows
from irgrad.ops.dims import dim_of, int_contents, join_sizes, shape_operand, shaped_like
from irgrad.ops.positions import scatter_by_position
from irgrad.runtime.kernels import accumulation_dtype, deliver
from irgrad.types import Type

ops = OpTable()

# --- kernels ----------------------------------------------------------------------------------------------------------


def _widths(shape: Sequence[int], pads: np.ndarray, axes: np.ndarray | None) -> list[tuple[int, int]]:
    """How much to put before and behind along each axis; negative numbers take away."""
    numbers = pads.tolist()
    which = list(range(len(shape))) if axes is None else axes.tolist()
    if len(numbers) != 2 * len(which):
        raise ValueError(f"there are {len(numbers)} pads for {len(which)} axes; each axis takes two")
    found = [(0, 0)] * len(shape)
    for k, axis in enumerate(which):
        found[axis] = (numbers[k], numbers[k + len(which)])
        if shape[axis] + sum(found[axis]) < 0:
            raise ValueError(f"the pads {found[axis]} take more away from axis {axis} than its {shape[axis]} elements")
    return found


def _crop(shape: Sequence[int], pads: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    """What negative pads leave."""
    return tuple(
        slice(max(-before, 0), max(size - max(-behind, 0), 0)) for size, (before, behind) in zip(shape, pads, strict=True)
    )


def _sources(mode: str, size: int, before: int, behind: int) -> np.ndarray:
    """For each position along a padded axis the position of the operand that it is a copy of."""
    if size == 0 and before + behind > 0:
        raise ValueError(f"there is nothing along an axis of no elements to pad with in the mode {mode!r}")
    places = np.arange(-before, size + behind)
    if mode == "edge":
        return places.clip(0, size - 1)
    if mode == "wrap":
        return places % max(size, 1)
    if mode == "reflect":  # to and fro, the border elements once
        folded = places % max(2 * (size - 1), 1)
        return np.minimum(folded, 2 * (size - 1) - folded)
    raise ValueError(f"the mode {mode!r} is none of constant, edge, reflect and wrap")


pad = ops.define("Pad", cost=costs.moves)


@pad.kernel
def _pad(
    x: np.ndarray,
    pads: np.ndarray,
    value: np.ndarray | None = None,
    axes: np.ndarray | None = None,
    *,
    mode: str = "constant",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """What negative pads take away is gone before the other pads copy from what is left, as in onnxruntime."""
    widths = _widths(x.shape, pads, axes)
    if mode == "constant":
        shape = tuple(size + before + behind for size, (before, behind) in zip(x.shape, widths, strict=True))
        result = np.empty(shape, x.dtype) if out is None else out
        result.fill(("" if x.dtype == object else 0) if value is None else value.reshape(()))
        source, target = [], []
        for size, have, (before, _) in zip(shape, x.shape, widths, strict=True):
            first, last = max(before, 0), min(have + before, size)
            target.append(slice(first, max(last, first)))
            source.append(slice(first - before, max(last, first) - before))
        result[tuple(target)] = x[tuple(source)]
        return result
    x = x[_crop(x.shape, widths)]
    for axis, (before, behind) in enumerate(widths):
        if before > 0 or behind > 0:
            x = np.take(x, _sources(mode, x.shape[axis], max(before, 0), max(behind, 0)), axis)
    return deliver(x, out)


pad_grad = ops.define("PadGrad", domain=IRGRAD_DOMAIN, defaults={"mode": "reflect"}, cost=costs.per_operand(1))
"""``PadGrad(dy, shape, pads, axes)``: each element of dy added to the one that Pad has copied it from.

The adjoint of ``Pad(x, pads, axes)`` for an x of `shape`, in the modes edge, reflect and wrap.
"""


@pad_grad.kernel
def _pad_grad(
    dy: np.ndarray,
    shape: np.ndarray,
    pads: np.ndarray,
    axes: np.ndarray | None = None,
    *,
    mode: str,
    out: np.ndarray | None = None,
) -> np.ndarray:
    target = tuple(shape.tolist())
    widths = _widths(target, pads, axes)
    crop = _crop(target, widths)
    dx = dy.astype(accumulation_dtype(dy.dtype), copy=False)
    for axis, (before, behind) in enumerate(widths):
        if before > 0 or behind > 0:
            size = len(range(*crop[axis].indices(target[axis])))
            dx = _folded(dx, axis, size, _sources(mode, size, max(before, 0), max(behind, 0)), max(before, 0))
    result = np.zeros(target, dy.dtype) if out is None else out
    if result is out:
        result.fill(0)
    result[crop] = dx
    return result


def _folded(dy: np.ndarray, axis: int, size: int, sources: np.ndarray, before: int) -> np.ndarray:
    """The padding along an axis added to what it is a copy of."""
    outer, inner = prod(dy.shape[:axis]), prod(dy.shape[axis + 1 :])
    blocks = dy.reshape(outer, len(sources), inner)
    dx = blocks[:, before : before + size].copy()
    border = np.r_[0:before, before + size : len(sources)]
    rows = (np.arange(outer)[:, None] * size + sources[border]).reshape(-1)
    accumulate_rows(np.add, dx.reshape(outer * size, inner), rows, blocks[:, border].reshape(len(rows), inner))
    return dx.reshape(*dy.shape[:axis], size, *dy.shape[axis + 1 :])


@pad_grad.infer
def _pad_grad_type(call: Call) -> Sequence[Type]:
    return [call.tensor(0).with_shape(shape_operand(call, 1))]


# --- adjoints ---------------------------------------------------------------------------------------------------------


@pad.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> Sequence[Value | Zero | None]:
    x, pads, value, axes = (node.input(k) for k in range(4))
    dx: Value | None = None
    dvalue: Value | Zero = ZERO
    if b.needs(x):
        dx = _unpadded(b, node, dy)
    if value is not None and b.needs(value) and node.attr("mode") == "constant":
        inside = b.op("ConstantOfShape", b.shape_of(node.operand(0)), value=np.array([False]))
        padding = b.op("Pad", inside, pads, np.array(True), axes)
        dvalue = shaped_like(b, b.reduce_sum(b.op("Where", padding, dy, b.scalar(0, dy)), None), value)
    return [dx, None, dvalue][: len(node.inputs)]


def _unpadded(b: Builder, node: Node, dy: Value) -> Value:
    x, pads, axes, mode = node.operand(0), node.operand(1), node.input(3), node.attr("mode")
    if mode != "constant":
        return b.op("irgrad.PadGrad", dy, b.shape_of(x), pads, axes, mode=mode)
    known = int_contents(pads)
    which = list(range(len(known or ()) // 2)) if axes is None else int_contents(axes)
    if known is None or which is None or min(known, default=0) < 0:
        return b.op("Pad", dy, b.op("Neg", pads), None, axes)  # a crop, and zeros where the Pad has cropped
    padded = [(axis, *ends) for axis, *ends in zip(which, known, known[len(which) :], strict=False) if any(ends)]
    if not padded:
        return dy
    far = np.iinfo(np.int64).max
    positions, before, behind = zip(*padded, strict=True)
    ends = b.ints([-width if width else far for width in behind])
    return b.op("Slice", dy, b.ints(before), ends, b.ints(positions))


@pad_grad.adjoint
def _(b: AdjointBuilder, node: Node, dx: Value) -> tuple[Value]:
    return (b.op("Pad", dx, node.operand(2), None, node.input(3), mode=node.attr("mode")),)


@pad_grad.lower
def _(b: Builder, node: Node) -> Value:
    dy, shape, pads, axes = node.operand(0), node.operand(1), node.operand(2), node.input(3)
    return scatter_by_position(b, dy, shape, lambda p: b.op("Pad", p, pads, None, axes, mode=node.attr("mode")))


# --- to a size --------------------------------------------------------------------------------------------------------

center_crop_pad = ops.define("CenterCropPad", cost=costs.moves)


@center_crop_pad.kernel
def _center_crop_pad(
    x: np.ndarray, sizes: np.ndarray, *, axes: Sequence[int] | None = None, out: np.ndarray | None = None
) -> np.ndarray:
    """Where the difference is odd, the element more is padded or cropped at the end."""
    which = range(x.ndim) if axes is None else axes
    more = sizes.astype(np.int64) - [x.shape[axis] for axis in which]
    before = np.sign(more) * (np.abs(more) // 2)
    return _pad(x, np.concatenate([before, more - before]), None, np.array(which, np.int64), out=out)


@center_crop_pad.infer
def _center_crop_pad_type(call: Call) -> Sequence[Type]:
    """What onnx infers too, and symbols."""
    x, axes, sizes = call.tensor(0), call.attrs.get("axes"), shape_operand(call, 1)
    if x.shape is None:
        return [x.with_shape(sizes if axes is None else None)]
    dims, which = list(x.shape), range(len(x.shape)) if axes is None else axes
    if sizes is None:
        sizes = (None,) * len(which)
    if len(sizes) != len(which) or not all(-len(dims) <= axis < len(dims) for axis in which):
        raise TypeInferenceError(f"a CenterCropPad of {x} has {len(sizes)} sizes for the axes {list(which)}")
    for axis, size in zip(which, sizes, strict=True):
        dims[axis] = size
    return [x.with_shape(tuple(dims))]


@center_crop_pad.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value]:
    """What was cropped is padded again, and the other way round."""
    x, axes = node.operand(0), node.attr("axes")
    sizes = b.shape_of(x) if axes is None else join_sizes(b, *(dim_of(b, x, axis) for axis in axes))
    return (b.op("CenterCropPad", dy, sizes, axes=axes),)
