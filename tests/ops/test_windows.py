"""What tiny cases cannot show of convolutions and pooling: blocks, symbolic sizes, refusals, and who gets a cotangent."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph
from irgrad.op import find_op
from irgrad.ops import pool_kernels
from irgrad.ops.windows import windows_of
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import compile
from irgrad.types import Dim, TensorType

FLOAT = np.dtype(np.float64)


def one_node(op: str, shapes: list[tuple[Dim, ...] | None], attrs: dict[str, Any]) -> Graph:
    graph = Graph(op)
    operands = [graph.add_input(f"x{k}", TensorType(FLOAT, shape)) for k, shape in enumerate(shapes)]
    graph.set_outputs({"y": Builder(graph).node(find_op(op), operands, attrs).outputs[0]})
    return graph


def gradient(op: str, x: np.ndarray, attrs: dict[str, Any], dy: np.ndarray, *, dynamic: bool = False) -> np.ndarray:
    graph = one_node(op, [(None,) * x.ndim if dynamic else x.shape], attrs)
    Vjp(["x0"], ["y"]).run(graph)
    return compile(graph)({"x0": x, "y_cotangent": dy})["x0_grad"]


# --- blocks -----------------------------------------------------------------------------------------------------------

GEOMETRY = {
    "1d": ((11,), (3,), {"strides": (2,), "pads": (1, 2)}),
    "2d": ((9, 7), (3, 2), {"pads": (1, 0, 2, 1)}),
    "strides": ((9, 8), (3, 2), {"strides": (2, 3), "dilations": (2, 1), "pads": (1, 1, 1, 0)}),
    "3d": ((5, 4, 6), (2, 3, 2), {"strides": (2, 1, 1)}),
    "pointwise": ((6, 5), (1, 1), {}),
}


@pytest.mark.parametrize("geometry", GEOMETRY)
def test_pooling_in_blocks(geometry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size, kernel, attrs = GEOMETRY[geometry]
    windows = windows_of(attrs, size, kernel)
    generator = np.random.default_rng(0)
    x, dy = generator.standard_normal((5, 4, *size)), generator.standard_normal((5, 4, *windows.counts))

    def results() -> list[np.ndarray]:
        planes = (5, 4), x.dtype, windows
        return [
            pool_kernels.max_pool(*planes)(x),
            *pool_kernels.max_pool_with_indices(*planes, column_major=False)(x),
            pool_kernels.sum_pool(*planes)(x),
            pool_kernels.spread(*planes, np.array(3.0))(dy),
        ]

    whole = results()
    monkeypatch.setattr(pool_kernels, "_BLOCK", 100)
    for part, want in zip(results(), whole, strict=True):
        np.testing.assert_array_equal(part, want)


# --- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "attrs", "size", "result"),
    [
        ("Conv", {"pads": (1, 1, 1, 1)}, ("H", "W"), ("H", "W")),
        ("Conv", {}, ("H", 9), (None, 7)),
        ("Conv", {"auto_pad": "SAME_UPPER"}, ("H", "W"), ("H", "W")),
        ("Conv", {"auto_pad": "SAME_LOWER", "strides": (2, 2)}, ("4*H", 7), ("2*H", 4)),
        ("Conv", {"pads": (1, 1, 1, 1), "strides": (2, 2)}, ("2*H", "W"), ("H", None)),
        ("Conv", {"pads": (2, 2, 2, 2), "dilations": (2, 2)}, ("H", "W"), ("H", "W")),
        ("ConvTranspose", {"pads": (1, 1, 1, 1)}, ("H", "W"), ("H", "W")),
        ("ConvTranspose", {"pads": (1, 1, 1, 1), "strides": (2, 2), "output_padding": (1, 1)}, ("H", 4), ("2*H", 8)),
        ("ConvTranspose", {"strides": (2, 2)}, ("H", None), (None, None)),
        ("ConvTranspose", {"auto_pad": "SAME_UPPER", "strides": (3, 2)}, ("H", "W"), ("3*H", "2*W")),
        ("ConvTranspose", {"output_shape": (10, 12)}, ("H", None), (10, 12)),
        ("MaxPool", {"strides": (3, 3)}, ("3*H", "W"), ("H", None)),
        ("AveragePool", {"pads": (1, 1, 1, 1), "ceil_mode": 1, "strides": (2, 2)}, ("2*H", "W"), (None, None)),
        ("AveragePool", {"ceil_mode": 1, "strides": (3, 4)}, ("3*H", "8*W"), ("H", None)),
    ],
)
def test_symbolic_sizes(op: str, attrs: dict[str, Any], size: tuple[Dim, ...], result: tuple[Dim, ...]) -> None:
    if op.startswith("Conv"):
        graph = one_node(op, [("N", 4, *size), (4, 4, 3, 3)], attrs)
    else:
        graph = one_node(op, [("N", 4, *size)], attrs | {"kernel_shape": (3, 3)})
    assert graph.outputs["y"].shape == ("N", 4, *result)


@pytest.mark.parametrize(
    ("op", "shapes", "attrs", "message"),
    [
        ("Conv", [(1, 3, 4, 4), (2, 2, 3, 3)], {}, "take 2 channels"),
        ("Conv", [(1, 4, 4, 4), (3, 2, 3, 3)], {"group": 2}, "3 channels do not divide into 2 groups"),
        ("Conv", [(1, 3, 4, 4), (2, 3, 5, 3)], {}, "does not fit"),
        ("Conv", [(1, 3, 4, 4), (2, 3, 3, 3)], {"kernel_shape": (3, 2)}, "kernel_shape"),
        ("Conv", [(1, 3, 4, 4), (2, 3, 3, 3)], {"strides": (2,)}, "strides has 1 numbers"),
        ("Conv", [(1, 3, 4, 4), (2, 3, 3, 3)], {"pads": (1, 1)}, "pads has 2 numbers"),
        ("Conv", [(1, 3, 4, 4), (2, 3, 3, 3)], {"auto_pad": "SAME"}, "auto_pad is 'SAME'"),
        ("Conv", [(1, 3, 4, 4), (2, 3, 3)], {}, "not the same rank"),
        ("Conv", [(1, 3), (2, 3)], {}, "at least three axes"),
        ("ConvTranspose", [(1, 3, 4, 4), (2, 3, 3, 3)], {}, "take 2 channels"),
        ("ConvTranspose", [(1, 2, 1, 1), (2, 3, 1, 1)], {"pads": (1, 1, 1, 1)}, "larger than what it is taken off"),
        ("MaxPool", [(1, 3, 4, 4)], {"kernel_shape": (5, 1)}, "does not fit"),
        ("AveragePool", [(1, 3, 4, 4)], {"kernel_shape": (2,)}, "the kernel has 1 spatial axes"),
        ("LpPool", [(1, 3)], {"kernel_shape": (2,)}, "at least three axes"),
    ],
)
def test_refusals(op: str, shapes: list[tuple[Dim, ...] | None], attrs: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeInferenceError, match=message):
        one_node(op, shapes, attrs)


# --- cotangents -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
def test_windows_in_the_padding_send_nothing(dynamic: bool) -> None:
    x = np.array([[[3.0]], [[5.0]]])
    attrs = {"kernel_shape": (2,), "dilations": (2,), "pads": (2, 2)}
    dy = np.arange(1.0, 7.0).reshape(2, 1, 3)  # the windows read x[0], nothing (-1 and 1), and x[0]
    np.testing.assert_array_equal(gradient("MaxPool", x, attrs, dy, dynamic=dynamic), [[[4.0]], [[10.0]]])


def test_the_first_of_equal_maxima_takes_all() -> None:
    x = np.array([[[[0.0, 7.0], [7.0, 7.0]]]])
    dx = gradient("MaxPool", x, {"kernel_shape": (2, 2)}, np.ones((1, 1, 1, 1)))
    np.testing.assert_array_equal(dx, [[[[0, 1], [0, 0]]]])


def test_equal_maxima_of_a_plane_share() -> None:
    x = np.array([[[[0.0, 7.0], [7.0, 7.0]]]])
    np.testing.assert_allclose(gradient("GlobalMaxPool", x, {}, np.full((1, 1, 1, 1), 3.0)), [[[[0, 1], [1, 1]]]])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norm_of_zeros_has_gradient_zero(p: int) -> None:
    x = np.zeros((1, 1, 4))
    for op, attrs, windows in (("LpPool", {"kernel_shape": (2,)}, 3), ("GlobalLpPool", {}, 1)):
        np.testing.assert_array_equal(gradient(op, x, attrs | {"p": p}, np.ones((1, 1, windows))), x)


def test_weights_of_a_batch_get_one_product() -> None:
    graph = one_node("MatMul", [("N", "T", 5), (5, 3)], {})
    Vjp(["x0", "x1"], ["y"]).run(graph)
    assert [node.op.name for node in graph.nodes()] == ["MatMul", "Transpose", "MatMul", "Flatten", "Flatten", "Gemm"]
