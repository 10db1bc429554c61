"""Gradients that other tools leave out, refuse, or silently get wrong, each against finite differences.

Several of them are reported as 0 elsewhere, so every gradient here is also checked to be nowhere near that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import irgrad as ig
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph
from irgrad.runtime import compile
from tests.frontends.build import array, graph, model, node, scalar, value
from tests.ops.harness import rng
from tests.ops.test_kinks import feeds_of, graph_of


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return rng(seed).standard_normal(shape)


def check(forward: Graph, feeds: Mapping[str, np.ndarray], wrt: Sequence[str]) -> dict[str, np.ndarray]:
    """Each gradient by itself against finite differences, and how large it is; the gradients for some cotangents."""
    results = compile(forward)(feeds)
    cotangents = {
        f"{name}_cotangent": rng(7).uniform(0.5, 1.5, results[name].shape).astype(results[name].dtype)
        for name, output in forward.outputs.items()
        if output.type.differentiable
    }
    for name in wrt:
        check_grads(forward, feeds, [name])
    plain, simplified = (
        compile(ig.vjp(forward, wrt, simplify=simplify))({**feeds, **cotangents}) for simplify in (False, True)
    )
    gradients = {name: plain[f"{name}_grad"] for name in wrt}
    for name, gradient in gradients.items():
        assert gradient.shape == feeds[name].shape
        assert np.abs(gradient).max() > 0.01, f"the gradient of {name} vanishes"
        np.testing.assert_allclose(simplified[f"{name}_grad"], gradient, rtol=1e-5, atol=1e-8)
    return gradients


def check_op(op: str, operands: Sequence[Any], wrt: Sequence[int] = (0,), fixed: Sequence[int] = (), **attrs: Any) -> None:
    forward = graph_of(op, operands, fixed, **attrs)
    check(forward, feeds_of(forward, operands), [f"x{k}" for k in wrt])


# --- determinants -----------------------------------------------------------------------------------------------------


def test_det_gradient() -> None:
    x = np.array([[0.3, -0.5], [0.1, -0.6]])
    forward = graph_of("Det", [x])
    joint = ig.vjp(forward, ["x0"])
    found = compile(joint)({"x0": x, "y0_cotangent": np.array(-0.23)})["x0_grad"]
    np.testing.assert_allclose(found, -0.23 * np.array([[-0.6, -0.1], [0.5, 0.3]]))
    for size in (2, 3, 5):
        check_op("Det", [normal(size, size)])
        check_op("Det", [normal(2, size, size - 1) @ normal(2, size - 1, size, seed=1)])


# --- batch normalisation ----------------------------------------------------------------------------------------------

BATCH = [normal(2, 3, 4, seed=1), *(normal(3, seed=seed) for seed in (2, 3, 4)), rng(5).uniform(0.5, 2, 3)]


def test_batch_normalization_mean_and_variance() -> None:
    check_op("BatchNormalization", BATCH, wrt=[0, 1, 2, 3, 4])


@pytest.mark.parametrize("fixed", [(), (1, 2, 3, 4)], ids=["statistics-fed", "statistics-constant"])
@pytest.mark.parametrize("pipeline", ["simplify", "fold", "canonicalize"])
def test_inference_batch_normalization_stays_what_it_is(pipeline: str, fixed: Sequence[int]) -> None:
    """The statistics are those that were fed, before and after passes: dx = dy scale / sqrt(var + epsilon)."""
    x, scale, _, _, variance = BATCH
    forward = ig.apply(graph_of("BatchNormalization", BATCH, fixed), pipeline)
    joint = ig.apply(ig.vjp(forward, ["x0"]), pipeline)
    dy = normal(*x.shape, seed=6)
    found = compile(joint)({**feeds_of(joint, BATCH), "y0_cotangent": dy})
    expected = dy * (scale / np.sqrt(variance + 1e-5))[:, None]
    np.testing.assert_allclose(found["x0_grad"], expected, rtol=1e-6)
    normalised = [n for n in joint.nodes() if n.op.name.startswith("BatchNormalization")]
    assert all(n.attr("training_mode", 0) == 0 for n in normalised)


# --- reductions with axes that are an empty constant ------------------------------------------------------------------


@pytest.mark.parametrize("noop", [0, 1])
@pytest.mark.parametrize("op", ["ReduceMean", "ReduceL2", "ReduceSumSquare", "ReduceSum", "ReduceL1", "ReduceProd"])
def test_reductions_with_empty_axes(op: str, noop: int) -> None:
    """Without axes all are reduced, or none: then single elements are still squared (or their absolute values taken)."""
    x, none = rng(8).uniform(0.5, 1.5, (2, 3)), np.zeros(0, np.int64)
    check_op(op, [x, none], fixed=[1], noop_with_empty_axes=noop)
    check_op(op, [x, none], noop_with_empty_axes=noop)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"])
def test_reductions_without_a_rule_elsewhere(op: str) -> None:
    check_op(op, [rng(9).uniform(0.5, 1.5, (2, 3)), np.array([1])], fixed=[1])


# --- elementwise ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["Sum", "Mean"])
@pytest.mark.parametrize(
    "shapes",
    [[(2, 3)], [(2, 3), (2, 3)], [(2, 3), (2, 3), (2, 3)], [(2, 3), (3,), (2, 1), ()], [(1, 3), (2, 1)]],
    ids=["one", "two", "three", "broadcast", "all-broadcast"],
)
def test_sum_and_mean(op: str, shapes: Sequence[tuple[int, ...]]) -> None:
    operands = [normal(*shape, seed=k) for k, shape in enumerate(shapes)]
    check_op(op, operands, wrt=range(len(operands)))


@pytest.mark.parametrize("op", ["Atan", "Asin", "Acos", "Asinh", "Acosh", "Atanh", "Tan", "Sinh", "Cosh"])
def test_inverse_and_hyperbolic_functions(op: str) -> None:
    x = rng(10).uniform(-0.8, 0.8, (2, 3))
    check_op(op, [np.abs(x) + 1.2 if op == "Acosh" else x])


@pytest.mark.parametrize("op", ["Round", "Floor", "Ceil", "Sign"])
def test_steps_have_gradient_zero(op: str) -> None:
    forward = graph_of(op, [normal(3)])
    found = compile(ig.vjp(forward, ["x0"]))({"x0": normal(3), "y0_cotangent": np.ones(3)})
    np.testing.assert_array_equal(found["x0_grad"], np.zeros(3))


# --- between depth and space ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode: str) -> None:
    deep, flat = normal(1, 8, 2, 3), normal(1, 2, 4, 6)
    check_op("DepthToSpace", [deep], blocksize=2, mode=mode)
    check_op("SpaceToDepth", [flat], blocksize=2, mode=mode)
    for op, x in (("DepthToSpace", deep), ("SpaceToDepth", flat)):
        # Either only moves elements, so that its adjoint brings each one back.
        forward = graph_of(op, [x], blocksize=2, mode=mode)
        y = compile(forward)({"x0": x})["y0"]
        found = compile(ig.vjp(forward, ["x0"]))({"x0": x, "y0_cotangent": y})
        np.testing.assert_array_equal(found["x0_grad"], x)


# --- convolutions -----------------------------------------------------------------------------------------------------

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "grouped": ((2, 4, 5, 5), (6, 2, 3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
    "depthwise": ((2, 3, 5, 5), (3, 1, 3, 3), {"group": 3}),
    "depthwise-multiplied": ((1, 3, 6, 5), (6, 1, 3, 2), {"group": 3, "strides": (2, 1)}),
    "dilated": ((1, 2, 7, 7), (3, 2, 3, 3), {"dilations": (2, 2), "auto_pad": "SAME_LOWER"}),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_weights_of_convolutions(name: str) -> None:
    x, w, attrs = CONVOLUTIONS[name]
    check_op("Conv", [normal(*x), normal(*w, seed=1), normal(w[0], seed=2)], wrt=[0, 1, 2], **attrs)


TRANSPOSED: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((2, 3, 4, 4), (3, 2, 3, 3), {}),
    "grouped": ((1, 4, 3, 3), (4, 3, 2, 2), {"group": 2, "strides": (2, 2)}),
    "output-padding": ((1, 2, 3, 3), (2, 2, 3, 3), {"strides": (3, 2), "output_padding": (2, 1)}),
    "dilated": ((1, 2, 3, 4), (2, 2, 2, 3), {"dilations": (2, 2), "pads": (1, 0, 1, 1)}),
    "output-shape": ((1, 2, 3, 3), (2, 1, 3, 3), {"strides": (2, 2), "output_shape": (6, 7)}),
}


@pytest.mark.parametrize("name", TRANSPOSED)
def test_weights_of_transposed_convolutions(name: str) -> None:
    x, w, attrs = TRANSPOSED[name]
    channels = w[1] * attrs.get("group", 1)
    check_op("ConvTranspose", [normal(*x), normal(*w, seed=1), normal(channels, seed=2)], wrt=[0, 1, 2], **attrs)


# --- control flow -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_that_captures_an_intermediate(taken: bool) -> None:
    """h is computed outside and read inside, which aborts the process of one tool and is refused by another."""
    output = value("r", (2, 3))
    yes = graph([node("Mul", ["h", "h"], ["r"])], [], [output])
    no = graph([node("Mul", ["h", "w"], ["r"])], [], [output])
    file = model(
        [node("Tanh", ["x"], ["h"]), node("If", ["c"], ["y"], then_branch=yes, else_branch=no)],
        [value("x", (2, 3)), scalar("c", 9)],
        [value("y", (2, 3))],
        [array("w", normal(3).astype(np.float32))],
        opsets=21,
    )
    forward = ig.load(file.SerializeToString())
    feeds = {"x": normal(2, 3, seed=1).astype(np.float32), "c": np.array(taken)}
    check(forward, feeds, ["x"])
    dy = normal(2, 3, seed=2).astype(np.float32)
    found = compile(ig.vjp(forward, ["x", "w"]))({**feeds, "y_cotangent": dy})
    h = np.tanh(feeds["x"])
    expected = np.zeros(3) if taken else (dy * h).sum(0)
    np.testing.assert_allclose(found["w_grad"], expected, rtol=1e-5)
