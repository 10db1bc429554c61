"""DeformConv and regions where cases do not reach: whole positions, half precision, operands that do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.errors import ExecutionError, IrgradError, TypeInferenceError
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import compile
from tests.ops.harness import Case, rng

X = rng(0).standard_normal((2, 3, 7, 6))
W = rng(1).standard_normal((4, 3, 3, 3))
GEOMETRY = {"pads": (1, 1, 1, 1), "strides": (2, 1)}
OFFSET = np.zeros((2, 18, 4, 6))
DY = rng(2).standard_normal((2, 4, 4, 6))


def outcome(op: str, operands: list[np.ndarray], wrt: list[int], dy: np.ndarray = DY) -> dict[str, np.ndarray]:
    """The result, and the cotangents of some operands."""
    case = Case(op, operands, GEOMETRY)
    graph = case.graph()
    if wrt:
        Vjp([f"x{k}" for k in wrt]).run(graph)
    feeds = {**case.feeds(graph), "y0_cotangent": dy}
    return compile(graph)({name: feeds[name] for name in graph.inputs})


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_without_offsets_it_is_a_convolution(dtype: Any) -> None:
    operands = [a.astype(dtype) for a in (X, W)]
    mine = outcome("DeformConv", [*operands, OFFSET.astype(dtype)], [0, 1], DY.astype(dtype))
    conv = outcome("Conv", operands, [0, 1], DY.astype(dtype))
    for name, want in conv.items():
        np.testing.assert_allclose(mine[name], want, rtol=1e-4 if dtype == np.float32 else 1e-11, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_at_whole_positions_the_derivative_is_the_one_towards_the_next_pixel(dtype: Any) -> None:
    step, found = 1e-6, outcome("DeformConv", [a.astype(dtype) for a in (X, W, OFFSET)], [2], DY.astype(dtype))
    for index in [(0, 0, 0, 0), (0, 3, 1, 2), (1, 8, 2, 5), (1, 17, 3, 0), (1, 16, 3, 5)]:
        moved = OFFSET.copy()
        moved[index] = step
        ahead, here = (outcome("DeformConv", [X, W, offset], [])["y0"] for offset in (moved, OFFSET))
        np.testing.assert_allclose(found["x2_grad"][index], np.vdot(DY, ahead - here) / step, rtol=1e-4, atol=1e-5)


def test_half_precision_does_not_round_positions() -> None:
    """Around 1000, float16 knows every second of an element only."""
    x = rng(3).standard_normal((1, 1, 1, 1500)).astype(np.float16)
    w, offset = np.ones((1, 1, 1, 1), np.float16), np.full((1, 2, 1, 1500), 0.125, np.float16)
    offset[:, 0] = 0
    dy = rng(4).standard_normal((1, 1, 1, 1500)).astype(np.float16)
    case = Case("DeformConv", [x, w, offset])
    graph = case.graph()
    Vjp(["x0", "x2"]).run(graph)
    found = compile(graph)({**case.feeds(graph), "y0_cotangent": dy})
    line, following = x[0, 0, 0].astype(np.float64), np.append(x[0, 0, 0, 1:], 0).astype(np.float64)
    np.testing.assert_allclose(found["y0"][0, 0, 0], 0.875 * line + 0.125 * following, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(found["x2_grad"][0, 1, 0], dy[0, 0, 0] * (following - line), rtol=1e-2, atol=1e-2)
    before = np.append(0, dy[0, 0, 0, :-1].astype(np.float64))
    np.testing.assert_allclose(found["x0_grad"][0, 0, 0], 0.875 * dy[0, 0, 0] + 0.125 * before, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
    ("operands", "attrs", "message"),
    [
        ([X, W, OFFSET[:, :16]], {}, "sizes of the offsets"),
        ([X, W, OFFSET, None, OFFSET], {}, "sizes of the mask"),
        ([X, W, OFFSET, np.ones(1)], {}, "sizes of the bias"),
        ([X, W, OFFSET, np.ones((4, 1))], {}, "the bias of DeformConv has one axis"),
        ([X, W, OFFSET, np.array(1.0)], {}, "the bias of DeformConv has one axis"),
        ([X, W, OFFSET[:, :, :3]], {}, "sizes of the offsets"),
        ([X, W[:, :2], OFFSET], {}, "channels of the images"),
        ([X, W, OFFSET], {"offset_group": 2}, "sizes of the offsets"),
        ([X, W, np.tile(OFFSET, (1, 2, 1, 1))], {"offset_group": 2}, "do not divide into 2 groups"),
        ([X, W, OFFSET], {"kernel_shape": (2, 3)}, "do not fit"),
        ([X, W[..., 0], OFFSET], {}, "have not the same number of axes"),
    ],
)
def test_operands_that_do_not_fit_are_refused(operands: list[Any], attrs: dict[str, Any], message: str) -> None:
    case = Case("DeformConv", operands, {**GEOMETRY, **attrs})
    with pytest.raises(TypeInferenceError, match=message):
        case.graph()
    with pytest.raises(IrgradError):
        loose = case.graph(dynamic=True)
        compile(loose)(case.feeds(loose))


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"),
    [
        ("RoiAlign", [X, np.zeros((1, 4)), np.array([0])], {"mode": "sum"}, "it can be avg or max"),
        ("RoiAlign", [X, np.zeros((1, 4)), np.array([0])], {"sampling_ratio": -1}, "no negative sampling_ratio"),
        ("RoiAlign", [X, np.zeros((1, 4)), np.array([0])], {"coordinate_transformation_mode": "x"}, "half_pixel or"),
        ("RoiAlign", [X, np.zeros((1, 4)), np.array([0, 1])], {}, "for each of the regions"),
        ("RoiAlign", [X, np.zeros((1, 5)), np.array([0])], {}, "4 numbers each"),
        ("RoiAlign", [X[0], np.zeros((1, 4)), np.array([0])], {}, "takes images"),
        ("MaxRoiPool", [X, np.zeros((1, 4))], {"pooled_shape": (1, 1)}, "5 numbers each"),
        ("MaxRoiPool", [X, np.zeros((1, 5))], {"pooled_shape": (1,)}, "two positive numbers"),
    ],
)
def test_regions_that_do_not_fit_are_refused(op: str, operands: list[Any], attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeInferenceError, match=message):
        Case(op, operands, attrs).graph()


@pytest.mark.parametrize(
    ("boxes", "scores"),
    [((1, 3, 4), (1, 1, 2)), ((1, 3, 4), (2, 1, 3)), ((1, 3, 5), (1, 1, 3)), ((3, 4), (1, 1, 3)), ((1, 3, 4), (1, 3))],
)
def test_boxes_that_do_not_fit_their_scores_are_refused(boxes: tuple[int, ...], scores: tuple[int, ...]) -> None:
    case = Case("NonMaxSuppression", [np.zeros(boxes, np.float32), np.zeros(scores, np.float32), np.array([3])])
    graph = case.graph()
    with pytest.raises(ExecutionError, match=r"boxes .* and scores .* are needed, not arrays of"):
        compile(graph)(case.feeds(graph))


# --- numbers that are out of the ordinary -----------------------------------------------------------------------------

REGION = np.array([[0.0, 0, 5, 5]])
POOLS: list[tuple[str, list[Any], dict[str, Any]]] = [
    ("RoiAlign", [np.array([0])], {"sampling_ratio": 1, "output_height": 2, "output_width": 2}),
    ("RoiAlign", [np.array([0])], {"mode": "max"}),
    ("MaxRoiPool", [], {"pooled_shape": (2, 2)}),
]


@pytest.mark.parametrize(("op", "rest", "attrs"), POOLS)
@pytest.mark.parametrize("coordinate", [np.nan, np.inf, -np.inf])
def test_coordinates_that_are_not_finite_are_refused(
    op: str, rest: list[Any], attrs: dict[str, Any], coordinate: float
) -> None:
    region = np.insert(REGION, 0, 0, axis=1) if op == "MaxRoiPool" else REGION.copy()
    region[0, 2] = coordinate
    case = Case(op, [X, region, *rest], attrs)
    graph = case.graph()
    with pytest.raises(ExecutionError, match="a coordinate of a region is infinite or NaN"):
        compile(graph)(case.feeds(graph))


@pytest.mark.parametrize(("op", "rest", "attrs"), POOLS)
def test_regions_without_pixels_are_refused(op: str, rest: list[Any], attrs: dict[str, Any]) -> None:
    region = np.insert(REGION, 0, 0, axis=1) if op == "MaxRoiPool" else REGION
    case = Case(op, [X[:, :, :0], region, *rest], attrs)
    graph = case.graph()
    with pytest.raises(ExecutionError, match="images that have no pixels"):
        compile(graph)(case.feeds(graph))


def test_a_region_that_reaches_further_than_integers_do() -> None:
    """Its first bin covers the image, and the others lie beyond."""
    for end in (1e15, 1e30):
        case = Case("MaxRoiPool", [X, np.array([[0, 0, 0, end, end]])], {"pooled_shape": (2, 2)})
        graph = case.graph()
        want = np.zeros((1, 3, 2, 2))
        want[0, :, 0, 0] = X[0].max((1, 2))
        np.testing.assert_array_equal(compile(graph)(case.feeds(graph))["y0"], want)


def test_pixels_that_no_point_reads_do_not_matter() -> None:
    """Each bin has one point, at (1.25, 1.25), (1.25, 3.75), ...: the border is read by none, nor is what lies between."""
    x = X.copy()
    x[:, :, 0], x[:, :, 6], x[..., 0], x[..., 5] = np.inf, -np.inf, np.nan, np.inf
    x[:, :, 3] = np.nan
    attrs = {**POOLS[0][2], "coordinate_transformation_mode": "output_half_pixel"}
    found = []
    for images in (x, X):
        case = Case("RoiAlign", [images, REGION, np.array([0])], attrs)
        graph = case.graph()
        found.append(compile(graph)(case.feeds(graph))["y0"])
    np.testing.assert_array_equal(np.isnan(found[0][0, 0]), [[False, False], [True, True]])
    np.testing.assert_allclose(found[0][..., 0, :], found[1][..., 0, :])


def test_a_region_of_an_image_that_is_not_there_is_refused() -> None:
    boxes = np.array([[0.0, 0, 2, 2]])
    for case in (
        Case("RoiAlign", [X, boxes, np.array([2])]),
        Case("RoiAlign", [X, boxes, np.array([-1])]),
        Case("MaxRoiPool", [X, np.array([[2.0, 0, 0, 2, 2]])], {"pooled_shape": (1, 1)}),
    ):
        graph = case.graph()
        with pytest.raises(ExecutionError, match="but the batch has 2"):
            compile(graph)(case.feeds(graph))
