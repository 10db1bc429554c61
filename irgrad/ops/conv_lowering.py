"""The adjoints of convolutions in standard operations: what is exported, and what kernels are tested against.

The adjoint in the images is a ConvTranspose; the adjoint in the weights is a Conv whose images and weights have changed
their batch and channel axes, and whose strides and dilations have changed places. Sizes that come out too large because of
the rounding of strides are cut to what they must be; where sizes are not known yet, the shape arithmetic is emitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irgrad.builder import Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Node, Value
from irgrad.ops.dims import dim_of, join_sizes, product_of, quotient_of, reshape_to
from irgrad.ops.windows import explicit_pads, per_axis, spatial_rank, windows_of

__all__ = ["crop", "cut", "known_sizes", "lower_input_grad", "lower_weight_grad", "runtime_transposed_pads"]

_END = 2**62  # as an end of a slice: to the last element


def crop(b: Builder, v: Value, begins: Sequence[int], ends: Sequence[int]) -> Value:
    """`v` without the first `begins` and the last `ends` elements of its spatial axes."""
    axes = [axis for axis, amounts in enumerate(zip(begins, ends, strict=True)) if any(amounts)]
    if not axes:
        return v
    starts, stops = [begins[axis] for axis in axes], [-ends[axis] if ends[axis] else _END for axis in axes]
    return b.op("Slice", v, b.ints(starts), b.ints(stops), b.ints([axis + 2 for axis in axes]))


def _rank_of(attrs: Mapping[str, Any], *values: Value) -> int:
    rank = spatial_rank(attrs, *values)
    if rank is None:
        raise UnsupportedOpError("the rank of its operands must be known at compile time; declare their shapes")
    return rank


def known_sizes(dims: Sequence[Any] | None, rank: int) -> tuple[int, ...] | None:
    """The spatial dimensions of a shape where all of them are known."""
    known = tuple(d for d in (dims or ())[2:] if isinstance(d, int))
    return known if len(known) == rank else None


def _kernel(attrs: Mapping[str, Any], dims: Sequence[Any] | None, rank: int) -> tuple[int, ...] | None:
    return tuple(attrs["kernel_shape"]) if attrs.get("kernel_shape") else known_sizes(dims, rank)


def _spatial(b: Builder, shape: Value, rank: int) -> Value:
    """The spatial part of a shape that is a value."""
    dims = known_sizes(shape.contents, rank)
    return b.ints(dims) if dims is not None else b.op("Slice", shape, b.ints([2]), b.ints([rank + 2]), b.ints([0]))


def cut(b: Builder, v: Value, sizes: Value, rank: int, begins: Value | None = None) -> Value:
    """As much of the spatial axes of `v` as `sizes` says, from `begins` (0) on; both are one-dimensional values."""
    axes = b.ints(range(2, rank + 2))
    if begins is None:
        return b.op("Slice", v, b.ints([0] * rank), sizes, axes)
    return b.op("Slice", v, begins, b.op("Add", begins, sizes), axes)


def _same_pads(
    b: Builder, attrs: Mapping[str, Any], sizes: Value, counts: Value, kernel: tuple[int, ...] | Value, rank: int
) -> tuple[Value, Value]:
    """The padding at both ends that auto_pad=SAME_* means, for sizes that are only known when it runs."""
    strides = b.ints(per_axis(attrs, "strides", rank, 1))
    with b:
        total = b.op("Max", (counts - 1) * strides + _extents(b, attrs, kernel, rank) - sizes, b.ints([0]))
        return _split(b, total, attrs["auto_pad"])


def _extents(b: Builder, attrs: Mapping[str, Any], kernel: tuple[int, ...] | Value, rank: int) -> Value:
    """From the first position of a window to its last, both included, along each axis."""
    dilations = per_axis(attrs, "dilations", rank, 1)
    if not isinstance(kernel, Value):
        return b.ints([(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)])
    with b:
        return (kernel - 1) * b.ints(dilations) + 1


def _split(b: Builder, total: Value, auto_pad: str) -> tuple[Value, Value]:
    """Padding of one axis split between its two sides, as `windows_of` does it; it is a value, and may be negative."""
    with b:
        # An arithmetic shift would round down as Python does; Div rounds towards zero, so the remainder is taken off first.
        half = (total - b.op("Mod", total, b.ints([2]))) / 2
        rest = total - half
    return (half, rest) if auto_pad == "SAME_UPPER" else (rest, half)


def lower_input_grad(b: Builder, dy: Value, w: Value, x_shape: Value, attrs: Mapping[str, Any]) -> Value:
    """The adjoint of a convolution in its images as a ConvTranspose.

    Args:
        b: emits.
        dy: cotangent of the result.
        w: weights.
        x_shape: shape of the images.
        attrs: those of the Conv; ceil_mode too, which a pooling may have.

    Raises:
        UnsupportedOpError: the number of axes is unknown.
    """
    rank = _rank_of(attrs, dy, w)
    strides = per_axis(attrs, "strides", rank, 1)
    shared = {name: attrs[name] for name in ("dilations", "group", "strides") if name in attrs}
    sizes, kernel = known_sizes(x_shape.contents, rank), _kernel(attrs, w.shape, rank)
    if sizes is not None and kernel is not None:
        windows = windows_of(attrs, sizes, kernel)
        pads = (*windows.begins, *(max(tail, 0) for tail in windows.tails))
        left = tuple(max(-tail, 0) for tail in windows.tails)
        return _transpose_conv(b, dy, w, shared, pads, left)
    # The strides hide up to stride - 1 elements at the end; make them all, and cut off what is too much.
    most = tuple(stride - 1 for stride in strides)
    pairs = explicit_pads(attrs, rank)
    if pairs is not None:
        dx = _transpose_conv(b, dy, w, shared, (*(p[0] for p in pairs), *(p[1] for p in pairs)), most)
        return dx if not any(most) else cut(b, dx, _spatial(b, x_shape, rank), rank)
    wanted = _spatial(b, x_shape, rank)
    counts = b.op("Shape", dy, start=2)
    begins, _ = _same_pads(b, attrs, wanted, counts, kernel or b.op("Shape", w, start=2), rank)
    return cut(b, _transpose_conv(b, dy, w, shared, (0,) * 2 * rank, most), wanted, rank, begins)


def _transpose_conv(
    b: Builder, dy: Value, w: Value, attrs: Mapping[str, Any], pads: tuple[int, ...], extra: tuple[int, ...]
) -> Value:
    return b.op(
        "ConvTranspose",
        dy,
        w,
        **attrs,
        pads=pads if any(pads) else None,
        output_padding=extra if any(extra) else None,
    )


def lower_weight_grad(b: Builder, x: Value, dy: Value, w_shape: Value, attrs: Mapping[str, Any]) -> Value:
    """The adjoint of a convolution in its weights as a Conv over the batch axis.

    Args:
        b: emits.
        x: images.
        dy: cotangent of the result.
        w_shape: shape of the weights.
        attrs: those of the Conv.

    Raises:
        UnsupportedOpError: the number of axes is unknown.
    """
    rank = _rank_of(attrs, x, dy)
    strides, dilations = per_axis(attrs, "strides", rank, 1), per_axis(attrs, "dilations", rank, 1)
    kernel = _kernel(attrs, w_shape.contents, rank)
    sizes, pairs = known_sizes(x.shape, rank), explicit_pads(attrs, rank)
    exact = set(strides) == {1}
    if sizes is not None and kernel is not None:
        windows = windows_of(attrs, sizes, kernel)
        pads = (*windows.begins, *(max(tail, 0) for tail in windows.tails))
        # What is left after the last window makes rows of their own where they are a dilation apart.
        exact = all(-tail < d for tail, d in zip(windows.tails, dilations, strict=True))
    elif pairs is not None:
        pads = (*(p[0] for p in pairs), *(p[1] for p in pairs))
    else:
        pads = (0,) * 2 * rank
        k = kernel or _spatial(b, w_shape, rank)
        begins, ends = _same_pads(b, attrs, b.op("Shape", x, start=2), b.op("Shape", dy, start=2), k, rank)
        x = b.op("Pad", x, b.op("Concat", b.ints([0, 0]), begins, b.ints([0, 0]), ends, axis=0))
    swap = (1, 0, *range(2, rank + 2))
    group = attrs.get("group", 1)
    dw = b.op(
        "Conv",
        b.op("Transpose", x, perm=swap) if group == 1 else _groups_as_batch(b, x, group, rank),
        b.op("Transpose", dy, perm=swap),
        strides=dilations if set(dilations) != {1} else None,
        dilations=strides if set(strides) != {1} else None,
        pads=pads if any(pads) else None,
        group=group if group != 1 else None,
    )
    if not exact:
        dw = cut(b, dw, b.ints(kernel) if kernel is not None else _spatial(b, w_shape, rank), rank)
    return b.op("Transpose", dw, perm=swap)


def _groups_as_batch(b: Builder, x: Value, group: int, rank: int) -> Value:
    """Images [N, group * C, ...] as [C, group * N, ...]; no size is left to be inferred, since others may be 0."""
    images, channels = dim_of(b, x, 0), quotient_of(b, dim_of(b, x, 1), group)
    sizes = [dim_of(b, x, axis) for axis in range(2, rank + 2)]
    split = reshape_to(b, x, images, group, channels, *sizes)
    together = product_of(b, join_sizes(b, images, group), 0, None)
    return reshape_to(b, b.op("Transpose", split, perm=(2, 1, 0, *range(3, rank + 3))), channels, together, *sizes)


def runtime_transposed_pads(b: Builder, node: Node, dy: Value, rank: int) -> Value:
    """The cotangent of a ConvTranspose with auto_pad or output_shape, as the image of a convolution without padding.

    The padding that the node takes off is put back. It follows from sizes that are not known yet.
    """
    x, w = node.operand(0), node.operand(1)
    kernel, sizes = _kernel(node.attrs, w.shape, rank), known_sizes(dy.shape, rank)
    with b:
        whole = (b.op("Shape", x, start=2) - 1) * b.ints(per_axis(node.attrs, "strides", rank, 1))
        whole = whole + _extents(b, node.attrs, kernel or b.op("Shape", w, start=2), rank)
        beyond = whole - (b.ints(sizes) if sizes is not None else b.op("Shape", dy, start=2))
        begins, _ = _split(b, beyond + b.ints(per_axis(node.attrs, "output_padding", rank, 0)), node.attr("auto_pad"))
        return b.op("Pad", dy, b.op("Concat", b.ints([0, 0]), begins, b.ints([0, 0]), beyond - begins, axis=0))
