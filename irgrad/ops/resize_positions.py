"""The cotangents of what says where a Resize samples: its roi and its scales.

Resize is separable. So, once the operand is resized along all other axes, the derivative by positions along one axis is
that of a one-dimensional GridSample with padding_mode border, which is what Resize does at borders; in the mode
tf_crop_and_resize elements outside of the operand are constants. The length of the result steps, and has no derivative.

Source of the positions: the ONNX operator specification, Resize (version 19).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder, Builder
from irgrad.errors import UnsupportedOpError
from irgrad.graph import Value
from irgrad.op import ZERO, Zero
from irgrad.ops.channels import rank_of
from irgrad.ops.dims import Size, as_scalar, dim_of, join_sizes, product_of, reshape_to
from irgrad.ops.resampling import axes_of

__all__ = ["CROP", "position_cotangents"]

CROP = "tf_crop_and_resize"

_FLOAT = np.dtype(np.float64)  # in which the kernel forms positions, too


def position_cotangents(
    b: AdjointBuilder, attrs: Mapping[str, Any], x: Value, roi: Value | None, scales: Value | None, dy: Value
) -> tuple[Value | Zero | None, Value | Zero | None]:
    """The cotangents of roi and scales, where dy is that of ``Resize(x, roi, scales, ...)``.

    Args:
        b: emits.
        attrs: the attributes of the Resize, defaults included.
        x: its operand.
        roi: its operand, or None.
        scales: its operand, or None.
        dy: the cotangent of its result.

    Raises:
        UnsupportedOpError: a cotangent is needed, and cannot be had with these attributes.
    """
    mapping = attrs["coordinate_transformation_mode"]
    if attrs["mode"] == "nearest":
        return ZERO, ZERO
    droi = _wanted(b, attrs, x, roi, dy) if mapping == CROP else ZERO
    # Scales that move no positions widen the filter of an antialiased Resize all the same.
    without_influence = mapping in (CROP, "align_corners") and not attrs["antialias"]
    return droi, ZERO if without_influence else _wanted(b, attrs, x, scales, dy)


def _wanted(b: AdjointBuilder, attrs: Mapping[str, Any], x: Value, operand: Value | None, dy: Value) -> Value | None:
    if operand is None or not b.needs(operand):
        return None
    cubic = attrs["mode"] == "cubic"
    if attrs["antialias"] or (cubic and (attrs["exclude_outside"] or attrs["cubic_coeff_a"] != -0.75)):
        raise UnsupportedOpError(
            "there is no cotangent of roi or scales with antialias, exclude_outside or another cubic_coeff_a than -0.75"
        )
    numbers = b.cast(operand, _FLOAT)
    axes = axes_of(attrs, rank_of(x))
    parts: list[Value] = []
    for k, axis in enumerate(axes):
        size, length = dim_of(b, x, axis), dim_of(b, dy, axis)
        if attrs["coordinate_transformation_mode"] == CROP:
            place, slopes = _cropped(b, numbers, k, len(axes), size, length)
        else:
            place, slopes = _scaled(b, numbers, k, attrs["coordinate_transformation_mode"], size, length)
        dplace = _by_place(b, attrs, x, operand, dy, k, axes, place)
        if attrs["coordinate_transformation_mode"] == CROP:
            inside = b.op("And", place >= 0, place <= _number(b, size) - 1)
            dplace = b.op("Where", inside, dplace, b.scalar(0, dplace))
        parts += [b.reduce_sum(dplace * slope, [0], keepdims=True) for slope in slopes]
    count = len(parts) // len(axes)  # starts and ends, or scales
    ordered = [part for which in range(count) for part in parts[which::count]]
    return b.cast(b.op("Concat", *ordered, axis=0), operand.dtype)


def _cropped(b: Builder, roi: Value, k: int, count: int, size: Size, length: Size) -> tuple[Value, list[Value]]:
    """Positions along an axis of a crop, and their derivatives by its start and its end."""
    start, end = (b.op("Gather", roi, b.constant(np.int64(place))) for place in (k, count + k))
    last = _number(b, size) - 1
    if isinstance(length, int):
        share = b.constant(np.full(1, 0.5) if length == 1 else np.arange(length) / max(length - 1, 1), _FLOAT)
    else:
        along = _steps(b, length) / _number(b, b.op("Max", length - 1, b.ints([1])))
        share = b.op("Where", b.op("Equal", length, b.ints([1])), b.constant(0.5, _FLOAT), along)
    behind, ahead = (1 - share) * last, share * last
    return start * behind + end * ahead, [behind, ahead]


def _scaled(b: Builder, scales: Value, k: int, mapping: str, size: Size, length: Size) -> tuple[Value, list[Value]]:
    """Positions along an axis that is scaled, and their derivatives by the scale: they are ``m / scale + c``."""
    scale, steps = b.op("Gather", scales, b.constant(np.int64(k))), _steps(b, length)
    if mapping == "asymmetric":
        m, place = steps, steps / scale
    elif mapping == "half_pixel_symmetric":
        m = steps + 0.5 - _number(b, length) * 0.5
        place = m / scale + (_number(b, size) * 0.5 - 0.5)
    else:
        m = steps + 0.5
        place = m / scale - 0.5
        if mapping == "pytorch_half_pixel":  # which samples a single element at position 0
            alone = b.op("Equal", join_sizes(b, length), b.ints([1]))
            m, place = (b.op("Where", alone, b.constant(0.0, _FLOAT), v) for v in (m, place))
    return place, [-(m / (scale * scale))]


def _by_place(
    b: Builder, attrs: Mapping[str, Any], x: Value, operand: Value, dy: Value, k: int, axes: Sequence[int], place: Value
) -> Value:
    """The cotangent of the positions along the axis number `k` of those that are resized."""
    axis, others = axes[k], [j for j in range(len(axes)) if j != k]
    if others:
        kept = {name: attrs[name] for name in ("mode", "coordinate_transformation_mode")}
        roi = scales = sizes = None
        if attrs["coordinate_transformation_mode"] == CROP:
            roi = b.op("Gather", operand, b.ints([*others, *(len(axes) + j for j in others)]))
            sizes = join_sizes(b, *(dim_of(b, dy, axes[j]) for j in others))
        else:
            scales = b.op("Gather", operand, b.ints(others))
        x = b.op("Resize", x, roi, scales, sizes, **kept, axes=tuple(axes[j] for j in others))
    lines, positions = (_lines(b, v, axis) for v in (dy, x)), b.op("Unsqueeze", place, b.ints([0, 2]))
    dplace = b.op("irgrad.GridSampleGridGrad", *lines, positions, mode=attrs["mode"], padding_mode="border", pixels=1)
    return b.op("Squeeze", dplace, b.ints([0, 2]))


def _lines(b: Builder, v: Value, axis: int) -> Value:
    """A tensor as one image [1, lines along an axis, elements of a line]."""
    others = [k for k in range(rank_of(v)) if k != axis]
    count = product_of(b, join_sizes(b, *(dim_of(b, v, k) for k in others)), 0, None) if others else 1
    moved = v if axis == len(others) else b.op("Transpose", v, perm=(*others, axis))
    return reshape_to(b, moved, 1, count, dim_of(b, v, axis))


def _steps(b: Builder, length: Size) -> Value:
    """0, 1, 2, ..."""
    if isinstance(length, int):
        return b.constant(np.arange(length), _FLOAT)
    return b.cast(b.op("Range", 0, as_scalar(b, length), 1), _FLOAT)


def _number(b: Builder, size: Size) -> Value:
    """A size as a floating-point value."""
    return b.constant([size], _FLOAT) if isinstance(size, int) else b.cast(size, _FLOAT)
