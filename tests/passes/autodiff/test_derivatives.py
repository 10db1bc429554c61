"""The adjoint pass and what stands on it: gradients, products with Jacobians and Hessians."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import irgrad as ig
from irgrad.builder import Builder
from irgrad.errors import AdjointError, PassError, UnsupportedOpError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph, Value
from irgrad.types import Shape
from irgrad.verify import verify

FLOAT, DOUBLE, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.INT64


def model(
    nodes: list[Any],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    weights: dict[str, np.ndarray] | None = None,
    dtype: int = FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, dtype, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, dtype, s) for n, s in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def mlp(seed: int = 0) -> onnx.ModelProto:
    generator = np.random.default_rng(seed)
    weights = {
        "w1": generator.standard_normal((4, 5)).astype(np.float32),
        "b1": generator.standard_normal(5).astype(np.float32),
        "w2": generator.standard_normal((5, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h1"]),
        helper.make_node("Add", ["h1", "b1"], ["z1"]),
        helper.make_node("Tanh", ["z1"], ["a1"]),
        helper.make_node("MatMul", ["a1", "w2"], ["y"]),
    ]
    return model(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, weights)


# --- the worked example -----------------------------------------------------------------------------------------------


def worked_example() -> onnx.ModelProto:
    """L = ½ (σ(w₂ σ(w₁ x)) − y)² in float64."""
    nodes = [
        helper.make_node("Mul", ["w1", "x"], ["z1"]),
        helper.make_node("Sigmoid", ["z1"], ["h"]),
        helper.make_node("Mul", ["w2", "h"], ["z2"]),
        helper.make_node("Sigmoid", ["z2"], ["yhat"]),
        helper.make_node("Sub", ["yhat", "y"], ["e"]),
        helper.make_node("Mul", ["e", "e"], ["e2"]),
        helper.make_node("Mul", ["half", "e2"], ["L"]),
    ]
    weights = {"w1": np.array(0.5), "w2": np.array(-0.3), "half": np.array(0.5)}
    return model(nodes, {"x": [], "y": []}, {"L": []}, weights, DOUBLE)


EXAMPLE = {
    "h": 0.622459331201855,
    "z2": -0.186737799360556,
    "yhat": 0.453450739902274,
    "L": 0.149358046856686,
    "yhat_grad": -0.546549260097726,
    "z2_grad": -0.135453033715045,
    "w2_grad": -0.0843140047755294,
    "h_grad": 0.0406359101145136,
    "w1_grad": 0.00954958972560102,
}


def test_worked_example_through_a_file(tmp_path: Path) -> None:
    path = tmp_path / "example.onnx"
    onnx.save(worked_example(), path)
    graph = ig.load(path)
    joint = ig.grad(graph, ["w1", "w2", "h", "z2", "yhat"])
    joint.set_outputs({**joint.outputs, **{n: joint.value(n) for n in ("h", "z2", "yhat")}})
    run = ig.compile(joint)
    results = run({"x": 1.0, "y": 1.0})
    for name, expected in EXAMPLE.items():
        assert results[name] == pytest.approx(expected, abs=1e-12), name
    # One step of gradient descent with rate 1: both weights from gradients at the old weights.
    stepped = {n: np.array(w - results[f"{n}_grad"]) for n, w in (("w1", 0.5), ("w2", -0.3))}
    assert stepped["w2"] == pytest.approx(-0.215685995224471, abs=1e-12)
    assert stepped["w1"] == pytest.approx(0.490450410274399, abs=1e-12)
    assert run({"x": 1.0, "y": 1.0, **stepped})["L"] == pytest.approx(0.142254050270475, abs=1e-12)


def test_worked_example_updating_too_early_gives_the_wrong_gradient() -> None:
    """Were w₂ updated before the cotangent of h is formed, ∂w₁ would be 0.006866: the graph does not do that."""
    results = ig.compile(ig.grad(ig.load(worked_example()), ["w1"]))({"x": 1.0, "y": 1.0})
    assert abs(results["w1_grad"] - 0.006866) > 1e-3


# --- gradients --------------------------------------------------------------------------------------------------------


def test_vjp_equals_the_formula_at_two_batch_sizes() -> None:
    graph = ig.load(mlp())
    joint = ig.vjp(graph, "parameters")
    run = ig.compile(joint)
    w = graph.parameters
    for batch in (1, 7):
        generator = np.random.default_rng(batch)
        x = generator.standard_normal((batch, 4)).astype(np.float32)
        c = generator.standard_normal((batch, 3)).astype(np.float32)
        results = run({"x": x, "y_cotangent": c})
        a = np.tanh(x @ w["w1"] + w["b1"])
        dz = (c @ w["w2"].T) * (1 - a * a)
        np.testing.assert_allclose(results["w2_grad"], a.T @ c, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(results["w1_grad"], x.T @ dz, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(results["b1_grad"], dz.sum(0), rtol=1e-5, atol=1e-5)


def test_gradients_by_inputs_parameters_and_intermediates() -> None:
    graph = ig.load(mlp())
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    check_grads(graph, {"x": x}, ["x", "w1", "b1", "w2", "z1", "a1"])
    joint = ig.vjp(graph, ["x", "a1", "w1"])
    assert joint.gradients == {"x": "x_grad", "a1": "a1_grad", "w1": "w1_grad"}
    assert list(joint.outputs) == ["y", "x_grad", "a1_grad", "w1_grad"]


def test_settings_are_no_parameters() -> None:
    scales = np.array([1, 1, 2, 2], np.float32)
    nodes = [helper.make_node("Mul", ["x", "w"], ["h"]), helper.make_node("Resize", ["h", "", "s"], ["y"], mode="linear")]
    weights = {"w": np.ones(1, np.float32), "s": scales}
    graph = ig.load(model(nodes, {"x": [1, 1, 2, 2]}, {"y": [1, 1, 4, 4]}, weights))
    assert ig.vjp(graph).gradients == {"x": "x_grad"}
    assert ig.vjp(graph, "parameters").gradients == {"w": "w_grad"}
    assert ig.vjp(graph, ["s"]).gradients == {"s": "s_grad"}


def test_the_source_graph_is_left_alone() -> None:
    graph = ig.load(mlp())
    before = str(graph)
    ig.vjp(graph, "parameters")
    ig.jvp(graph)
    assert str(graph) == before


def test_roles_and_origins() -> None:
    joint = ig.vjp(ig.load(mlp()), "parameters")
    forward = {node.name for node in joint.nodes() if node.role is ig.Role.FORWARD}
    backward = [node for node in joint.nodes() if node.role is ig.Role.BACKWARD]
    assert len(forward) == 4
    assert backward
    assert all(node.origin in forward for node in backward)


def test_a_value_used_twice_gets_the_sum() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"]),
        helper.make_node("Add", ["square", "x"], ["s"]),
        helper.make_node("ReduceSum", ["s"], ["y"], keepdims=0),
    ]
    joint = ig.grad(ig.load(model(nodes, {"x": [3]}, {"y": []})), "inputs")
    x = np.array([1.0, -2.0, 0.5], np.float32)
    np.testing.assert_allclose(ig.compile(joint)({"x": x})["x_grad"], 2 * x + 1)


def test_what_the_output_does_not_depend_on_gets_zeros() -> None:
    nodes = [helper.make_node("Neg", ["x"], ["y"]), helper.make_node("Tanh", ["other"], ["t"])]
    graph = ig.load(model(nodes, {"x": [2], "other": ["M", 3]}, {"y": [2], "t": ["M", 3]}))
    joint = ig.vjp(graph, "inputs", ["y"])
    results = ig.compile(joint)(
        {"x": np.ones(2, np.float32), "other": np.ones((4, 3), np.float32), "y_cotangent": np.ones(2, np.float32)}
    )
    np.testing.assert_array_equal(results["other_grad"], np.zeros((4, 3), np.float32))


def test_no_gradient_flows_through_a_stop() -> None:
    graph = ig.load(mlp())
    joint = ig.vjp(graph, "parameters", stop=["a1"])
    feeds = {"x": np.ones((2, 4), np.float32), "y_cotangent": np.ones((2, 3), np.float32)}
    results = ig.compile(joint)(feeds)
    assert not results["w1_grad"].any()
    assert results["w2_grad"].any()


def test_gradient_of_an_input_that_is_an_output() -> None:
    graph = Graph()
    x = graph.add_input("x", ig.TensorType(np.dtype(np.float32), (2,)))
    graph.set_outputs({"same": x})
    joint = ig.vjp(graph)
    c = np.array([3.0, 4.0], np.float32)
    np.testing.assert_array_equal(ig.compile(joint)({"x": np.ones(2, np.float32), "same_cotangent": c})["x_grad"], c)


@pytest.mark.parametrize("loss", ["mse", "l1", "bce_with_logits"])
def test_losses_on_values(loss: str) -> None:
    joint_source = ig.apply(ig.load(mlp()), f"loss{{kind={loss}}}")
    generator = np.random.default_rng(5)
    feeds = {"x": generator.standard_normal((3, 4)), "target": generator.uniform(size=(3, 3))}
    check_grads(joint_source, feeds, [*joint_source.parameters, "x", "target"], ["loss"])


@pytest.mark.parametrize("loss", ["cross_entropy", "nll"])
def test_losses_on_classes(loss: str) -> None:
    joint = ig.grad(ig.load(mlp()), loss=loss)
    feeds = {"x": np.ones((3, 4), np.float32), "target": np.array([0, 2, 1])}
    results = ig.compile(joint)(feeds)
    logits = results["y"].astype(np.float64)
    if loss == "cross_entropy":
        logits = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert results["loss"] == pytest.approx(-logits[[0, 1, 2], [0, 2, 1]].mean(), rel=1e-5)
    assert results["w2_grad"].shape == (5, 3)


# --- forward mode and second order ------------------------------------------------------------------------------------


def test_jvp_equals_the_jacobian_times_the_tangent() -> None:
    graph = ig.load(mlp())
    joint = ig.jvp(graph, ["x", "w1"])
    generator = np.random.default_rng(3)
    x, dx = generator.standard_normal((2, 3, 4)).astype(np.float32)
    dw = generator.standard_normal((4, 5)).astype(np.float32)
    results = ig.compile(joint)({"x": x, "x_tangent": dx, "w1_tangent": dw})
    w = graph.parameters
    a = np.tanh(x @ w["w1"] + w["b1"])
    expected = ((dx @ w["w1"] + x @ dw) * (1 - a * a)) @ w["w2"]
    np.testing.assert_allclose(results["y_tangent"], expected, rtol=1e-4, atol=1e-5)


def test_jvp_leaves_no_dead_work() -> None:
    joint = ig.jvp(ig.load(mlp()))
    assert list(joint.inputs) == ["x", "x_tangent"]
    used = {value for node in joint.nodes() for value in node.inputs if value is not None} | set(joint.outputs.values())
    assert all(any(value in used for value in node.outputs) for node in joint.nodes())
    # y = tanh(x w1 + b1) w2 takes 4 nodes; its tangent takes dx w1, 1 − a², their product, and the product with w2.
    assert len(joint) <= 4 + 6


def test_jvp_and_vjp_are_each_others_transpose() -> None:
    graph = ig.load(mlp())
    generator = np.random.default_rng(4)
    x, t = generator.standard_normal((2, 5, 4)).astype(np.float32)
    c = generator.standard_normal((5, 3)).astype(np.float32)
    pushed = ig.compile(ig.jvp(graph))({"x": x, "x_tangent": t})["y_tangent"]
    pulled = ig.compile(ig.vjp(graph))({"x": x, "y_cotangent": c})["x_grad"]
    assert float((pushed * c).sum()) == pytest.approx(float((pulled * t).sum()), rel=1e-4)


def test_hvp_equals_differences_of_gradients() -> None:
    graph = ig.apply(ig.load(mlp()), "loss{kind=mse},convert_float{to=f64}")
    names = list(graph.parameters)
    joint = ig.hvp(graph, names, "loss")
    generator = np.random.default_rng(6)
    feeds: dict[str, Any] = {"x": generator.standard_normal((3, 4)), "target": generator.standard_normal((3, 3))}
    vectors = {name: generator.standard_normal(array.shape) for name, array in graph.parameters.items()}
    results = ig.compile(joint)({**feeds, **{f"{n}_vector": v for n, v in vectors.items()}})
    gradient = ig.compile(ig.grad(graph, names, output="loss"))
    step = 1e-5
    ahead = gradient({**feeds, **{n: w + step * vectors[n] for n, w in graph.parameters.items()}})
    behind = gradient({**feeds, **{n: w - step * vectors[n] for n, w in graph.parameters.items()}})
    for name in names:
        expected = (ahead[f"{name}_grad"] - behind[f"{name}_grad"]) / (2 * step)
        np.testing.assert_allclose(results[f"{name}_hvp"], expected, rtol=1e-6, atol=1e-8)


def test_third_order() -> None:
    nodes = [helper.make_node("Tanh", ["x"], ["y"])]
    graph = ig.load(model(nodes, {"x": []}, {"y": []}, dtype=DOUBLE))
    third = graph
    output = "y"
    for _ in range(3):
        third = ig.grad(third, ["x"], output=output, simplify=False)
        output = third.gradients["x"]
        third.set_outputs({f"d{_}": third.outputs[output]})
        output = f"d{_}"
    t = np.tanh(0.3)
    expected = (1 - t * t) * (6 * t * t - 2)
    assert ig.compile(third)({"x": 0.3})["d2"] == pytest.approx(expected, abs=1e-12)


# --- the Gradient operation of ai.onnx.preview.training ---------------------------------------------------------------

SIMPLE = Path(onnx.__file__).parent / "backend" / "test" / "data" / "simple"


def tensor(path: Path) -> np.ndarray:
    proto = onnx.TensorProto()
    proto.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(proto)


@pytest.mark.parametrize("case", ["test_gradient_of_add", "test_gradient_of_add_and_mul"])
def test_onnx_cases_of_gradient(case: str) -> None:
    graph = ig.load(SIMPLE / case / "model.onnx")
    data = SIMPLE / case / "test_data_set_0"
    feeds = {name: tensor(data / f"input_{k}.pb") for k, name in enumerate(graph.inputs)}
    for k, result in enumerate(ig.compile(graph)(feeds).values()):
        np.testing.assert_allclose(result, tensor(data / f"output_{k}.pb"), rtol=1e-6)


def gradient_node(inputs: list[str], outputs: list[str], **attrs: Any) -> Any:
    return helper.make_node("Gradient", inputs, outputs, domain="ai.onnx.preview.training", **attrs)


def test_gradient_op_at_other_values_and_of_second_order() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["xx"]),
        helper.make_node("Mul", ["xx", "x"], ["y"]),
        gradient_node(["x"], ["dy"], xs=["x"], y="y"),
        gradient_node(["x"], ["ddy"], xs=["x"], y="dy"),
        gradient_node(["other"], ["dy_other"], xs=["x"], y="y"),
    ]
    proto = model(nodes, {"x": [2], "other": [2]}, {"dy": [2], "ddy": [2], "dy_other": [2]})
    proto.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    graph = ig.load(proto)
    x, other = np.array([2.0, -1.0], np.float32), np.array([3.0, 0.5], np.float32)
    results = ig.compile(graph)({"x": x, "other": other})
    np.testing.assert_allclose(results["dy"], 3 * x**2, rtol=1e-6)
    np.testing.assert_allclose(results["ddy"], 6 * x, rtol=1e-6)
    np.testing.assert_allclose(results["dy_other"], 3 * other**2, rtol=1e-6)


def test_gradient_op_of_independent_variables() -> None:
    """By definition, y is a function of the tensors that xs and zs name: what one is computed from the others is no path."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["h"]),
        helper.make_node("Mul", ["h", "x"], ["y"]),
        gradient_node(["x", "h"], ["both_x", "both_h"], xs=["x", "h"], y="y"),
        gradient_node(["x", "h"], ["fixed_x"], xs=["x"], zs=["h"], y="y"),
        gradient_node(["x"], ["moved_h"], xs=["h"], y="y"),
        gradient_node(["x"], ["unused"], xs=["other"], y="y"),
    ]
    names = ["both_x", "both_h", "fixed_x", "moved_h", "unused"]
    proto = model(nodes, {"x": [2], "other": [2]}, {name: [2] for name in names})
    proto.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    graph = ig.load(proto)
    x = np.array([2.0, -1.0], np.float32)
    results = ig.compile(graph)({"x": x, "other": x})
    for name, want in zip(names, (x**2, x, x**2, x, 0 * x), strict=True):
        np.testing.assert_allclose(results[name], want, rtol=1e-6, err_msg=name)


def test_gradient_op_at_other_values_through_a_subgraph() -> None:
    branches = {
        f"{kind}_branch": helper.make_graph(
            [helper.make_node(op, ["x", "x"], [f"{kind}_y"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_y", FLOAT, [2])],
        )
        for kind, op in (("then", "Mul"), ("else", "Add"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Cast", ["total"], ["positive"], to=onnx.TensorProto.BOOL),
        helper.make_node("If", ["positive"], ["y"], **branches),
        gradient_node(["other"], ["dy"], xs=["x"], y="y"),
    ]
    proto = model(nodes, {"x": [2], "other": [2]}, {"y": [2], "dy": [2]})
    proto.opset_import.append(helper.make_opsetid("ai.onnx.preview.training", 1))
    graph = ig.load(proto)
    verify(graph, types=True)
    x, other = np.zeros(2, np.float32), np.array([3.0, 0.5], np.float32)
    results = ig.compile(graph)({"x": x, "other": other})
    np.testing.assert_allclose(results["y"], 0 * x)
    np.testing.assert_allclose(results["dy"], 2 * other, rtol=1e-6)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_all_missing_rules_are_reported_at_once() -> None:
    nodes = [
        helper.make_node("First", ["x"], ["a"], domain="custom", name="one"),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Second", ["b"], ["y"], domain="custom", name="two"),
        helper.make_node("Off", ["b"], ["z"], domain="custom", name="off_the_path"),
    ]
    proto = model(nodes, {"x": [2]}, {"y": [2], "z": [2]})
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    with pytest.raises(UnsupportedOpError, match=r"2 node\(s\).*'one' = custom.First.*'two' = custom.Second") as caught:
        ig.vjp(ig.load(proto), "inputs", ["y"])
    assert len(caught.value.nodes) == 2


def test_integers_carry_no_gradient() -> None:
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    proto = model(nodes, {}, {"y": [2, 3]}, {"table": np.ones((4, 3), np.float32)})
    proto.graph.input.append(helper.make_tensor_value_info("ids", INT64, [2]))
    graph = ig.load(proto)
    with pytest.raises(AdjointError, match=r"with respect to %ids: i64\[2\]: only floating-point"):
        ig.vjp(graph, ["ids"])
    with pytest.raises(AdjointError, match="no inputs of a floating-point dtype"):
        ig.vjp(graph, "inputs")


def test_a_loss_is_asked_for_where_the_output_is_no_scalar() -> None:
    with pytest.raises(AdjointError, match=r"the output 'y' is f32\[N,3\]; add a loss"):
        ig.grad(ig.load(mlp()))


def test_unknown_names_offer_close_ones() -> None:
    with pytest.raises(ig.IrgradError, match="did you mean 'w1'"):
        ig.vjp(ig.load(mlp()), ["w11"])
    with pytest.raises(PassError, match="there is no loss 'crossentropy'"):
        ig.grad(ig.load(mlp()), loss="crossentropy")


def two_products() -> tuple[Graph, Builder, Value]:
    graph = Graph()
    return graph, Builder(graph), graph.add_input("x", ig.TensorType(np.dtype(np.float32), (2,)))


def test_a_value_that_counts_as_constant_has_a_gradient_itself() -> None:
    graph, b, x = two_products()
    with b:
        h = x * x
        graph.set_outputs({"y": h * 3.0})
    graph.rename(h, "h")
    ones = np.ones(2, np.float32)
    results = ig.compile(ig.vjp(graph, ["x", "h"], stop=["h"]))({"x": ones, "y_cotangent": ones})
    np.testing.assert_array_equal(results["h_grad"], [3, 3])
    np.testing.assert_array_equal(results["x_grad"], [0, 0])


def test_an_output_is_differentiated_by_under_its_own_name() -> None:
    graph, b, x = two_products()
    with b:
        h = b.op("Identity", x)
        graph.set_outputs({"h": h, "y": h * h})
    merged = ig.apply(graph, "simplify")
    assert merged.outputs["h"].name == "x"
    joint = ig.vjp(merged, ["h", "x"], ["y"])
    assert joint.gradients == {"h": "h_grad", "x": "x_grad"}
    results = ig.compile(joint)({"x": np.array([1, 2], np.float32), "y_cotangent": np.ones(2, np.float32)})
    np.testing.assert_array_equal(results["h_grad"], [2, 4])
    np.testing.assert_array_equal(results["x_grad"], [2, 4])


def test_a_name_in_wrt_is_that_of_an_output_first() -> None:
    graph, b, x = two_products()
    with b:
        p = x * 2.0
        q = p * p
    graph.rename(p, "p")
    graph.rename(q, "q")
    graph.set_outputs({"q": p, "p": q})
    joint = ig.vjp(graph, "q", ["p"])
    results = ig.compile(joint)({"x": np.ones(2, np.float32), "p_cotangent": np.ones(2, np.float32)})
    np.testing.assert_array_equal(results["q_grad"], [4, 4])


SHAPES: list[tuple[Shape, Shape]] = [
    (("N", 3), ("M", 3)),
    (("N", 3), (3,)),
    (("N", 3), ("N", 1)),
    (("N", "M"), ("M", "N")),
    ((None, 3), (None, 3)),
    (None, None),
]


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("sizes", [(1, 4), (4, 1), (3, 3), (1, 1), (0, 1), (1, 0)])
def test_products_with_jacobians_whatever_the_symbols_turn_out_to_be(
    shapes: tuple[Shape, Shape], sizes: tuple[int, int]
) -> None:
    graph = Graph()
    x, z = (graph.add_input(n, ig.TensorType(np.dtype(np.float64), s)) for n, s in zip("xz", shapes, strict=True))
    with Builder(graph) as b:
        graph.set_outputs({"y": b.op("Tanh", x * z)})
    concrete = [
        (size, 3) if s is None else tuple(dict(zip("NM", sizes, strict=True)).get(str(d), d or size) for d in s)
        for s, size in zip(shapes, sizes, strict=True)
    ]
    try:
        result = np.broadcast_shapes(*concrete)  # type: ignore[arg-type]
    except ValueError:
        pytest.skip("these sizes do not fit each other")
    generator = np.random.default_rng(0)
    fx, fz, tx, tz = (generator.standard_normal(shape) for shape in (*concrete, *concrete))
    c = generator.standard_normal(result)
    tangent = ig.compile(ig.jvp(graph))({"x": fx, "z": fz, "x_tangent": tx, "z_tangent": tz})["y_tangent"]
    np.testing.assert_allclose(tangent, (1 - np.tanh(fx * fz) ** 2) * (tx * fz + fx * tz))
    pulled = ig.compile(ig.vjp(graph))({"x": fx, "z": fz, "y_cotangent": c})
    assert (pulled["x_grad"].shape, pulled["z_grad"].shape) == tuple(concrete)
    np.testing.assert_allclose(np.vdot(pulled["x_grad"], tx) + np.vdot(pulled["z_grad"], tz), np.vdot(c, tangent))


def test_tangents_of_what_does_not_move_are_zero_at_any_size() -> None:
    graph = Graph()
    x, z = (graph.add_input(n, ig.TensorType(np.dtype(np.float32), ("N",))) for n in "xz")
    with Builder(graph):
        graph.set_outputs({"y": z * z, "w": x * x})
    ones = np.ones(3, np.float32)
    results = ig.compile(ig.jvp(graph, "x"))({"x": ones, "z": ones, "x_tangent": ones})
    np.testing.assert_array_equal(results["y_tangent"], np.zeros(3))
    np.testing.assert_array_equal(results["w_tangent"], [2, 2, 2])


def test_the_text_does_not_depend_on_hashes() -> None:
    program = (
        "import sys, irgrad as ig; g = ig.load(sys.stdin.buffer.read());"
        "print(ig.vjp(g, 'parameters'), ig.jvp(g), ig.apply(ig.vjp(g), [ig.passes.autodiff.derivatives.Jvp(['x'])]))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=mlp().SerializeToString(),
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout
        for seed in ("1", "77")
    }
    assert len(texts) == 1


def test_checking_the_gradient_of_an_intermediate() -> None:
    x = np.random.default_rng(8).standard_normal((2, 4))
    check_grads(ig.load(mlp()), {"x": x}, ["x", "w1"], outputs=["a1"])


def test_list_attributes_are_as_good_as_tuples() -> None:
    graph = Graph()
    x = graph.add_input("x", ig.TensorType(np.dtype(np.float32), (2, 3)))
    transposed = ig.Builder(graph).op("Transpose", x, perm=[1, 0])
    assert transposed.shape == (3, 2)
    assert transposed.producer is not None
    assert transposed.producer.attrs["perm"] == (1, 0)
