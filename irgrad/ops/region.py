"""Regions of interest: pooling over them, and choosing among boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irgrad.builder import AdjointBuilder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Node, Value
from irgrad.op import IRGRAD_DOMAIN, ZERO, Call, Kernel, OpTable, Zero
from irgrad.ops import costs
from irgrad.ops.dims import shape_operand
from irgrad.ops.pool import max_positions_adjoint
from irgrad.ops.region_kernels import max_roi_pool, roi_align, roi_align_image_adjoint, roi_align_region_adjoint
from irgrad.ops.region_lowering import lower_image_adjoint, lower_max_roi_pool, lower_region_adjoint
from irgrad.runtime.kernels import accumulation_dtype, deliver, deliver_all, widened
from irgrad.types import TensorType, Type, dims_differ, merge_dims

ops = OpTable()

# --- RoiAlign ---------------------------------------------------------------------------------------------------------

roi_align_op = ops.define("RoiAlign", cost=costs.sampling())


@roi_align_op.kernel
@widened
def _(
    x: np.ndarray, rois: np.ndarray, batch_indices: np.ndarray, *, out: np.ndarray | None = None, **attrs: Any
) -> np.ndarray:
    return roi_align(x, rois, batch_indices, attrs, out)


_CHOICES = {"mode": ("avg", "max"), "coordinate_transformation_mode": ("half_pixel", "output_half_pixel")}


@roi_align_op.infer
def _(call: Call) -> Sequence[Type]:
    for name, known in _CHOICES.items():
        if call.attrs[name] not in known:
            raise TypeInferenceError(f"the {name} of RoiAlign is {call.attrs[name]!r}; it can be {' or '.join(known)}")
    bins = call.attrs["output_height"], call.attrs["output_width"]
    if min(*bins, call.attrs["sampling_ratio"] + 1) < 1:
        raise TypeInferenceError("RoiAlign needs a positive output_height and output_width, and no negative sampling_ratio")
    x, rois, batch = (call.tensor(k) for k in range(3))
    _check_operands(call, x, rois, 4)
    if batch.rank not in (None, 1):
        raise TypeInferenceError(f"the batch_indices of RoiAlign have one axis, not those of {batch}")
    counts = [t.shape[0] for t in (rois, batch) if t.shape is not None]
    if len(counts) == 2 and dims_differ(*counts):
        raise TypeInferenceError(f"there is not one of the batch_indices {batch} for each of the regions {rois}")
    return [x.with_shape((merge_dims(*counts), None if x.shape is None else x.shape[1], *bins))]


def _check_operands(call: Call, x: TensorType, rois: TensorType, numbers: int) -> None:
    """Check that images have four axes, and regions two, of which the last holds so many numbers."""
    if x.rank not in (None, 4) or rois.rank not in (None, 2):
        raise TypeInferenceError(
            f"{call.op.name} takes images [N, C, H, W] and regions [count, {numbers}], not {x} and {rois}"
        )
    if rois.shape is not None and dims_differ(rois.shape[1], numbers):
        raise TypeInferenceError(f"the regions of {call.op.name} are told by {numbers} numbers each; here they are {rois}")


@roi_align_op.adjoint
def _(b: AdjointBuilder, node: Node, dy: Value) -> list[Value | Zero | None]:
    """Points at which bins sample the image move with the region; their number is piecewise constant.

    At whole positions the derivative is the one towards the next element, of several equal maxima the first one has it.
    """
    x, rois, batch = (node.operand(k) for k in range(3))
    dx = drois = None
    if b.needs(x):
        seen = x if node.attr("mode") == "max" else None
        dx = b.op("irgrad.RoiAlignGrad", dy, rois, batch, b.shape_of(x), seen, **node.attrs)
    if b.needs(rois):
        drois = b.op("irgrad.RoiAlignRegionGrad", dy, x, rois, batch, **node.attrs)
    return [dx, drois, ZERO]


roi_align_grad = ops.define("RoiAlignGrad", domain=IRGRAD_DOMAIN, defaults=roi_align_op.defaults, cost=costs.sampling(0))
"""``RoiAlignGrad(dy, rois, batch_indices, x_shape, x)``: the cotangent of x where dy is that of RoiAlign(x, rois, ...).

Only mode="max" asks for x itself. Attributes: those of RoiAlign.
"""
roi_align_grad.lower(lower_image_adjoint)


@roi_align_grad.kernel
@widened
def _(
    dy: np.ndarray,
    rois: np.ndarray,
    batch_indices: np.ndarray,
    x_shape: np.ndarray,
    x: np.ndarray | None = None,
    *,
    out: np.ndarray | None = None,
    **attrs: Any,
) -> np.ndarray:
    return roi_align_image_adjoint(dy, rois, batch_indices, tuple(x_shape.tolist()), x, attrs, out)


@roi_align_grad.infer
def _(call: Call) -> Sequence[Type]:
    if call.attrs["mode"] == "max" and not call.has(4):
        raise TypeInferenceError("the adjoint of a RoiAlign of maxima needs the images")
    return [call.tensor(0).with_shape(shape_operand(call, 3))]


roi_align_region_grad = ops.define(
    "RoiAlignRegionGrad", domain=IRGRAD_DOMAIN, defaults=roi_align_op.defaults, cost=costs.sampling(0)
)
"""``RoiAlignRegionGrad(dy, x, rois, batch_indices)``: the cotangent of rois where dy is that of RoiAlign(x, rois, ...).

Attributes: those of RoiAlign.
"""
roi_align_region_grad.lower(lower_region_adjoint)


@roi_align_region_grad.kernel
@widened
def _(
    dy: np.ndarray,
    x: np.ndarray,
    rois: np.ndarray,
    batch_indices: np.ndarray,
    *,
    out: np.ndarray | None = None,
    **attrs: Any,
) -> np.ndarray:
    return deliver(roi_align_region_adjoint(dy, x, rois, batch_indices, attrs), out)


@roi_align_region_grad.infer
def _(call: Call) -> Sequence[Type]:
    return [call.tensor(2)]


# --- MaxRoiPool -------------------------------------------------------------------------------------------------------

max_roi_pool_op = ops.define("MaxRoiPool")
with_places = ops.define("MaxRoiPool", domain=IRGRAD_DOMAIN, defaults=max_roi_pool_op.defaults)
"""MaxRoiPool with a second output: for each maximum its row-major position in x (the first, of several), -1 for none."""
with_places.lower(lower_max_roi_pool)


def _max_roi_pool_kernel(call: Call) -> Kernel:
    bins, scale, both = tuple(call.attrs["pooled_shape"]), call.attrs["spatial_scale"], call.n_outputs > 1

    def kernel(x: np.ndarray, rois: np.ndarray, *, out: Any = None) -> tuple[np.ndarray, ...]:
        coordinates = rois.astype(accumulation_dtype(rois.dtype), copy=False)
        return deliver_all(max_roi_pool(x, coordinates, bins, scale, with_places=both), out)

    return kernel


max_roi_pool_op.prepare(_max_roi_pool_kernel)
with_places.prepare(_max_roi_pool_kernel)


@with_places.infer
def _(call: Call) -> Sequence[Type]:
    return [_pooled_type(call), TensorType(np.dtype(np.int64), _pooled_type(call).shape)][: call.n_outputs]


@max_roi_pool_op.infer
def _(call: Call) -> Sequence[Type]:
    return [_pooled_type(call)]


def _pooled_type(call: Call) -> TensorType:
    x, rois, bins = call.tensor(0), call.tensor(1), call.attrs.get("pooled_shape")
    if not bins or len(bins) != 2 or min(bins) < 1:
        raise TypeInferenceError("MaxRoiPool needs the attribute pooled_shape, two positive numbers")
    _check_operands(call, x, rois, 5)
    count = None if rois.shape is None else rois.shape[0]
    return x.with_shape((count, None if x.shape is None else x.shape[1], *bins))


def _max_roi_pool_adjoint(b: AdjointBuilder, node: Node, dy: Value, *_: None) -> list[Value | Zero | None]:
    """The cotangent goes to the (first) maximum of a bin. Regions are rounded to whole elements: theirs is zero."""
    x = node.operand(0)
    if not b.needs(x):
        return [None, ZERO]
    places = b.augment(node, 2, with_places)[1]
    return [max_positions_adjoint(b, dy, places, b.shape_of(x)), ZERO]


max_roi_pool_op.adjoint(_max_roi_pool_adjoint)
with_places.adjoint(_max_roi_pool_adjoint)

# --- NonMaxSuppression ------------------------------------------------------------------------------------------------

non_max_suppression = ops.define("NonMaxSuppression", gradient=ZERO)


@non_max_suppression.kernel
def _(
    boxes: np.ndarray,
    scores: np.ndarray,
    max_output_boxes_per_class: np.ndarray | None = None,
    iou_threshold: np.ndarray | None = None,
    score_threshold: np.ndarray | None = None,
    *,
    center_point_box: int = 0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """For each image and class the boxes that are kept, best first; of equal scores the first box is the better one."""
    if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape != (len(scores), scores.shape[2], 4):
        raise ValueError(
            f"boxes [N, count, 4] and scores [N, classes, count] are needed, not arrays of {boxes.shape} and {scores.shape}"
        )
    most, overlap, least = (
        None if a is None or not a.size else a.item() for a in (max_output_boxes_per_class, iou_threshold, score_threshold)
    )
    found: list[tuple[int, int, int]] = []
    for image, (corners, per_class) in enumerate(zip(_corners(boxes, center_point_box), scores, strict=True)):
        for number, mine in enumerate(per_class):
            order = np.argsort(-mine, kind="stable")
            order = order if least is None else order[mine[order] > least]
            found += [(image, number, box) for box in _kept(corners, order, int(most or 0), overlap or 0.0)]
    return deliver(np.array(found, np.int64).reshape(-1, 3), out)


def _corners(boxes: np.ndarray, center_point_box: int) -> np.ndarray:
    """Boxes [..., 4] by their corners: [..., 2, 2] holds the lower and then the upper ends along the two axes."""
    pairs = boxes.reshape(*boxes.shape[:-1], 2, 2)
    if not center_point_box:
        return np.sort(pairs, -2)
    center, half = pairs[..., 0, :], pairs[..., 1, :] / 2
    return np.stack([center - half, center + half], -2)


def _kept(boxes: np.ndarray, order: np.ndarray, most: int, overlap: float) -> list[int]:
    """Of boxes in the order of their scores, up to `most` of those that do not overlap a better one too much."""
    low, high = boxes[:, 0], boxes[:, 1]
    areas = np.prod(high - low, -1)
    kept: list[int] = []
    while len(kept) < most and order.size:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        sides = np.minimum(high[best], high[order]) - np.maximum(low[best], low[order])
        common = np.prod(np.maximum(sides, 0), -1)
        union = areas[best] + areas[order] - common
        # Boxes without an area overlap nothing.
        meeting = (common > 0) & (areas[best] > 0) & (areas[order] > 0) & (union > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            order = order[~(meeting & (common / union > overlap))]
    return kept
