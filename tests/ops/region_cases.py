"""Cases of irgrad/ops/region.py.

onnx.reference serves for RoiAlign, and through differences for its adjoints. It has no MaxRoiPool, and its NonMaxSuppression
asks for operands that are optional: for these the oracles below say in loops what the specification says.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import ceil, floor
from typing import Any

import numpy as np

from irgrad.builder import typed_call
from irgrad.runtime.kernels import reference_kernel
from tests.ops.differences import cotangent
from tests.ops.harness import Case, rng

X = rng(0).standard_normal((2, 3, 6, 7))
ROIS = np.array([[0.31, 0.62, 5.27, 4.91], [1.13, 2.37, 3.71, 3.19], [-1.31, -2.23, 8.47, 7.79], [4.21, 3.33, 4.57, 3.68]])
BATCH = np.array([0, 1, 1, 0])
LATER = np.array([[6.11, 1.27, 2.43, 5.31], [0.41, 4.29, 3.17, 1.33]])
"""Regions that end before they start."""


def single(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float32)


# --- RoiAlign ---------------------------------------------------------------------------------------------------------


def aligned(**attrs: Any) -> dict[str, Any]:
    return {"output_height": 2, "output_width": 3, **attrs}


ALIGN = {
    "adaptive": aligned(),
    "points": aligned(sampling_ratio=2),
    "scale": aligned(spatial_scale=1.25, sampling_ratio=1),
    "unshifted": aligned(coordinate_transformation_mode="output_half_pixel"),
    "max": aligned(mode="max"),
    "max_points": aligned(mode="max", sampling_ratio=2, spatial_scale=0.875),
    "max_unshifted": aligned(mode="max", coordinate_transformation_mode="output_half_pixel"),
}

ROI_ALIGN = [
    *(Case("RoiAlign", [X, ROIS, BATCH], attrs, id=id) for id, attrs in ALIGN.items()),
    Case("RoiAlign", [X, ROIS, BATCH], id="one_bin"),
    Case("RoiAlign", [X[:, :, :1, :1], ROIS, BATCH], aligned(), id="one_element", order=1),
    Case("RoiAlign", [X, LATER, BATCH[:2]], aligned(sampling_ratio=2), id="reversed"),
    Case("RoiAlign", [X, LATER, BATCH[:2]], aligned(), id="reversed_without_points", order=1),
    Case("RoiAlign", [X, LATER, BATCH[:2]], aligned(mode="max"), id="reversed_max_without_points", order=1),
    Case("RoiAlign", [X, ROIS[:0], BATCH[:0]], aligned(), id="no_regions", order=0),
    Case("RoiAlign", [single(X), single(ROIS), BATCH], aligned(), id="float32", rtol=1e-4),
]


def reference(attrs: dict[str, Any]) -> Callable[..., Any]:
    """RoiAlign of onnx.reference."""

    def run(*operands: np.ndarray) -> Any:
        (node,) = Case("RoiAlign", operands, attrs).graph().nodes()
        return reference_kernel(typed_call(node))(*operands)

    return run


def image_gradient(attrs: dict[str, Any], x: np.ndarray) -> Callable[..., np.ndarray]:
    return lambda dy, rois, batch, shape, seen=None: cotangent(reference(attrs), 0)(dy, x, rois, batch)


def region_gradient(attrs: dict[str, Any]) -> Callable[..., np.ndarray]:
    return cotangent(reference(attrs), 1)


SMALL = X[:, :2]
DY = rng(1).standard_normal((4, 2, 2, 3))
SHAPE = np.array(SMALL.shape)

ROI_ALIGN_GRADS = [
    *(
        Case(
            "irgrad.RoiAlignGrad",
            [DY, ROIS, BATCH, SHAPE, SMALL if "max" in id else None],
            attrs,
            id=id,
            oracle=image_gradient(attrs, SMALL),
        )
        for id, attrs in ALIGN.items()
    ),
    *(
        Case("irgrad.RoiAlignRegionGrad", [DY, SMALL, ROIS, BATCH], attrs, id=id, oracle=region_gradient(attrs))
        for id, attrs in ALIGN.items()
    ),
    Case(
        "irgrad.RoiAlignGrad",
        [DY[:2], LATER, BATCH[:2], SHAPE],
        aligned(),
        id="without_points",
        oracle=image_gradient(aligned(), SMALL),
    ),
    Case(
        "irgrad.RoiAlignRegionGrad",
        [DY[:2], SMALL, LATER, BATCH[:2]],
        aligned(),
        id="without_points",
        oracle=region_gradient(aligned()),
    ),
    Case(
        "irgrad.RoiAlignGrad", [DY[:0], ROIS[:0], BATCH[:0], SHAPE], aligned(), id="none", oracle=image_gradient({}, SMALL)
    ),
    Case(
        "irgrad.RoiAlignRegionGrad", [DY[:0], SMALL, ROIS[:0], BATCH[:0]], aligned(), id="none", oracle=region_gradient({})
    ),
]


# --- MaxRoiPool -------------------------------------------------------------------------------------------------------


def away(v: float) -> int:
    """Rounded, halves away from zero."""
    return int(np.sign(v)) * floor(abs(v) + 0.5)


def max_roi_pool(shape: tuple[int, int], scale: float = 1.0) -> Callable[..., Any]:
    def oracle(x: np.ndarray, rois: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, places = np.zeros((len(rois), x.shape[1], *shape), x.dtype), np.full((len(rois), x.shape[1], *shape), -1)
        for r, (image, *ends) in enumerate(rois.tolist()):
            x1, y1, x2, y2 = (away(end * scale) for end in ends)
            high, wide = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
            for c, p, q in product(*map(range, y.shape[1:])):
                rows = range(floor(p * high / shape[0]) + y1, ceil((p + 1) * high / shape[0]) + y1)
                columns = range(floor(q * wide / shape[1]) + x1, ceil((q + 1) * wide / shape[1]) + x1)
                inside = [
                    (int(image), c, h, w) for h, w in product(rows, columns) if 0 <= h < x.shape[2] and 0 <= w < x.shape[3]
                ]
                if inside:
                    best = max(inside, key=lambda at: x[at])
                    y[r, c, p, q], places[r, c, p, q] = x[best], np.ravel_multi_index(best, x.shape)
        return y, places

    return oracle


BOXES = np.array([[0, 1, 1, 5, 4], [1, 0, 0, 6, 5], [1, 2, 4, 2, 4], [0, 3, 2, 1, 1], [0, -2, -1, 2, 9], [1, 8, 7, 9, 9.0]])
BETWEEN = BOXES + np.array([0, 0.5, 0.5, -0.25, 1.5])
"""Coordinates that are to be rounded; halves too."""

MAX_ROI_POOL = [
    case
    for op, outputs in (("MaxRoiPool", 1), ("irgrad.MaxRoiPool", 2))
    for case in (
        Case(
            op,
            [X, BOXES],
            {"pooled_shape": (2, 3)},
            outputs,
            order=1,
            wrt=[0],
            oracle=max_roi_pool((2, 3)),
        ),
        Case(
            op,
            [X, BETWEEN * [1, 2, 2, 2, 2]],
            {"pooled_shape": (3, 2), "spatial_scale": 0.5},
            outputs,
            id="scale",
            order=1,
            wrt=[0],
            oracle=max_roi_pool((3, 2), 0.5),
        ),
        Case(
            op,
            [single(X), single(BETWEEN)],
            {"pooled_shape": (1, 4)},
            outputs,
            id="float32",
            order=1,
            wrt=[0],
            oracle=max_roi_pool((1, 4)),
        ),
        Case(
            op,
            [X, BOXES[:0]],
            {"pooled_shape": (1, 2)},
            outputs,
            id="no_regions",
            order=0,
            oracle=max_roi_pool((1, 2)),
        ),
    )
]


# --- NonMaxSuppression ------------------------------------------------------------------------------------------------


def suppressed(center_point_box: int = 0) -> Callable[..., np.ndarray]:
    def corners(box: np.ndarray) -> tuple[float, float, float, float]:
        a, b, c, d = box.tolist()
        if center_point_box:
            return a - c / 2, b - d / 2, a + c / 2, b + d / 2
        return min(a, c), min(b, d), max(a, c), max(b, d)

    def overlap(one: np.ndarray, other: np.ndarray) -> float:
        a, b = corners(one), corners(other)
        common = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
        areas = [(r[2] - r[0]) * (r[3] - r[1]) for r in (a, b)]
        return common / (sum(areas) - common) if common and min(areas) > 0 else 0

    def oracle(
        boxes: np.ndarray,
        scores: np.ndarray,
        most: np.ndarray | None = None,
        threshold: np.ndarray | None = None,
        least: np.ndarray | None = None,
    ) -> np.ndarray:
        found = []
        for n, c in np.ndindex(scores.shape[:2]):
            kept: list[int] = []
            for k in sorted(range(scores.shape[2]), key=lambda k: -scores[n, c, k]):
                if len(kept) >= (0 if most is None else most.item()):
                    break
                if least is not None and scores[n, c, k] <= least.item():
                    continue
                limit = 0 if threshold is None else threshold.item()
                if all(overlap(boxes[n, k], boxes[n, other]) <= limit for other in kept):
                    kept.append(k)
            found += [(n, c, k) for k in kept]
        return np.array(found, np.int64).reshape(-1, 3)

    return oracle


CANDIDATES = single(rng(2).uniform(0, 4, (2, 8, 4)))
SCORES = single(rng(3).uniform(0, 1, (2, 3, 8)).round(1))
MOST, OVERLAP, LEAST = np.array([3]), single(np.array([0.2])), single(np.array([0.35]))
FLAT = np.concatenate([CANDIDATES, CANDIDATES[..., [0, 1, 0, 3]]], 1)
"""Some of the boxes have no area."""

NON_MAX_SUPPRESSION = [
    Case("NonMaxSuppression", operands, attrs, id=id, order=0, oracle=suppressed(attrs.get("center_point_box", 0)))
    for id, operands, attrs in (
        ("plain", [CANDIDATES, SCORES, MOST], {}),
        ("nothing", [CANDIDATES, SCORES], {}),
        ("none_wanted", [CANDIDATES, SCORES, np.array([0]), OVERLAP], {}),
        ("thresholds", [CANDIDATES, SCORES, np.array([5]), OVERLAP, LEAST], {}),
        ("scores_only", [CANDIDATES, SCORES, MOST, None, LEAST], {}),
        ("scalars", [CANDIDATES, SCORES, np.array(4), OVERLAP.reshape(()), LEAST.reshape(())], {}),
        ("center", [CANDIDATES, SCORES, np.array([5]), OVERLAP, LEAST], {"center_point_box": 1}),
        ("flat", [FLAT, np.tile(SCORES, 2), np.array([20]), OVERLAP], {}),
        ("many", [CANDIDATES, SCORES, np.array([np.iinfo(np.int64).max]), single(np.array([1.0]))], {}),
    )
]

CASES = ROI_ALIGN + ROI_ALIGN_GRADS + MAX_ROI_POOL + NON_MAX_SUPPRESSION
