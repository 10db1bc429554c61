"""Sliding windows as columns: Col2Im, which adds columns up to images, and its adjoint, which cuts images into columns."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, Kernel, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import rank_of
from irgrad.ops.dims import Size, as_scalar, dim_of, join_sizes, product_of, reshape_to, shape_operand
from irgrad.ops.windows import count_dims, explicit_pads, per_axis, windows_of
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import planned, shared_ranges, widened
from irgrad.types import Dim, Type, divide_dims, multiply_dims

ops = OpTable()

_EVERY = (slice(None), slice(None))  # image and channel

# --- Col2Im -----------------------------------------------------------------------------------------------------------

col2im = ops.define("Col2Im", cost=costs.per_operand(1))


@col2im.prepare
@planned(1, 2)
@widened
def _(call: Call) -> Kernel:
    columns = call.tensor(0)
    assert columns.static_shape is not None
    windows = windows_of(call.attrs, call.constants[1].tolist(), call.constants[2].tolist())
    n, depth, length = columns.static_shape
    if depth % prod(windows.kernel) or length != prod(windows.counts):
        raise ValueError(
            f"columns of shape {(n, depth, length)} are not {prod(windows.counts)} blocks of {prod(windows.kernel)} elements"
        )
    channels = depth // prod(windows.kernel)
    offsets, todo = windows.offsets(), shared_ranges(n, n * depth * length)

    def kernel(columns: np.ndarray, *_: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        image = np.empty((n, channels, *windows.size), columns.dtype) if out is None else out
        blocks = columns.reshape(n, channels, *windows.kernel, *windows.counts)

        def some(share: int) -> None:
            for first, last in todo[share]:
                some_images, some_blocks = image[first:last], blocks[first:last]
                some_images.fill(0)
                for offset, which, where in offsets:
                    view = some_images[(*_EVERY, *where)]
                    place: tuple[Any, ...] = (*_EVERY, *offset, *which)
                    np.add(view, some_blocks[place], out=view)

        parallel(some, range(len(todo)))
        return image

    return kernel


@col2im.infer
def _(call: Call) -> Sequence[Type]:
    columns, sizes, block = call.tensor(0), shape_operand(call, 1), shape_operand(call, 2)
    if columns.rank not in (3, None):
        raise TypeInferenceError(f"Col2Im takes columns of three axes, [N, C * block, blocks], not {columns}")
    if sizes is not None and block is not None and len(sizes) != len(block):
        raise TypeInferenceError(f"image_shape of Col2Im has {len(sizes)} numbers, block_shape {len(block)}")
    if sizes is None:
        return [columns.with_shape(None if block is None else (None,) * (len(block) + 2))]
    batch, depth, length = columns.shape or (None, None, None)
    channels: Dim = None
    if block is not None:
        channels = divide_dims(depth, multiply_dims(*block))
        size, counts = multiply_dims(*block), multiply_dims(*count_dims(call.attrs, sizes, block))
        if (channels is None and isinstance(depth, int) and isinstance(size, int)) or _differ(counts, length):
            raise TypeInferenceError(
                f"the columns {columns} of Col2Im are not the blocks of an image: {counts} blocks of {size} elements each"
            )
    return [columns.with_shape((batch, channels, *sizes))]


def _differ(a: Dim, b: Dim) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a != b


@col2im.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> tuple[Value, None, None]:
    return b.op("irgrad.Im2Col", dy, node.operand(2), **node.attrs), None, None


# --- its adjoint ------------------------------------------------------------------------------------------------------

im2col = ops.define("Im2Col", domain=IRGRAD_DOMAIN, cost=costs.moves)
"""``Im2Col(image, block_shape)``: the blocks of an image [N, C, *sizes] as columns [N, C * block, blocks].

Attributes: strides, dilations and pads, as Col2Im has them.
"""


@im2col.prepare
@planned(1)
def _(call: Call) -> Kernel:
    image = call.tensor(0)
    assert image.static_shape is not None
    n, channels, *size = image.static_shape
    windows = windows_of(call.attrs, size, call.constants[1].tolist())
    offsets, shape = windows.offsets(), (n, channels * prod(windows.kernel), prod(windows.counts))
    whole = sum(prod(w.stop - w.start for w in which) for _, which, _ in offsets) == prod(shape[1:]) // max(channels, 1)
    todo = shared_ranges(n, prod(shape))

    def kernel(image: np.ndarray, _: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
        columns = np.empty(shape, image.dtype) if out is None else out
        blocks = columns.reshape(n, channels, *windows.kernel, *windows.counts)

        def some(share: int) -> None:
            for first, last in todo[share]:
                target, source = blocks[first:last], image[first:last]
                if not whole:
                    target.fill(0)
                for offset, which, where in offsets:
                    place: tuple[Any, ...] = (*_EVERY, *offset, *which)
                    target[place] = source[(*_EVERY, *where)]

        parallel(some, range(len(todo)))
        return columns

    return kernel


@im2col.infer
def _(call: Call) -> Sequence[Type]:
    image, block = call.tensor(0), shape_operand(call, 1)
    batch, channels, *sizes = image.shape or (None, None)
    if block is None or image.shape is None:
        return [image.with_shape((batch, None, None))]
    counts = count_dims(call.attrs, sizes, block)
    return [image.with_shape((batch, multiply_dims(channels, *block), multiply_dims(*counts)))]


@im2col.adjoint
def _(b: AdjointBuilder, node: Node, c: Value) -> tuple[Value, None]:
    image = node.operand(0)
    static = image.tensor_type.static_shape
    sizes = b.op("Shape", image, start=2) if static is None else b.ints(static[2:])
    return b.op("Col2Im", c, sizes, node.operand(1), **node.attrs), None


@im2col.lower
def _(b: Builder, node: Node) -> Value:
    """A Gather along each axis, which makes two of it: one that runs over a block, and one that runs over the blocks."""
    image, block = node.operand(0), node.operand(1)
    rank = rank_of(image) - 2
    pads = explicit_pads(node.attrs, rank)
    assert pads is not None  # there is no auto_pad
    cut, kernel, counts = image, list[Size](), list[Size]()
    with b:
        if any(map(any, pads)):
            begins, ends = ([pair[side] for pair in pads] for side in (0, 1))
            cut = b.op("Pad", image, b.ints([0, 0, *begins, 0, 0, *ends]))
        for k, (stride, dilation) in enumerate(
            zip(per_axis(node.attrs, "strides", rank, 1), per_axis(node.attrs, "dilations", rank, 1), strict=True)
        ):
            axis = 2 + 2 * k
            kernel.append(product_of(b, block, k, k + 1))
            counts.append(_count(b, dim_of(b, cut, axis), kernel[k], stride, dilation))
            cut = b.op("Gather", cut, _places(b, kernel[k], counts[k], stride, dilation), axis=axis)
        cut = b.op("Transpose", cut, perm=(0, 1, *range(2, 2 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2)))
        depth, length = (product_of(b, join_sizes(b, *sizes), 0, None) for sizes in ((dim_of(b, image, 1), *kernel), counts))
        return reshape_to(b, cut, dim_of(b, image, 0), depth, length)


def _count(b: Builder, size: Size, block: Size, stride: int, dilation: int) -> Size:
    """How many blocks lie along an axis of some size, its padding included."""
    room = size - (block - 1) * dilation - 1
    return room // stride + 1 if isinstance(room, int) else b.op("Div", room, stride) + 1


def _places(b: Builder, block: Size, count: Size, stride: int, dilation: int) -> Value:
    """Where the elements of the blocks lie along an axis, [block, count]."""
    if isinstance(block, int) and isinstance(count, int):
        return b.constant(np.add.outer(np.arange(block) * dilation, np.arange(count) * stride))
    offsets, starts = (b.op("Range", 0, as_scalar(b, size), 1) for size in (block, count))
    return b.op("Unsqueeze", offsets * dilation, b.ints([1])) + starts * stride
