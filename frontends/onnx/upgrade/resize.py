"""Sampling images at other points: Upsample and Resize, GridSample, RoiAlign."""

from __future__ import annotations

import numpy as np

from irgrad.builder import Builder
from irgrad.frontends.onnx.upgrade.registry import OldNode, adapter
from irgrad.graph import Value

__all__: list[str] = []

_GRID_MODES = {"bilinear": "linear", "bicubic": "cubic"}

_HALF_PIXEL_FOR_NN = {"floor": "round_prefer_ceil", "round_prefer_floor": "ceil"}
"""Rounding of x → rounding of x - ½ that gives the same index."""


@adapter("Upsample", since=7)
def upsample_7(b: Builder, node: OldNode) -> None:
    """`height_scale` and `width_scale` become `scales` with one number per axis; "bilinear" is called "linear"."""
    node.attrs["scales"] = (1.0, 1.0, node.take("height_scale"), node.take("width_scale"))
    if node.attrs.get("mode") == "bilinear":
        node.attrs["mode"] = "linear"


@adapter("Upsample", since=9)
def upsample_9(b: Builder, node: OldNode) -> None:
    """`scales` becomes the second operand."""
    node.set_input(1, b.constant(np.array(node.take("scales"), np.float32)))


@adapter("Upsample", since=10)
def upsample_10(b: Builder, node: OldNode) -> None:
    """Withdrawn in favour of Resize."""
    node.op = "Resize"


@adapter("Resize", since=11)
def resize_11(b: Builder, node: OldNode) -> list[Value] | None:
    """How points of the result map to points of the operand becomes a choice, whose default is not the old way.

    The old way is "asymmetric" (x / scale). The nearest element was the one below when enlarging and the one above when
    shrinking; the schema does not say so, but its test data and onnxruntime do. Where a node does both, or where it is not
    known which, it is split in two.
    """
    data, scales = node.operand(0), node.operand(1)
    node.attrs["coordinate_transformation_mode"] = "asymmetric"
    node.inputs = [data, None, scales]
    if node.attrs.get("mode", "nearest") != "nearest":
        return None
    known = scales.constant
    if known is not None and ((known >= 1).all() or (known <= 1).all()):
        node.attrs["nearest_mode"] = "floor" if (known >= 1).all() else "ceil"
        return None
    one = np.ones((), scales.dtype)
    up, down = (np.maximum(known, one), np.minimum(known, one)) if known is not None else _split_scales(b, scales)
    enlarged = b.op("Resize", data, None, up, **node.attrs, nearest_mode="floor")
    return [b.op("Resize", enlarged, None, down, **node.attrs, nearest_mode="ceil")]


def _split_scales(b: Builder, scales: Value) -> tuple[Value, Value]:
    one = b.scalar(1, scales)
    return b.op("Max", scales, one), b.op("Min", scales, one)


@adapter("Resize", since=13)
def resize_13(b: Builder, node: OldNode) -> None:
    """`roi` and `scales` may be absent, and `scales` has to be where `sizes` is there; it used to be empty then.

    The mapping "tf_half_pixel_for_nn", x = (x' + ½) / scale, is gone: it is half a pixel off "half_pixel".
    """
    if node.input(3) is not None:
        node.set_input(2, None)
    mapping = node.attrs.get("coordinate_transformation_mode")
    if mapping != "tf_crop_and_resize":
        node.set_input(1, None)
    if mapping == "tf_half_pixel_for_nn":
        rounding = _HALF_PIXEL_FOR_NN.get(node.attrs.get("nearest_mode", "round_prefer_floor"))
        if node.attrs.get("mode", "nearest") != "nearest" or rounding is None:
            raise node.error("uses tf_half_pixel_for_nn in a way that opset 13 cannot say")
        node.attrs["coordinate_transformation_mode"] = "half_pixel"
        node.attrs["nearest_mode"] = rounding


@adapter("GridSample", since=20)
def grid_sample_20(b: Builder, node: OldNode) -> None:
    """The modes "bilinear" and "bicubic" are called "linear" and "cubic"."""
    mode = node.attrs.get("mode")
    if mode is not None:
        node.attrs["mode"] = _GRID_MODES.get(mode, mode)


@adapter("RoiAlign", since=16)
def roi_align_16(b: Builder, node: OldNode) -> None:
    """Whether regions are moved by half a pixel becomes a choice, whose default is not the old way."""
    node.attrs.setdefault("coordinate_transformation_mode", "output_half_pixel")
