"""What finite differences do not see: conventions at kinks, refusals, and how few nodes an adjoint takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import ExecutionError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph, Role
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import compile
from irgrad.types import TensorType
from tests.ops.harness import Case


def joint(op: str, *inputs: Any, wrt: str = "x0", **attrs: Any) -> tuple[Graph, Case]:
    case = Case(op, inputs, attrs)
    graph = case.graph()
    Vjp([wrt]).run(graph)
    return graph, case


def gradient(op: str, *inputs: Any, **attrs: Any) -> np.ndarray:
    """The gradient of the sum of the result with respect to the first operand."""
    graph, case = joint(op, *inputs, **attrs)
    shape = graph.outputs["y0"].tensor_type.static_shape
    assert shape is not None
    return compile(graph)({**case.feeds(graph), "y0_cotangent": np.ones(shape)})["x0_grad"]


def backward(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes() if node.role is Role.BACKWARD]


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
def test_ties_share_equally(op: str) -> None:
    sign = 1 if op == "ReduceMax" else -1
    x = sign * np.array([[3.0, 3.0, 1.0], [0.0, 2.0, 1.0]])
    np.testing.assert_array_equal(gradient(op, x, np.array([1])), [[0.5, 0.5, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("op", "attrs"),
    [("ReduceL1", {}), ("ReduceL2", {}), ("LpNormalization", {"p": 1}), ("LpNormalization", {"p": 2})],
)
def test_zero_vector_has_no_gradient(op: str, attrs: dict[str, int]) -> None:
    np.testing.assert_array_equal(gradient(op, np.zeros((2, 3)), **attrs), np.zeros((2, 3)))


def test_constant_signal_has_no_gradient_through_its_deviation() -> None:
    assert np.isfinite(gradient("MeanVarianceNormalization", np.ones((2, 3)), axes=(1,))).all()


def test_masked_out_elements_have_no_gradient() -> None:
    x = np.array([[-np.inf, -np.inf], [-np.inf, 1.0]])
    np.testing.assert_array_equal(gradient("ReduceLogSumExp", x, np.array([1])), [[0, 0], [0, 1]])


def test_several_zeros_in_a_product() -> None:
    x = np.array([[0.0, 2.0, 3.0], [0.0, 0.0, 3.0]])
    np.testing.assert_array_equal(gradient("ReduceProd", x, np.array([1])), [[6, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("op", ["SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss"])
@pytest.mark.parametrize("label", [3, -1])
def test_label_out_of_range_is_refused(op: str, label: int) -> None:
    case = Case(op, [np.zeros((2, 3)), np.array([0, label])], {"ignore_index": 7})
    graph = case.graph()
    with pytest.raises(ExecutionError, match=f"label {label}, but there are 3 classes"):
        compile(graph)(case.feeds(graph))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_a_cumulative_product_of_unknown_rank_along_an_axis_that_is_fed(axis: int) -> None:
    graph = Graph("product")
    x, position = (
        graph.add_input("x", TensorType(np.dtype(float), None)),
        graph.add_input("axis", TensorType(np.dtype(int), ())),
    )
    graph.set_outputs({"y": Builder(graph).op("CumProd", x, position)})
    for shape in ((2, 3), (2, 3, 2)):
        check_grads(graph, {"x": np.random.default_rng(0).uniform(0.5, 1.5, shape), "axis": np.array(axis)}, ["x"])


CHANNELS = [np.ones(3, np.float32) for _ in range(4)]


def test_adjoint_of_batch_normalisation_is_one_node() -> None:
    x = np.ones((2, 3, 4, 4), np.float32)
    for wrt, keeps_x in [("x0", False), ("x1", True), ("x2", False), ("x3", False), ("x4", True)]:
        graph, _ = joint("BatchNormalization", x, *CHANNELS, wrt=wrt)
        assert backward(graph) == ["BatchNormalizationGrad"]
        assert (graph.value("x0") in graph.nodes()[-1].inputs) == keeps_x


def test_adjoint_of_layer_normalisation_is_one_node() -> None:
    x, scale = np.ones((2, 3), np.float32), np.ones(3, np.float32)
    for op in ("LayerNormalization", "RMSNormalization"):
        graph, _ = joint(op, x, scale)
        assert len(graph.nodes()[0].outputs) == 1
        assert backward(graph) == ["LayerNormalizationGrad"]


def test_adjoint_of_layer_normalisation_with_a_broadcast_scale_uses_the_statistics_of_the_forward_node() -> None:
    graph, _ = joint("LayerNormalization", np.ones((2, 3), np.float32), np.ones(1, np.float32))
    assert len(graph.nodes()[0].outputs) == 3
    assert len(backward(graph)) == 10


def test_adjoint_of_cross_entropy_is_one_node() -> None:
    graph, _ = joint("SoftmaxCrossEntropyLoss", np.zeros((2, 3), np.float32), np.array([0, 2]))
    assert backward(graph) == ["SoftmaxCrossEntropyLossGrad"]
