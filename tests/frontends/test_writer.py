"""Graphs written as ONNX models and read back: every operation, real models, random graphs; and what a file holds."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

import irgrad as ig
from irgrad.bundled import BUNDLED, bundled_model
from irgrad.errors import ExportError
from irgrad.frontends.onnx.marks import fingerprint
from irgrad.graph import Graph, Role
from irgrad.op import find_op
from irgrad.plausible import plausible_feeds
from irgrad.testing import START, Case, assert_close, assert_same_results, mapped, random_graph
from irgrad.types import TensorType
from tests.frontends.round_trip import assert_round_trips, is_standard, written
from tests.frontends.test_fuzz import control, damage, layers, outcome
from tests.ops.test_ops import CASES, DIFFERENTIATED

F32 = np.dtype(np.float32)
EXPORTS = sorted((Path(__file__).parent.parent / "data" / "exports").glob("*.onnx"))


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


# --- every operation --------------------------------------------------------------------------------------------------

REFUSED = {
    "Einsum-dots_broadcast": "Ellipsis",  # onnx wants ellipses of one rank
    "Einsum-dots_ranks": "Ellipsis",
    "HannWindow-none": "must be greater than 0",
    "Loop-count and condition of rank 1": "differ in rank",
    "MeanVarianceNormalization": "inconsistent type",  # onnx's definition of it is in float32
    "MeanVarianceNormalization-axes": "inconsistent type",
    "Pad-f32-axes": "ParseData",  # onnx reads axes as int64
    "RMSNormalization-f16-to-f32": "inconsistent type",  # onnx's inference takes the operand's type for the scale's
    "RMSNormalization-f32-to-f16": "inconsistent type",
}
"""Cases that ONNX, or onnx's checker, has no room for → the reason that the error names."""

REFUSED_WITHOUT_SHAPES = {
    # onnx's inference takes a dimension that it does not know for 0.
    "Resize": "Number of elements of input 'sizes' (0)",
    "StringNormalizer": "Input shape must have",
}
"""Operations whose cases are refused where no dimension is known → the reason that the error names."""


def exportable(case: Case) -> Case:
    """The case; in float32, where ONNX does not have its operation in float64."""
    try:
        ig.to_onnx(case.graph())
    except ExportError as error:
        if "does not take f64" in str(error):
            return replace(case, inputs=[None if o is None else mapped(in_single, np.asarray(o)) for o in case.inputs])
    return case


def in_single(array: np.ndarray) -> np.ndarray:
    return array.astype(F32) if array.dtype == np.float64 else array


def is_refused(case: Case, graph: Graph) -> bool:
    """Whether a graph cannot be written, which has to be for the reason that is known of its case."""
    try:
        ig.to_onnx(graph)
    except ExportError as error:
        reason = REFUSED.get(case.name) or REFUSED_WITHOUT_SHAPES.get(case.op)
        assert reason is not None, error
        assert reason in str(error)
        return True
    return False


@pytest.mark.parametrize("case", CASES, ids=names(CASES))
def test_every_case(case: Case) -> None:
    case = exportable(case)
    graph = case.graph()
    if is_refused(case, graph):
        return
    lowered = assert_round_trips(graph)
    if not (case.definition.random or case.requires):
        assert_same_results(graph, lowered, case.feeds(graph), rtol=max(case.rtol, 1e-5), atol=1e-6)


DYNAMIC = [case for case in CASES if case.dynamic]


@pytest.mark.slow
@pytest.mark.parametrize("case", DYNAMIC, ids=names(DYNAMIC))
def test_every_case_without_shapes(case: Case) -> None:
    case = exportable(case)
    graph = case.graph(dynamic=True)
    if not is_refused(case, graph):
        assert_round_trips(graph)


def joint_of(case: Case) -> tuple[Graph, dict[str, object]]:
    """The joint graph of a case, and feeds for it."""
    graph, feeds = case.graph(), dict(case.feeds(case.graph()))
    outputs = case.checked_outputs(graph)
    results = ig.compile(graph)(feeds)
    generator = np.random.default_rng(0)
    for name in outputs:
        feeds[f"{name}_cotangent"] = mapped(lambda y: generator.standard_normal(y.shape).astype(y.dtype), results[name])
    return ig.vjp(graph, [f"x{k}" for k in case.differentiated()], outputs), feeds


CONTROL = [case for case in DIFFERENTIATED if case.op in ("If", "Loop", "Scan", "LSTM", "GRU", "RNN")]


@pytest.mark.parametrize("case", CONTROL, ids=names(CONTROL))
def test_joint_graphs_with_subgraphs(case: Case) -> None:
    case = exportable(case)
    joint, feeds = joint_of(case)
    if not is_refused(case, joint):
        assert_same_results(joint, assert_round_trips(joint), feeds, rtol=1e-5, atol=1e-9)


KEYED = ["irgrad.FoldIn", "irgrad.RandomUniform", "irgrad.RandomNormal"]


@pytest.mark.parametrize("case", [case for case in CASES if case.op in KEYED], ids=lambda case: case.name)
def test_keyed_random_numbers_are_the_same_in_other_runtimes(case: Case) -> None:
    graph = case.graph()
    feeds = case.feeds(graph)
    results = ReferenceEvaluator(written(graph)).run(None, feeds)
    exact = case.op != "irgrad.RandomNormal"  # Log and Cos are not to the last bit
    for result, want in zip(results, ig.compile(graph)(feeds).values(), strict=True):
        assert_close(result, want, rtol=0 if exact else 1e-5, atol=0 if exact else 1e-6)


# --- real models ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models(name: str) -> None:
    graph = ig.load(bundled_model(name))
    joint = ig.vjp(graph, [*graph.inputs, *graph.parameters])
    if sum(array.nbytes for array in graph.parameters.values()) > 1e8:  # hundreds of megabytes are written once only
        assert ig.graphs_equal(joint, ig.load(written(joint, functions=True))) is None
    else:
        ig.verify(assert_round_trips(joint), types=True)


@pytest.mark.parametrize("file", EXPORTS, ids=[file.stem for file in EXPORTS])
def test_exports(file: Path) -> None:
    graph = ig.load(file)
    joint = ig.vjp(graph, "parameters")
    assert_round_trips(graph)
    ig.verify(assert_round_trips(joint), types=True)
    symbols = [{d for v in g.inputs.values() for d in v.shape or () if isinstance(d, str)} for g in (graph, joint)]
    model = written(joint)
    dims = {d.dim_param for i in model.graph.input for d in i.type.tensor_type.shape.dim if d.dim_param}
    assert dims == symbols[0] | symbols[1]


@pytest.mark.parametrize("file", EXPORTS, ids=[file.stem for file in EXPORTS])
@pytest.mark.parametrize("functions", [False, True], ids=["lowered", "functions"])
@pytest.mark.parametrize("runtime", ["onnx.reference", "onnxruntime"])
def test_joint_graphs_in_other_runtimes(file: Path, functions: bool, runtime: str) -> None:
    with np.load(file.with_suffix(".npz")) as data:
        feeds = {name.removeprefix("input:"): array for name, array in data.items() if name.startswith("input:")}
        feeds["logits_cotangent"] = data["cotangent"]
    joint = ig.vjp(ig.load(file), "parameters", ["logits"])
    model = written(joint, functions=functions)
    if runtime == "onnx.reference":
        results = ReferenceEvaluator(model).run(None, feeds)
    else:
        session = pytest.importorskip("onnxruntime").InferenceSession(model.SerializeToString())
        results = session.run(None, feeds)
    for (name, want), result in zip(ig.compile(joint)(feeds).items(), results, strict=True):
        assert_close(result, want, name, atol=1e-3 * max(1.0, float(np.abs(want).max())))


# --- random graphs ----------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**16), st.integers(1, 8))
def test_random_graphs(seed: int, size: int) -> None:
    graph = random_graph(seed, size=size)
    joint = ig.vjp(graph, ["x"])
    assert_round_trips(graph)
    feeds = {"x": START, **{f"{name}_cotangent": np.array(1.0) for name in graph.outputs}}
    assert_same_results(joint, assert_round_trips(joint), feeds, rtol=1e-6, atol=1e-9)


# --- names ------------------------------------------------------------------------------------------------------------


def small() -> tuple[Graph, ig.Builder]:
    graph = Graph("small")
    graph.add_input("x", TensorType(F32, ("N", 3)))
    graph.add_constant(np.ones(3, F32), "w", parameter=True)
    return graph, ig.Builder(graph)


def test_outputs_under_other_names_than_their_values() -> None:
    graph, b = small()
    x, w = graph.value("x"), graph.value("w")
    with b:
        y = b.op("Tanh", x * w)
        z = b.op("Exp", y)
    graph.set_outputs({"first": y, "second": y, "input": x, "weight": w, "x": x, z.name: z, y.name: z, "w": y})
    model = written(graph)
    assert [o.name for o in model.graph.output] == list(graph.outputs)
    assert_round_trips(graph)
    x_array = np.random.default_rng(0).standard_normal((2, 3)).astype(F32)
    results = ReferenceEvaluator(model).run(None, {"x": x_array})
    for result, want in zip(results, ig.compile(graph)({"x": x_array}).values(), strict=True):
        assert_close(result, want, rtol=1e-6)


def test_an_output_with_the_name_of_another_input() -> None:
    graph, b = small()
    graph.set_outputs({"x": b.op("Tanh", graph.value("x"))})
    with pytest.raises(ExportError, match="has an input 'x' and another value as the output 'x'"):
        ig.to_onnx(graph)


def branch(name: str, operation: str, *, doubled: bool = False) -> Graph:
    """A branch that captures two values; the names in it are those of the graph around it."""
    inner = Graph(name)
    a, b = (inner.add_input(n, TensorType(F32, ("N", 3))) for n in ("y", "x"))
    builder = ig.Builder(inner)
    with builder:
        result = builder.op(operation, a + b * (2 if doubled else 1))
    inner.set_outputs({"y": result, "again": result, "x": b})
    return inner


def test_subgraphs_with_the_names_of_the_graph_around_them() -> None:
    graph, b = small()
    x = graph.value("x")
    flag = graph.add_input("flag", TensorType(np.dtype(bool), ()))
    with b:
        y = x * graph.value("w")
        graph.rename(y, "y")
        branches = {"then_branch": branch("then", "Tanh", doubled=True), "else_branch": branch("else", "Exp")}
        choice = b.node(find_op("If"), [flag, y, y], {**branches, "captured": 2}, outputs=3)
    graph.set_outputs(choice.outputs)
    model = written(graph)
    (node,) = [n for n in model.graph.node if n.op_type == "If"]
    inside = [name for a in node.attribute for n in a.g.node for name in n.output]
    assert len(set(inside)) == len(inside)
    assert not set(inside) & {"x", "y", "w"}
    lowered = assert_round_trips(graph)
    for taken in (True, False):
        feeds = {"x": np.ones((2, 3), F32), "flag": np.array(taken)}
        assert_same_results(graph, lowered, feeds)
        for result, want in zip(ReferenceEvaluator(model).run(None, feeds), ig.compile(graph)(feeds).values(), strict=True):
            assert_close(result, want, rtol=1e-6)


def test_absent_operands_at_the_end_are_left_out() -> None:
    graph, b = small()
    graph.set_outputs({"y": b.op("ReduceSum", graph.value("x"), None, keepdims=0)})
    assert list(written(graph).graph.node[0].input) == ["x"]
    assert_round_trips(graph)


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_roles_gradients_and_types_are_in_the_file() -> None:
    graph, b = small()
    with b:
        y = b.op("Tanh", graph.value("x") * graph.value("w"))
    graph.set_outputs({"y": y})
    joint = ig.vjp(graph, "parameters")
    model = written(joint)
    notes = {n.name: {p.key: p.value for p in n.metadata_props} for n in model.graph.node}
    for node in joint.nodes():
        if node.op.domain == "" and node.role is Role.BACKWARD:
            assert notes[node.name]["irgrad.role"] == "backward"
            assert notes[node.name].get("irgrad.origin") == node.origin
    (gradients,) = [p.value for p in model.graph.metadata_props if p.key == "irgrad.gradients"]
    assert gradients == '{"w": "w_grad"}'
    declared = {v.name for v in (*model.graph.value_info, *model.graph.output)}
    assert declared == {name for n in model.graph.node for name in n.output}
    assert (model.producer_name, model.ir_version) == ("irgrad", 10)
    assert ig.load(model).gradients == {"w": "w_grad"}


def test_parameters_and_other_constants_are_told_apart() -> None:
    graph, b = small()
    graph.add_constant(np.full(3, 2, F32), "scale")
    graph.add_constant(np.arange(3), "learned indices", parameter=True)
    graph.add_constant(np.array(["a", "b"], object), "words")
    with b:
        graph.set_outputs({"y": graph.value("x") * graph.value("w") * graph.value("scale")})
    assert_round_trips(graph)
    assert list(ig.load(ig.to_onnx(graph)).parameters) == ["w", "learned indices"]


def test_metadata_is_kept() -> None:
    graph, b = small()
    node = b.node(find_op("Tanh"), [graph.value("x")], name="a:b")
    graph.set_outputs({"y": node.outputs[0]})
    graph.metadata = {
        "producer": "pytorch 2.1",
        "domain": "org.example",
        "model_version": "12",
        "doc": "a model",
        "graph_doc": "a graph",
        "property:license": "none",
        "property:irgrad.role": "somebody's own",
        "graph_property:stage": "last",
        "value_doc:x": "the input",
        "value_doc:y": "the output",
        "value_doc:nothing": "is not there",
        "node_doc:a:b": "a node",
        "node_property:a:b:c:d": "of a node",
        "node_property:gone:c": "of no node",
        "node_property:a:b:irgrad.origin": "somebody's own",
        "my own": "",
    }
    model = written(graph)
    assert model.doc_string == "a model"
    assert model.graph.node[0].doc_string == "a node"
    assert {(p.key, p.value) for p in model.graph.node[0].metadata_props} == {("c:d", "of a node")}
    assert_round_trips(graph)


def test_numbers_that_float32_cannot_say() -> None:
    graph = Graph("exact")
    x = graph.add_input("x", TensorType(np.dtype(np.float64), (3,)))
    b = ig.Builder(graph)
    graph.set_outputs({"y": b.op("LeakyRelu", x, alpha=0.1)})
    assert_round_trips(graph)
    assert ig.load(written(graph)).node("LeakyRelu").attrs == {"alpha": 0.1}


def test_known_elements_of_shapes_are_kept() -> None:
    graph, b = small()
    shape = b.op("Concat", b.op("Shape", graph.value("x"), end=1), b.ints([1, 3]), axis=0)
    graph.set_outputs({"y": b.op("Reshape", graph.value("x"), shape)})
    assert shape.contents == ("N", 1, 3)
    assert_round_trips(graph)
    shape.contents = None  # as a pass might leave it
    assert_round_trips(graph)


def test_the_graph_stays_as_it_is() -> None:
    graph = ig.load(bundled_model("squeezenet"))
    joint = ig.vjp(graph, "inputs")
    before = joint.copy()
    ig.to_onnx(joint)
    assert ig.graphs_equal(joint, before) is None


# --- functions --------------------------------------------------------------------------------------------------------


def test_functions_are_shared_by_calls_of_one_kind() -> None:
    graph = ig.load(bundled_model("squeezenet"))
    joint = ig.vjp(graph, "parameters")
    own = [node for node in joint.nodes() if node.op.domain == "irgrad"]
    model = written(joint, functions=True)
    assert {node.domain for node in model.graph.node} == {"", "irgrad"}
    assert 0 < len(model.functions) < len(own)
    assert {(f.domain, f.name) for f in model.functions} == {
        (n.domain, n.op_type) for n in model.graph.node if n.domain == "irgrad"
    }
    attributes = {n.name: {a.name for a in n.attribute} for n in model.graph.node}
    for node in own:
        assert attributes[node.name] == set(node.attrs)


def test_functions_of_somebody_else_are_inlined() -> None:
    """Only a file of irgrad's can say that a function is one of its operations: here SumTo is something else."""
    joint = ig.vjp(ig.load(bundled_model("squeezenet")), "parameters")
    model = written(joint, functions=True)
    del model.metadata_props[:]
    graph = ig.load(model)
    assert is_standard(graph)
    feeds = plausible_feeds(joint)
    assert_same_results(joint, graph, feeds, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_functions_whose_bodies_have_subgraphs(op: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    joint, feeds = joint_of(next(case for case in DIFFERENTIATED if case.op == op))
    model = written(joint, functions=True)
    assert any(node.op_type == "Scan" for function in model.functions for node in function.node)
    results = runtime.InferenceSession(model.SerializeToString()).run(None, feeds)
    for (name, want), result in zip(ig.compile(joint)(feeds).items(), results, strict=True):
        assert_close(result, want, name, rtol=1e-4, atol=1e-6)


# --- files that somebody has edited -----------------------------------------------------------------------------------


def test_types_are_inferred_anew_where_an_input_was_edited() -> None:
    graph, b = small()
    with b:
        graph.set_outputs({"y": b.op("Tanh", graph.value("x") * graph.value("w"))})
    model = written(graph)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
    read = ig.load(model)
    assert {str(v.type) for v in read.values() if v.rank == 2} == {"f32[5,3]"}


def test_a_capture_that_was_edited_is_read_as_in_any_file() -> None:
    graph, b = small()
    flag = graph.add_input("flag", TensorType(np.dtype(bool), ()))
    x = graph.value("x")
    branches = {"then_branch": branch("then", "Tanh"), "else_branch": branch("else", "Exp")}
    choice = b.node(find_op("If"), [flag, b.op("Exp", x), x], {**branches, "captured": 2}, outputs=3)
    graph.set_outputs(choice.outputs)
    model = written(graph)
    (node,) = [n for n in model.graph.node if n.op_type == "If"]
    for attribute in node.attribute:
        marks = [p for p in attribute.g.metadata_props if p.key == "irgrad.captured"]
        marks[0].value = '[["x", "x", null]]'
    read = ig.load(model)
    assert_same_results(graph, read, {"x": np.ones((2, 3), F32), "flag": np.array(True)})


def damaged_models() -> dict[str, onnx.ModelProto]:
    """Models of irgrad's that have marks of all kinds."""
    graph, b = small()
    x, flag = graph.value("x"), graph.add_input("flag", TensorType(np.dtype(bool), ()))
    branches = {"then_branch": branch("then", "Tanh", doubled=True), "else_branch": branch("else", "Exp")}
    choice = b.node(find_op("If"), [flag, x, x], {**branches, "captured": 2}, outputs=3)
    shape = b.op("Shape", x)
    shape.contents = None
    numbers = [b.op("ReduceSum", x, None), b.op("LeakyRelu", x, alpha=0.1)]
    graph.set_outputs({"a": choice.outputs[0], "b": choice.outputs[0], "x": x, "s": shape, "c": numbers[0], "d": numbers[1]})
    graph.metadata = {"my": "own"}
    return {
        "odd": ig.to_onnx(graph),
        "layers": ig.to_onnx(ig.vjp(ig.load(layers()), "parameters", ["y"]), functions=True),
        "control": ig.to_onnx(ig.vjp(ig.load(control()), ["x", "w"], ["z"]), functions=True),
    }


@pytest.mark.parametrize("name", ["odd", "layers", "control"])
def test_damage(name: str) -> None:
    """Whatever happens to a file of irgrad's, it is read or refused, whether it still passes for one as it was written."""
    whole, rng, outcomes = damaged_models()[name], random.Random(0), Counter[str]()
    for _ in range(150):
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        for _ in range(rng.randrange(1, 4)):
            damage(model, rng)
        for entry in model.metadata_props:
            if entry.key == "irgrad.fingerprint" and rng.random() < 0.7:
                entry.value = fingerprint(model.graph)
        outcomes[outcome(model)] += 1
    assert outcomes["read"] < 140, outcomes
    assert len(outcomes) >= 3, outcomes


MARKS = {
    "irgrad.names": ["[]", "{1}", '{"a": 1}', "x" * 50, "[" * 2000],
    "irgrad.gradients": ["3", '{"w": null}'],
    "irgrad.outputs": ["{}", "[1]"],
    "irgrad.metadata": ["[]"],
}


@pytest.mark.parametrize(("key", "text"), [(key, text) for key, texts in MARKS.items() for text in texts])
def test_malformed_marks_of_a_graph(key: str, text: str) -> None:
    graph, b = small()
    graph.set_outputs({"y": b.op("Tanh", graph.value("x"))})
    model = written(graph)
    model.graph.metadata_props.add(key=key, value=text)
    with pytest.raises(ig.IrgradError, match="is not what irgrad writes there"):
        ig.load(model)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("irgrad.role", "sideways"),
        ("irgrad.operands", "-1"),
        ("irgrad.operands", "1000000"),
        ("irgrad.results", "many"),
        ("irgrad.expansion", '["one"]'),
        ("irgrad.attributes", '{"alpha": 3}'),
        ("irgrad.attributes", '{"alpha": "0.1"}'),
        ("irgrad.attributes", '{"beta": [1, 2]}'),
        ("irgrad.defaults", "[null]"),
    ],
)
def test_malformed_marks_of_a_node(key: str, text: str) -> None:
    graph, b = small()
    graph.set_outputs({"y": b.op("LeakyRelu", graph.value("x"), alpha=0.5)})
    model = written(graph)
    model.graph.node[0].metadata_props.add(key=key, value=text)
    with pytest.raises(ig.IrgradError, match="is not what irgrad writes there"):
        ig.load(model)


@pytest.mark.parametrize("text", ["f32[N", "f64[N,3]", "f32[2,2]{1}", "i64"])
def test_malformed_types(text: str) -> None:
    graph, b = small()
    graph.set_outputs({"y": b.op("Tanh", graph.value("x"))})
    model = written(graph)
    model.graph.output[0].metadata_props.add(key="irgrad.type", value=text)
    with pytest.raises(ig.IrgradError, match=r"is not what irgrad writes there|is said to be"):
        ig.load(model)
