"""The gradient checker: what it finds, and what it does not pronounce on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import AdjointError
from irgrad.gradcheck import GradientChecker, check_grads
from irgrad.graph import Graph
from irgrad.op import Op
from irgrad.types import TensorType

X = np.random.default_rng(0).standard_normal(6)


def scaled(claimed: Any) -> Op:
    """An operation that doubles, and claims to have a derivative of its own choice."""
    op = Op("Double", domain="test", kernel=lambda x, out=None: 2 * x, gradient=lambda b, node, dy: claimed(dy))
    op.infer(lambda call: [call.tensor(0)])
    return op


def graph_of(claimed: Any = lambda dy: dy * 2.0, factor: float = 1.0) -> Graph:
    """y = x + factor · 2 s"""
    graph = Graph("sum")
    x, s = (graph.add_input(name, TensorType.of(X)) for name in "xs")
    with Builder(graph) as b:
        doubled = b.node(scaled(claimed), [s]).outputs[0]
        graph.set_outputs({"y": x + doubled * factor})
    return graph


FEEDS = {"x": X, "s": X[::-1].copy()}


def test_a_right_gradient_agrees() -> None:
    assert len(check_grads(graph_of(), FEEDS)) == 2
    assert len(check_grads(graph_of(factor=1e-3), FEEDS)) == 3


@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e-7])
@pytest.mark.parametrize("claimed", [lambda dy: dy * 2.002, lambda dy: dy * 0.0, lambda dy: dy * np.nan])
def test_a_wrong_gradient_is_found_however_small_it_is(claimed: Any, factor: float) -> None:
    """One of 1e-7 is not seen in a direction of all operands: the tolerance there is a hundred times that."""
    with pytest.raises(AdjointError, match="DISAGREES"):
        check_grads(graph_of(claimed, factor), FEEDS)


def test_a_gradient_of_rounding_errors_is_left_out() -> None:
    graph = Graph("nothing")
    x, s = (graph.add_input(name, TensorType.of(X)) for name in "xs")
    with Builder(graph) as b:
        mean = b.op("ReduceMean", s, keepdims=1)
        graph.set_outputs({"y": x + b.op("ReduceSum", s - mean, keepdims=1)})
    checker = GradientChecker(graph, FEEDS)
    assert checker.check(np.random.default_rng(0)).ok
    assert not list(checker.check_faint(np.random.default_rng(0)))


def test_a_kink_is_no_disagreement() -> None:
    graph = Graph("kink")
    x = graph.add_input("x", TensorType.of(X))
    graph.set_outputs({"y": Builder(graph).op("Relu", x)})
    with pytest.raises(AdjointError, match="cannot be judged"):
        check_grads(graph, {"x": np.zeros(6)})


def test_feeds_are_not_written_to() -> None:
    feeds = {name: array.copy() for name, array in FEEDS.items()}
    for array in feeds.values():
        array.flags.writeable = False
    check_grads(graph_of(), feeds)
    assert all(np.array_equal(feeds[name], FEEDS[name]) for name in feeds)
