"""Gradients of a network that was written in the words of each opset."""

from __future__ import annotations

import numpy as np
import pytest

from irgrad.api import load, vjp
from irgrad.gradcheck import check_grads
from irgrad.graph import OPSET
from irgrad.runtime import compile
from tests.frontends.old_network import feeds, network


def gradients(opset: int) -> list[np.ndarray]:
    """Of the logits by the input and by the weights, in the order of the file."""
    graph = load(network(opset))
    outputs = [name for name, value in graph.outputs.items() if value.type.differentiable][:1]
    wrt = ["x", *(name for name, array in graph.parameters.items() if array.ndim == 4)]
    joint = vjp(graph, wrt, outputs)
    logits = compile(graph)(feeds())[outputs[0]]
    seed = np.random.default_rng(2).standard_normal(logits.shape).astype(logits.dtype)
    results = compile(joint)({**feeds(), f"{outputs[0]}_cotangent": seed})
    return [results[name] for name in joint.gradients.values()]


@pytest.fixture(scope="module")
def newest() -> list[np.ndarray]:
    return gradients(OPSET)


@pytest.mark.parametrize("opset", range(1, OPSET))
def test_the_gradient_is_the_same_in_every_opset(opset: int, newest: list[np.ndarray]) -> None:
    found = gradients(opset)
    assert len(found) == len(newest) == 2
    for got, want in zip(found, newest, strict=True):
        assert np.abs(want).max() > 1e-3
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_right() -> None:
    graph = load(network(OPSET))
    check_grads(graph, feeds(), ["x"], [name for name, value in graph.outputs.items() if value.type.differentiable][:1])
