"""Defective models: operands, types, sizes and functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from irgrad.errors import (
    DanglingNameError,
    DuplicateNameError,
    FunctionRecursionError,
    ModelSizeError,
    ModelTypeError,
    UnsupportedOpsetError,
)
from tests.frontends.build import array, call, function, graph, model, node, reference, scalar, value
from tests.frontends.malformed_cases import defect, one

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
