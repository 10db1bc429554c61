"""What moves elements, where finite differences do not reach: ties, repeated places, places that do not exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import ExecutionError, IrgradError, UnsupportedOpError
from irgrad.graph import Graph
from irgrad.runtime import compile
from irgrad.types import TensorType
from tests.ops.test_kinks import feeds_of, gradients, graph_of


def run(op: str, *operands: Any, **attrs: Any) -> np.ndarray:
    graph = graph_of(op, operands, **attrs)
    return compile(graph)(feeds_of(graph, operands))["y0"]


@pytest.mark.parametrize(("reduction", "sign"), [("max", 1), ("min", -1)])
def test_all_candidates_that_are_equal_to_an_extreme_share_its_cotangent(reduction: str, sign: int) -> None:
    data, updates = sign * np.array([2.0, 1.0, 5.0]), sign * np.array([2.0, 2.0, 3.0, 0.5, 1.0])
    indices = np.array([0, 0, 1, 0, 2])
    ddata, dupdates = gradients("ScatterElements", [data, indices, updates], [0, 2], fixed=[1], reduction=reduction)
    np.testing.assert_allclose(ddata, [1 / 3, 0, 1])
    np.testing.assert_allclose(dupdates, [1 / 3, 1 / 3, 1, 0, 0])
    ddata, dupdates = gradients("ScatterND", [data, indices[:, None], updates], [0, 2], fixed=[1], reduction=reduction)
    np.testing.assert_allclose(dupdates, [1 / 3, 1 / 3, 1, 0, 0])


@pytest.mark.parametrize("fixed", [[1], []], ids=["constant", "fed"])
def test_of_two_updates_of_one_place_the_later_one_has_the_gradient(fixed: list[int]) -> None:
    data, indices, updates = np.zeros(3), np.array([1, -2, 0, 1]), np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(run("ScatterElements", data, indices, updates), [3, 4, 0])
    ddata, dupdates = gradients("ScatterElements", [data, indices, updates], [0, 2], fixed=fixed)
    np.testing.assert_array_equal(ddata, [0, 0, 1])
    np.testing.assert_array_equal(dupdates, [0, 0, 1, 1])
    rows = np.array([[1], [0], [-2]])
    _, dupdates = gradients("ScatterND", [np.zeros((3, 2)), rows, np.ones((3, 2))], [0, 2], fixed=fixed)
    np.testing.assert_array_equal(dupdates, [[0, 0], [1, 1], [1, 1]])


def test_of_equal_elements_the_first_one_has_the_gradient() -> None:
    x = np.array([2.0, 1.0, 2.0, 1.0])
    graph = graph_of("Unique", [x], outputs=4)
    assert compile(graph)({"x0": x})["y1"].tolist() == [1, 0]
    top = np.array([3.0, 5.0, 5.0, 5.0])
    (dx,) = gradients("TopK", [top, np.array([2])], fixed=[1], outputs=2)
    np.testing.assert_array_equal(dx, [0, 1, 1, 0])


def test_infinite_cotangents_do_not_reach_what_has_no_part_in_them() -> None:
    data, updates = np.array([1.0, 5.0]), np.array([2.0, 3.0])
    indices = np.array([0, 1])
    for found, want in zip(
        gradients("ScatterElements", [data, indices, updates], [0, 2], fixed=[1], reduction="max", seed=np.inf),
        ([0, np.inf], [np.inf, 0]),
        strict=True,
    ):
        np.testing.assert_array_equal(found, want)


PLACES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Gather", (np.zeros(3), np.array([3])), {}),
    ("GatherElements", (np.zeros(3), np.array([-4])), {}),
    ("GatherND", (np.zeros((3, 2)), np.array([[0, 2]])), {}),
    ("ScatterElements", (np.zeros(3), np.array([3]), np.ones(1)), {}),
    ("ScatterElements", (np.zeros((3, 4)), np.array([[3, 0]]), np.ones((1, 2))), {"reduction": "add"}),
    ("ScatterND", (np.zeros((3, 2)), np.array([[0, -3]]), np.ones(1)), {"reduction": "add"}),
    ("TensorScatter", (np.zeros((1, 3, 2)), np.ones((1, 1, 2)), np.array([3])), {}),
    ("irgrad.GatherGrad", (np.ones(1), np.array([3]), np.array([3])), {}),
]


@pytest.mark.parametrize(("op", "operands", "attrs"), PLACES, ids=[f"{p[0]}-{k}" for k, p in enumerate(PLACES)])
def test_places_that_do_not_exist_are_refused(op: str, operands: tuple[Any, ...], attrs: dict[str, Any]) -> None:
    with pytest.raises(ExecutionError, match=r"out of (range|bounds)"):
        run(op, *operands, **attrs)


def test_what_cannot_be_done_says_so() -> None:
    with pytest.raises(ExecutionError, match="add up to 3, the axis has 4"):
        graph = graph_of("Split", [np.zeros(4), np.array([1, 2])], outputs=2)
        compile(graph)({"x0": np.zeros(4), "x1": np.array([1, 2])})
    with pytest.raises(ExecutionError, match="k is 5, but there are 4 elements"):
        run("TopK", np.zeros(4), np.array([5]), outputs=2)
    with pytest.raises(ExecutionError, match="nothing along an axis of no elements to pad with in the mode 'edge'"):
        run("Pad", np.zeros((0, 2)), np.array([1, 0, 0, 0]), mode="edge")
    with pytest.raises(ExecutionError, match="take more away from axis 0 than its 3 elements"):
        run("Pad", np.zeros(3), np.array([-2, -2]))
    with pytest.raises(UnsupportedOpError, match="the reduction 'mean' is none of none, add, mul, min, max"):
        gradients("ScatterElements", [np.zeros(3), np.array([0]), np.ones(1)], fixed=[1], reduction="mean")


def test_too_few_elements_for_the_parts_of_a_split_are_refused() -> None:
    """One element in three parts would be parts of 1, 1 and −1."""
    graph = Graph("split")
    x = graph.add_input("x", TensorType(np.dtype(np.float64), (None,)))
    graph.set_outputs({f"y{k}": part for k, part in enumerate(Builder(graph).multi("Split", x, outputs=3, num_outputs=3))})
    assert [part.size for part in compile(graph)({"x": np.zeros(2)}).values()] == [1, 1, 0]
    with pytest.raises(IrgradError, match="of which only the last is smaller"):
        compile(graph)({"x": np.zeros(1)})
