"""Defective models: names, versions and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from irgrad.errors import (
    CyclicModelError,
    DanglingNameError,
    DuplicateNameError,
    ModelParseError,
    ModelTypeError,
    UnsupportedOpsetError,
)
from tests.frontends.build import array, graph, model, node, reference, scalar, value

Case = tuple[type[Exception], str, Callable[[], ModelProto]]
CASES: dict[str, Case] = {}
"""Name → error, what its message has to contain, and the function that makes the model."""


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


@defect(UnsupportedOpsetError, "ai.onnx.preview.training opset 2")
def unknown_opset_of_training() -> ModelProto:
    return one(node("Relu", ["x"], ["y"]), opsets={"": 21, "ai.onnx.preview.training": 2})


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
