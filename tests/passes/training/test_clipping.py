"""Clipping gradients: the formulae of torch.nn.utils, in numpy and against torch itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import irgrad as ig
from irgrad.errors import PassError
from irgrad.graph import Graph
from irgrad.verify import verify

GENERATOR = np.random.default_rng(1)
W, B = (GENERATOR.standard_normal(shape).astype(np.float32) for shape in ((3, 2), (2,)))
TEXT = """
graph line {
  input %x: f32[N,3]
  param %w: f32[3,2]{...}
  param %b: f32[2]{...}
  param %none: f32[0]{}
  %h = MatMul(%x, %w)
  %y = Add(%h, %b)
  output y
}
"""
JOINT = ig.grad(ig.parse_text(TEXT, {"w": W, "b": B}), loss="mse", simplify=False)
DATA = {"x": GENERATOR.standard_normal((5, 3)), "target": GENERATOR.standard_normal((5, 2))}


def gradients(pipeline: str, graph: Graph = JOINT) -> dict[str, Any]:
    clipped = ig.apply(graph, pipeline, truthful=True)
    verify(clipped, types=True)
    assert clipped.gradients == graph.gradients
    types = {name: value.dtype for name, value in clipped.inputs.items()}
    return ig.compile(clipped)({name: array.astype(types[name]) for name, array in DATA.items()})


PLAIN = gradients("dce")
NAMES = ["w_grad", "b_grad"]
ALL = np.concatenate([PLAIN[name].reshape(-1) for name in NAMES]).astype(np.float64)


@pytest.mark.parametrize("largest", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("order", [1, 2, 3, np.inf])
def test_the_norm(largest: float, order: float) -> None:
    found = gradients(f"clip_grad_norm{{max_norm={largest},norm={order},total=before}}")
    norm = np.linalg.norm(ALL, order)
    np.testing.assert_allclose(found["before"], norm, rtol=1e-6)
    for name in NAMES:
        np.testing.assert_allclose(found[name], PLAIN[name] * min(1, largest / (norm + 1e-6)), rtol=1e-6)
    after = np.linalg.norm(np.concatenate([found[name].reshape(-1) for name in NAMES]), order)
    assert after <= largest * (1 + 1e-6)


@pytest.mark.parametrize("order", [1.0, 2.0, 3.0, np.inf])
def test_the_norm_as_torch_has_it(order: float) -> None:
    torch = pytest.importorskip("torch")
    parameters = []
    for name in NAMES:
        parameters.append(torch.nn.Parameter(torch.zeros(PLAIN[name].shape)))
        parameters[-1].grad = torch.tensor(PLAIN[name])
    total = torch.nn.utils.clip_grad_norm_(parameters, 0.5, order)
    found = gradients(f"clip_grad_norm{{max_norm=0.5,norm={order},total=before}}")
    np.testing.assert_allclose(found["before"], total.numpy(), rtol=1e-6)
    for name, parameter in zip(NAMES, parameters, strict=True):
        np.testing.assert_allclose(found[name], parameter.grad.numpy(), rtol=1e-6)


def test_the_values() -> None:
    found = gradients("clip_grad_value{value=0.1}")
    for name in NAMES:
        np.testing.assert_array_equal(found[name], np.clip(PLAIN[name], np.float32(-0.1), np.float32(0.1)))


def test_some_gradients_only_and_one_clipping_after_the_other() -> None:
    found = gradients("clip_grad_value{value=0.1,only=w},clip_grad_norm{max_norm=0.01,skip=b}")
    np.testing.assert_array_equal(found["b_grad"], PLAIN["b_grad"])
    w = np.clip(PLAIN["w_grad"], np.float32(-0.1), np.float32(0.1))
    np.testing.assert_allclose(found["w_grad"], w * (0.01 / (np.linalg.norm(w) + 1e-6)), rtol=1e-6)


def test_the_norm_of_float16_is_that_of_float32() -> None:
    """Squares of gradients of 2^-13 are no float16, and sums of large ones are infinite in it."""
    joint = ig.apply(JOINT, "convert_float{to=f16}")
    plain = gradients("dce", joint)
    found = gradients("clip_grad_norm{max_norm=1e-4,total=before}", joint)
    norm = np.sqrt(sum((plain[name].astype(np.float64) ** 2).sum() for name in NAMES))
    assert found["before"].dtype == np.float32
    assert found["w_grad"].dtype == np.float16
    np.testing.assert_allclose(found["before"], norm, rtol=1e-6)
    np.testing.assert_allclose(found["w_grad"], plain["w_grad"] * (1e-4 / (norm + 1e-6)), rtol=2e-3, atol=1e-7)


def test_optimizers_move_by_what_was_clipped() -> None:
    step = ig.apply(JOINT, "clip_grad_norm{max_norm=0.1},sgd,simplify")
    results = ig.compile(step)({name: array.astype("f") for name, array in DATA.items()} | {"learning_rate": 1})
    np.testing.assert_allclose(results["w_next"], W - results["w_grad"], rtol=1e-6)
    assert np.abs(results["w_grad"]).max() < np.abs(PLAIN["w_grad"]).max()


@pytest.mark.parametrize(
    ("pipeline", "message"),
    [
        ("clip_grad_norm", "the pass 'clip_grad_norm' needs the option 'max_norm'"),
        ("clip_grad_norm{max_norm=-1}", "max_norm=-1 is out of range: it has to be at least 0"),
        ("clip_grad_norm{max_norm=nan}", "max_norm=nan is out of range"),
        ("clip_grad_norm{max_norm=1,norm=0}", "norm=0 is out of range: it has to be greater than 0"),
        ("clip_grad_norm{max_norm=1,total=loss}", "the name 'loss', which the norm needs, is taken"),
        ("clip_grad_value{value=1,only=c}", "only= and skip= leave none of the gradients"),
        ("sgd,clip_grad_value{value=1}", "the gradient of 'w' is in use by its update already; clipping has to come before"),
    ],
)
def test_mistakes(pipeline: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        ig.apply(JOINT, pipeline)
