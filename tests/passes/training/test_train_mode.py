"""Inference graphs as training graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import irgrad as ig
from irgrad.errors import PassError
from irgrad.graph import Graph
from irgrad.passes.training.train_mode import TrainMode
from irgrad.passes.training.updates import updates_of
from irgrad.pipeline import Pipeline
from irgrad.verify import verify
from tests.frontends.build import array, graph, model, node, scalar, value

X = np.random.default_rng(0).standard_normal((16, 3, 4)).astype(np.float32) * 2 + 1
MEAN, VAR = np.float32([0.5, -1.0, 2.0]), np.float32([1.0, 0.5, 2.0])
MOMENTUM = 0.8


def statistics(prefix: str = "bn") -> list[Any]:
    return [array(f"{prefix}.mean", MEAN), array(f"{prefix}.var", VAR)]


def norm(x: str, y: str, prefix: str = "bn", **attrs: Any) -> Any:
    operands = [x, "scale", "bias", f"{prefix}.mean", f"{prefix}.var"]
    return node("BatchNormalization", operands, [y], name=y, momentum=MOMENTUM, **attrs)


WEIGHTS = [array("scale", [1.0, 2.0, 3.0]), array("bias", [0.0, 1.0, -1.0])]


def network(*nodes: Any, initializers: Any = ()) -> Any:
    return model(nodes, [value("x", ("N", 3, 4))], [value("y", ("N", 3, 4))], [*WEIGHTS, *initializers])


def trained(source: Any, **options: Any) -> Graph:
    result = Pipeline(TrainMode(**options), truthful=True).apply(ig.load(source))
    verify(result, types=True)
    assert not Pipeline(TrainMode(**options), truthful=True).run(result), "a second time changes nothing"
    return result


def moved(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.asarray(MOMENTUM * old + (1 - MOMENTUM) * new)


# --- BatchNormalization -----------------------------------------------------------------------------------------------


def test_batch_statistics_are_used_and_move_the_running_ones() -> None:
    g = trained(network(norm("x", "y"), initializers=statistics()))
    found = ig.compile(g)({"x": X})
    mean, var = X.mean((0, 2)), X.var((0, 2))
    normal = (X - mean[:, None]) / np.sqrt(var[:, None] + 1e-5)
    np.testing.assert_allclose(found["y"], normal * [[1], [2], [3]] + [[0], [1], [-1]], rtol=1e-4, atol=1e-5)
    assert updates_of(g) == {"bn.mean": "bn.mean_updated", "bn.var": "bn.var_updated"}
    np.testing.assert_allclose(found["bn.mean_updated"], moved(MEAN, mean), rtol=1e-5)
    np.testing.assert_allclose(found["bn.var_updated"], moved(VAR, var), rtol=1e-5)


def test_a_loop_puts_the_statistics_back_until_inference_agrees_with_training() -> None:
    source = network(norm("x", "y"), initializers=statistics())
    g = trained(source)
    run, state = ig.compile(g), {name: g.parameters[name] for name in updates_of(g)}
    for _ in range(80):
        found = run({"x": X, **state})
        state = {name: found[output] for name, output in updates_of(g).items()}
    inference = ig.compile(ig.load(source))({"x": X, **state})
    np.testing.assert_allclose(inference["y"], found["y"], rtol=1e-3, atol=1e-4)


def test_statistics_that_nodes_share_move_once_for_each() -> None:
    g = trained(network(norm("x", "h"), norm("h", "y"), initializers=statistics()))
    assert list(g.outputs) == ["y", "bn.mean_updated", "bn.var_updated"]
    probe = g.copy()
    probe.set_outputs({**probe.outputs, "h": probe.value("h")})
    found = ig.compile(probe)({"x": X})
    once = moved(MEAN, X.mean((0, 2)))
    np.testing.assert_allclose(found["bn.mean_updated"], moved(once, found["h"].mean((0, 2))), rtol=1e-5, atol=1e-6)


def test_statistics_that_were_written_once_since_they_were_equal_become_two() -> None:
    copies = [node("Identity", [f"bn.{s}"], [f"other.{s}"]) for s in ("mean", "var")]
    g = trained(network(*copies, norm("x", "h"), norm("h", "y", "other"), initializers=statistics()))
    assert updates_of(g) == {f"{p}.{s}": f"{p}.{s}_updated" for p in ("bn", "other") for s in ("mean", "var")}
    assert {"bn.mean", "other.mean"} <= set(g.parameters)
    assert not any(n.op.name == "Identity" for n in g.nodes())


def test_one_channel_and_statistics_that_are_inputs() -> None:
    nodes = [node("BatchNormalization", ["x", "one", "one", "mean", "var"], ["y"], name="bn")]
    proto = model(
        nodes, [value("x", (4, 1)), value("mean", (1,))], [value("y", (4, 1))], [array("one", [1.0]), array("var", [1.0])]
    )
    g = trained(proto)
    assert updates_of(g) == {"mean": "mean_updated", "var": "var_updated"}
    x = X[:4, 0, :1]
    found = ig.compile(g)({"x": x, "mean": np.zeros(1, np.float32), "var": np.ones(1, np.float32)})
    np.testing.assert_allclose(found["mean_updated"], 0.1 * x.mean(0), rtol=1e-5)


def test_a_node_in_training_mode_already_returns_its_statistics() -> None:
    operands = ["x", "scale", "bias", "bn.mean", "bn.var"]
    whole = node("BatchNormalization", operands, ["y", "m", "v"], training_mode=1, momentum=MOMENTUM)
    proto = network(whole, initializers=statistics())
    assert updates_of(trained(proto)) == {"bn.mean": "bn.mean_updated", "bn.var": "bn.var_updated"}
    proto.graph.output.extend([value("m", (3,)), value("v", (3,))])
    g = trained(proto)
    assert updates_of(g) == {"bn.mean": "m", "bn.var": "v"}
    assert list(g.outputs) == ["y", "m", "v"]


def test_gradients_are_of_the_output_and_by_what_is_learned() -> None:
    g = trained(network(norm("x", "y"), initializers=statistics()))
    joint = ig.grad(g, loss="mse")
    assert sorted(joint.gradients) == ["bias", "scale"]
    assert updates_of(joint) == updates_of(g)
    results = ig.compile(joint)({"x": X, "target": np.zeros_like(X)})
    assert {"loss", "scale_grad", "bias_grad", "bn.mean_updated", "bn.var_updated"} <= set(results)
    ig.check_grads(g, {"x": X}, ["x", "scale", "bias"], ["y"])


def test_inference_stays_inference() -> None:
    source = network(norm("x", "y"), initializers=statistics())
    for g in (ig.load(source), ig.grad(ig.load(source), loss="mse"), ig.apply(ig.load(source), "simplify")):
        (bn,) = [n for n in g.nodes() if n.op.name == "BatchNormalization"]
        assert not bn.attr("training_mode")
        assert len(bn.outputs) == 1
    want = (X - MEAN[:, None]) / np.sqrt(VAR[:, None] + 1e-5) * [[1], [2], [3]] + [[0], [1], [-1]]
    np.testing.assert_allclose(ig.compile(ig.load(source))({"x": X})["y"], want, rtol=1e-4, atol=1e-5)


# --- Dropout ----------------------------------------------------------------------------------------------------------


def dropout(*operands: str) -> Any:
    return node("Dropout", ["x", *operands], ["y"], name="drop")


OFF = [array("ratio", 0.25), array("off", False, bool)]


@pytest.mark.parametrize("operands", [(), ("ratio",), ("ratio", "off"), ("", "off")])
def test_dropout_drops(operands: tuple[str, ...]) -> None:
    g = trained(network(dropout(*operands), initializers=OFF))
    found = ig.compile(g)({"x": X})["y"]
    ratio = 0.25 if "ratio" in operands else 0.5
    kept = found != 0
    assert abs(kept.mean() - (1 - ratio)) < 4.5 * np.sqrt(ratio * (1 - ratio) / X.size)
    np.testing.assert_allclose(found[kept], X[kept] / (1 - ratio), rtol=1e-6)
    assert "ratio" not in g.parameters or "ratio" not in operands


def test_a_mode_that_is_fed_and_a_ratio_of_0_are_left_alone() -> None:
    proto = network(dropout("ratio", "mode"), initializers=OFF[:1])
    proto.graph.input.append(scalar("mode", TensorProto.BOOL))
    g = trained(proto)
    assert g.node("drop").operand(2) is g.inputs["mode"]
    g = trained(network(dropout("zero", "off"), initializers=[array("zero", 0.0), OFF[1]]))
    assert not g.node("drop").operand(2).constant  # type: ignore[truthy-bool]


def test_dropout_in_a_subgraph() -> None:
    branch = graph([node("Dropout", ["x"], ["a"], name="drop")], (), [value("a", ("N", 3, 4))])
    other = graph([node("Identity", ["x"], ["b"])], (), [value("b", ("N", 3, 4))])
    proto = network(node("If", ["c"], ["y"], then_branch=branch, else_branch=other))
    proto.graph.input.append(scalar("c", TensorProto.BOOL))
    found = ig.compile(trained(proto))({"x": X, "c": True})["y"]
    assert 0.3 < (found == 0).mean() < 0.7


# --- which nodes ------------------------------------------------------------------------------------------------------


def block() -> Any:
    nodes = [norm("x", "head/bn"), node("Dropout", ["head/bn"], ["h"], name="head/drop"), norm("h", "y", "tail")]
    return network(*nodes, initializers=[*statistics(), *statistics("tail")])


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({}, {"head/bn", "head/drop", "y"}),
        ({"only": ("head/*",)}, {"head/bn", "head/drop"}),
        ({"only": ("*bn", "y")}, {"head/bn", "y"}),
        ({"skip": ("head/*",)}, {"y"}),
        ({"batch_norm": False}, {"head/drop"}),
        ({"dropout": False}, {"head/bn", "y"}),
    ],
)
def test_nodes_are_chosen_by_name_and_kind(options: dict[str, Any], changed: set[str]) -> None:
    g = trained(block(), **options)
    training = {n.name for n in g.nodes() if n.attr("training_mode") or len(n.inputs) == 3}
    assert training == changed


def test_as_text() -> None:
    g = ig.apply(ig.load(block()), "train_mode{skip=head/*},explicit_keys")
    assert list(updates_of(g)) == ["tail.mean", "tail.var"]


def test_nothing_to_change() -> None:
    g = ig.load(model([node("Tanh", ["x"], ["y"])], [value("x")], [value("y")]))
    assert not Pipeline(TrainMode(), truthful=True).run(g)
    assert ig.load(model([node("Tanh", ["x"], ["y"])], [value("x")], [value("y")]), training=True).inputs.keys() == {"x"}


def test_loading_for_training() -> None:
    g = ig.load(block(), training=True)
    assert list(g.inputs) == ["x", "key"]
    assert set(ig.updates(g)) == {"bn.mean", "bn.var", "tail.mean", "tail.var"}
    run = ig.compile(ig.grad(g, loss="mse"))
    feeds = {"x": X, "target": np.zeros_like(X)}
    first, again, other = (run({**feeds, "key": key}) for key in (1, 1, 2))
    for name, result in first.items():
        np.testing.assert_array_equal(result, again[name])
    assert not np.array_equal(first["y"], other["y"])
    ig.check_grads(g, {"x": X, "key": 1}, ["x", "scale", "bias"], ["y"])


# --- refused ----------------------------------------------------------------------------------------------------------


def test_statistics_inside_of_a_subgraph() -> None:
    branch = graph([norm("x", "a")], (), [value("a", ("N", 3, 4))])
    other = graph([node("Identity", ["x"], ["b"])], (), [value("b", ("N", 3, 4))])
    proto = network(node("If", ["c"], ["y"], then_branch=branch, else_branch=other), initializers=statistics())
    proto.graph.input.append(scalar("c", TensorProto.BOOL))
    with pytest.raises(PassError, match=r"cannot leave the subgraph.*BatchNormalization"):
        trained(proto)
    assert not Pipeline(TrainMode(skip=("a",))).run(ig.load(proto))


def test_statistics_that_are_computed() -> None:
    nodes = [node("Abs", ["bn.mean"], ["m"]), node("BatchNormalization", ["x", "scale", "bias", "m", "bn.var"], ["y"])]
    with pytest.raises(PassError, match=r"%m of .* is computed"):
        trained(network(*nodes, initializers=statistics()))


def test_a_name_that_is_taken() -> None:
    proto = network(norm("x", "y"), node("Neg", ["x"], ["bn.mean_updated"]), initializers=statistics())
    proto.graph.output.append(helper.make_empty_tensor_value_info("bn.mean_updated"))
    with pytest.raises(PassError, match=r"already has an output 'bn\.mean_updated'"):
        trained(proto)
