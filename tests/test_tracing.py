"""Step-by-step execution: what a trace tells of each value, and which node it blames for a NaN."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import irgrad as ig
from irgrad.builder import Builder
from irgrad.cli import main
from irgrad.errors import ExecutionError, FeedError
from irgrad.graph import Graph, Value
from irgrad.tracing import Statistics, Step
from irgrad.types import OptionalType, SequenceType, TensorType

F32 = np.dtype(np.float32)


def built(make: Callable[[Builder, Value], Value], *shape: int | str) -> Graph:
    """A graph of one input x and one output y."""
    graph = Graph("built")
    x = graph.add_input("x", TensorType(F32, shape))
    b = Builder(graph)
    with b:
        graph.set_outputs({"y": make(b, x)})
    return graph


def masked_log(b: Builder, x: Value) -> Value:
    """The log of x where x is positive, else 0: finite forward, and NaN backward."""
    return b.op("Where", x > 0, b.op("Log", x), b.scalar(0, x))


def masked_root(b: Builder, x: Value) -> Value:
    return b.op("Where", x > 0, b.op("Sqrt", x), b.scalar(0, x))


def gradient_of(make: Callable[[Builder, Value], Value]) -> tuple[Graph, dict[str, np.ndarray]]:
    x = np.float32([0, 1, 4])
    return ig.vjp(built(make, "N")), {"x": x, "y_cotangent": np.ones(3, np.float32)}


# --- statistics -------------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_the_finite_elements() -> None:
    found = Statistics.of(np.float32([3, 0, -4, np.nan, np.inf, -np.inf]))
    assert found is not None
    assert (found.elements, found.nan, found.inf, found.zeros) == (6, 1, 2, pytest.approx(1 / 6))
    assert (found.min, found.max, found.norm) == (-4, 3, 5)
    assert found.mean == pytest.approx(-1 / 3)
    assert found.std == pytest.approx(np.std([3, 0, -4]))
    assert not found.finite


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_norm_and_deviation_do_not_leave_the_range(scale: float) -> None:
    found = Statistics.of(np.array([3, 4]) * scale)
    assert found is not None
    assert found.norm == pytest.approx(5 * scale)
    assert found.std == pytest.approx(0.5 * scale)


def test_statistics_of_all_kinds_of_values() -> None:
    """Integers, truth values, small floats, sequences and complex numbers count; text, nothing and emptiness do not."""

    def norm(value: object) -> float | None:
        found = Statistics.of(value)
        return None if found is None else found.norm

    assert (
        norm(np.array([3, 4])) == norm(np.array([3, 4], ml_dtypes.bfloat16)) == norm([np.array([3]), np.array([[4]])]) == 5
    )
    assert norm(np.array([True, False])) == 1
    assert norm(np.array([3 + 4j])) == 5
    assert norm(np.array(["a"], object)) is norm(None) is norm([]) is norm(np.zeros((0, 2))) is None
    assert Statistics.of(np.zeros(0)) == Statistics(0, 0, 0, 0.0)
    assert Statistics.of(np.array([np.nan])) == Statistics(1, 1, 0, 0.0)


# --- what is traced ---------------------------------------------------------------------------------------------------


def test_every_node_is_there_in_order_with_its_role_and_origin() -> None:
    joint, feeds = gradient_of(lambda b, x: b.op("Exp", b.op("Tanh", x)))
    found = ig.trace(joint, feeds)
    assert [step.node for step in found.steps] == [node.name for node in joint.nodes()]
    assert [value.name for value in found.inputs] == ["x", "y_cotangent"]
    roles = {step.role for step in found.steps}
    assert roles == {ig.Role.FORWARD, ig.Role.BACKWARD}
    for step, node in zip(found.steps, joint.nodes(), strict=True):
        assert (step.op, step.role, step.origin) == (node.op.qualified_name, node.role, node.origin)
        assert not step.breaks
    tanh = found.steps[0].outputs[0]
    assert str(tanh.type) == "f32[3]"
    assert tanh.statistics is not None
    assert tanh.statistics.max == pytest.approx(np.tanh(4))
    want = ig.compile(joint)(feeds)
    assert found.results is not None
    for name, array in found.results.items():
        np.testing.assert_array_equal(array, want[name])


def test_nodes_that_are_known_ahead_of_the_run_are_in_their_places() -> None:
    def make(b: Builder, x: Value) -> Value:
        return b.op("Reshape", b.op("Neg", x), b.op("Shape", x)) * b.op("Exp", b.constant(np.float32(2)))

    graph = built(make, "N")
    found = ig.trace(graph, {"x": np.ones(3, np.float32)})
    assert [step.op for step in found.steps] == ["Neg", "Shape", "Reshape", "Exp", "Mul"]
    assert found.steps[1].outputs[0].statistics == Statistics.of(np.array([3]))


def test_what_no_output_needs_does_not_run() -> None:
    graph = built(lambda b, x: b.op("Neg", x), "N")
    Builder(graph).op("Exp", graph.value("x"))
    assert [step.op for step in ig.trace(graph, {"x": [1.0]}).steps] == ["Neg"]


def test_a_pattern_chooses_nodes_by_name_or_origin_and_keeps_their_values() -> None:
    joint, feeds = gradient_of(lambda b, x: b.op("Exp", b.op("Tanh", x)))
    feeds["x"] = np.float32([0, 0.5, 1])
    found = ig.trace(joint, feeds, nodes="Tan?", keep=True)
    assert {step.forward_node for step in found.steps} == {"Tanh"}
    assert len({step.role for step in found.steps}) == 2
    np.testing.assert_array_equal(found.steps[0].outputs[0].array, np.tanh(feeds["x"]))
    assert all(value.array is None for step in ig.trace(joint, feeds).steps for value in step.outputs)
    assert ig.trace(joint, feeds, nodes=["nobody", "Exp"]).steps


def test_values_that_are_no_tensors() -> None:
    graph = Graph()
    row = TensorType(F32, (None,))
    items, maybe = graph.add_input("items", SequenceType(row)), graph.add_input("maybe", OptionalType(row))
    b = Builder(graph)
    graph.set_outputs(
        {"items": b.op("SequenceInsert", items, b.constant(np.float32([np.inf]))), "m": b.op("Identity", maybe)}
    )
    found = ig.trace(graph, {"items": [[1.0], [2.0, 3.0]], "maybe": None}, keep=True)
    (inserted,), (nothing,) = (step.outputs for step in found.steps)
    assert inserted.statistics is not None
    assert inserted.statistics.elements == 4
    assert [array.tolist() for array in inserted.array] == [[1], [2, 3], [np.inf]]
    assert nothing.statistics is None
    assert found.culprit is None  # what was inserted was not finite before


def test_feeds_are_checked_first_and_what_ran_before_a_failure_is_known() -> None:
    graph = built(lambda b, x: b.op("Gather", b.op("Neg", x), b.op("Cast", b.op("Abs", x), to=7)), 2)
    with pytest.raises(FeedError, match="no array was fed"):
        ig.trace(graph, {})
    seen: list[Step] = []
    with pytest.raises(ExecutionError, match="'Gather'"):
        ig.trace(graph, {"x": [7.0, 8.0]}, on_step=seen.append)
    assert [step.op for step in seen] == ["Neg", "Abs", "Cast"]


# --- who is to blame --------------------------------------------------------------------------------------------------


def test_a_nan_of_the_backward_part_only_is_blamed_on_its_forward_node() -> None:
    """The result is finite; the gradient is 0 / 0, by way of the branch that was not taken."""
    joint, feeds = gradient_of(masked_root)
    results = ig.compile(joint)(feeds)
    assert np.isfinite(results["y"]).all()
    assert np.isnan(results["x_grad"][0])
    found = ig.trace(joint, feeds, stop_at_nan=True)
    assert found.culprit is not None
    assert found.results is None
    assert found.culprit == found.steps[-1]
    assert found.culprit.role is ig.Role.BACKWARD
    assert found.culprit.forward_node == "Sqrt"
    assert "the backward node" in found.culprit.complaint
    assert "made for 'Sqrt') makes 1 " in found.culprit.complaint


def test_a_masked_infinity_is_blamed_on_the_node_that_made_it() -> None:
    joint, feeds = gradient_of(masked_log)
    found = ig.trace(joint, feeds, stop_at_nan=True)
    assert found.culprit is not None
    assert (found.culprit.node, found.culprit.role) == ("Log", ig.Role.FORWARD)
    assert "the forward node 'Log' (Log) makes 1 Inf out of finite operands" in str(found)


def test_without_stopping_the_run_goes_on_and_the_first_one_is_told() -> None:
    joint, feeds = gradient_of(masked_log)
    found = ig.trace(joint, feeds)
    assert found.culprit is not None
    assert found.culprit.node == "Log"
    assert found.results is not None
    assert len(found.steps) == len(joint)
    blamed = [step.forward_node for step in found.steps if step.breaks]
    assert blamed[0] == "Log"


def test_the_culprit_is_told_even_where_the_pattern_leaves_it_out() -> None:
    joint, feeds = gradient_of(masked_log)
    found = ig.trace(joint, feeds, nodes="Greater*", stop_at_nan=True)
    assert [step.op for step in found.steps] == ["Greater"]
    assert found.culprit is not None
    assert found.culprit.node == "Log"


def test_what_is_not_finite_from_the_start_is_nobodys_fault() -> None:
    """Feeds, parameters that are fed, constants, and fills of -Inf, of which attention masks are made."""

    def make(b: Builder, x: Value) -> Value:
        fill = b.op("ConstantOfShape", b.op("Shape", x), value=np.array([-np.inf], np.float32))
        w = b.graph.add_constant(np.float32([np.nan, 0]), "w", parameter=True)
        return b.op("Where", x > 0, x, fill) * w + x

    graph = built(make, 2)
    found = ig.trace(graph, {"x": np.float32([np.inf, 0])}, stop_at_nan=True)
    assert found.culprit is None
    assert found.results is not None
    assert {value.name for value in found.inputs if not value.finite} == {"x", "w"}
    found = ig.trace(graph, {"x": np.float32([1, 0]), "w": np.float32([np.inf, 1])})
    assert found.culprit is None
    assert {value.name for value in found.inputs if not value.finite} == {"w"}


# --- from the command line --------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    ig.save(built(masked_root, "N"), tmp_path / "root.onnx")
    np.save(tmp_path / "x.npy", np.float32([0, 1, 4]))
    return tmp_path / "root.onnx"


def test_trace_command(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feed = f"x={model.parent / 'x.npy'}"
    assert run("trace", model, "--feed", feed) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["node", "operation", "role", "made"]
    assert lines[2].split()[:5] == ["Greater", "Greater", "forward", "Greater:", "bool[3]"]
    assert run("trace", model, "--feed", feed, "--rows", "1", "--node", "Sqrt") == 0
    assert "Greater" not in capsys.readouterr().out


def test_trace_command_finds_who_makes_a_nan(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feed = f"x={model.parent / 'x.npy'}"
    arguments = ("trace", model, "--grad", "--wrt", "inputs", "--feed", feed, "--nan", "--rows", "2")
    assert run(*arguments) == 1
    printed = capsys.readouterr().out
    assert "made for 'Sqrt') makes 1 " in printed
    assert "before (--rows 0 shows all)" in printed
    np.save(model.parent / "x.npy", np.float32([1, 2, 4]))
    assert run(*arguments) == 0
    assert "no node makes a NaN or an Inf out of finite operands" in capsys.readouterr().out


def test_trace_command_saves_values(model: Path) -> None:
    saved = model.parent / "values.npz"
    assert run("trace", model, "--feed", f"x={model.parent / 'x.npy'}", "--node", "Sqrt", "--save", saved) == 0
    with np.load(saved) as values:
        assert [array.tolist() for array in values.values()] == [[0, 1, 2]]


def test_trace_command_says_what_ran_before_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ig.save(built(lambda b, x: b.op("Gather", b.op("Neg", x), b.op("Cast", b.op("Abs", x), to=7)), 2), tmp_path / "g.onnx")
    np.save(tmp_path / "x.npy", np.float32([7, 8]))
    assert run("trace", tmp_path / "g.onnx", "--feed", f"x={tmp_path / 'x.npy'}") == 2
    printed = capsys.readouterr()
    assert "Abs" in printed.out
    assert "the node 'Gather'" in printed.err


def test_mistakes_of_the_trace_command(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trace", model, "--wrt", "inputs") == 2
    assert "--wrt is for the joint graph; give --grad too" in capsys.readouterr().err
    assert run("trace", model, "--save", model) == 2
    assert "would overwrite the model itself" in capsys.readouterr().err
