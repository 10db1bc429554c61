"""ArrayFeatureExtractor where the rank of its operand is known, and where it is not."""

from __future__ import annotations

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import compile
from irgrad.types import Shape, TensorType


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("shape", "expected"), [((4,), (1, 2)), ((3, 4), (3, 2)), ((2, 3, 4), (2, 3, 2)), ((0, 4), (0, 2))])
def test_differentiating_does_not_change_the_shape(shape: Shape, expected: Shape, known: bool) -> None:
    graph = Graph("extractor")
    x = graph.add_input("x", TensorType(np.dtype(np.float64), shape if known else None))
    y = Builder(graph).op("ai.onnx.ml.ArrayFeatureExtractor", x, np.array([[3, 1]]))
    graph.set_outputs({"y": y})
    assert y.shape == (expected if known else None)
    feeds = {"x": np.random.default_rng(0).standard_normal(shape)}
    check_grads(graph, feeds)
    Vjp(["x"], ["y"]).run(graph)
    assert compile(graph)({**feeds, "y_cotangent": np.ones(expected)})["y"].shape == expected
