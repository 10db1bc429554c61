"""Quantised numbers inside of graphs, and what quantising refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import ExecutionError, TypeInferenceError, UnsupportedOpError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import compile
from irgrad.types import TensorType
from tests.ops.harness import rng
from tests.ops.test_kinks import feeds_of, graph_of

X = rng(0).standard_normal((3, 4))
INT8 = np.dtype(np.int8)


def test_weights_that_are_kept_in_eight_bits() -> None:
    """Their scale learns; so does what is computed with the dequantised weights."""
    graph = Graph("dense")
    x, scale = graph.add_input("x", TensorType.of(X)), graph.add_input("scale", TensorType(X.dtype, (5,)))
    b = Builder(graph)
    w = b.constant(rng(1).integers(-128, 127, (4, 5)).astype(np.int8))
    graph.set_outputs({"y": b.op("Tanh", b.op("MatMul", x, b.op("DequantizeLinear", w, scale, axis=1)))})
    check_grads(graph, {"x": X, "scale": np.linspace(0.002, 0.01, 5)})


def test_no_gradient_flows_through_a_rounding() -> None:
    graph = Graph("fake")
    x, scale = graph.add_input("x", TensorType.of(X)), graph.add_input("scale", TensorType(X.dtype, ()))
    b = Builder(graph)
    zero_point = b.constant(np.int8(3))
    q = b.op("QuantizeLinear", x, scale, zero_point)
    graph.set_outputs({"y": b.op("DequantizeLinear", q, scale, zero_point)})
    Vjp().run(graph)
    results = compile(graph)({"x": X, "scale": np.array(0.25), "y_cotangent": X})
    np.testing.assert_array_equal(results["x_grad"], 0 * X)
    np.testing.assert_allclose(results["scale_grad"], (X * np.rint(X / 0.25)).sum())


def test_the_scale_that_is_found_is_differentiable() -> None:
    """(max(x, 0) − min(x, 0)) / 255: the cotangent goes to the two elements that are the extremes."""
    x = np.array([[1.5, -2.0, 0.5], [3.0, 2.0, -1.0]], np.float32)
    for operand, want in ((x, [[0, -1, 0], [1, 0, 0]]), (np.abs(x), [[0, 0, 0], [1, 0, 0]])):
        graph = graph_of("DynamicQuantizeLinear", [operand], outputs=3)
        Vjp(["x0"], ["y1"]).run(graph)
        found = compile(graph)({"x0": operand, "y1_cotangent": np.float32(255)})["x0_grad"]
        np.testing.assert_allclose(found, want, rtol=1e-6)


def test_sums_that_do_not_fit_into_32_bits_are_wrapped() -> None:
    a, b = np.full((1, 40_000), 255, np.uint8), np.full((40_000, 1), 255, np.uint8)
    graph = graph_of("MatMulInteger", [a, b])
    (found,) = compile(graph)(feeds_of(graph, [a, b])).values()
    assert found.item() == 40_000 * 255 * 255 - 2**32


def refused(error: type[Exception], message: str, op: str, *operands: Any, **attrs: Any) -> None:
    with pytest.raises(error, match=message):
        graph = graph_of(op, operands, **attrs)
        compile(graph)(feeds_of(graph, operands))


def test_scales_and_zero_points_that_do_not_fit() -> None:
    x, q = X.astype(np.float32), np.zeros((3, 4), np.int8)
    scale = np.ones(4, np.float32)
    refused(TypeInferenceError, "zero point of QuantizeLinear is i8", "QuantizeLinear", x, scale, np.zeros(3, np.int8))
    refused(TypeInferenceError, "must be of one dtype", "DequantizeLinear", q, scale, np.zeros(4, np.uint8))
    refused(TypeInferenceError, "has to be i16", "QuantizeLinear", x, scale, np.zeros(4, np.int8), output_dtype=5)
    refused(ExecutionError, r"\[4\] do not fit to a tensor of the shape \[3, 4\] along", "QuantizeLinear", x, scale, axis=0)
    refused(
        ExecutionError, "in blocks of 2 along the axis 1", "DequantizeLinear", q, np.ones((3, 3), np.float32), block_size=2
    )
    refused(ExecutionError, "along the axis 1", "DequantizeLinear", q[0], scale)
    product = [q, scale[0], np.int8(0), q.T, scale[0], np.int8(0), scale[:3], np.zeros(3, np.int8)]
    refused(ExecutionError, "the scale of the result is a vector", "QLinearMatMul", *product)


def test_the_rank_of_a_scale_must_be_known() -> None:
    graph = Graph("g")
    q, scale = graph.add_input("q", TensorType(INT8, (3, 4))), graph.add_input("scale", TensorType(X.dtype))
    graph.set_outputs([Builder(graph).op("DequantizeLinear", q, scale)])
    with pytest.raises(UnsupportedOpError, match="the ranks of x and of its scale must be known"):
        Vjp(["scale"]).run(graph)
