"""Sliding windows as columns: Col2Im, which adds columns up to images, and its adjoint, which cuts images into columns."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, Call, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import rank_of
from irgrad.ops.conv_kernels import add_windows, view_windows
from irgrad.ops.dims import Size, as_scalar, dim_of, join_sizes, product_of, reshape_to, shape_operand
from irgrad.ops.windows import count_dims, explicit_pads, per_axis, windows_of
from irgrad.runtime.kernels import deliver, widened
from irgrad.types import Dim, Type, divide_dims, multiply_dims

ops = OpTable()

# --- Col2Im -----------------------------------------------------------------------------------------------------------

col2im = ops.define("Col2Im", cost=costs.per_operand(1))


@col2im.kernel
@widened
def _(
    columns: np.ndarray,
    image_shape: np.ndarray,
    block_shape: np.ndarray,
    *,
    out: np.ndarray | None = None,
    **attrs: Any,
) -> np.ndarray:
    windows = windows_of(attrs, image_shape.tolist(), block_shape.tolist())
    n, depth, length = columns.shape
    if depth % prod(windows.kernel) or length != prod(windows.counts):
        raise ValueError(
            f"columns of shape {columns.shape} are not {prod(windows.counts)} blocks of {prod(windows.kernel)} elements"
        )
    channels = depth // prod(windows.kernel)
    image = np.zeros((n, channels, *windows.size), columns.dtype)
    blocks = columns.reshape(n, channels, *windows.kernel, *windows.counts)
    add_windows(image, np.moveaxis(blocks, 0, windows.rank + 1), windows)
    return deliver(image, out)


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


@im2col.kernel
def _(image: np.ndarray, block_shape: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any) -> np.ndarray:
    windows = windows_of(attrs, image.shape[2:], block_shape.tolist())
    blocks = view_windows(image, windows)
    return deliver(blocks.reshape(len(image), image.shape[1] * prod(windows.kernel), prod(windows.counts)), out)


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
