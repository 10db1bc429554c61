"""Deformable convolution: a convolution whose windows read where an operand tells them to.

The columns of the convolution are samples of the image, between pixels and with zeros outside of it. At whole positions,
where the derivative in the offsets jumps, it is the one towards the next pixel, as in torchvision.

References: J. Dai et al., Deformable Convolutional Networks, ICCV 2017; for the mask X. Zhu et al., Deformable ConvNets v2,
CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import TypeInferenceError, UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.op import Call, OpTable
from irgrad.ops import costs
from irgrad.ops.channels import sum_per_channel
from irgrad.ops.dims import Size, as_scalar, dim_of, join_sizes, product_of, quotient_of, reshape_to, shaped_like
from irgrad.ops.sampling import pixel_sample
from irgrad.ops.sampling_kernels import sample
from irgrad.ops.windows import count_dims, explicit_pads, per_axis, spatial_rank, windows_of
from irgrad.runtime.kernels import accumulation_dtype, widened
from irgrad.types import Dim, Type, dims_differ, multiply_dims

ops = OpTable()

deform_conv = ops.define("DeformConv", cost=costs.deform_conv)


# --- forward ----------------------------------------------------------------------------------------------------------


@deform_conv.kernel
@widened
def _(
    x: np.ndarray,
    w: np.ndarray,
    offset: np.ndarray,
    bias: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    *,
    out: np.ndarray | None = None,
    **attrs: Any,
) -> np.ndarray:
    windows, group, parts = windows_of(attrs, x.shape[2:], w.shape[2:]), attrs["group"], attrs["offset_group"]
    rank, kernel, area = windows.rank, prod(windows.kernel), prod(windows.counts)
    for name, operand, each in (("offsets", offset, rank), ("mask", mask, 1)):
        wanted = (len(x), parts * kernel * each, *windows.counts)
        if operand is not None and operand.shape != wanted:
            raise ValueError(f"the {name} of this DeformConv must be of shape {wanted}, not {operand.shape}")
    starts = _lattice(windows.counts, windows.strides, windows.begins).astype(x.dtype)
    steps = _lattice(windows.kernel, windows.dilations, (0,) * rank)[:, None].astype(x.dtype)
    y = np.empty((len(x), len(w), *windows.counts), x.dtype) if out is None else out
    weights = w.reshape(group, len(w) // group, w.shape[1] * kernel)
    for number, image in enumerate(x):  # the columns of one image at a time
        shifts = offset[number].reshape(parts, kernel, rank, area).swapaxes(2, 3)[..., ::-1]
        positions = (shifts + starts + steps).reshape(parts, kernel * area, *(1,) * (rank - 1), rank)
        planes = image.reshape(parts, len(image) // parts, *windows.size)
        columns = sample(planes, positions, pixel_sample.defaults)
        if mask is not None:
            columns *= mask[number].reshape(parts, 1, *positions.shape[1:-1])
        product = np.matmul(weights, columns.reshape(group, w.shape[1] * kernel, area)).reshape(y.shape[1:])
        y[number] = product if bias is None else product + bias.reshape(-1, *(1,) * rank)
    return y


def _lattice(counts: Sequence[int], steps: Sequence[int], before: Sequence[int]) -> np.ndarray:
    """The points ``index * step - before`` for all indices below some counts, [points, rank]; the last axis comes first."""
    points = np.moveaxis(np.indices(counts), 0, -1) * np.array(steps) - np.array(before)
    return np.asarray(points.reshape(prod(counts), len(counts))[:, ::-1])


@deform_conv.infer
def _(call: Call) -> Sequence[Type]:
    x, w, offset = (call.tensor(k) for k in range(3))
    group, parts = call.attrs["group"], call.attrs["offset_group"]
    rank = spatial_rank(call.attrs, x, w, offset)
    if rank is None:
        return [x.with_shape(None)]
    unknown: tuple[Dim, ...] = (None,) * (rank + 2)
    images, weights, shifts = (t.shape or unknown for t in (x, w, offset))
    kernel = tuple(call.attrs.get("kernel_shape") or weights[2:])
    masks = (call.tensor(4).shape if call.has(4) else None) or unknown
    biases = call.tensor(3).shape if call.has(3) else None
    if biases is not None and len(biases) != 1:
        raise TypeInferenceError(f"the bias of DeformConv has one axis, not those of {call.tensor(3)}")
    if rank < 1 or {len(images), len(weights), len(shifts), len(masks), len(kernel) + 2} != {rank + 2}:
        raise TypeInferenceError(f"the operands of DeformConv, {x}, {w} and {offset}, have not the same number of axes")
    counts = count_dims(call.attrs, images[2:], kernel)
    pairs = [("channels of the images", images[1], multiply_dims(weights[1], group))]
    pairs += [("sizes of the bias", size, weights[0]) for size in biases or ()]
    pairs += [("sizes of the kernel", a, b) for a, b in zip(kernel, weights[2:], strict=True)]
    for name, shape, each in (("offsets", shifts, rank), ("mask", masks, 1)):
        wanted = (images[0], multiply_dims(parts * each, *kernel), *counts)
        pairs += [(f"sizes of the {name}", a, b) for a, b in zip(shape, wanted, strict=True)]
    for what, a, b in pairs:
        if dims_differ(a, b):
            raise TypeInferenceError(f"the {what} do not fit in DeformConv({x}, {w}, {offset}): {a} is not {b}")
    divided = (("group", images[1], group), ("group", weights[0], group), ("offset_group", images[1], parts))
    for name, count, divisor in divided:
        if divisor < 1 or (isinstance(count, int) and count % divisor):
            raise TypeInferenceError(f"{count} channels do not divide into {divisor} groups ({name} of DeformConv)")
    known = [b if a is None else a for a, b in zip(counts, shifts[2:], strict=True)]
    return [x.with_shape((images[0], weights[0], *known))]


# --- the adjoint ------------------------------------------------------------------------------------------------------


@deform_conv.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | None]:
    """The result is a product of the weights with columns, and these are samples of the image times the mask."""
    x, w, offset, bias, mask = (node.input(k) for k in range(5))
    dx = dw = doffset = dmask = None
    dbias = sum_per_channel(b, dy) if b.needs(bias) else None
    sampled = [b.needs(operand) for operand in (x, offset, mask)]
    if b.needs(w) or any(sampled):
        columns = _Columns(b, node, dy)
        if b.needs(w):
            dw = columns.weight_cotangent()
        if any(sampled):
            dx, doffset, dmask = columns.cotangents(*sampled)
    return [dx, dw, doffset, dbias, dmask][: len(node.inputs)]


class _Columns:
    """What the windows of a DeformConv read, and their cotangent.

    The groups of offsets are images of their own here: the batch is that of the images times the number of groups.
    """

    def __init__(self, b: Builder, node: Node, dy: Value) -> None:
        x, w, offset, mask = node.operand(0), node.operand(1), node.operand(2), node.input(4)
        rank = spatial_rank(node.attrs, x, w, offset, dy)
        if rank is None:
            raise UnsupportedOpError("the rank of its operands must be known at compile time; declare their shapes")
        self._b, self._operands, self._rank = b, (x, w, offset, mask), rank
        self._ones = (1,) * (rank - 1)
        group, parts, axes = node.attr("group"), node.attr("offset_group"), range(2, rank + 2)
        kernel: list[Size] = list(node.attr("kernel_shape") or (dim_of(b, w, axis) for axis in axes))
        counts = [dim_of(b, dy, axis) for axis in axes]
        images, channels, filters = dim_of(b, x, 0), dim_of(b, x, 1), dim_of(b, w, 0)
        self._batch, self._kernel, self._area = (_product(b, *sizes) for sizes in ((images, parts), kernel, counts))
        self._points = _product(b, self._kernel, self._area)
        depth = _product(b, dim_of(b, w, 1), self._kernel)
        self._column_sizes = (images, group, depth, self._area)
        self._sample_sizes = (self._batch, quotient_of(b, channels, parts), self._points, *self._ones)
        self._weights = reshape_to(b, w, group, quotient_of(b, filters, group), depth)
        self._dy = reshape_to(b, dy, images, group, quotient_of(b, filters, group), self._area)
        sizes = [dim_of(b, x, axis) for axis in axes]
        self._images = reshape_to(b, x, self._batch, quotient_of(b, channels, parts), *sizes)
        self._mask = None if mask is None else reshape_to(b, mask, self._batch, 1, self._points, *self._ones)
        self._positions = self._places(node, offset, kernel, counts)

    def _places(self, node: Node, offset: Value, kernel: Sequence[Size], counts: Sequence[Size]) -> Value:
        """Where samples are taken, in pixels: [batch, kernel * area, 1, ..., rank], the last spatial axis first."""
        b, rank = self._b, self._rank
        dilations, strides = (per_axis(node.attrs, name, rank, 1) for name in ("dilations", "strides"))
        pads = explicit_pads(node.attrs, rank)
        assert pads is not None  # there is no auto_pad
        # Positions in a large image have more digits than 16 bits hold.
        wide = b.cast(offset, accumulation_dtype(offset.dtype))
        shifts = self._reversed(reshape_to(b, wide, self._batch, self._kernel, rank, self._area))
        starts = b.cast(_points_of(b, counts, strides, [begin for begin, _ in pads]), wide.dtype)
        steps = b.cast(_points_of(b, kernel, dilations, (0,) * rank), wide.dtype)
        places = b.op("Transpose", shifts, perm=(0, 1, 3, 2)) + starts + b.op("Unsqueeze", steps, b.ints([1]))
        return reshape_to(b, places, self._batch, self._points, *self._ones, rank)

    def _reversed(self, v: Value) -> Value:
        """Offsets [batch, kernel, rank, area] in the opposite order of the axes."""
        return v if self._rank == 1 else self._b.op("Gather", v, self._b.ints(range(self._rank - 1, -1, -1)), axis=2)

    @cached_property
    def _samples(self) -> Value:
        return self._b.op("irgrad.PixelSample", self._images, self._positions)

    def weight_cotangent(self) -> Value:
        samples = self._samples if self._mask is None else self._samples * self._mask
        columns = reshape_to(self._b, samples, *self._column_sizes)
        dw = self._b.op("Einsum", self._dy, columns, equation="ngmo,ngko->gmk")
        return shaped_like(self._b, dw, self._operands[1])

    def cotangents(self, of_x: bool, of_offset: bool, of_mask: bool) -> tuple[Value | None, Value | None, Value | None]:
        """The cotangents of the images, the offsets and the mask, as far as they are asked for."""
        b, (x, _, offset, mask) = self._b, self._operands
        dcolumns = b.op("Einsum", self._weights, self._dy, equation="gmk,ngmo->ngko")
        dsamples = reshape_to(b, dcolumns, *self._sample_sizes)
        dx = doffset = dmask = None
        if of_mask:
            assert mask is not None
            dmask = shaped_like(b, b.reduce_sum(dsamples * self._samples, [1]), mask)
        if self._mask is not None:
            dsamples = dsamples * self._mask
        if of_x:
            dimages = b.op("irgrad.GridSampleImageGrad", dsamples, self._positions, b.shape_of(self._images), pixels=1)
            dx = shaped_like(b, dimages, x)
        if of_offset:
            dplaces = b.op("irgrad.GridSampleGridGrad", dsamples, self._images, self._positions, pixels=1)
            rows = reshape_to(b, dplaces, self._batch, self._kernel, self._area, self._rank)
            shifts = self._reversed(b.op("Transpose", rows, perm=(0, 1, 3, 2)))
            doffset = b.cast(shaped_like(b, shifts, offset), offset.dtype)
        return dx, doffset, dmask


def _points_of(b: Builder, counts: Sequence[Size], steps: Sequence[int], before: Sequence[int]) -> Value:
    """The points of `_lattice` as an int64 value, for counts that need not be known."""
    known = [count for count in counts if isinstance(count, int)]
    if len(known) == len(counts):
        return b.constant(_lattice(known, steps, before))
    number = b.op("Unsqueeze", b.op("Range", 0, as_scalar(b, _product(b, *counts)), 1), b.ints([1]))
    behind = [_product(b, *counts[axis + 1 :]) for axis in range(len(counts))]
    index = b.op("Mod", number / join_sizes(b, *behind[::-1]), join_sizes(b, *counts[::-1]))
    return index * b.ints(steps[::-1]) - b.ints(before[::-1])


def _product(b: Builder, *sizes: Size) -> Size:
    return product_of(b, join_sizes(b, *sizes), 0, None) if sizes else 1
