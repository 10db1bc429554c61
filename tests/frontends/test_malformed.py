"""Defective models: each is refused by the right error, in one sentence that says where."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from irgrad.errors import (
    CyclicModelError,
    DanglingNameError,
    DuplicateNameError,
    FunctionRecursionError,
    ModelError,
    ModelParseError,
    ModelSizeError,
    ModelTypeError,
    UnsupportedOpsetError,
    UsageError,
)
from irgrad.frontend import load
from tests.frontends.build import array, call, external, function, graph, model, node, reference, saved, scalar, value

Case = tuple[type[Exception], str, Callable[[], ModelProto]]
CASES: dict[str, Case] = {}


def defect(error: type[Exception], where: str) -> Callable[[Callable[[], ModelProto]], Callable[[], ModelProto]]:
    """Decorator: the model that the function makes is refused with `error`, and the message contains `where`."""

    def register(make: Callable[[], ModelProto]) -> Callable[[], ModelProto]:
        assert make.__name__ not in CASES
        CASES[make.__name__] = error, where, make
        return make

    return register


def one(made: NodeProto, inputs: Iterable[Any] = (), initializers: Iterable[TensorProto] = (), **options: Any) -> ModelProto:
    """A model with one node, whose outputs are the model's."""
    outputs = [onnx.ValueInfoProto(name=name) for name in made.output]
    return model([made], list(inputs) or [value("x")], outputs, initializers, **options)


def valid() -> ModelProto:
    return model(
        [node("MatMul", ["x", "w"], ["h"], name="mm"), node("Relu", ["h"], ["y"], name="act")],
        [value("x", ["N", 3])],
        [value("y", ["N", 4])],
        [array("w", np.ones((3, 4)))],
    )


def set_type(made: NodeProto, name: str, kind: int) -> NodeProto:
    """The node with the declared kind of an attribute changed, but not what it holds."""
    for attribute in made.attribute:
        if attribute.name == name:
            attribute.type = kind  # type: ignore[assignment]
    return made


def with_ir(made: ModelProto, version: int) -> ModelProto:
    made.ir_version = version
    return made


def test_the_model_that_the_defects_are_made_from_is_valid() -> None:
    assert list(load(valid()).outputs) == ["y"]


# --- names ------------------------------------------------------------------------------------------------------------


@defect(CyclicModelError, "'a'")
def cyclic_nodes() -> ModelProto:
    return model(
        [node("Add", ["x", "q"], ["p"], name="a"), node("Relu", ["p"], ["q"], name="b")], [value("x")], [value("q")]
    )


@defect(CyclicModelError, "'a'")
def node_that_reads_itself() -> ModelProto:
    return model([node("Add", ["x", "y"], ["y"], name="a")], [value("x")], [value("y")])


@defect(CyclicModelError, "'loop'")
def cycle_through_a_subgraph() -> ModelProto:
    body = graph([node("Identity", ["late"], ["r"])], [], [value("r")])
    return model(
        [node("If", ["c"], ["y"], name="loop", then_branch=body, else_branch=body), node("Relu", ["y"], ["late"])],
        [scalar("c", TensorProto.BOOL)],
        [value("late")],
    )


@defect(DuplicateNameError, "'y'")
def two_nodes_make_one_name() -> ModelProto:
    return model([node("Relu", ["x"], ["y"]), node("Tanh", ["x"], ["y"], name="second")], [value("x")], [value("y")])


@defect(DuplicateNameError, "'y'")
def node_with_one_name_twice() -> ModelProto:
    return one(node("Split", ["x"], ["y", "y"], num_outputs=2, axis=0))


@defect(DuplicateNameError, "'x'")
def node_that_makes_an_input() -> ModelProto:
    return model([node("Relu", ["x"], ["x"])], [value("x")], [value("x")])


@defect(DuplicateNameError, "'w'")
def node_that_makes_an_initializer() -> ModelProto:
    return model([node("Relu", ["x"], ["w"])], [value("x")], [value("w")], [array("w", [1.0])])


@defect(DuplicateNameError, "'y'")
def output_listed_twice() -> ModelProto:
    return model([node("Relu", ["x"], ["y"])], [value("x")], [value("y"), value("y")])


@defect(DuplicateNameError, "'x'")
def input_listed_twice() -> ModelProto:
    return model([node("Relu", ["x"], ["y"])], [value("x"), value("x")], [value("y")])


@defect(DuplicateNameError, "'w'")
def initializer_listed_twice() -> ModelProto:
    return one(node("Add", ["x", "w"], ["y"]), initializers=[array("w", [1.0]), array("w", [2.0])])


@defect(DuplicateNameError, "'i'")
def subgraph_input_with_an_initializer() -> ModelProto:
    body = graph(
        [node("Identity", ["c"], ["d"])],
        [scalar("i", TensorProto.INT64), scalar("c", TensorProto.BOOL)],
        [scalar("d", TensorProto.BOOL)],
        [array("i", 1, np.int64)],
    )
    return one(node("Loop", ["m", ""], ["y"], body=body), [scalar("m", TensorProto.INT64)])


@defect(DuplicateNameError, "'to'")
def attribute_given_twice() -> ModelProto:
    made = node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)
    made.attribute.append(helper.make_attribute("to", TensorProto.DOUBLE))
    return one(made)


@defect(DanglingNameError, "'nowhere'")
def operand_that_nothing_makes() -> ModelProto:
    return one(node("Add", ["x", "nowhere"], ["y"], name="sum"))


@defect(DanglingNameError, "'w'")
def absent_initializer() -> ModelProto:
    made = valid()
    del made.graph.initializer[:]
    return made


@defect(DanglingNameError, "'z'")
def output_that_nothing_makes() -> ModelProto:
    return model([node("Relu", ["x"], ["y"])], [value("x")], [value("z")])


@defect(DanglingNameError, "without a name")
def input_without_a_name() -> ModelProto:
    return model([node("Relu", ["x"], ["y"])], [value("x"), value("")], [value("y")])


@defect(DanglingNameError, "'nowhere'")
def subgraph_that_reads_what_nothing_makes() -> ModelProto:
    body = graph([node("Identity", ["nowhere"], ["r"])], [], [value("r")])
    return one(node("If", ["c"], ["y"], then_branch=body, else_branch=body), [scalar("c", TensorProto.BOOL)])


@defect(DanglingNameError, "'nowhere'")
def inner_subgraph_that_reads_what_nothing_makes() -> ModelProto:
    inner = graph([node("Identity", ["nowhere"], ["r"])], [], [value("r")])
    outer = graph([node("If", ["c"], ["r"], then_branch=inner, else_branch=inner)], [], [value("r")])
    return one(node("If", ["c"], ["y"], then_branch=outer, else_branch=outer), [scalar("c", TensorProto.BOOL)])


@defect(DanglingNameError, "'r'")
def subgraph_output_that_nothing_makes() -> ModelProto:
    body = graph([], [], [value("r")])
    return one(node("If", ["c"], ["y"], then_branch=body, else_branch=body), [scalar("c", TensorProto.BOOL)])


@defect(ModelParseError, "UTF-8")
def name_that_is_not_utf8() -> ModelProto:
    made = ModelProto()
    made.ParseFromString(valid().SerializeToString().replace(b"h", b"\xff"))
    return made


@defect(ModelTypeError, "UTF-8")
def dimension_that_is_not_utf8() -> ModelProto:
    made = ModelProto()
    made.ParseFromString(valid().SerializeToString().replace(b"N", b"\xff"))
    return made


# --- versions ---------------------------------------------------------------------------------------------------------


@defect(UnsupportedOpsetError, "opset 0")
def opset_0() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), opsets=0)


@defect(UnsupportedOpsetError, "opset 29")
def opset_29() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), opsets=29)


@defect(UnsupportedOpsetError, "opset 1000")
def opset_1000() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), opsets={"ai.onnx": 1000})


@defect(UnsupportedOpsetError, "opset -7")
def negative_opset() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), opsets=-7)


@defect(UnsupportedOpsetError, "ai.onnx.ml opset 1000")
def unknown_opset_of_another_domain() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), opsets={"": 21, "ai.onnx.ml": 1000})


@defect(UnsupportedOpsetError, "'ai.onnx'")
def no_opset_at_all() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), opsets={})


@defect(UnsupportedOpsetError, "'ai.onnx.ml'")
def no_opset_of_a_domain() -> ModelProto:
    return one(node("Binarizer", ["x"], ["y"], name="bin", domain="ai.onnx.ml"))


@defect(UnsupportedOpsetError, "'com.acme'")
def no_opset_of_a_custom_domain() -> ModelProto:
    return one(node("Thing", ["x"], ["y"], name="thing", domain="com.acme"))


@defect(DuplicateNameError, "opset 21 and 20")
def one_domain_in_two_versions() -> ModelProto:
    made = one(node("Relu", ["x"], ["y"]))
    made.opset_import.append(helper.make_opsetid("ai.onnx", 20))
    return made


@defect(UnsupportedOpsetError, "IR version 1000")
def unknown_ir_version() -> ModelProto:
    return with_ir(valid(), 1000)


@defect(UnsupportedOpsetError, "IR version -1")
def negative_ir_version() -> ModelProto:
    return with_ir(valid(), -1)


@defect(UnsupportedOpsetError, "opset 21 has no operation 'Frobnicate'")
def unknown_operation() -> ModelProto:
    return one(node("Frobnicate", ["x"], ["y"], name="frob"))


@defect(UnsupportedOpsetError, "opset 13 has no operation 'Gelu'")
def operation_of_a_later_opset() -> ModelProto:
    return one(node("Gelu", ["x"], ["y"], name="gelu"), opsets=13)


@defect(ModelTypeError, "does not say which operation")
def node_without_an_operation() -> ModelProto:
    return one(node("", ["x"], ["y"], name="none"))


# --- attributes -------------------------------------------------------------------------------------------------------

IMAGE = value("x", (1, 1, 4, 4))
KERNEL = array("w", np.ones((1, 1, 2, 2)))


@defect(ModelTypeError, "'strides'")
def strides_as_a_string() -> ModelProto:
    return one(node("Conv", ["x", "w"], ["y"], name="conv", strides="two"), [IMAGE], [KERNEL])


@defect(ModelTypeError, "'strides'")
def strides_as_one_number() -> ModelProto:
    return one(node("Conv", ["x", "w"], ["y"], name="conv", strides=2), [IMAGE], [KERNEL])


@defect(ModelTypeError, "'strides'")
def strides_as_floats() -> ModelProto:
    return one(node("Conv", ["x", "w"], ["y"], name="conv", strides=[1.0, 1.0]), [IMAGE], [KERNEL])


@defect(ModelTypeError, "'alpha'")
def attribute_of_another_kind_than_it_says() -> ModelProto:
    return one(set_type(node("LeakyRelu", ["x"], ["y"], name="leaky", alpha="no"), "alpha", AttributeProto.FLOAT))


@defect(ModelTypeError, "'value'")
def tensor_attribute_without_a_tensor() -> ModelProto:
    made = node("Constant", [], ["y"], name="const")
    made.attribute.add(name="value", type=AttributeProto.TENSOR)
    return one(made)


@defect(ModelTypeError, "'colour'")
def unknown_attribute() -> ModelProto:
    return one(node("Relu", ["x"], ["y"], name="relu", colour="red"))


@defect(ModelTypeError, "'axes'")
def attribute_that_was_withdrawn() -> ModelProto:
    return one(node("Squeeze", ["x"], ["y"], name="squeeze", axes=[0]), [value("x", (1, 3))])


@defect(ModelTypeError, "'to'")
def required_attribute_missing() -> ModelProto:
    return one(node("Cast", ["x"], ["y"], name="cast"))


@defect(ModelTypeError, "'body'")
def loop_without_a_body() -> ModelProto:
    return one(node("Loop", ["m"], ["y"], name="loop"), [scalar("m", TensorProto.INT64)])


@defect(ModelTypeError, "'const'")
def constant_without_a_value() -> ModelProto:
    return one(node("Constant", [], ["y"], name="const"))


@defect(ModelTypeError, "'const'")
def constant_with_two_values() -> ModelProto:
    return one(node("Constant", [], ["y"], name="const", value_int=1, value_float=1.0))


@defect(ModelTypeError, "'ref'")
def reference_outside_of_functions() -> ModelProto:
    made = node("LeakyRelu", ["x"], ["y"], name="leaky")
    made.attribute.append(reference("alpha", "ref", AttributeProto.FLOAT))
    return one(made)


@defect(ModelTypeError, "'graphs'")
def list_of_subgraphs() -> ModelProto:
    made = node("Thing", ["x"], ["y"], domain="com.acme")
    made.attribute.append(helper.make_attribute("graphs", [graph([], [], [])]))
    return one(made, opsets={"": 21, "com.acme": 1})


@defect(ModelTypeError, "'pool'")
def attribute_with_an_impossible_value() -> ModelProto:
    return one(node("MaxPool", ["x"], ["y"], name="pool", kernel_shape=[2, 2, 2]), [IMAGE])


# --- operands and types -----------------------------------------------------------------------------------------------


@defect(ModelTypeError, "'mm'")
def product_of_strings() -> ModelProto:
    operands = [value("x", (2, 2), TensorProto.STRING), value("w", (2, 2), TensorProto.STRING)]
    return one(node("MatMul", ["x", "w"], ["y"], name="mm"), operands)


@defect(ModelTypeError, "'sum'")
def sum_of_two_types() -> ModelProto:
    return one(node("Add", ["x", "i"], ["y"], name="sum"), [value("x"), value("i", (2, 3), TensorProto.INT64)])


@defect(ModelTypeError, "'relu'")
def tensor_operation_on_a_sequence() -> ModelProto:
    return one(
        node("Relu", ["s"], ["y"], name="relu"), [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)]
    )


@defect(ModelTypeError, "'sum'")
def too_few_operands() -> ModelProto:
    return one(node("Add", ["x"], ["y"], name="sum"))


@defect(ModelTypeError, "'sum'")
def too_many_operands() -> ModelProto:
    return one(node("Add", ["x", "x", "x"], ["y"], name="sum"))


@defect(ModelTypeError, "'concat'")
def no_operand_at_all() -> ModelProto:
    return one(node("Concat", [], ["y"], name="concat", axis=0))


@defect(ModelTypeError, "'A'")
def required_operand_absent() -> ModelProto:
    return one(node("Add", ["", "x"], ["y"], name="sum"))


@defect(ModelTypeError, "'relu'")
def too_many_outputs() -> ModelProto:
    return one(node("Relu", ["x"], ["y", "z"], name="relu"))


@defect(ModelTypeError, "'relu'")
def no_output() -> ModelProto:
    return model([node("Relu", ["x"], [], name="relu")], [value("x")], [value("x")])


@defect(ModelTypeError, "'mm'")
def shapes_that_do_not_fit() -> ModelProto:
    return one(node("MatMul", ["x", "w"], ["y"], name="mm"), [value("x", (2, 3)), value("w", (2, 3))])


@defect(ModelTypeError, "'x'")
def input_without_a_type() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), [onnx.ValueInfoProto(name="x")])


@defect(ModelTypeError, "'x'")
def input_without_an_element_type() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), [value("x", (2,), TensorProto.UNDEFINED)])


@defect(ModelTypeError, "'x'")
def input_of_an_unknown_element_type() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), [value("x", (2,), 99)])


@defect(ModelTypeError, "'m'")
def input_that_is_a_map() -> ModelProto:
    info = onnx.ValueInfoProto(name="m")
    info.type.map_type.key_type = TensorProto.INT64
    return one(node("Relu", ["x"], ["y"]), [value("x"), info])


@defect(ModelTypeError, "'y'")
def output_of_another_type_than_declared() -> ModelProto:
    return model([node("Relu", ["x"], ["y"])], [value("x")], [value("y", (2, 3), TensorProto.INT64)])


@defect(ModelTypeError, "'w'")
def initializer_of_another_type_than_its_input() -> ModelProto:
    return one(node("Add", ["x", "w"], ["y"]), [value("x"), value("w", (1,), TensorProto.INT64)], [array("w", [1.0])])


@defect(ModelTypeError, "'w'")
def initializer_of_another_shape_than_its_input() -> ModelProto:
    return one(node("Add", ["x", "w"], ["y"]), [value("x"), value("w", (3,))], [array("w", [1.0])])


@defect(ModelTypeError, "'i2'")
def body_input_of_the_wrong_type() -> ModelProto:
    body = graph(
        [node("Identity", ["c"], ["d"]), node("Identity", ["i"], ["s_out"])],
        [scalar("i", TensorProto.INT64), scalar("c", TensorProto.BOOL), value("s", (2,), TensorProto.INT64)],
        [scalar("d", TensorProto.BOOL), scalar("s_out", TensorProto.INT64)],
        name="body",
    )
    body.input[2].name = "i2"
    return one(node("Loop", ["m", "", "x"], ["y"], body=body), [scalar("m", TensorProto.INT64), value("x")])


@defect(ModelTypeError, "'loop'")
def body_with_too_few_inputs() -> ModelProto:
    body = graph([node("Identity", ["i"], ["d"])], [scalar("i", TensorProto.INT64)], [scalar("d", TensorProto.INT64)])
    return one(node("Loop", ["m", ""], ["y"], name="loop", body=body), [scalar("m", TensorProto.INT64)])


@defect(ModelTypeError, "'if'")
def branch_with_too_few_outputs() -> ModelProto:
    body = graph([node("Identity", ["x"], ["r"])], [], [value("r")])
    return one(
        node("If", ["c"], ["y", "z"], name="if", then_branch=body, else_branch=body),
        [value("x"), scalar("c", TensorProto.BOOL)],
    )


@defect(ModelTypeError, "'if'")
def branches_of_different_types() -> ModelProto:
    one_, other = (
        graph([node("Cast", ["x"], ["r"], to=to)], [], [onnx.ValueInfoProto(name="r")])
        for to in (TensorProto.INT64, TensorProto.FLOAT)
    )
    return one(
        node("If", ["c"], ["y"], name="if", then_branch=one_, else_branch=other),
        [value("x"), scalar("c", TensorProto.BOOL)],
    )


@defect(ModelTypeError, "Frob")
def branch_that_is_not_valid_whatever_the_shapes() -> ModelProto:
    body = graph([node("MatMul", ["s", "s"], ["r"], name="Frob")], [], [value("r")])
    return one(
        node("If", ["c"], ["y"], then_branch=body, else_branch=body),
        [value("s", (2, 2), TensorProto.STRING), scalar("c", TensorProto.BOOL)],
    )


# --- sizes ------------------------------------------------------------------------------------------------------------


@defect(ModelSizeError, "'w'")
def initializer_that_was_cut_off() -> ModelProto:
    return one(node("Add", ["x", "w"], ["y"]), initializers=[TensorProto(name="w", dims=[4], data_type=1, raw_data=b"1234")])


@defect(ModelSizeError, "'w'")
def initializer_of_giant_shape() -> ModelProto:
    huge = TensorProto(name="w", dims=[10**6, 10**6], data_type=1, float_data=[1.0])
    return one(node("Add", ["x", "w"], ["y"]), initializers=[huge])


@defect(ModelSizeError, "'value'")
def constant_of_giant_shape() -> ModelProto:
    huge = TensorProto(dims=[10**12], data_type=1, raw_data=b"1234")
    return one(node("Constant", [], ["y"], name="const", value=huge))


@defect(ModelSizeError, "'w'")
def sparse_initializer_of_giant_shape() -> ModelProto:
    made = one(node("Add", ["x", "w"], ["y"]))
    huge = made.graph.sparse_initializer.add(dims=[10**12])
    huge.values.CopyFrom(array("w", [1.0]))
    huge.indices.CopyFrom(array("i", [5], np.int64))
    return made


@defect(ModelSizeError, "inlining")
def functions_that_explode() -> ModelProto:
    nodes: Callable[[int], list[NodeProto]] = lambda k: [call(f"f{k}", ["a"], [f"b{j}"]) for j in range(9)]  # noqa: E731
    functions = [function(f"f{k}", ["a"], ["b0"], nodes(k + 1), opsets={"local": 1}) for k in range(30)]
    functions.append(function("f30", ["a"], ["b"], [node("Relu", ["a"], ["b"])]))
    return one(call("f0", ["x"], ["y"]), functions=functions, opsets={"": 21, "local": 1})


@defect(ModelSizeError, "local.f")
def functions_that_nest_too_deeply() -> ModelProto:
    functions = [function(f"f{k}", ["a"], ["b"], [call(f"f{k + 1}", ["a"], ["b"])]) for k in range(1000)]
    functions.append(function("f1000", ["a"], ["b"], [node("Relu", ["a"], ["b"])]))
    return one(call("f0", ["x"], ["y"]), functions=functions, opsets={"": 21, "local": 1})


@defect(ModelSizeError, "subgraphs")
def subgraphs_that_nest_too_deeply() -> ModelProto:
    made = model([], [value("x"), scalar("c", TensorProto.BOOL)], [value("r")])
    inner = made.graph
    for _ in range(400):
        branch = inner.node.add(op_type="If", input=["c"], output=["r"])
        branch.attribute.add(name="else_branch", type=AttributeProto.GRAPH)
        branch.attribute[0].g.CopyFrom(graph([node("Identity", ["x"], ["r"])], [], [value("r")]))
        inner = branch.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
        inner.output.append(value("r"))
    inner.node.append(node("Identity", ["x"], ["r"]))
    return made


# --- functions --------------------------------------------------------------------------------------------------------


@defect(FunctionRecursionError, "local.f → local.f")
def function_that_calls_itself() -> ModelProto:
    f = function("f", ["a"], ["b"], [call("f", ["a"], ["b"])], opsets={"local": 1})
    return one(call("f", ["x"], ["y"]), functions=[f], opsets={"local": 1})


@defect(FunctionRecursionError, "local.f → local.g → local.f")
def functions_that_call_each_other() -> ModelProto:
    f = function("f", ["a"], ["b"], [call("g", ["a"], ["b"])], opsets={"local": 1})
    g = function("g", ["a"], ["b"], [call("f", ["a"], ["b"])], opsets={"local": 1})
    return one(call("f", ["x"], ["y"]), functions=[f, g], opsets={"local": 1})


@defect(FunctionRecursionError, "local.f → local.f")
def function_that_calls_itself_in_a_subgraph() -> ModelProto:
    body = graph([call("f", ["a"], ["r"])], [], [value("r")])
    f = function("f", ["a", "c"], ["b"], [node("If", ["c"], ["b"], then_branch=body, else_branch=body)])
    return one(call("f", ["x", "c"], ["y"]), [value("x"), scalar("c", TensorProto.BOOL)], functions=[f])


@defect(DuplicateNameError, "local.f")
def function_defined_twice() -> ModelProto:
    f = function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])])
    return one(call("f", ["x"], ["y"]), functions=[f, f], opsets={"": 21, "local": 1})


@defect(DuplicateNameError, "local.f")
def function_with_two_inputs_of_one_name() -> ModelProto:
    f = function("f", ["a", "a"], ["b"], [node("Relu", ["a"], ["b"])])
    return one(call("f", ["x", "x"], ["y"]), functions=[f])


@defect(DanglingNameError, "'nowhere'")
def function_that_reads_what_nothing_makes() -> ModelProto:
    f = function("f", ["a"], ["b"], [node("Add", ["a", "nowhere"], ["b"])])
    return one(call("f", ["x"], ["y"]), functions=[f])


@defect(DanglingNameError, "'x'")
def function_that_reads_a_name_of_its_caller() -> ModelProto:
    f = function("f", ["a"], ["b"], [node("Add", ["a", "x"], ["b"])])
    return one(call("f", ["x"], ["y"]), functions=[f])


@defect(DanglingNameError, "'b'")
def function_whose_result_nothing_makes() -> ModelProto:
    f = function("f", ["a"], ["b"], [node("Relu", ["a"], ["c"])])
    return one(call("f", ["x"], ["y"]), functions=[f])


@defect(ModelTypeError, "'caller'")
def function_call_with_too_many_operands() -> ModelProto:
    f = function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])])
    return one(call("f", ["x", "x"], ["y"], name="caller"), functions=[f])


@defect(ModelTypeError, "'caller'")
def function_call_with_too_many_outputs() -> ModelProto:
    f = function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])])
    return one(call("f", ["x"], ["y", "z"], name="caller"), functions=[f])


@defect(ModelTypeError, "'beta'")
def function_call_with_an_unknown_attribute() -> ModelProto:
    f = function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])], attributes=["alpha"])
    return one(call("f", ["x"], ["y"], beta=1.0), functions=[f])


@defect(ModelTypeError, "'alpha'")
def function_attribute_of_another_kind() -> ModelProto:
    leaky = node("LeakyRelu", ["a"], ["b"], name="leaky")
    leaky.attribute.append(reference("alpha", "alpha", AttributeProto.FLOAT))
    f = function("f", ["a"], ["b"], [leaky], attributes=["alpha"])
    return one(call("f", ["x"], ["y"], alpha=1), functions=[f])


@defect(UnsupportedOpsetError, "the function imports ai.onnx opset 29")
def function_with_an_unknown_opset() -> ModelProto:
    f = function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])], opsets=29)
    return one(call("f", ["x"], ["y"]), functions=[f])


@defect(DanglingNameError, "'a'")
def function_call_without_a_needed_operand() -> ModelProto:
    f = function("f", ["a"], ["a"], [])
    return one(call("f", [""], ["y"]), functions=[f])


# --- the tests --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_defect(name: str) -> None:
    error, where, make = CASES[name]
    assert issubclass(error, ModelError)
    made = make()
    before = made.SerializeToString(deterministic=True)
    with pytest.raises(error) as caught:
        load(made)
    message = str(caught.value)
    assert type(caught.value) is error
    assert where in message
    assert "\n" not in message
    assert not message.endswith((".", "\n"))
    assert len(message) < 1000
    assert made.SerializeToString(deterministic=True) == before


def test_names_are_shown_on_one_line() -> None:
    made = one(node("Add", ["x", "no\nwhere"], ["y"], name="a\nb'c"))
    with pytest.raises(DanglingNameError) as caught:
        load(made)
    assert "\n" not in str(caught.value)


# --- files that are no models -----------------------------------------------------------------------------------------


def other_protobufs() -> dict[str, bytes]:
    tensor = array("w", np.arange(300.0))
    return {
        "tensor": tensor.SerializeToString(),
        "graph": valid().graph.SerializeToString(),
        "node": valid().graph.node[0].SerializeToString(),
        "function": function("f", ["a"], ["b"], [node("Relu", ["a"], ["b"])]).SerializeToString(),
        "model without a graph": ModelProto(ir_version=8, producer_name="p").SerializeToString(),
        "model without a version": ModelProto(graph=valid().graph).SerializeToString(),
        # Field 7 as a number instead of a message.
        "wrong wire type": b"\x08\x08\x38\x05",
    }


BAD_BYTES = {
    "empty": b"",
    "text": b"This is not a model, but a text of some length.\n" * 20,
    "json": b'{"graph": {"node": []}}',
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "random": np.random.default_rng(0).bytes(5000),
    "zip": b"PK\x03\x04" + bytes(100),
    **other_protobufs(),
}


@pytest.mark.parametrize("name", BAD_BYTES)
def test_bytes_that_are_no_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(BAD_BYTES[name])
    for source, shown in ((BAD_BYTES[name], "the bytes"), (path, "model.onnx")):
        with pytest.raises(ModelParseError) as caught:
            load(source)
        assert shown in str(caught.value)
        assert "\n" not in str(caught.value)


def test_every_truncation_is_refused() -> None:
    whole = valid().SerializeToString()
    for size in range(len(whole)):
        with pytest.raises(ModelError):
            load(whole[:size])


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda b: memoryview(np.frombuffer(b, np.uint8)[::1])])
def test_bytes_of_every_kind_are_read(kind: Any) -> None:
    assert list(load(kind(valid().SerializeToString())).outputs) == ["y"]
    strided = np.repeat(np.frombuffer(valid().SerializeToString(), np.uint8), 2)[::2]
    assert list(load(memoryview(strided)).outputs) == ["y"]


def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "pipe").symlink_to("/dev/zero")
    saved(valid(), tmp_path, "locked.onnx")
    for path, shown in (
        (tmp_path / "missing.onnx", "there is no file"),
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "locked.onnx" / "inner.onnx", "cannot be read"),
        ("zero\0byte.onnx", "cannot be read"),
        ("l" * 5000 + ".onnx", "cannot be read"),
    ):
        with pytest.raises(UsageError, match=shown):
            load(path)
        with pytest.raises(UsageError, match=shown):
            load(str(path))


def test_the_folder_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        load(valid(), folder=tmp_path / "missing")


def test_a_file_larger_than_protobuf_allows(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(ModelParseError, match="2 GiB"):
        load(path)


# --- memory -----------------------------------------------------------------------------------------------------------


def giants() -> dict[str, ModelProto]:
    """Small files that would take a lot of memory if a reader believed them, valid ones among them."""
    shape = array("shape", [10**6, 10**6], np.int64)
    small = array("small", [[1.0]])
    flat = [value("y", None)]
    external_one = one(node("Add", ["x", "w"], ["y"]), initializers=[external("w", "w.bin", [10**12])])
    weights = [node("ConstantOfShape", ["dims"], [f"w{k}"]) for k in range(50)]
    many = [*weights, node("Sum", [f"w{k}" for k in range(50)], ["y"])]
    return {
        "ConstantOfShape": model([node("ConstantOfShape", ["shape"], ["y"])], [], flat, [shape]),
        "Expand": model([node("Expand", ["small", "shape"], ["y"])], [], flat, [shape, small]),
        "Tile": model([node("Tile", ["small", "shape"], ["y"])], [], flat, [shape, small]),
        "Range": model(
            [node("Range", ["a", "b", "c"], ["y"])],
            [],
            [value("y", None, TensorProto.INT64)],
            [array(n, v, np.int64) for n, v in (("a", 0), ("b", 10**12), ("c", 1))],
        ),
        "Pad": model([node("Pad", ["small", "pads"], ["y"])], [], flat, [small, array("pads", [10**6] * 4, np.int64)]),
        "many weights": model(many, [], flat, [array("dims", [20_000, 20_000], np.int64)]),
        "external": external_one,
        "sparse file": one(node("Add", ["x", "w"], ["y"]), initializers=[external("w", "hole.bin", [3 * 2**28])]),
        **{name: make() for name, (_, _, make) in CASES.items() if "giant" in name or "explode" in name},
    }


MEASURE = """
import resource, sys
from pathlib import Path
from irgrad.errors import IrgradError
from irgrad.frontend import load

load(sys.argv[1])  # what is imported lazily is imported now
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30 - 2**26
if sys.argv[2] == "hole":
    limit += 3 * 2**30  # mapping takes addresses, though no memory
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[3:]:
    try:
        load(name)
    except IrgradError as error:
        print(name, type(error).__name__)
    else:
        print(name, "loaded")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits addresses in the way of Linux")
def test_memory_stays_small(tmp_path: Path) -> None:
    with (tmp_path / "hole.bin").open("wb") as file:
        file.truncate(3 * 2**30)
    paths = {name: str(saved(made, tmp_path, f"{name}.onnx")) for name, made in giants().items()}
    for name, data in BAD_BYTES.items():
        (tmp_path / f"{name}.bad").write_bytes(data)
        paths[name] = str(tmp_path / f"{name}.bad")
    good = str(saved(valid(), tmp_path, "good.onnx"))
    hole = paths.pop("sparse file")
    for mode, names in (("plain", list(paths.values())), ("hole", [hole])):
        run = [sys.executable, "-c", MEASURE, good, mode, *names]
        result = subprocess.run(run, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
        assert result.returncode == 0, result.stderr
        *outcomes, grown = result.stdout.splitlines()
        assert len(outcomes) == len(names)
        assert not any("Parse" in line for line in outcomes if line.split(" ")[0].endswith(".onnx"))
        assert int(grown) < 200, result.stdout
