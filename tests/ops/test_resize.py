"""Resize where scales and roi are constants, where shapes are symbols, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import ExecutionError, TypeInferenceError, UnsupportedOpError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph
from irgrad.op import find_op
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.passes.autodiff.expand import expand
from irgrad.runtime import compile
from irgrad.types import TensorType
from tests.ops.harness import rng
from tests.ops.resize_cases import reference

X = rng(0).standard_normal((1, 2, 4, 5))
SCALES = np.array([1, 1, 2, 0.6], np.float32)
ROI = np.array([0, 0, -0.3, 0.2, 1, 1, 0.7, 0.9], np.float32)
CROP = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.3}

Shape = tuple[Any, ...]


def resizing(shape: Shape | None, *operands: np.ndarray | None, **attrs: Any) -> Graph:
    graph = Graph("resize")
    x = graph.add_input("x", TensorType(np.dtype(np.float64), shape))
    constants = [None if a is None else graph.add_constant(a) for a in operands]
    graph.set_outputs({"y": Builder(graph).op("Resize", x, *constants, **attrs)})
    return graph


MODES: list[tuple[tuple[np.ndarray | None, ...], dict[str, Any]]] = [
    *(((None, SCALES), {"mode": mode}) for mode in ("nearest", "linear", "cubic")),
    ((None, SCALES), {"mode": "cubic", "antialias": 1}),
    ((ROI, None, np.array([1, 2, 5, 3])), {"mode": "linear", **CROP}),
    ((ROI, None, np.array([1, 2, 5, 3])), {"mode": "nearest", **CROP}),
    ((ROI[[2, 3, 6, 7]], None, np.array([5, 3])), {"mode": "linear", "axes": (-2, -1), **CROP}),
]


@pytest.mark.parametrize("shape", [X.shape, ("N", 2, "H", "W"), (None,) * 4], ids=["static", "symbolic", "unknown"])
@pytest.mark.parametrize(("operands", "attrs"), MODES, ids=lambda v: "-".join(map(str, v.values())) if v is dict else None)
def test_constant_operands(operands: tuple[np.ndarray | None, ...], attrs: dict[str, Any], shape: Shape) -> None:
    graph = resizing(shape, *operands, **attrs)
    y = compile(graph)({"x": X})["y"]
    np.testing.assert_allclose(y, reference(attrs)(X, *operands), rtol=1e-6, atol=1e-6)
    if shape == X.shape:
        assert graph.outputs["y"].shape == y.shape
    check_grads(graph, {"x": X})


@pytest.mark.parametrize("shape", [X.shape, ("N", 2, "H", "W"), (None,) * 4], ids=["static", "symbolic", "unknown"])
@pytest.mark.parametrize(("operands", "attrs"), MODES)
def test_gradient_in_standard_operations(
    operands: tuple[np.ndarray | None, ...], attrs: dict[str, Any], shape: Shape
) -> None:
    graph = resizing(shape, *operands, **attrs)
    Vjp(["x"], ["y"]).run(graph)
    feeds = {"x": X, "y_cotangent": rng(1).standard_normal(reference(attrs)(X, *operands).shape)}
    want = compile(graph)(feeds)["x_grad"]
    (node,) = [node for node in graph.nodes() if node.op.domain]
    expand(graph, node)
    np.testing.assert_allclose(compile(graph)(feeds)["x_grad"], want, rtol=1e-6, atol=1e-6)


def test_axes_at_rest_take_no_matrix() -> None:
    """A batch of unknown size that is not resized is not multiplied with, and the other axes have constant matrices."""
    graph = resizing(("N", 2, 4, 5), None, np.array([1, 1, 2, 2], np.float32), mode="linear")
    assert graph.outputs["y"].shape == ("N", 2, 8, 10)
    Vjp(["x"], ["y"]).run(graph)
    (node,) = [node for node in graph.nodes() if node.op.domain]
    expand(graph, node)
    assert [node.op.name for node in graph.nodes()].count("Einsum") == 2
    assert [node.op.name for node in graph.nodes()].count("Resize") == 1


@pytest.mark.parametrize("empty", [2, 3])
def test_an_empty_operand_is_absent(empty: int) -> None:
    """Files of opset 11 and 12 tell sizes beside empty scales."""
    operands = [None, SCALES, np.array([1, 2, 8, 3])]
    operands[empty - 1] = np.zeros(0, np.float32 if empty == 2 else np.int64)
    graph = resizing(X.shape, *operands, mode="linear")
    assert graph.outputs["y"].shape == (1, 2, 8, 3)
    check_grads(graph, {"x": X})


def test_symbols() -> None:
    graph = resizing(("N", "C", "H", 5), None, np.array([1, 1, 2, 0.5], np.float32))
    assert graph.outputs["y"].shape == ("N", "C", "2*H", 2)
    graph = resizing(("N", "C", "H", 5), None, None, np.array([7, 9]), axes=(2, 3))
    assert graph.outputs["y"].shape == ("N", "C", 7, 9)
    assert resizing(None, None, None, np.array([7, 9]), axes=(2, 3)).outputs["y"].shape is None


def test_lengths_agree_with_inference() -> None:
    """0.7 is a little less than seven tenths in float32, and 2/3 of 9 is not quite 6 in floating-point numbers."""
    for factor in (0.7, 0.6, 0.3, 1 / 3, 2.4):
        for size in range(1, 61):
            graph = resizing((size,), None, np.array([factor], np.float32))
            assert compile(graph)({"x": np.zeros(size)})["y"].shape == graph.outputs["y"].shape
    attrs = {"keep_aspect_ratio_policy": "not_larger"}
    for old, new in (([39, 26], [27, 15]), ([12, 27], [14, 33]), ([3, 9], [2, 7])):
        graph = resizing(tuple(old), None, None, np.array(new), **attrs)
        assert compile(graph)({"x": np.zeros(old)})["y"].shape == graph.outputs["y"].shape
        assert graph.outputs["y"].shape == reference(attrs)(np.zeros(old), None, None, np.array(new)).shape


@pytest.mark.parametrize(
    ("operands", "attrs"),
    [
        ((None, None, None), {}),
        ((None, SCALES, np.array([1, 2, 8, 3])), {}),
        ((None, SCALES[:3]), {}),
        ((None, None, np.array([3, 3])), {"axes": (2, 4)}),
        ((None, None, np.array([3, 3])), {"axes": (3, -1)}),
        ((None, np.array([1, 1, -2, 1], np.float32)), {}),
        ((None, np.array([1, 1, np.nan, 1], np.float32)), {}),
        ((None, np.array([1, 1, np.inf, 1], np.float32)), {}),
        ((None, None, np.array([1, 2, 8, 3])), {"keep_aspect_ratio_policy": "nonsense"}),
    ],
)
def test_operands_that_do_not_fit(operands: tuple[np.ndarray | None, ...], attrs: dict[str, Any]) -> None:
    with pytest.raises(TypeInferenceError):
        resizing(X.shape, *operands, **attrs)


@pytest.mark.parametrize(
    ("operands", "attrs"),
    [
        ((None, None, np.array([1, 2, 8, 3])), {"mode": "nonsense"}),
        ((None, None, np.array([1, 2, 8, 3])), {"coordinate_transformation_mode": "nonsense"}),
        ((None, None, np.array([1, 2, -8, 3])), {}),
    ],
)
@pytest.mark.parametrize("shape", [X.shape, (None,) * 4], ids=["static", "unknown"])
def test_what_cannot_be_run_says_so(operands: tuple[np.ndarray | None, ...], attrs: dict[str, Any], shape: Shape) -> None:
    with pytest.raises(ExecutionError, match="the node 'Resize'"):
        compile(resizing(shape, *operands, **attrs))({"x": X})


def test_ratio_of_unknown_sizes_in_standard_operations() -> None:
    sizes = np.array([9, 9])
    graph = resizing((None,) * 4, None, None, sizes, axes=(2, 3), keep_aspect_ratio_policy="not_larger")
    Vjp(["x"], ["y"]).run(graph)
    (node,) = [node for node in graph.nodes() if node.op is find_op("ResizeGrad", "irgrad")]
    with pytest.raises(UnsupportedOpError, match="aspect ratio"):
        expand(graph, node)


@pytest.mark.parametrize("mapping", ["align_corners", "half_pixel", "tf_crop_and_resize"])
def test_scales_of_an_antialiased_resize_have_no_gradient(mapping: str) -> None:
    """They widen the filter in every mode: zero, which they have without antialias where they move nothing, is wrong."""
    graph = Graph("resize")
    x = graph.add_input("x", TensorType(np.dtype(np.float64), (5,)))
    scales = graph.add_input("scales", TensorType(np.dtype(np.float32), (1,)))
    attrs = {"mode": "linear", "antialias": 1, "coordinate_transformation_mode": mapping}
    graph.set_outputs({"y": Builder(graph).op("Resize", x, np.array([0.1, 0.9], np.float32), scales, **attrs)})
    with pytest.raises(UnsupportedOpError, match="no cotangent of roi or scales with antialias"):
        Vjp(["scales"], ["y"]).run(graph)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("factor", [0.5, 1.5, 2])
def test_what_is_not_finite_spreads_no_further_than_it_is_read(mode: str, factor: float) -> None:
    graph = resizing(X.shape, None, np.array([1, 1, factor, factor], np.float32), mode=mode)
    Vjp(["x"], ["y"]).run(graph)
    run = compile(graph)
    cotangent = np.ones(graph.outputs["y"].tensor_type.static_shape)
    for changed, result, at in (("x", "y", (0, 1, 2, 2)), ("y_cotangent", "x_grad", (0, 0, 1, 1))):
        found = []
        for number in (0.0, 1.0, np.nan, np.inf):
            feeds = {"x": X.copy(), "y_cotangent": cotangent.copy()}
            feeds[changed][at] = number
            found.append(run(feeds)[result])
        untouched = found[0] == found[1]
        assert untouched.any()
        for broken in found[2:]:
            np.testing.assert_array_equal(np.isfinite(broken), untouched)
            np.testing.assert_allclose(broken[untouched], found[0][untouched], rtol=1e-12)
