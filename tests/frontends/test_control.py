"""Models with If, Loop and Scan: types, values, and what cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from irgrad.errors import ExecutionError, IrgradError, ModelTypeError
from irgrad.frontend import load
from irgrad.graph import Graph
from irgrad.ops import subgraphs
from irgrad.passes.convert_float import ConvertFloat
from irgrad.runtime import compile
from irgrad.runtime.specialise import specialise
from irgrad.types import TensorType
from tests.frontends.build import array, graph, model, node, scalar, value
from tests.frontends.control_models import (
    BOOL,
    F32,
    GO_ON,
    I64,
    choice,
    cumulative,
    decay,
    growing,
    integer,
    loop_body,
    nested,
    one,
    two_sequences,
    untyped,
)

X = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
TRUE, FALSE = np.array(True), np.array(False)


def execute(made: onnx.ModelProto, **feeds: Any) -> list[np.ndarray]:
    """The outputs of a model, run as read; each has the dtype, and as far as it is known the shape, of its type."""
    read = load(made)
    results = compile(read)(feeds)
    for name, result in results.items():
        type = read.outputs[name].tensor_type
        assert result.dtype == type.dtype
        assert type.shape is None or len(type.shape) == result.ndim
        assert all(d == n for d, n in zip(type.shape or (), result.shape, strict=False) if isinstance(d, int))
    return list(results.values())


def agrees(made: onnx.ModelProto, **feeds: Any) -> list[np.ndarray]:
    """The outputs of a model, which are those of onnx.reference."""
    results = execute(made, **feeds)
    wanted: Any = ReferenceEvaluator(made).run(None, feeds)
    for result, want in zip(results, wanted, strict=True):
        assert result.shape == want.shape
        np.testing.assert_allclose(result, want, rtol=1e-6)
    return results


# --- If ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [TRUE, FALSE])
@pytest.mark.parametrize("shape", [(2, 3), ("N", 3), None], ids=str)
def test_if(shape: Any, condition: np.ndarray) -> None:
    agrees(choice(shape), x=X, c=condition)


def test_the_type_of_an_if_is_what_both_branches_have_in_common() -> None:
    read = load(choice())
    assert read.outputs["y"].shape == (None, None)
    assert read.outputs["s"].shape == (2,)
    same = graph([node("Relu", ["x"], ["r"])], [], untyped("r"))
    made = one(node("If", ["c"], ["y"], then_branch=same, else_branch=same), value("x", ("N", 3)), scalar("c", BOOL))
    assert load(made).outputs["y"].shape == ("N", 3)
    flat = graph([node("Flatten", ["x"], ["f"]), node("ReduceSum", ["x"], ["r"], keepdims=0)], [], untyped("r"))
    made = one(node("If", ["c"], ["y"], then_branch=same, else_branch=flat), value("x"), scalar("c", BOOL))
    assert load(made).outputs["y"].shape is None


def test_a_constant_condition_decides_the_type() -> None:
    made = choice()
    made.graph.input.pop()
    made.graph.initializer.append(array("c", True, bool))
    assert load(made).outputs["y"].shape == (3, 2)


def test_conditions_have_one_element() -> None:
    made = choice()
    made.graph.input[1].CopyFrom(value("c", None, BOOL))
    np.testing.assert_array_equal(execute(made, x=X, c=np.array([[False]]))[0], np.maximum(np.tanh(X), 0))
    for wrong in ([True, True], []):
        with pytest.raises(ExecutionError, match="condition must be one element"):
            execute(made, x=X, c=np.array(wrong, bool))


def test_results_are_the_callers_own() -> None:
    passing = graph([], [], untyped("x"))
    made = one(node("If", ["c"], ["y"], then_branch=passing, else_branch=passing), value("x"), scalar("c", BOOL))
    feed = X.copy()
    (got,) = execute(made, x=feed, c=TRUE)
    got += 1
    np.testing.assert_array_equal(feed, X)


# --- Loop -------------------------------------------------------------------------------------------------------------


def decayed(x: np.ndarray, bound: float, limit: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    steps: list[np.ndarray] = []
    while len(steps) < limit and (not steps or np.abs(x).max() > bound):
        x = x * np.float32(0.5)
        steps.append(x)
    return x, np.stack(steps), np.array([s.sum() for s in steps])


@pytest.mark.parametrize(("bound", "limit"), [(0.1, 100), (0.1, 2), (1e9, 100)])
def test_loop_with_scan_outputs_and_early_exit(bound: float, limit: int) -> None:
    # onnx.reference stacks scan outputs with numpy's vstack, which merges axes: an oracle of our own.
    got = execute(decay(), x=X, bound=np.float32(bound), m=integer(limit), go0=TRUE)
    for result, want in zip(got, decayed(X, bound, limit), strict=True):
        np.testing.assert_allclose(result, want, rtol=1e-5)
        assert result.shape == want.shape


def test_loop_without_a_trip_count_or_a_condition() -> None:
    got = execute(decay(limit=""), x=X, bound=np.float32(0.1), m=integer(0), go0=TRUE)
    np.testing.assert_array_equal(got[0], decayed(X, 0.1, 1e9)[0])
    # By the table in ONNX's description the condition of the body does not count then.
    got = execute(decay(condition=""), x=X, bound=np.float32(1e9), m=integer(4), go0=TRUE)
    np.testing.assert_array_equal(got[0], X / 16)
    with pytest.raises(ExecutionError, match="would never end"):
        execute(decay(limit="", condition=""), x=X, bound=np.float32(0.1), m=integer(0), go0=TRUE)


@pytest.mark.parametrize(("limit", "condition"), [(0, TRUE), (-3, TRUE), (5, FALSE)])
def test_loop_with_zero_trips(limit: int, condition: np.ndarray) -> None:
    y, steps, totals = execute(decay(), x=X, bound=np.float32(0.1), m=integer(limit), go0=condition)
    np.testing.assert_array_equal(y, X)
    assert steps.shape == (0, 2, 3)
    assert totals.shape == (0,)
    assert steps.dtype == totals.dtype == np.float32


def test_shapes_that_change_from_trip_to_trip() -> None:
    made = growing()
    read = load(made)
    assert read.outputs["list"].shape == (None,)
    assert read.outputs["sum"].shape == ("N", 3)
    numbers, total = execute(made, x=X, m=integer(4), start=np.array([7]))
    assert numbers.tolist() == [7, 0, 1, 2, 3]
    np.testing.assert_allclose(total, 5 * X, rtol=1e-6)
    # onnx.reference takes an absent condition for a false one.
    made.graph.node[0].input[1] = "true"
    made.graph.initializer.append(array("true", True, bool))
    agrees(made, x=X, m=integer(4), start=np.array([7]))


def test_states_that_are_declared_as_they_start() -> None:
    """Files declare the first shape of a state that grows; it must not be believed."""
    made = growing()
    body = made.graph.node[0].attribute[0].g
    body.input[2].CopyFrom(value("list", (1,), I64))
    body.input[3].CopyFrom(value("s", (5, 3)))  # and some declare nonsense
    read = load(made)
    assert read.nodes()[-1].attrs["body"].value("list").shape == (None,)
    assert read.outputs["sum"].shape == ("N", 3)
    assert execute(made, x=X, m=integer(2), start=np.array([7]))[0].tolist() == [7, 0, 1]


def test_a_rank_that_changes() -> None:
    body = loop_body([GO_ON, node("Unsqueeze", ["s", "zero"], ["t"])], untyped("s"), ["go", "t"])
    made = one(
        node("Loop", ["m", "", "x"], ["y"], body=body), value("x"), scalar("m", I64), weights=[array("zero", [0], np.int64)]
    )
    assert load(made).outputs["y"].shape is None
    assert execute(made, x=X, m=integer(3))[0].shape == (1, 1, 1, 2, 3)


def test_types_of_states_may_be_left_out() -> None:
    body = loop_body([GO_ON, node("Add", ["s", "x"], ["t"])], untyped("s"), ["go", "t", "t"])
    for info in body.input:
        info.ClearField("type")
    made = one(node("Loop", ["m", "", "x"], ["y", "all"], body=body), value("x", ("N", 3)), scalar("m", I64))
    read = load(made)
    assert read.outputs["y"].shape == ("N", 3)
    assert read.outputs["all"].shape == (None, "N", 3)
    np.testing.assert_allclose(execute(made, x=X, m=integer(2))[0], 3 * X, rtol=1e-6)


def test_known_trip_counts_are_in_the_type() -> None:
    def counted(condition: str, trips: int = 4) -> Graph:
        body = loop_body([GO_ON, node("Add", ["s", "x"], ["t"])], [value("s")], ["go", "t", "t"])
        weights = [array("m", trips, np.int64), array("true", True, bool)]
        loop = node("Loop", ["m", condition, "x"], ["y", "all"], body=body)
        return load(one(loop, value("x"), scalar("maybe", BOOL), weights=weights))

    assert counted("").outputs["all"].shape == (4, 2, 3)
    assert counted("true").outputs["all"].shape == (4, 2, 3)
    assert counted("maybe").outputs["all"].shape == (None, 2, 3)
    assert counted("", -1).outputs["all"].shape == (0, 2, 3)
    # A body that may end the loop early leaves the number of trips open.
    body = loop_body([node("Less", ["i", "m"], ["go"]), node("Add", ["s", "x"], ["t"])], [value("s")], ["go", "t", "t"])
    weights = [array("m", 4, np.int64), array("true", True, bool)]
    early = load(one(node("Loop", ["m", "true", "x"], ["y", "all"], body=body), value("x"), weights=weights))
    assert early.outputs["all"].shape == (None, 2, 3)


def test_a_trip_count_out_of_a_shape() -> None:
    body = loop_body([GO_ON, node("Gather", ["x", "i"], ["row"])], [], ["go", "row"])
    made = one(
        node("Loop", ["n", ""], ["rows"], body=body),
        value("x", ("N", 3)),
        before=[node("Shape", ["x"], ["shape"], end=1), node("Squeeze", ["shape"], ["n"])],
    )
    read = load(made)
    assert read.outputs["rows"].shape == ("N", 3)
    concrete = specialise(read, {"x": TensorType(np.dtype(np.float32), (2, 3))})
    assert concrete.outputs["rows"].shape == (2, 3)
    np.testing.assert_array_equal(execute(made, x=X)[0], X)


def test_nested_control_flow() -> None:
    (got,) = execute(nested(), x=X, m=integer(3))
    s = X
    for i in range(3):
        v = s + X
        for j in range(i + 3):
            v = v + X if j % 2 == 0 else v * np.array([0.5, 0.25, 2.0], np.float32)
        s = v
    np.testing.assert_allclose(got, s, rtol=1e-5)
    assert list(load(nested()).parameters) == ["w"]


def test_nested_if_in_loop_agrees_with_the_reference() -> None:
    yes = graph([node("Add", ["s", "x"], ["r"])], [], untyped("r"))
    no = graph([node("Neg", ["s"], ["r"])], [], untyped("r"))
    body = loop_body(
        [GO_ON, node("Less", ["i", "three"], ["low"]), node("If", ["low"], ["t"], then_branch=yes, else_branch=no)],
        [value("s")],
        ["go", "t"],
    )
    made = one(
        node("Loop", ["m", "go0", "x"], ["y"], body=body),
        value("x"),
        scalar("m", I64),
        scalar("go0", BOOL),
        weights=[array("three", 3, np.int64)],
    )
    for trips in (0, 2, 6):
        agrees(made, x=X, m=integer(trips), go0=TRUE)


def test_sequences_as_states() -> None:
    sequence = helper.make_tensor_sequence_value_info
    body = loop_body(
        [GO_ON, node("Gather", ["x", "i"], ["row"]), node("SequenceInsert", ["s", "row"], ["t"])],
        [sequence("s", F32, None)],
        ["go", "t"],
    )
    made = model(
        [
            node("SequenceEmpty", [], ["none"], dtype=F32),
            node("Loop", ["m", "", "none"], ["rows"], body=body),
            node("ConcatFromSequence", ["rows"], ["y"], axis=0),
        ],
        [value("x"), scalar("m", I64)],
        untyped("y"),
    )
    np.testing.assert_array_equal(execute(made, x=X, m=integer(2))[0], X.reshape(-1))


def test_slices_of_one_scan_output_have_one_shape() -> None:
    made = growing()
    made.graph.node[0].output.append("all")
    made.graph.node[0].attribute[0].g.output.extend(untyped("longer"))
    made.graph.output.extend(untyped("all"))
    with pytest.raises(ExecutionError, match="different shapes"):
        execute(made, x=X, m=integer(3), start=np.array([7]))


# --- Scan -------------------------------------------------------------------------------------------------------------


def run_scan(made: onnx.ModelProto, width: int = 3) -> list[np.ndarray]:
    return execute(made, start=np.ones(width, np.float32), x=X, w=np.float32(10))


def test_scan() -> None:
    made = cumulative()
    last, sums, slices = agrees(made, start=np.ones(3, np.float32), x=X, w=np.float32(10))
    want = 1 + np.cumsum(X, 0)
    np.testing.assert_allclose(last, want[-1], rtol=1e-5)
    np.testing.assert_allclose(sums, want + 10, rtol=1e-5)
    np.testing.assert_array_equal(slices, X)


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("out", [0, 1, -1, -2])
@pytest.mark.parametrize("back", [0, 1])
def test_axes_and_directions(axis: int, reverse: int, out: int, back: int) -> None:
    # onnx.reference has neither; the oracle is numpy's cumsum.
    made = cumulative(
        scan_input_axes=[axis],
        scan_input_directions=[reverse],
        scan_output_axes=[out, 0],
        scan_output_directions=[back, 0],
    )
    turned = np.moveaxis(X, axis, 0)[:: -1 if reverse else 1]
    last, sums, slices = run_scan(made, turned.shape[1])
    want = 1 + np.cumsum(turned, 0)
    np.testing.assert_allclose(last, want[-1], rtol=1e-5)
    np.testing.assert_allclose(sums, np.moveaxis(want[:: -1 if back else 1] + 10, 0, out), rtol=1e-5)
    np.testing.assert_array_equal(slices, turned)


def test_the_types_of_a_scan() -> None:
    read = load(cumulative(scan_input_axes=[1], scan_output_axes=[1, -1]))
    assert read.outputs["last"].shape == (None,)
    assert read.outputs["sums"].shape in ((None, "F"), None)
    assert read.outputs["slices"].shape == ("T", "F")
    made = cumulative(scan_input_axes=[1])
    made.graph.input[2].CopyFrom(scalar("w"))
    made.graph.input[0].CopyFrom(value("start", ("T",)))
    read = load(made)
    assert read.outputs["sums"].shape == ("F", "T")
    types = {"x": TensorType(np.dtype(np.float32), (2, 3)), "start": TensorType(np.dtype(np.float32), (2,))}
    concrete = specialise(read, types)
    assert [v.shape for v in concrete.outputs.values()] == [(2,), (3, 2), (3, 2)]


def test_scan_over_nothing() -> None:
    made = cumulative()
    made.graph.input[2].CopyFrom(scalar("w"))
    empty = np.zeros((0, 3), np.float32)
    last, sums, slices = execute(made, start=np.ones(3, np.float32), x=empty, w=np.float32(1))
    assert last.tolist() == [1, 1, 1]
    assert sums.shape == slices.shape == (0, 3)


def test_scanned_axes_have_one_length() -> None:
    a, b = np.ones((3, 2), np.float32), np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(execute(two_sequences(), a=a, b=a)[0], a)
    with pytest.raises(ModelTypeError, match="different lengths"):
        load(two_sequences((3, 2), (4, 2)))
    with pytest.raises(IrgradError, match="different lengths"):
        execute(two_sequences(), a=a, b=b)
    with pytest.raises(IrgradError, match="different lengths"):
        execute(two_sequences(None, None), a=a, b=b)


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"scan_input_axes": [0]}, "scan_input_axes"),
        ({"scan_input_axes": [0, 5]}, "axis 5"),
        ({"scan_input_directions": [0, 2]}, "direction"),
        ({"scan_output_axes": [0, 0]}, "scan_output_axes"),
        ({"scan_output_axes": [3]}, "axis 3"),
    ],
)
def test_scans_that_are_not_valid(attrs: Any, message: str) -> None:
    with pytest.raises(ModelTypeError, match=message):
        load(two_sequences(**attrs))


# --- how it is run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the subgraphs that get compiled, in order."""
    names: list[str] = []
    plain: Callable[[Graph], Any] = subgraphs.Subprogram

    def noting(inner: Graph) -> Any:
        names.append(inner.name)
        return plain(inner)

    monkeypatch.setattr(subgraphs, "Subprogram", noting)
    yield names


def test_a_body_is_compiled_once(compiled: list[str]) -> None:
    program = compile(load(growing()))
    for _ in range(2):
        program({"x": X, "m": integer(100), "start": np.array([7])})
    assert compiled == ["g"]


def test_a_branch_is_compiled_when_it_is_taken(compiled: list[str]) -> None:
    yes = graph([node("Strange", ["x"], ["r"], domain="com.acme")], [], untyped("r"), name="yes")
    no = graph([node("Relu", ["x"], ["r"])], [], untyped("r"), name="no")
    made = model(
        [node("If", ["c"], ["y"], name="choice", then_branch=yes, else_branch=no)],
        [value("x"), scalar("c", BOOL)],
        untyped("y"),
        opsets={"": 21, "com.acme": 1},
    )
    program = compile(load(made))
    np.testing.assert_array_equal(program({"x": X, "c": FALSE})["y"], np.maximum(X, 0))
    assert compiled == ["no"]
    with pytest.raises(ExecutionError, match=r"'choice'.*com\.acme\.Strange"):
        program({"x": X, "c": TRUE})


def test_failures_inside_are_named() -> None:
    body = loop_body([GO_ON, node("Reshape", ["s", "shape"], ["t"], name="culprit")], [value("s", None)], ["go", "t"])
    made = one(
        node("Loop", ["m", "", "x"], ["y"], name="around", body=body),
        value("x"),
        scalar("m", I64),
        value("shape", (None,), I64),
    )
    with pytest.raises(ExecutionError, match=r"'around'.*'culprit'"):
        execute(made, x=X, m=integer(1), shape=np.array([7, 7]))


def test_another_precision() -> None:
    read = load(nested())
    single = compile(read)({"x": X, "m": integer(2)})["y"]
    ConvertFloat("f64").run(read)
    double = compile(read)({"x": X.astype(np.float64), "m": integer(2)})["y"]
    assert double.dtype == np.float64
    np.testing.assert_allclose(single, double, rtol=1e-5)


def test_copies_do_not_share_subgraphs() -> None:
    read = load(nested())
    ConvertFloat("f64").run(read.copy())
    assert compile(read)({"x": X, "m": integer(2)})["y"].dtype == np.float32
