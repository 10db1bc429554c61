"""Older opsets: every change of meaning has an adapter, every adapter is right, every other change was looked at."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from irgrad.errors import ModelTypeError
from irgrad.frontend import load
from irgrad.frontends.onnx.upgrade.registry import registered
from irgrad.frontends.onnx.upgrade.unchanged import reviewed
from irgrad.graph import OPSET
from irgrad.proto import node_to_proto
from tests.frontends.old_models import OldCase, check_node, model_of, run
from tests.frontends.old_network import feeds, network
from tests.frontends.upgrade_cases import AXES, ELEMENTWISE, INDEX, SHAPE, SOFTMAX, M, X
from tests.frontends.upgrade_layer_cases import ATTENTION, HEADS, MASK, NORM, POOL, RECURRENT, RESIZE, WITHDRAWN

CASES = [*ELEMENTWISE, *AXES, *SHAPE, *SOFTMAX, *INDEX, *NORM, *RESIZE, *POOL, *RECURRENT, *ATTENTION, *WITHDRAWN]

# --- every step of every operation is accounted for -------------------------------------------------------------------

Schema = defs.OpSchema


def steps() -> dict[tuple[str, int], tuple[Any, Any]]:
    """(operation, opset) of each change of a schema → the schemas before and after it."""
    versions: dict[str, list[Any]] = defaultdict(list)
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            versions[schema.name].append(schema)
    found = {}
    for name, schemas in versions.items():
        schemas.sort(key=lambda s: s.since_version)
        for old, new in pairwise(schemas):
            found[name, new.since_version] = (old, new)
    return found


STEPS = steps()
REVIEWED = reviewed()
UNCHANGED = {step for section in REVIEWED.values() for step in section}
ADAPTED = {(name, since) for domain, name, since in registered() if domain == ""}


def test_every_change_of_a_schema_has_an_adapter_or_was_found_to_need_none() -> None:
    unknown = sorted(f"{name} {since}" for name, since in set(STEPS) - ADAPTED - UNCHANGED)
    assert not unknown, (
        f"the installed onnx changes operations in ways that nobody has looked at: {', '.join(unknown)}. Compare the "
        "schemas: where a node means something else from then on, write an adapter in frontends/onnx/upgrade, otherwise "
        "list the step in frontends/onnx/upgrade/no_change_of_meaning.txt"
    )


def test_adapters_and_table_name_real_changes_and_no_change_twice() -> None:
    assert not UNCHANGED - set(STEPS), "the table lists changes that no schema makes"
    assert not UNCHANGED & ADAPTED, "the table lists changes that have an adapter"
    assert sum(map(len, REVIEWED.values())) == len(UNCHANGED), "the table lists a change in two sections"
    made_up = {(name, since) for name, since in ADAPTED - set(STEPS) if defs.has(name)}
    # These were experimental operations before, of which onnx has no schema left.
    assert made_up == {("MeanVarianceNormalization", 9), ("ThresholdedRelu", 10)}


def signature(schema: Any) -> dict[str, tuple[Any, ...]]:
    """Name of an attribute, operand or output → what a node may rely on of it."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, attribute in schema.attributes.items():
        default = attribute.default_value
        found[name] = ("attribute", attribute.type, helper.get_attribute_value(default) if default.type else None)
    for kind, parameters in (("operand", schema.inputs), ("output", schema.outputs)):
        for position, parameter in enumerate(parameters):
            found[parameter.name] = (kind, position, parameter.option == Schema.FormalParameterOption.Variadic)
    return found


def required(schema: Any) -> set[str]:
    """The attributes, operands and outputs that a node must have."""
    single = {p.name for p in (*schema.inputs, *schema.outputs) if p.option == Schema.FormalParameterOption.Single}
    many = {p.name for p in schema.inputs if p.option == Schema.FormalParameterOption.Variadic and p.min_arity}
    return {name for name, attribute in schema.attributes.items() if attribute.required} | single | many


def accepted(schema: Any) -> dict[str, set[str]]:
    """Operand or output → the types that it may have."""
    constraints = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    return {p.name: constraints.get(p.type_str, {p.type_str}) for p in (*schema.inputs, *schema.outputs)}


@pytest.mark.parametrize("section", sorted(REVIEWED))
def test_changes_listed_as_none_are_none(section: str) -> None:
    for step, added in REVIEWED[section].items():
        old, new = STEPS[step]
        before, after = signature(old), signature(new)
        for name, meaning in before.items():
            assert after.get(name) == meaning, f"{step}: {name} was {meaning} and is {after.get(name)}"
        assert required(new) <= required(old), f"{step}: {required(new) - required(old)} became required"
        assert set(after) - set(before) | required(old) - required(new) == added, f"{step}: not as listed"
        for name, types in accepted(old).items():
            assert types <= accepted(new)[name], f"{step}: {name} may be {types - accepted(new)[name]} no longer"


# --- every adapter is right -------------------------------------------------------------------------------------------


def test_case_names_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize(("name", "since"), sorted(ADAPTED))
def test_every_adapter_has_a_case(name: str, since: int) -> None:
    assert any((case.op == name and case.opset < since) or name in case.covers for case in CASES) or name == "Scan"


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_node(case: OldCase, dynamic: bool) -> None:
    case.check()
    with np.errstate(all="ignore"):
        expected = case.expected()
    results = run(case.model(dynamic=dynamic), case.feeds())
    assert len(results) == len(expected)
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=case.rtol, atol=case.rtol)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_what_comes_of_a_node_is_valid_today(case: OldCase) -> None:
    for node in load(case.model()).nodes():
        operands = ["" if value is None else value.name for value in node.inputs]
        check_node(node_to_proto(node.op.name, "", node.attrs, operands, [v.name for v in node.outputs]), OPSET)


def test_dropout_that_was_not_told_to_test_trains() -> None:
    (node,) = load(OldCase("Dropout", 6, [X], {"ratio": 0.25}).model()).nodes()
    ratio, training = (node.operand(k).constant for k in (1, 2))
    assert ratio == np.float32(0.25)
    assert training is not None
    assert training.item() is True


@pytest.mark.parametrize("opset", range(1, OPSET + 1))
def test_a_network_means_the_same_in_every_opset(opset: int) -> None:
    expected = ReferenceEvaluator(network(OPSET)).run(None, feeds())
    results = run(network(opset), feeds())
    for got, want in zip(results, expected, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-4)


# --- what cannot be brought up to date --------------------------------------------------------------------------------

ROI = np.zeros(0, np.float32)
SCALES = np.array([1, 1, 2, 2], np.float32)
FOR_NN = {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (OldCase("LpPool", 1, [X], {"p": 2.5, "kernel_shape": [2, 2]}), "norm of order 2.5"),
        (OldCase("Cast", 1, [X], {"to": "FLOAT8"}), "casts to 'FLOAT8'"),
        (OldCase("Add", 6, [X, M], {"broadcast": 1, "axis": 3}), "from axis 3 on"),
        (OldCase("Add", 6, [X, M], {"broadcast": 1, "axis": -2}), "from axis -2 on"),
        (OldCase("Upsample", 10, [X, SCALES]), "has been withdrawn by then"),
        (OldCase("Scatter", 12, [X, X.astype(np.int64), X]), "has been withdrawn by then"),
        (OldCase("Resize", 11, [X, ROI, SCALES], {**FOR_NN, "mode": "linear"}), "opset 13 cannot say"),
        (OldCase("Resize", 11, [X, ROI, SCALES], {**FOR_NN, "nearest_mode": "ceil"}), "opset 13 cannot say"),
        (OldCase("ScaledTanh", 1, [X], {"alpha": 1.0}), "lacks the attribute 'beta'"),
        (OldCase("Affine", 10, [X]), "has been withdrawn by then"),
        (OldCase("Attention", 23, [*HEADS[:3], MASK.T[:, :2]]), "Expand"),
    ],
    ids=lambda value: value.name if isinstance(value, OldCase) else None,
)
def test_errors(case: OldCase, problem: str) -> None:
    with pytest.raises(ModelTypeError, match=problem):
        load(case.model())


def test_a_rank_that_matters_must_be_known() -> None:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, None), helper.make_tensor_value_info("s", 1, [3])]
    node = helper.make_node("PRelu", ["x", "s"], ["y"])
    model = model_of([node], 6, inputs, [helper.make_empty_tensor_value_info("y")])
    with pytest.raises(ModelTypeError, match="depends on the rank of its operand 0"):
        load(model)


# --- Scan of opset 8 --------------------------------------------------------------------------------------------------


def scan_of_opset_8(directions: list[int], lengths: bool) -> onnx.ModelProto:
    """Running sums of two sequences, the first weighted by a value of the scope around; per sample of a batch."""
    body = helper.make_graph(
        [
            helper.make_node("Mul", ["a", "w"], ["weighted"]),
            helper.make_node("Add", ["weighted", "b"], ["both"]),
            helper.make_node("Add", ["sum", "both"], ["sum_out"]),
            helper.make_node("Identity", ["sum_out"], ["running"]),
        ],
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("sum", "a", "b")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("sum_out", "running")],
    )
    names = ["lengths" if lengths else "", "initial", "first", "second"]
    scan = helper.make_node("Scan", names, ["final", "all"], body=body, num_scan_inputs=2, directions=directions)
    inputs = [
        helper.make_tensor_value_info("initial", TensorProto.FLOAT, ["N", 2]),
        helper.make_tensor_value_info("first", TensorProto.FLOAT, ["N", "T", 2]),
        helper.make_tensor_value_info("second", TensorProto.FLOAT, ["N", "T", 2]),
        helper.make_tensor_value_info("w", TensorProto.FLOAT, []),
        *([helper.make_tensor_value_info("lengths", TensorProto.INT64, ["N"])] if lengths else []),
    ]
    return model_of([scan], 8, inputs, [helper.make_empty_tensor_value_info(name) for name in ("final", "all")])


@pytest.mark.parametrize("lengths", [None, [4, 2, 3]], ids=["whole", "lengths"])
@pytest.mark.parametrize("directions", [[0, 0], [0, 1]], ids=["forward", "both ways"])
def test_scan_of_opset_8(directions: list[int], lengths: list[int] | None) -> None:
    generator = np.random.default_rng(0)
    initial = generator.standard_normal((3, 2)).astype(np.float32)
    first, second = generator.standard_normal((2, 3, 4, 2)).astype(np.float32)
    values = {"initial": initial, "first": first, "second": second, "w": np.array(2, np.float32)}
    if lengths is not None:
        values["lengths"] = np.array(lengths)
    final, running = run(scan_of_opset_8(directions, lengths is not None), values)
    for sample, length in enumerate(lengths or [4, 4, 4]):
        there = second[sample, :length][:: -1 if directions[1] else 1]
        sums = initial[sample] + np.cumsum(2 * first[sample, :length] + there, 0)
        np.testing.assert_allclose(running[sample, :length], sums, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(running[sample, length:], 0)
        np.testing.assert_allclose(final[sample], sums[-1], rtol=1e-5, atol=1e-6)


# --- scopes of their own ----------------------------------------------------------------------------------------------


def test_a_function_of_another_opset_than_the_model_s() -> None:
    nodes = [
        helper.make_node("Slice", ["a"], ["part"], starts=[1], ends=[3]),
        helper.make_node("Softmax", ["part"], ["b"], axis=0),
    ]
    function = helper.make_function("local", "Old", ["a"], ["b"], nodes, [helper.make_opsetid("", 9)])
    axes = numpy_helper.from_array(np.array([1]), "axes")
    body = [helper.make_node("Old", ["x"], ["y"], domain="local"), helper.make_node("ReduceSum", ["y", "axes"], ["z"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 5])]
    model = model_of(body, 13, inputs, [helper.make_empty_tensor_value_info("z")], [axes])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    (result,) = run(model, {"x": M})
    together = np.exp(M[1:3])
    np.testing.assert_allclose(result, (together / together.sum()).sum(1, keepdims=True), rtol=1e-5)


def test_a_branch_in_an_older_opset() -> None:
    def branch(axis: int) -> onnx.GraphProto:
        node = helper.make_node("Add", ["x", "row"], ["sum"], broadcast=1, axis=axis)
        return helper.make_graph(
            [node], f"axis {axis}", [], [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [3, 3])]
        )

    choice = helper.make_node("If", ["first"], ["y"], then_branch=branch(0), else_branch=branch(1))
    inputs = [
        helper.make_tensor_value_info("first", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3]),
        helper.make_tensor_value_info("row", TensorProto.FLOAT, [3]),
    ]
    model = model_of([choice], 6, inputs, [helper.make_empty_tensor_value_info("y")])
    x, row = M[:3, :3], M[0, :3]
    for first, expected in ((True, x + row[:, None]), (False, x + row)):
        (result,) = run(model, {"first": np.array(first), "x": x, "row": row})
        np.testing.assert_array_equal(result, expected)
