"""Models with training information: read, and trained as they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

import irgrad as ig
from irgrad.errors import (
    DanglingNameError,
    DuplicateNameError,
    ExecutionError,
    FeedError,
    IrgradError,
    ModelError,
    ModelTypeError,
    UnsupportedOpError,
    UsageError,
)
from irgrad.graph import Role
from irgrad.verify import verify
from tests.frontends.build import array, graph, model, node, scalar, value

TRAINING = "ai.onnx.preview.training"
rng = np.random.default_rng(0)
X, T = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
W, B = rng.standard_normal((3, 2)), np.zeros(2)
DOUBLE = TensorProto.DOUBLE


def preview(op: str, inputs: list[str], outputs: list[str], **attrs: Any) -> Any:
    return node(op, inputs, outputs, domain=TRAINING, **attrs)


def gradient(parameters: list[str], data: list[str], loss: str = "loss") -> Any:
    return preview("Gradient", [*parameters, *data], [f"d{p}" for p in parameters], xs=parameters, zs=data, y=loss)


def info(
    algorithm: Any, updates: dict[str, str], initialization: Any = None, initialized: dict[str, str] | None = None
) -> Any:
    return helper.make_training_info(
        algorithm,
        list(updates.items()),
        initialization,
        list((initialized or {}).items()) if initialization is not None else None,
    )


def with_training(proto: ModelProto, *infos: Any) -> ModelProto:
    proto.training_info.extend(infos)
    if TRAINING not in {o.domain for o in proto.opset_import}:
        proto.opset_import.append(helper.make_opsetid(TRAINING, 1))
    return proto


def double(name: str, *shape: Any) -> Any:
    return value(name, shape, DOUBLE)


def linear(w: np.ndarray = W) -> ModelProto:
    nodes = [node("MatMul", ["x", "w"], ["xw"]), node("Add", ["xw", "b"], ["y"])]
    return model(nodes, [double("x", "N", 3)], [double("y", "N", 2)], [array("w", w, float), array("b", B, float)])


def loss_nodes() -> list[Any]:
    return [
        node("Sub", ["y", "t"], ["e"]),
        node("Mul", ["e", "e"], ["ee"]),
        node("ReduceMean", ["ee"], ["loss"], keepdims=0),
    ]


def descent(rate: float = 0.1) -> Any:
    """Plain gradient descent on the mean of squares, in the algorithm graph."""
    steps = [
        n
        for p in ("w", "b")
        for n in (node("Mul", [f"d{p}", "rate"], [f"step_{p}"]), node("Sub", [p, f"step_{p}"], [f"{p}_new"]))
    ]
    return graph(
        [*loss_nodes(), gradient(["w", "b"], ["x", "t"]), *steps],
        [double("t", "N", 2)],
        [double("loss"), double("w_new", 3, 2), double("b_new", 2)],
        [array("rate", rate, float)],
        name="sgd",
    )


UPDATES = {"w": "w_new", "b": "b_new"}


def regression() -> ModelProto:
    return with_training(linear(), info(descent(), UPDATES))


# --- training ---------------------------------------------------------------------------------------------------------


def test_linear_regression_by_gradient_descent() -> None:
    training = ig.load_training(regression())
    verify(training.step, types=True)
    assert list(training.step.inputs) == ["x", "t", "w", "b"]
    assert training.updates == UPDATES == ig.updates(training.step)
    assert training.initialization is None
    w, b = W.copy(), B.copy()
    for _ in range(20):
        results = training.run({"x": X, "t": T})
        error = X @ w + b - T
        np.testing.assert_allclose(results["loss"], (error**2).mean(), rtol=1e-12)
        dy = 2 * error / error.size
        w, b = w - 0.1 * X.T @ dy, b - 0.1 * dy.sum(0)
        np.testing.assert_allclose(training.state["w"], w, rtol=1e-10)
        np.testing.assert_allclose(training.state["b"], b, rtol=1e-10, atol=1e-14)
    trained = ig.compile(training.trained())({"x": X})
    np.testing.assert_allclose(trained["y"], X @ w + b, rtol=1e-9)
    training.start()
    np.testing.assert_array_equal(training.state["w"], W)


ALPHA, BETA, EPSILON, DECAY = (float(np.float32(a)) for a in (0.9, 0.99, 1e-6, 0.01))  # attributes are float32


def perceptron() -> ModelProto:
    """Two layers, the parameters of which come from an initialization; Adam, whose count and moments are state."""
    shapes = {"w1": (3, 5), "b1": (5,), "w2": (5, 2), "b2": (2,)}
    nodes = [
        node("Gemm", ["x", "w1", "b1"], ["h"]),
        node("Tanh", ["h"], ["a"]),
        node("Gemm", ["a", "w2", "b2"], ["y"]),
    ]
    proto = model(
        nodes, [double("x", "N", 3)], [double("y", "N", 2)], [array(p, np.zeros(s), float) for p, s in shapes.items()]
    )
    names = list(shapes)
    moments = [f"{m}_{p}" for m in ("v", "h") for p in names]
    results = [f"{p}_new" for p in (*names, *moments)]
    adam = preview(
        "Adam",
        ["rate", "count", *names, *(f"d{p}" for p in names), *moments],
        results,
        alpha=ALPHA,
        beta=BETA,
        epsilon=EPSILON,
        norm_coefficient=DECAY,
    )
    algorithm = graph(
        [*loss_nodes(), gradient(names, ["x", "t"]), adam, node("Add", ["count", "one"], ["count_new"])],
        [double("t", "N", 2)],
        [
            double("loss"),
            *(helper.make_empty_tensor_value_info(n) for n in results),
            value("count_new", (), TensorProto.INT64),
        ],
        [
            array("rate", 0.05, float),
            array("count", 7, np.int64),
            array("one", 1, np.int64),
            *(array(m, np.ones(shapes[m[2:]]), float) for m in moments),
        ],
        name="adam",
    )
    initialization = graph(
        [
            *(
                node("RandomNormal", [], [f"{p}_0"], shape=list(s), scale=0.3, dtype=DOUBLE, name=p)
                for p, s in shapes.items()
            ),
            node("Constant", [], ["zero"], value=array("", 0, np.int64)),
            *(node("ConstantOfShape", [f"{m}_shape"], [f"{m}_0"], value=array("", [0.0], float)) for m in moments),
        ],
        [],
        [helper.make_empty_tensor_value_info(n) for n in (*(f"{n}_0" for n in (*names, *moments)), "zero")],
        [array(f"{m}_shape", shapes[m[2:]], np.int64) for m in moments],
        name="initialization",
    )
    states = [*names, *moments]
    return with_training(
        proto,
        info(
            algorithm,
            {**{n: f"{n}_new" for n in states}, "count": "count_new"},
            initialization,
            {**{n: f"{n}_0" for n in states}, "count": "zero"},
        ),
    )


def test_a_perceptron_by_adam() -> None:
    training = ig.load_training(perceptron())
    assert training.state["count"] == 7
    training.start(seed=3)
    assert training.state["count"] == 0
    state = dict(training.state)
    assert state["w1"].std() > 0.1
    names = ("w1", "b1", "w2", "b2")
    moments = {p: [np.zeros_like(state[p]), np.zeros_like(state[p])] for p in names}
    losses = []
    for count in range(20):
        losses.append(float(training.run({"x": X, "t": T})["loss"]))
        a = np.tanh(X @ state["w1"] + state["b1"])
        dy = 2 * (a @ state["w2"] + state["b2"] - T) / T.size
        da = dy @ state["w2"].T * (1 - a * a)
        gradients = {"w1": X.T @ da, "b1": da.sum(0), "w2": a.T @ dy, "b2": dy.sum(0)}
        for p, g in gradients.items():
            g = g + DECAY * state[p]
            v, h = moments[p]
            v, h = ALPHA * v + (1 - ALPHA) * g, BETA * h + (1 - BETA) * g * g
            moments[p] = [v, h]
            rate = 0.05 * (np.sqrt(1 - BETA**count) / (1 - ALPHA**count) if count else 1)
            state[p] = state[p] - rate * v / (np.sqrt(h) + EPSILON)
        for p in names:
            np.testing.assert_allclose(training.state[p], state[p], rtol=1e-10, atol=1e-12)
    assert training.state["count"] == 20
    assert losses[-1] < losses[0]


def test_a_seed_repeats_a_training_and_another_one_does_not() -> None:
    training = ig.load_training(perceptron())
    runs = []
    for seed in (1, 1, -2):
        training.start(seed)
        training.run({"x": X, "t": T})
        runs.append(training.state["w1"])
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).all()


def test_random_numbers_of_steps_come_from_the_seed() -> None:
    proto = model([node("Identity", ["w"], ["y"])], [], [double("y", 4)], [array("w", np.zeros(4), float)])
    noise = [node("RandomNormalLike", ["w"], ["n"]), node("Add", ["w", "n"], ["w_new"])]
    training = ig.load_training(with_training(proto, info(graph(noise, [], [double("w_new", 4)]), {"w": "w_new"})))
    walks = []
    for _ in range(2):
        training.start(seed=5)
        walks.append([training.run({})["w_new"] for _ in range(3)])
    np.testing.assert_array_equal(walks[0], walks[1])
    steps = np.diff(walks[0], axis=0, prepend=np.zeros((1, 4)))
    assert np.unique(steps).size == steps.size


def test_what_uses_a_gradient_is_an_update() -> None:
    roles = {n.op.name: n.role for n in ig.load_training(perceptron()).step.nodes()}
    assert roles["Adam"] is Role.UPDATE
    assert roles["Gemm"] in (Role.FORWARD, Role.BACKWARD)
    assert any(n.role is Role.BACKWARD for n in ig.load_training(regression()).step.nodes())


def test_several_steps_run_one_after_the_other() -> None:
    """Block coordinate descent: first w, then b with the new w."""
    infos = []
    for p in ("w", "b"):
        nodes = [
            *(helper.make_node(n.op_type, list(n.input), list(n.output)) for n in loss_nodes()[:2]),
            node("ReduceMean", ["ee"], ["loss"], keepdims=0),
            gradient([p], ["x", "t"]),
            node("Mul", [f"d{p}", "rate"], ["step"]),
            node("Sub", [p, "step"], ["new"]),
        ]
        shape = (3, 2) if p == "w" else (2,)
        algorithm = graph(nodes, [double("t", "N", 2)], [double("loss"), double("new", *shape)], [array("rate", 0.1, float)])
        infos.append(info(algorithm, {p: "new"}))
    training = ig.load_training(with_training(linear(), *infos))
    with pytest.raises(UsageError, match="2 steps"):
        _ = training.step
    training.run({"x": X, "t": T})
    w = W - 0.1 * X.T @ (2 * (X @ W - T) / T.size)
    b = -0.1 * (2 * (X @ w - T) / T.size).sum(0)
    np.testing.assert_allclose(training.state["w"], w, rtol=1e-10)
    np.testing.assert_allclose(training.state["b"], b, rtol=1e-10)


def test_a_value_of_the_model_may_be_the_update() -> None:
    nodes = [node("Add", ["w", "x"], ["y"])]
    proto = model(nodes, [double("x", 2)], [double("y", 2)], [array("w", np.zeros(2), float)])
    training = ig.load_training(
        with_training(proto, info(graph([node("Neg", ["y"], ["z"])], [], [double("z", 2)]), {"w": "y"}))
    )
    for _ in range(3):
        training.run({"x": np.array([1.0, 2.0])})
    assert training.state["w"].tolist() == [3, 6]


def test_old_files_whose_weights_are_inputs_too() -> None:
    proto = regression()
    proto.graph.input.extend([double("w", 3, 2), double("b", 2)])
    assert sorted(ig.load_training(proto).step.inputs) == ["b", "t", "w", "x"]


def test_loading_plainly_gives_the_inference_graph(tmp_path: Any) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(regression(), path)
    g = ig.load(path)
    assert list(g.inputs) == ["x"]
    assert list(g.outputs) == ["y"]
    assert sorted(g.parameters) == ["b", "w"]
    assert ig.load_training(path).updates == UPDATES


def test_only_an_initialization() -> None:
    start = graph([node("RandomUniform", [], ["u"], shape=[3, 2], dtype=DOUBLE)], [], [double("u", 3, 2)])
    training = ig.load_training(with_training(linear(), info(graph([]), {}, start, {"w": "u"})))
    training.start(seed=1)
    assert (training.trained().parameters["w"] != W).all()
    assert training.initialization is not None
    with pytest.raises(UsageError, match="no steps"):
        _ = training.step


# --- refused ----------------------------------------------------------------------------------------------------------


def changed(**parts: Any) -> ModelProto:
    return with_training(linear(), info(**{"algorithm": descent(), "updates": UPDATES, **parts}))


def start(*outputs: Any, inputs: Any = ()) -> Any:
    nodes = [node("RandomNormal", [], ["u"], shape=[3, 2], dtype=DOUBLE), node("Cast", ["u"], ["f"], to=TensorProto.FLOAT)]
    return graph(nodes, inputs, outputs or [double("u", 3, 2)])


def twice() -> ModelProto:
    proto = changed()
    proto.training_info[0].update_binding.add(key="w", value="w_new")
    return proto


def owned_by_two() -> ModelProto:
    return with_training(linear(), info(descent(), UPDATES), info(descent(), UPDATES))


def colliding() -> ModelProto:
    algorithm = descent()
    algorithm.initializer.append(array("w", W, float))
    return changed(algorithm=algorithm)


def dangling() -> ModelProto:
    algorithm = descent()
    algorithm.node[0].input[0] = "nowhere"
    return changed(algorithm=algorithm)


def not_differentiable() -> ModelProto:
    algorithm = descent()
    algorithm.node.insert(0, node("Unknown", ["t"], ["t2"], domain="custom"))
    algorithm.node[1].input[1] = "y2"
    algorithm.node.insert(1, node("Unknown", ["y"], ["y2"], domain="custom"))
    proto = changed(algorithm=algorithm)
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    return proto


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (linear, UsageError, "no training information"),
        (lambda: changed(updates={"v": "w_new"}), DanglingNameError, "updates 'v', which is no initializer"),
        (lambda: changed(updates={"x": "w_new"}), DanglingNameError, "updates 'x', which is no initializer"),
        (lambda: changed(updates={"w": "dw"}), DanglingNameError, "updates 'w' with 'dw', which is no output"),
        (twice, DuplicateNameError, "updates 'w' twice"),
        (owned_by_two, DuplicateNameError, "updates 'w', which training info 0 updates too"),
        (
            lambda: changed(updates={"w": "b_new"}),
            ModelTypeError,
            r"updates 'w', which is f64\[3,2\], with 'b_new', which is f64\[2\]",
        ),
        (colliding, DuplicateNameError, "algorithm of training info 0 has the initializer 'w', which the model has too"),
        (dangling, DanglingNameError, "in the algorithm of training info 0.*nowhere"),
        (not_differentiable, UnsupportedOpError, "custom.Unknown"),
        (lambda: changed(initialization=start(), initialized={"q": "u"}), DanglingNameError, "initialises 'q'"),
        (lambda: changed(initialization=start(), initialized={"w": "v"}), DanglingNameError, "with 'v', which is no output"),
        (
            lambda: changed(initialization=start(value("f", (3, 2))), initialized={"w": "f"}),
            ModelTypeError,
            "initialises 'w', which is f64",
        ),
        (
            lambda: changed(initialization=start(inputs=[scalar("z")]), initialized={"w": "u"}),
            ModelTypeError,
            "the initialization of training info 0 has the input 'z'",
        ),
    ],
)
def test_malformed_training_information(make: Callable[[], ModelProto], error: type[IrgradError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        ig.load_training(make())
    assert "\n" not in str(caught.value)


def test_the_inference_graph_must_not_read_the_algorithm() -> None:
    proto = regression()
    proto.graph.node[0].input[0] = "t"
    with pytest.raises(ModelError, match="'t'"):
        ig.load_training(proto)


def test_feeds_are_checked_and_a_failed_step_changes_nothing() -> None:
    training = ig.load_training(regression())
    with pytest.raises(FeedError, match="'w' is no input of the training; the inputs are t, x"):
        training.run({"x": X, "t": T, "w": W})
    with pytest.raises(FeedError, match="'t'"):
        training.run({"x": X})
    np.testing.assert_array_equal(training.state["w"], W)


def test_what_was_returned_is_the_callers() -> None:
    training = ig.load_training(regression())
    results = training.run({"x": X, "t": T})
    kept = training.state["w"].copy()
    results[UPDATES["w"]][...] = 0
    np.testing.assert_array_equal(training.state["w"], kept)


def test_a_new_value_of_another_shape() -> None:
    proto = model([node("Identity", ["w"], ["y"])], [], [double("y", 2)], [array("w", np.zeros(2), float)])
    algorithm = graph([node("Tile", ["w", "s"], ["z"])], [value("s", (1,), TensorProto.INT64)], [double("z", None)])
    training = ig.load_training(with_training(proto, info(algorithm, {"w": "z"})))
    training.run({"s": np.array([1])})
    with pytest.raises(ExecutionError, match=r"new value of 'w' has the shape \[4\], the old one \[2\]"):
        training.run({"s": np.array([2])})
    assert training.state["w"].shape == (2,)
