"""Arrays put into a model as its parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irgrad as ig
from irgrad.errors import UsageError
from tests.frontends.build import array, model, node, value

W, B = np.arange(6).reshape(3, 2), np.ones(2)
LINE = ig.load(
    model(
        [
            node("MatMul", ["x", "w"], ["h"]),
            node("Identity", ["b"], ["c"]),
            node("Add", ["h", "b"], ["i"]),
            node("Mul", ["i", "c"], ["y"]),
        ],
        [value("x", ("N", 3))],
        [value("y", ("N", 2))],
        [array("w", W), array("b", B)],
    )
)
RESHAPE = ig.load(
    model(
        [node("Reshape", ["x", "shape"], ["y"])], [value("x", (2, 3))], [value("y", (3, 2))], [array("shape", [3, 2], int)]
    )
)
X = np.ones((1, 3), np.float32)


def test_arrays_take_the_place_of_parameters() -> None:
    new = np.full((3, 2), 2, np.float32)
    graph = ig.with_parameters(LINE, {"w": new, "b": [1, 2]})
    new[:] = 0
    np.testing.assert_array_equal(ig.compile(graph)({"x": X})["y"], [[7, 16]])
    np.testing.assert_array_equal(ig.compile(LINE)({"x": X})["y"], [[7, 10]])
    assert graph.parameters["b"].dtype == np.float32
    assert ig.graphs_equal(ig.with_parameters(graph, LINE.parameters), LINE) is None


def test_a_copy_of_a_parameter_becomes_one_of_its_own() -> None:
    graph = ig.with_parameters(LINE, {"c": [3, 4]})
    ig.verify(graph, types=True)
    assert list(graph.parameters) == ["w", "b", "c"]
    np.testing.assert_array_equal(ig.compile(graph)({"x": X})["y"], [[21, 40]])


@pytest.mark.parametrize(
    ("graph", "arrays", "message"),
    [
        (LINE, {"v": W}, "the graph has no parameter 'v'"),
        (LINE, {"bb": B}, "the graph has no parameter 'bb'; did you mean 'b'?"),
        (LINE, {"x": X}, "the graph has no parameter 'x'"),
        (LINE, {"h": X}, "the graph has no parameter 'h'"),
        (LINE, {"w": W.T.astype("f")}, r"the array for 'w' is f32\[2,3\], but the parameter is f32\[3,2\]"),
        (LINE, {"w": W.astype(float)}, r"the array for 'w' is f64\[3,2\], but the parameter is f32\[3,2\]"),
        (RESHAPE, {"shape": [2, 3]}, "the constant 'shape' decides the shape of a result"),
    ],
)
def test_mistakes(graph: ig.Graph, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ig.with_parameters(graph, arrays)


def test_what_decides_a_shape_may_stay() -> None:
    assert ig.graphs_equal(ig.with_parameters(RESHAPE, {"shape": [3, 2]}), RESHAPE) is None
