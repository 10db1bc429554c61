"""What a model file says, and what becomes of it in the graph."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from irgrad.api import apply
from irgrad.errors import ExecutionError, ModelTypeError
from irgrad.frontend import load
from irgrad.graph import Graph
from irgrad.runtime import compile
from irgrad.types import OptionalType, SequenceType, TensorType
from tests.frontends.build import (
    FLAG,
    array,
    branches,
    call,
    function,
    model,
    node,
    reference,
    run,
    scalar,
    value,
)

X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


def node_names(read: Graph) -> list[str]:
    return [n.name for n in read.nodes()]


# --- names and order --------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_file() -> None:
    read = load(
        model(
            [node("MatMul", ["x", "w"], ["h"], name="mm"), node("Relu", ["h"], ["out/y:0"], name="act 'é'")],
            [value("x", ("N", 3))],
            [value("out/y:0", ("N", 4))],
            [array("w", np.ones((3, 4)))],
            name="net",
        )
    )
    assert read.name == "net"
    assert [v.name for v in read.values()] == ["x", "w", "h", "out/y:0"]
    assert node_names(read) == ["mm", "act 'é'"]
    assert list(read.parameters) == ["w"]


def test_what_the_reader_adds_makes_way_for_names_of_the_file() -> None:
    # Opset 12 has the axes as attributes; today they are a constant, which is added before the file's own "const" is.
    nodes = [
        node("Unsqueeze", ["x"], ["const"], axes=[0]),
        node("Squeeze", ["const"], ["Relu"], axes=[0]),
        node("Relu", ["Relu"], ["const_1"]),  # without a name of its own
        node("Tanh", ["const_1"], ["y"], name="Relu"),
        node("Tanh", ["y"], ["z"], name="Unsqueeze"),
    ]
    read = load(model(nodes, [value("x")], [value("z")], opsets=12))
    made = {v.name for v in read.values()}
    assert {"x", "const", "Relu", "const_1", "y", "z"} <= made
    assert read.node("Relu").op.name == "Tanh"
    assert read.node("Unsqueeze").outputs[0].name == "z"
    np.testing.assert_allclose(run(read, X)[0], np.tanh(np.tanh(np.maximum(X, 0))), rtol=1e-6)


def test_nodes_may_share_a_name_or_have_none() -> None:
    nodes = [node("Relu", ["x"], ["a"], name="n"), node("Tanh", ["a"], ["b"], name="n"), node("Abs", ["b"], ["y"])]
    read = load(model(nodes, [value("x")], [value("y")]))
    assert node_names(read) == ["n", "n_1", "y"]


def test_nodes_may_come_in_any_order() -> None:
    nodes = [node("Relu", ["x"], ["a"], name="1"), node("Tanh", ["b"], ["y"], name="3"), node("Abs", ["a"], ["b"], name="2")]
    read = load(model(nodes, [value("x")], [value("y")]))
    assert node_names(read) == ["1", "2", "3"]


def test_outputs_may_be_inputs_and_initializers() -> None:
    read = load(model([], [value("x")], [value("x"), value("w", (1,))], [array("w", [5.0])]))
    got = run(read, X)
    np.testing.assert_array_equal(got[0], X)
    assert got[1].tolist() == [5]


def test_the_proto_is_left_as_it_was() -> None:
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(reference("alpha", "slope", AttributeProto.FLOAT))
    f = function("f", ["a"], ["b"], [leaky], attributes=["slope"])
    made = model(
        [
            call("f", ["x"], ["h"], slope=0.5),
            node("If", ["flag"], ["y"], **branches([node("Relu", ["h"], ["r"])], [node("Abs", ["h"], ["r"])])),
        ],
        [value("x"), FLAG],
        [value("y")],
        functions=[f],
        opsets={"": 21, "local": 1},
    )
    before = made.SerializeToString(deterministic=True)
    load(made)
    assert made.SerializeToString(deterministic=True) == before


# --- types ------------------------------------------------------------------------------------------------------------


def test_symbolic_dimensions_stay_symbolic() -> None:
    read = load(
        model(
            [node("MatMul", ["x", "w"], ["h"]), node("Transpose", ["h"], ["y"], perm=[1, 0])],
            [value("x", ("batch size", 3))],
            [value("y", None)],
            [array("w", np.ones((3, 4)))],
        )
    )
    assert read.value("h").shape == ("batch size", 4)
    assert read.value("y").shape == (4, "batch size")


def test_dimensions_that_say_nothing() -> None:
    read = load(model([node("Add", ["x", "z"], ["y"])], [value("x", ("?", -1, None)), value("z", None)], [value("y", None)]))
    assert read.value("x").shape == (None, None, None)
    assert read.value("z").shape is None


def test_declarations_fill_gaps_but_do_not_overrule() -> None:
    nodes = [
        node("NonZero", ["x"], ["found"]),
        node("Reshape", ["x", "shape"], ["r"]),
        node("Relu", ["x"], ["known"]),
    ]
    read = load(
        model(
            nodes,
            [value("x"), value("shape", (2,), TensorProto.INT64)],
            [value("known", (7, "N")), value("r", ("A", 2))],
            value_info=[value("found", (2, "hits"), TensorProto.INT64)],
        )
    )
    assert read.value("found").shape == (2, None)
    assert read.value("r").shape == (None, 2)
    assert read.value("known").shape == (2, 3)


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4, ml_dtypes.uint4, np.int8, np.uint64]
)
def test_initializers_keep_their_dtype(dtype: Any) -> None:
    weights = np.array([1, 2, 3], dtype)
    made = model(
        [node("Identity", ["w"], ["y"])],
        [],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(weights, "w")],
        opsets=25,
    )
    read = load(made)
    assert read.value("w").dtype == weights.dtype
    assert bool(read.parameters) == (np.dtype(dtype).name in ("float16", "bfloat16"))
    (got,) = run(read)
    assert got.dtype == weights.dtype
    assert got.tolist() == weights.tolist()


def test_strings() -> None:
    made = model(
        [node("Identity", ["w"], ["y"]), node("StringConcat", ["y", "s"], ["z"])],
        [value("s", (2,), TensorProto.STRING)],
        [onnx.ValueInfoProto(name="z")],
        [TensorProto(name="w", data_type=TensorProto.STRING, dims=[2], string_data=["é".encode(), b""])],
    )
    assert run(made, np.array(["a", "b"], object))[0].tolist() == ["éa", "b"]


def test_sequences_and_optionals() -> None:
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, ["N", 2])
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [3])
    maybe = helper.make_value_info("o", helper.make_optional_type_proto(tensor))
    made = model(
        [node("SequenceAt", ["s", "k"], ["y"]), node("OptionalHasElement", ["o"], ["there"])],
        [sequence, maybe, scalar("k", TensorProto.INT64)],
        [onnx.ValueInfoProto(name="y"), onnx.ValueInfoProto(name="there")],
    )
    read = load(made)
    # The elements may have a size each under the name N.
    assert read.value("s").type == SequenceType(TensorType(np.dtype(np.float32), (None, 2)))
    assert read.value("o").type == OptionalType(TensorType(np.dtype(np.float32), (3,)))
    elements = [np.zeros((1, 2), np.float32), np.ones((2, 2), np.float32)]
    assert run(read, elements, np.zeros(3, np.float32), np.array(1))[0].tolist() == [[1, 1], [1, 1]]


# --- versions ---------------------------------------------------------------------------------------------------------


def test_initializers_that_are_inputs_are_parameters() -> None:
    made = model(
        [node("Add", ["x", "w"], ["h"]), node("Gather", ["h", "i"], ["y"])],
        [value("w", (3,)), value("x"), value("i", (1,), TensorProto.INT64)],
        [value("y", None)],
        [array("w", [1, 2, 3]), array("i", [1], np.int64)],
        ir_version=3,
        opsets=7,
    )
    read = load(made)
    assert list(read.inputs) == ["x"]
    assert list(read.parameters) == ["w"]
    assert read.value("i").constant is not None
    program = compile(read)
    np.testing.assert_array_equal(program({"x": X})["y"], np.add(X[1:], [1, 2, 3]))
    np.testing.assert_array_equal(program({"x": X, "w": np.zeros(3, np.float32)})["y"], X[1:])


def test_the_first_models_import_nothing_and_leave_out_the_kind_of_attributes() -> None:
    made = model([node("LeakyRelu", ["x"], ["y"], alpha=0.5)], [value("x")], [value("y")], opsets={}, ir_version=1)
    made.graph.node[0].attribute[0].ClearField("type")
    np.testing.assert_array_equal(run(made, X)[0], np.where(X < 0, X / 2, X))


def test_the_standard_domain_has_two_names() -> None:
    made = model([node("Relu", ["x"], ["y"], domain="ai.onnx")], [value("x")], [value("y")], opsets={"ai.onnx": 21})
    assert load(made).nodes()[0].op.qualified_name == "Relu"


def test_versions_of_custom_domains_may_be_any_number() -> None:
    for domain in ("com.acme", "ai.onnx.preview"):
        made = model([node("Relu", ["x"], ["y"])], [value("x")], [value("y")], opsets={"": 21, domain: 2**62})
        made.graph.node.append(node("Thing", ["y"], ["z"], domain=domain))
        assert load(made).nodes()[1].op.domain == domain


def test_notes_of_tools_are_no_attributes() -> None:
    made = model([node("Relu", ["x"], ["y"], __backwards=1)], [value("x")], [value("y")])
    assert load(made).nodes()[0].attrs == {}


def test_metadata() -> None:
    made = model([node("Relu", ["x"], ["y"], name="n", doc_string="clips")], [value("x")], [value("y")])
    made.producer_name, made.producer_version, made.domain, made.model_version = "tool", "1.2", "org.acme", 7
    made.doc_string, made.graph.doc_string = "a model", "a graph"
    made.graph.input[0].doc_string = "pixels"
    for entries, text in (
        (made.metadata_props, "m"),
        (made.graph.metadata_props, "g"),
        (made.graph.node[0].metadata_props, "n"),
    ):
        entries.add(key="k", value=text)
    assert load(made).metadata == {
        "producer": "tool 1.2",
        "domain": "org.acme",
        "model_version": "7",
        "doc": "a model",
        "graph_doc": "a graph",
        "value_doc:x": "pixels",
        "property:k": "m",
        "graph_property:k": "g",
        "node_doc:n": "clips",
        "node_property:n:k": "n",
    }


def test_remarks_need_not_be_utf8() -> None:
    made = model([node("Relu", ["x"], ["y"], doc_string="QQ")], [value("x")], [value("y")])
    made.doc_string = "QQ"
    damaged = onnx.ModelProto()
    damaged.ParseFromString(made.SerializeToString().replace(b"QQ", b"\xff\xfe"))
    assert load(damaged).metadata["doc"] == "\ufffd\ufffd"


# --- custom operations ------------------------------------------------------------------------------------------------


def custom(**options: Any) -> onnx.ModelProto:
    return model(
        [
            node("Relu", ["x"], ["h"]),
            node("Strange", ["h", "", "w"], ["a", "b"], name="odd", domain="com.acme", knob=3, label="ü", table=[1.0, 2.0]),
            node("BiasGelu", ["a", "w"], ["y"], domain="com.microsoft"),
        ],
        [value("x")],
        [value("y", ("N", 3), TensorProto.FLOAT16)],
        [array("w", [1, 2, 3])],
        opsets={"": 17, "com.acme": 4, "com.microsoft": 1},
        **options,
    )


def test_custom_operations_load_print_and_copy() -> None:
    read = load(custom(value_info=[value("a", (2, 3), TensorProto.INT64)]))
    odd = read.node("odd")
    assert odd.op.qualified_name == "com.acme.Strange"
    assert odd.attrs["knob"] == 3
    assert odd.attrs["label"] == "ü"
    assert [None if v is None else v.name for v in odd.inputs] == ["h", None, "w"]
    assert read.value("a").type == TensorType(np.dtype(np.int64), (2, 3))
    assert read.value("y").type == TensorType(np.dtype(np.float16), ("N", 3))
    copied = read.copy()
    assert [repr(n) for n in copied.nodes()] == [repr(n) for n in read.nodes()]
    assert [v.type for v in copied.values()] == [v.type for v in read.values()]
    assert str(read)


@pytest.mark.parametrize("shape", [(2, 3), ("N", 3)], ids=["static", "dynamic"])
def test_custom_operations_cannot_run(shape: Any) -> None:
    made = custom()
    made.graph.input[0].CopyFrom(value("x", shape))
    with pytest.raises(ExecutionError, match=r"com\.acme\.Strange"):
        run(made, X)


def test_custom_operations_that_no_output_needs_do_not_hinder() -> None:
    made = custom()
    del made.graph.output[:]
    made.graph.output.append(value("h"))
    np.testing.assert_array_equal(run(made, X)[0], np.maximum(X, 0))


def test_types_that_nobody_declares_are_no_reason_to_refuse() -> None:
    # The operand says float, the truth is integers: only the author of the operation knows.
    nodes = [
        node("Find", ["x"], ["i", "seq"], domain="com.acme"),
        node("Gather", ["x", "i"], ["g"]),
        node("Shape", ["i"], ["s"]),
        node("Add", ["i", "one"], ["j"]),
        node("SequenceAt", ["seq", "i"], ["e"]),
        node("If", ["flag"], ["y"], **branches([node("Gather", ["x", "j"], ["r"])], [node("Gather", ["x", "i"], ["r"])])),
    ]
    made = model(
        nodes,
        [value("x"), FLAG],
        [onnx.ValueInfoProto(name="y"), value("j", None, TensorProto.INT64)],
        [array("one", [1], np.int64)],
        opsets={"": 21, "com.acme": 1},
    )
    assert load(made).value("j").dtype == np.int64


def test_a_type_that_nobody_declares_is_asked_for_where_it_matters() -> None:
    # Up to opset 6, along which axes the sum broadcasts depends on the rank.
    nodes = [
        node("Find", ["x"], ["i"], domain="com.acme"),
        node("Add", ["i", "x"], ["y"], name="sum", broadcast=1, axis=0),
    ]
    opsets = {"": 6, "com.acme": 1}
    made = model(nodes, [value("x")], [onnx.ValueInfoProto(name="y")], opsets=opsets)
    with pytest.raises(ModelTypeError, match=r"'sum'.*declare their types"):
        load(made)
    made.graph.value_info.append(value("i", (2, 3, 4)))
    load(made)


# --- weights that are made by nodes -----------------------------------------------------------------------------------


def test_filled_weights_take_no_memory_until_they_are_used() -> None:
    fill = array("", [0.5])
    made = model(
        [node("ConstantOfShape", ["shape"], ["w"], value=fill), node("MatMul", ["x", "w"], ["y"])],
        [value("x")],
        [value("y", None)],
        [array("shape", [3, 4], np.int64)],
    )
    read = load(made)
    assert list(read.parameters) == ["w"]
    assert read.parameters["w"].strides == (0, 0)
    np.testing.assert_array_equal(run(read, X)[0], X @ np.full((3, 4), 0.5, np.float32))


def test_absurd_weights_stay_nodes() -> None:
    made = model(
        [node("ConstantOfShape", ["shape"], ["w"]), node("Shape", ["w"], ["y"])],
        [],
        [onnx.ValueInfoProto(name="y")],
        [array("shape", [10**6, 10**6], np.int64)],
    )
    read = load(made)
    assert not read.parameters
    assert read.value("w").shape == (10**6, 10**6)


def test_a_symbol_that_a_file_declares_for_a_result_is_not_believed() -> None:
    """The file calls both sizes N, but the slice is shorter: were that believed, simplification would drop the slice."""
    nodes = [node("Slice", ["x", "starts", "ends"], ["h"]), node("Neg", ["h"], ["y"])]
    bounds = [helper.make_tensor_value_info(name, TensorProto.INT64, [1]) for name in ("starts", "ends")]
    read = load(model(nodes, [value("x", ["N"]), *bounds], [value("y", ["N"])], value_info=[value("h", ["N"])]))
    assert read.value("h").shape == (None,)
    feeds = {"x": np.arange(4, dtype=np.float32), "starts": np.array([1]), "ends": np.array([3])}
    np.testing.assert_array_equal(compile(apply(read, "simplify"))(feeds)["y"], [-1, -2])
