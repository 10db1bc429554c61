"""Functions and subgraphs of a model: what is inlined, captured and moved."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

from irgrad.errors import ExecutionError
from irgrad.frontend import load
from irgrad.graph import Graph, Value
from irgrad.runtime import compile
from tests.frontends.build import FLAG, array, branches, call, function, graph, imports, model, node, reference, run, value

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


# --- functions --------------------------------------------------------------------------------------------------------


def leaky(operand: str, result: str, attribute: str = "alpha") -> onnx.NodeProto:
    made = node("LeakyRelu", [operand], [result])
    made.attribute.append(reference("alpha", attribute, AttributeProto.FLOAT))
    return made


def with_functions(nodes: list[onnx.NodeProto], *functions: onnx.FunctionProto, inputs: Any = (), **options: Any) -> Any:
    options = {"opsets": {"": 21, "local": 1}, **options}
    return model(nodes, [value("x"), *inputs], [onnx.ValueInfoProto(name="y")], functions=functions, **options)


def lrelu(x: np.ndarray, slope: float) -> np.ndarray:
    return np.where(x < 0, np.float32(slope) * x, x)


def test_nested_functions_and_colliding_names() -> None:
    inner = function("inner", ["a"], ["b"], [node("Relu", ["a"], ["t"], name="n"), node("Abs", ["t"], ["b"], name="m")])
    outer = function(
        "outer",
        ["a", "t"],
        ["b"],
        [call("inner", ["a"], ["h"]), call("inner", ["h"], ["g"]), node("Add", ["g", "t"], ["b"])],
        opsets={"": 21, "local": 1},
    )
    # The names of the bodies occur in the graph too, and two calls have the same name.
    nodes = [
        call("outer", ["x", "x"], ["t"], name="n"),
        call("outer", ["t", "x"], ["b"], name="n"),
        call("inner", ["b"], ["h"]),
        call("inner", ["h"], ["y"]),
    ]
    read = load(with_functions(nodes, inner, outer))
    assert {"x", "t", "b", "h", "y"} <= {v.name for v in read.values()}
    want = np.maximum(X, 0) + X
    want = np.maximum(want, 0) + X
    np.testing.assert_array_equal(run(read, X)[0], np.maximum(want, 0))
    assert len(read) == 2 * 5 + 2 * 2


def test_attributes_of_functions() -> None:
    f = function(
        "f",
        ["a"],
        ["b"],
        [leaky("a", "h", "first"), leaky("h", "g", "second"), leaky("g", "b", "third")],
        attributes=["first", "third"],
        attribute_protos=[helper.make_attribute("second", 0.25)],
    )
    # The third is neither given nor has a default: the node goes without, which is LeakyRelu's own default.
    got = run(with_functions([call("f", ["x"], ["y"], first=0.5)], f), X)[0]
    np.testing.assert_allclose(got, lrelu(lrelu(lrelu(X, 0.5), 0.25), 0.01), rtol=1e-6)
    got = run(with_functions([call("f", ["x"], ["y"], first=0.5, second=2.0, third=3.0)], f), X)[0]
    np.testing.assert_allclose(got, lrelu(X, 3.0), rtol=1e-6)


def test_attributes_pass_through_nested_functions_and_constants() -> None:
    fill = node("Constant", [], ["c"])
    fill.attribute.append(reference("value_float", "slope", AttributeProto.FLOAT))
    inner = function("inner", ["a"], ["b"], [fill, node("Mul", ["a", "c"], ["b"])], attributes=["slope"])
    passing = call("inner", ["a"], ["b"])
    passing.attribute.append(reference("slope", "outer_slope", AttributeProto.FLOAT))
    outer = function("outer", ["a"], ["b"], [passing], attributes=["outer_slope"], opsets={"": 21, "local": 1})
    np.testing.assert_array_equal(
        run(with_functions([call("outer", ["x"], ["y"], outer_slope=3.0)], inner, outer), X)[0], 3 * X
    )


def test_overloads() -> None:
    one = function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])])
    two = function("f", ["a"], ["b"], [node("Neg", ["a"], ["b"])], overload="negative")
    plain, overloaded = call("f", ["x"], ["h"]), call("f", ["h"], ["y"], overload="negative")
    np.testing.assert_array_equal(run(with_functions([plain, overloaded], one, two), X)[0], -np.maximum(X, 0))


def test_optional_operands_of_functions() -> None:
    f = function("f", ["a", "low", "high"], ["b"], [node("Clip", ["a", "low", "high"], ["b"])])
    weights = [array("top", 1.0)]
    for operands in (["x", "", "top"], ["x"]):
        got = run(with_functions([call("f", operands, ["y"])], f, initializers=weights), X)[0]
        np.testing.assert_array_equal(got, np.minimum(X, 1) if len(operands) == 3 else X)


def test_an_absent_operand_stays_absent_in_a_subgraph() -> None:
    clipped = [node("Clip", ["a", "low", "high"], ["r"])]
    f = function("f", ["a", "c", "low", "high"], ["b"], [node("If", ["c"], ["b"], **branches(clipped, clipped))])
    made = with_functions([call("f", ["x", "flag", "", "top"], ["y"])], f, inputs=[FLAG], initializers=[array("top", 1.0)])
    np.testing.assert_array_equal(run(made, X, np.array(True))[0], np.minimum(X, 1))


def test_subgraphs_in_functions() -> None:
    yes, no = [leaky("h", "r", "slope")], [node("Add", ["h", "a"], ["r"])]
    nodes = [node("Neg", ["a"], ["h"]), node("If", ["c"], ["b"], **branches(yes, no))]
    f = function("f", ["a", "c"], ["b"], nodes, attributes=["slope"])
    made = with_functions([call("f", ["x", "flag"], ["y"], slope=0.5)], f, inputs=[FLAG])
    np.testing.assert_array_equal(run(made, X, np.array(True))[0], lrelu(-X, 0.5))
    np.testing.assert_array_equal(run(made, X, np.array(False))[0], 0 * X)


def test_functions_have_opsets_of_their_own() -> None:
    # Squeeze has its axes as an attribute up to opset 12; the model itself is written in 21.
    f = function(
        "f", ["a"], ["b"], [node("Unsqueeze", ["a"], ["u"], axes=[0]), node("Squeeze", ["u"], ["b"], axes=[0])], opsets=11
    )
    nodes = [call("f", ["x"], ["h"]), node("Squeeze", ["h"], ["y"])]
    np.testing.assert_array_equal(run(with_functions(nodes, f), X)[0], X)


def test_functions_without_opsets_use_those_of_the_model() -> None:
    f = function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])], opsets={})
    np.testing.assert_array_equal(run(with_functions([call("f", ["x"], ["y"])], f), X)[0], np.maximum(X, 0))


def test_results_of_functions() -> None:
    f = function("f", ["a"], ["b", "a", "b", "c"], [node("Relu", ["a"], ["b"]), node("Neg", ["a"], ["c"])])
    f.output[2] = "b"
    nodes = [call("f", ["x"], ["p", "q", "r", ""]), node("Sum", ["p", "q", "r"], ["y"])]
    np.testing.assert_array_equal(run(with_functions(nodes, f), X)[0], 2 * np.maximum(X, 0) + X)


def test_a_function_may_stand_for_a_standard_operation() -> None:
    f = helper.make_function("", "Softsign", ["a"], ["b"], [node("Neg", ["a"], ["b"])], imports(21))
    np.testing.assert_array_equal(run(with_functions([node("Softsign", ["x"], ["y"])], f), X)[0], -X)


def test_symbols_in_functions_are_nobodys() -> None:
    f = function("f", ["a", "s"], ["b"], [node("Reshape", ["a", "s"], ["h"]), node("Relu", ["h"], ["b"])])
    f.value_info.append(value("h", ("rows", 2)))
    made = with_functions(
        [call("f", ["x", "s"], ["p"]), call("f", ["z", "s"], ["q"]), node("Concat", ["p", "q"], ["y"], axis=0)],
        f,
        inputs=[value("z", (4, 2)), value("s", (2,), TensorProto.INT64)],
    )
    read = load(made)
    assert read.value("p").shape == (None, 2)
    assert run(read, X, np.ones((4, 2), np.float32), np.array([-1, 2]))[0].shape == (7, 2)


# --- subgraphs --------------------------------------------------------------------------------------------------------


def captured(read: Graph, name: str) -> list[Value]:
    made = read.node(name)
    operands = made.inputs[len(made.inputs) - made.attrs["captured"] :]
    assert all(v is not None for v in operands)
    return [v for v in operands if v is not None]


def test_what_a_subgraph_captures() -> None:
    yes = [node("Mul", ["h", "w"], ["t"]), node("Add", ["t", "i"], ["r"])]
    no = [node("Sub", ["x", "h"], ["r"])]
    made = model(
        [node("Relu", ["x"], ["h"]), node("If", ["flag"], ["y"], name="if", **branches(yes, no))],
        [value("x", ("N", 3)), FLAG],
        [onnx.ValueInfoProto(name="y")],
        [array("w", [1, 2, 3]), array("i", [1], np.float32)],
    )
    read = load(made)
    # Both branches have all captured values as inputs, in one order; parameters count as values.
    assert [v.name for v in captured(read, "if")] == ["x", "h", "w", "i"]
    for name in ("then_branch", "else_branch"):
        inner = read.node("if").attrs[name]
        assert list(inner.inputs) == ["x", "h", "w", "i"]
        assert inner.value("h").shape == ("N", 3)
    assert read.value("y").shape == ("N", 3)
    np.testing.assert_array_equal(run(read, X, np.array(True))[0], np.maximum(X, 0) * [1, 2, 3] + 1)


def test_constants_are_copied_into_subgraphs() -> None:
    yes, no = [node("Reshape", ["x", "shape"], ["r"])], [node("Reshape", ["x", "other"], ["r"])]
    made = model(
        [node("If", ["flag"], ["y"], name="if", **branches(yes, no))],
        [value("x"), FLAG],
        [onnx.ValueInfoProto(name="y")],
        [array("shape", [3, 2], np.int64), array("other", [1, 6], np.int64)],
    )
    read = load(made)
    assert [v.name for v in captured(read, "if")] == ["x"]
    assert read.value("y").shape == (None, None)
    assert run(read, X, np.array(True))[0].shape == (3, 2)


def test_parameters_of_subgraphs_are_parameters_of_the_graph() -> None:
    def branch(op: str, weights: list[float]) -> onnx.GraphProto:
        deep = graph([node(op, ["x", "w"], ["r"])], [], [onnx.ValueInfoProto(name="r")], [array("w", weights)])
        return graph([node("If", ["flag"], ["r"], name="in", then_branch=deep, else_branch=deep)], [], [value("r")])

    made = model(
        [node("If", ["flag"], ["y"], name="if", then_branch=branch("Add", [1, 2, 3]), else_branch=branch("Mul", [4, 5, 6]))],
        [value("x"), FLAG],
        [value("y")],
    )
    read = load(made)
    assert {n: a.tolist() for n, a in read.parameters.items()} == {
        "w": [4, 5, 6],
        "w_1": [4, 5, 6],
        "w_2": [1, 2, 3],
        "w_1_1": [1, 2, 3],
    }
    assert not read.node("if").attrs["then_branch"].parameters
    program = compile(read)
    np.testing.assert_array_equal(program({"x": X, "flag": True})["y"], np.add(X, [1, 2, 3]))
    np.testing.assert_array_equal(program({"x": X, "flag": False})["y"], np.multiply(X, [4, 5, 6]))
    np.testing.assert_array_equal(program({"x": X, "flag": False, "w": np.zeros(3, np.float32)})["y"], 0 * X)


def test_names_of_a_subgraph_may_shadow_those_outside() -> None:
    yes, no = [node("Relu", ["x"], ["h"]), node("Neg", ["h"], ["r"])], [node("Identity", ["h"], ["r"])]
    made = model(
        [node("Abs", ["x"], ["h"]), node("If", ["flag"], ["y"], **branches(yes, no))], [value("x"), FLAG], [value("y")]
    )
    np.testing.assert_array_equal(run(made, X, np.array(True))[0], -np.maximum(X, 0))
    np.testing.assert_array_equal(run(made, X, np.array(False))[0], np.abs(X))


def test_a_subgraph_may_return_what_it_captures_and_one_value_twice() -> None:
    yes = graph([], [], [onnx.ValueInfoProto(name="x"), onnx.ValueInfoProto(name="x")])
    no = graph([node("Neg", ["x"], ["n"])], [], [onnx.ValueInfoProto(name="n"), onnx.ValueInfoProto(name="x")])
    made = model(
        [node("If", ["flag"], ["p", "q"], then_branch=yes, else_branch=no)], [value("x"), FLAG], [value("p"), value("q")]
    )
    assert [a.tolist() for a in run(made, X, np.array(True))] == [X.tolist(), X.tolist()]
    assert [a.tolist() for a in run(made, X, np.array(False))] == [(-X).tolist(), X.tolist()]


def test_a_branch_that_cannot_be_taken_may_be_impossible() -> None:
    # How exporters write x.squeeze(0), with a shape that was fixed afterwards.
    yes, no = [node("Squeeze", ["x", "zero"], ["r"])], [node("Identity", ["x"], ["r"])]
    nodes = [
        node("Shape", ["x"], ["s"], end=1),
        node("Equal", ["s", "one"], ["is_one"]),
        node("Squeeze", ["is_one"], ["c"]),
        node("If", ["c"], ["y"], **branches(yes, no)),
    ]
    weights = [array("one", [1], np.int64), array("zero", [0], np.int64)]
    for shape, declared in (((2, 3), (2, 3)), ((1, 3), (1, 3)), ((2, 3), ("N", 3)), ((1, 3), ("N", 3))):
        read = load(model(nodes, [value("x", declared)], [onnx.ValueInfoProto(name="y")], weights))
        got = run(read, np.ones(shape, np.float32))[0]
        assert got.shape == ((3,) if shape[0] == 1 else shape)
    assert load(model(nodes, [value("x")], [onnx.ValueInfoProto(name="y")], weights)).value("y").shape == (2, 3)
    # Where the condition is known only when it runs, taking the impossible branch is an error then.
    impossible = model([node("If", ["flag"], ["y"], **branches(yes, no))], [value("x"), FLAG], [value("y")], weights)
    np.testing.assert_array_equal(run(impossible, X, np.array(False))[0], X)
    with pytest.raises(ExecutionError, match="Squeeze"):
        run(impossible, X, np.array(True))


def test_sequence_map_is_a_loop() -> None:
    body = graph([node("Mul", ["e", "w"], ["r"])], [value("e", ("n",))], [value("r", ("n",))], [array("w", [3.0])])
    made = model(
        [node("SequenceMap", ["s"], ["y"], body=body)],
        [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    read = load(made)
    assert "Loop" in [n.op.name for n in read.nodes()]
    assert list(read.parameters) == ["w"]
    got = run(read, [np.ones(2, np.float32), np.ones(3, np.float32)])[0]
    assert [a.tolist() for a in got] == [[3, 3], [3, 3, 3]]
