"""Dropout in training mode: gradients by the mask that was drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.graph import Graph
from irgrad.passes.autodiff.derivatives import Vjp
from irgrad.runtime import Executable, compile
from irgrad.types import TensorType

X = np.random.default_rng(0).standard_normal((40, 50))


def joint(
    ratio: Any = 0.5, training: Any = True, *, fed: tuple[str, ...] = (), outputs: int = 2, **attrs: Any
) -> Executable:
    """y, (mask) and the gradients of the inputs, of one Dropout node; the ratio and the mode are fed if they are named."""
    graph = Graph("dropout")
    given = {"x": X, "ratio": np.array(ratio), "training": np.array(training)}
    operands = [
        graph.add_input(name, TensorType.of(a)) if name in ("x", *fed) else graph.add_constant(a, name)
        for name, a in given.items()
    ]
    values = Builder(graph).multi("Dropout", *operands, outputs=outputs, **attrs)
    graph.set_outputs(dict(zip(("y", "mask"), values, strict=False)))
    Vjp([name for name in ("x", "ratio") if name in graph.inputs], ["y"]).run(graph)
    return compile(graph)


def run(executable: Executable, **feeds: Any) -> dict[str, np.ndarray]:
    given = {"x": X, "y_cotangent": np.ones(X.shape), **{name: np.array(value) for name, value in feeds.items()}}
    return executable(given)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_the_gradient_goes_by_the_mask_of_the_run(ratio: float) -> None:
    executable = joint(ratio)
    first, second = run(executable), run(executable)
    for found in (first, second):
        np.testing.assert_array_equal(found["x_grad"], np.where(found["mask"], 1 / (1 - ratio), 0))
        np.testing.assert_allclose(found["y"], X * found["x_grad"], rtol=1e-12)
        assert abs(found["mask"].mean() - (1 - ratio)) < 4.5 * np.sqrt(ratio * (1 - ratio) / X.size)
    assert (first["mask"] != second["mask"]).any()


def test_the_mask_is_added_where_nobody_asked_for_it() -> None:
    found = run(joint(outputs=1))
    np.testing.assert_array_equal(found["x_grad"] != 0, found["y"] != 0)


def test_a_seed_gives_the_same_mask_in_each_run() -> None:
    executable = joint(seed=4)
    np.testing.assert_array_equal(run(executable)["mask"], run(executable)["mask"])
    assert (run(joint(seed=5))["mask"] != run(executable)["mask"]).any()


def test_a_ratio_that_is_fed_has_the_gradient_of_the_scale() -> None:
    executable = joint(fed=("ratio",), seed=4)
    found = run(executable, ratio=0.2)
    np.testing.assert_allclose(found["ratio_grad"], (X * found["mask"]).sum() / (1 - 0.2) ** 2, rtol=1e-9)
    # The same numbers, another limit: no mask changes for a step that is small enough.
    step = 1e-9
    moved = [run(executable, ratio=0.2 + sign * step)["y"].sum() for sign in (-1, 1)]
    np.testing.assert_allclose(found["ratio_grad"], (moved[1] - moved[0]) / (2 * step), rtol=1e-4)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_the_ends_of_the_ratio(ratio: float) -> None:
    for found in (run(joint(fed=("ratio",)), ratio=ratio), run(joint(ratio))):
        np.testing.assert_array_equal(found["y"], X * (1 - ratio))
        np.testing.assert_array_equal(found["x_grad"], np.full(X.shape, 1 - ratio))
        assert found["mask"].all() == (ratio == 0)
    at_zero = run(joint(fed=("ratio",)), ratio=ratio)["ratio_grad"]
    np.testing.assert_allclose(at_zero, X.sum() if ratio == 0 else 0, rtol=1e-12)


@pytest.mark.parametrize("ratio", [0.0, 0.2])
def test_a_ratio_that_is_a_constant_has_the_gradient_of_one_that_is_fed(ratio: float) -> None:
    graph = Graph("dropout")
    x, share = graph.add_input("x", TensorType.of(X)), graph.add_constant(np.array(ratio), "ratio")
    (y,) = Builder(graph).multi("Dropout", x, share, np.array(True), outputs=1, seed=4)
    graph.set_outputs({"y": y})
    Vjp(["x", "ratio"], ["y"]).run(graph)
    assert run(compile(graph))["ratio_grad"] == run(joint(fed=("ratio",), seed=4), ratio=ratio)["ratio_grad"]
    graph.set_outputs({"g": graph.outputs["x_grad"]})
    graph.gradients.clear()
    Vjp(["ratio"], ["g"]).run(graph)
    mask = run(joint(ratio, seed=4))["mask"]
    second = run(compile(graph), g_cotangent=np.ones(X.shape))["ratio_grad"]
    np.testing.assert_allclose(second, mask.sum() / (1 - ratio) ** 2, rtol=1e-12)


def test_a_mode_that_is_fed() -> None:
    executable = joint(0.25, fed=("training", "ratio"))
    off = run(executable, training=False, ratio=0.25)
    np.testing.assert_array_equal(off["y"], X)
    np.testing.assert_array_equal(off["x_grad"], np.ones(X.shape))
    assert off["ratio_grad"] == 0
    assert off["mask"].all()
    on = run(executable, training=True, ratio=0.25)
    np.testing.assert_array_equal(on["x_grad"], np.where(on["mask"], 1 / 0.75, 0))


def test_inference_has_no_backward_nodes_beyond_the_cotangent() -> None:
    for executable in (joint(training=False), joint(0.0)):
        assert len(executable.graph) == 1
