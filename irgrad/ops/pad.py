"""Padding and cropping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, Kernel, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.dims import dim_of, int_contents, join_sizes, shape_operand, shaped_like
from irgrad.ops.positions import scatter_by_position
from irgrad.runtime.workspace import planned, widened
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


def _sources(mode: str, size: int, before: int, behind: int) -> np.ndarray:
    """For each position along a padded axis the position of the operand that it is a copy of; -1 where it is of none.

    What negative pads take away is gone before the other pads copy from what is left, as in onnxruntime.
    """
    first, kept = max(-before, 0), max(size - max(-before, 0) - max(-behind, 0), 0)
    before, behind = max(before, 0), max(behind, 0)
    places = np.arange(-before, kept + behind)
    if mode == "constant":
        return np.where((places < 0) | (places >= kept), -1, places + first)
    if kept == 0 and before + behind > 0:
        raise ValueError(f"there is nothing along an axis of no elements to pad with in the mode {mode!r}")
    if mode == "edge":
        return places.clip(0, max(kept - 1, 0)) + first
    if mode == "wrap":
        return places % max(kept, 1) + first
    if mode == "reflect":  # to and fro, the border elements once
        folded = places % max(2 * (kept - 1), 1)
        return np.minimum(folded, 2 * (kept - 1) - folded) + first
    raise ValueError(f"the mode {mode!r} is none of constant, edge, reflect and wrap")


_Run: TypeAlias = "tuple[slice, slice]"
"""Positions along a padded axis, and those of the operand that they are copies of."""


def _runs(sources: np.ndarray) -> list[_Run]:
    """Sources along an axis, as few slices as possible; none for what is copied from nowhere."""
    found, start, numbers = [], 0, sources.tolist()
    while start < len(numbers):
        stop, step = start + 1, 0
        if stop < len(numbers) and abs(numbers[stop] - numbers[start]) == 1 and min(numbers[start : stop + 1]) >= 0:
            step = numbers[stop] - numbers[start]
            while stop < len(numbers) and numbers[stop] - numbers[stop - 1] == step and numbers[stop] >= 0:
                stop += 1
        if numbers[start] >= 0:
            end = numbers[stop - 1] + (step or 1)
            found.append((slice(start, stop), slice(numbers[start], end if end >= 0 else None, step or 1)))
        start = stop
    return found


def _copies(mode: str, shape: Sequence[int], widths: Sequence[tuple[int, int]]) -> list[tuple[tuple[slice, ...], ...]]:
    """Which parts of a padded tensor are copies of which parts of the operand."""
    axes = [_runs(_sources(mode, size, *width)) for size, width in zip(shape, widths, strict=True)]
    return [(tuple(to for to, _ in runs), tuple(source for _, source in runs)) for runs in product(*axes)]


def _padding(shape: Sequence[int], widths: Sequence[tuple[int, int]]) -> list[tuple[slice, ...]]:
    """The parts of a padded tensor that are in no image of the operand, without overlap."""
    found, region = [], [slice(None)] * len(shape)
    for axis, (size, (before, behind)) in enumerate(zip(shape, widths, strict=True)):
        total = size + before + behind
        first = min(max(before, 0), total)
        last = max(min(size + before, total), first)
        for part in (slice(0, first), slice(last, total)):
            if part.start < part.stop:
                found.append((*region[:axis], part, *region[axis + 1 :]))
        region[axis] = slice(first, last)
    return found


pad = ops.define("Pad", cost=costs.moves)


def _padded(
    shape: tuple[int, ...], pads: np.ndarray, axes: np.ndarray | None, mode: str
) -> Callable[[np.ndarray, np.ndarray | None, np.ndarray | None], np.ndarray]:
    """``pad(x, value, out)`` for an x of some shape."""
    widths = _widths(shape, pads, axes)
    result = tuple(size + before + behind for size, (before, behind) in zip(shape, widths, strict=True))
    copies, padding = _copies(mode, shape, widths), _padding(shape, widths) if mode == "constant" else []

    def pad(x: np.ndarray, value: np.ndarray | None, out: np.ndarray | None) -> np.ndarray:
        y = np.empty(result, x.dtype) if out is None else out
        filler = ("" if x.dtype == object else 0) if value is None else value.reshape(())
        for part in padding:
            y[part] = filler
        for to, source in copies:
            y[to] = x[source]
        return y

    return pad


@pad.prepare
@planned(1, 3)
def _pad(call: Call) -> Kernel:
    shape = call.tensor(0).static_shape
    assert shape is not None
    padded = _padded(shape, call.constants[1], call.constants.get(3), call.attrs["mode"])

    def kernel(
        x: np.ndarray, _: np.ndarray, value: np.ndarray | None = None, *__: Any, out: np.ndarray | None = None
    ) -> np.ndarray:
        return padded(x, value, out)

    return kernel


pad_grad = ops.define("PadGrad", domain=IRGRAD_DOMAIN, defaults={"mode": "reflect"}, cost=costs.per_operand(1))
"""``PadGrad(dy, shape, pads, axes)``: each element of dy added to the one that Pad has copied it from.

The adjoint of ``Pad(x, pads, axes)`` for an x of `shape`, in the modes edge, reflect and wrap.
"""


@pad_grad.prepare
@planned(1, 2, 3)
@widened
def _pad_grad(call: Call) -> Kernel:
    shape = tuple(call.constants[1].tolist())
    copies = _copies(call.attrs["mode"], shape, _widths(shape, call.constants[2], call.constants.get(3)))

    def kernel(dy: np.ndarray, *_: np.ndarray | None, out: np.ndarray | None = None) -> np.ndarray:
        dx = np.empty(shape, dy.dtype) if out is None else out
        dx.fill(0)
        for to, source in copies:
            view = dx[source]
            np.add(view, dy[to], out=view)
        return dx

    return kernel


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


@center_crop_pad.prepare
@planned(1)
def _center_crop_pad(call: Call) -> Kernel:
    """Where the difference is odd, the element more is padded or cropped at the end."""
    shape, axes = call.tensor(0).static_shape, call.attrs.get("axes")
    assert shape is not None
    which = range(len(shape)) if axes is None else axes
    more = call.constants[1].astype(np.int64) - [shape[axis] for axis in which]
    before = np.sign(more) * (np.abs(more) // 2)
    padded = _padded(shape, np.concatenate([before, more - before]), np.array(which, np.int64), "constant")

    def kernel(x: np.ndarray, _: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        return padded(x, None, out)

    return kernel


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
