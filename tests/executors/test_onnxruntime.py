"""The executor `onnxruntime`: the contract of every executor, real models, and what it does with what onnxruntime lacks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import irgrad as ig
from irgrad.builder import Builder
from irgrad.cli import main
from irgrad.errors import ExecutionError, ExportError, FeedError, UsageError
from irgrad.executors import onnx_runtime
from irgrad.graph import Graph
from irgrad.types import OptionalType, SequenceType, TensorType, Type

onnxruntime = pytest.importorskip("onnxruntime")

F32 = np.dtype(np.float32)
BF16 = np.dtype(ml_dtypes.bfloat16)
EXPORTS = sorted((Path(__file__).parent.parent / "data" / "exports").glob("*.onnx"))


def run(graph: Graph, feeds: dict[str, Any], **options: Any) -> dict[str, Any]:
    return ig.compile(graph, executor="onnxruntime", **options)(feeds)


def built(make: Callable[..., Any], **inputs: Type) -> Graph:
    """A graph whose output y is what `make` makes of a builder and the inputs."""
    graph = Graph("built")
    values = [graph.add_input(name, type) for name, type in inputs.items()]
    b = Builder(graph)
    with b:
        graph.set_outputs({"y": make(b, *values)})
    return graph


def linear() -> Graph:
    """y = x @ w, for any number of rows."""
    graph = Graph("linear")
    x = graph.add_input("x", TensorType(F32, ("N", 3)))
    w = graph.add_constant(np.arange(6, dtype=np.float32).reshape(3, 2), "w", parameter=True)
    graph.set_outputs({"y": Builder(graph).op("MatMul", x, w)})
    return graph


# --- the contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
def test_the_batch_size_may_change_from_run_to_run(executor: str) -> None:
    joint = ig.grad(linear(), loss="mse")
    run, check = ig.compile(joint, executor=executor), ig.compile(joint)
    generator = np.random.default_rng(0)
    for size in (2, 5):
        feeds = {name: generator.standard_normal((size, n)).astype(F32) for name, n in (("x", 3), ("target", 2))}
        results, want = run(feeds), check(feeds)
        assert list(results) == list(want)
        for name in want:
            np.testing.assert_allclose(results[name], want[name], rtol=1e-5)


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
def test_parameters_can_be_fed_and_are_the_models_own_again_afterwards(executor: str) -> None:
    run = ig.compile(linear(), executor=executor)
    x = np.ones((1, 3), np.float32)
    own = run({"x": x})["y"]
    np.testing.assert_array_equal(run({"x": x, "w": np.ones((3, 2), np.float32)})["y"], [[3, 3]])
    np.testing.assert_array_equal(run({"x": x})["y"], own)


def test_a_loop_that_feeds_parameters_makes_one_further_session(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *args, **options: made.append(1) or make(*args, **options))
    run = ig.compile(linear(), executor="onnxruntime")
    w = np.ones((3, 2), np.float32)
    for size in range(1, 5):
        run({"x": np.ones((size, 3), np.float32), **({"w": w} if size > 1 else {})})
    assert len(made) == 2


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "no array was fed for 'x'"),
        ({"x": np.ones((1, 3))}, "has dtype f64, the input is f32"),
        ({"x": np.ones((1, 4), np.float32)}, "has shape"),
        ({"x": np.ones((1, 3), np.float32), "z": 1}, "'z' is neither an input nor a parameter"),
    ],
)
def test_feeds_are_checked_as_for_numpy(executor: str, feeds: dict[str, Any], message: str) -> None:
    with pytest.raises(FeedError, match=message):
        ig.compile(linear(), executor=executor)(feeds)


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
def test_a_parameter_that_decides_a_shape_cannot_be_fed(executor: str) -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (1, 1, 2, 2)))
    scales = graph.add_constant(np.float32([1, 1, 2, 2]), "scales", parameter=True)
    graph.set_outputs({"y": Builder(graph).op("Resize", x, None, scales)})
    with pytest.raises(FeedError, match="'scales' decides the shape"):
        ig.compile(graph, executor=executor)({"x": np.ones((1, 1, 2, 2), np.float32), "scales": np.float32([1, 1, 3, 3])})


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
def test_results_belong_to_the_caller(executor: str) -> None:
    """Also where a result is a feed, a constant, or another result; feeds are never written to."""
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (3,)))
    w = graph.add_constant(np.zeros(3, np.float32), "w", parameter=True)
    b = Builder(graph)
    twice = b.op("Add", x, x)
    graph.set_outputs({"same": x, "weight": w, "one": twice, "other": twice, "view": b.op("Reshape", x, b.ints([3, 1]))})
    run = ig.compile(graph, executor=executor)
    fed = np.arange(3, dtype=np.float32)
    results = run({"x": fed})
    for array in results.values():
        array += 100
    again = run({"x": fed})
    for name, want in {"same": [0, 1, 2], "weight": [0, 0, 0], "one": [0, 2, 4], "other": [0, 2, 4]}.items():
        assert again[name].tolist() == want
        assert results[name].tolist() == [element + 100 for element in want]
    assert fed.tolist() == [0, 1, 2]


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
def test_an_output_may_have_the_name_of_an_input_or_a_parameter(executor: str) -> None:
    graph = linear()
    graph.set_outputs({"w": Builder(graph).op("Neg", graph.outputs["y"]), "x": graph.value("w")})
    x, w = np.ones((1, 3), np.float32), np.ones((3, 2), np.float32)
    results = ig.compile(graph, executor=executor)({"x": x, "w": w})
    np.testing.assert_array_equal(results["w"], -x @ w)
    np.testing.assert_array_equal(results["x"], w)


def test_strides_and_missing_elements_are_no_trouble() -> None:
    graph = built(lambda b, x: b.op("Add", x, x), x=TensorType(F32, (None, None)))
    for array in (np.arange(6, dtype=F32).reshape(2, 3).T, np.zeros((0, 3), F32), np.broadcast_to(np.float32(1), (2, 2))):
        np.testing.assert_array_equal(run(graph, {"x": array})["y"], array + array)
    assert run(built(lambda b, x: b.op("Neg", x), x=TensorType(F32, ())), {"x": 2.0})["y"].shape == ()


def test_several_threads_may_run_it() -> None:
    run = ig.compile(linear(), executor="onnxruntime", threads=1)
    feeds = [{"x": np.full((k + 1, 3), k, np.float32)} for k in range(20)]
    feeds = [{**feed, "w": np.ones((3, 2), np.float32)} if k % 2 else feed for k, feed in enumerate(feeds)]
    with ThreadPoolExecutor(4) as pool:
        for feed, results in zip(feeds, pool.map(run, feeds), strict=True):
            np.testing.assert_array_equal(results["y"], feed["x"] @ feed.get("w", linear().parameters["w"]))


def test_a_graph_without_outputs_runs() -> None:
    graph = linear()
    graph.set_outputs({})
    assert run(graph, {"x": np.ones((1, 3), np.float32)}) == {}


@pytest.mark.parametrize("executor", ["onnxruntime", "reference"])
def test_memory_is_not_made_up(executor: str) -> None:
    run = ig.compile(linear(), executor=executor)
    run({"x": np.ones((1, 3), np.float32)})
    assert run.memory.measured_peak is None
    assert run.memory.timeline == ()
    assert run.graph.inputs.keys() == {"x"}


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [ig.Role.FORWARD, ig.Role.BACKWARD])
def test_a_node_that_fails_is_named(role: ig.Role) -> None:
    graph = built(lambda b, x, i: b.op("Gather", x, i), x=TensorType(F32, (3,)), i=TensorType(np.dtype(np.int64), (1,)))
    (node,) = graph.nodes()
    graph.rename(node, "layer (1)/pick")
    node.role, node.origin = role, None if role is ig.Role.FORWARD else "somebody"
    told = r"'layer \(1\)/pick' \(Gather\)" + (", made for 'somebody'" if node.origin else "")
    with pytest.raises(ExecutionError, match=f"the node {told} failed in onnxruntime, which says"):
        run(graph, {"x": np.ones(3, np.float32), "i": np.array([7])})


def test_an_operation_that_onnxruntime_lacks_is_named_before_anything_runs() -> None:
    graph = built(lambda b, x: b.op("Floor", x), x=TensorType(BF16, (3,)))
    with pytest.raises(ExecutionError, match=r"the node 'Floor' .*onnxruntime.*implementation"):
        ig.compile(graph, executor="onnxruntime")


def test_a_node_that_has_no_form_in_onnx_is_named() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (3,)))
    node = graph.add_node(ig.find_op("Thing", "odd"), [x], [x.type])
    graph.set_outputs(node.outputs)
    for executor in ("onnxruntime", "reference"):
        with pytest.raises(ExportError, match="'Thing'"):
            ig.compile(graph, executor=executor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"providers": ["NoSuchProvider"]}, "no execution provider 'NoSuchProvider' here; it has .*CPUExecutionProvider"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"threads": 1, "session_options": onnxruntime.SessionOptions()}, "threads or session_options"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ig.compile(linear(), executor="onnxruntime", **options)


def test_options_that_are_taken() -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = [("CPUExecutionProvider", {})]
    results = run(linear(), {"x": np.ones((1, 3), np.float32)}, session_options=options, providers=providers)
    np.testing.assert_array_equal(results["y"], [[6, 9]])


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"pip install 'irgrad\[onnxruntime\]'"):
        ig.compile(linear(), executor="onnxruntime")


# --- types that numpy, or onnxruntime's interface to it, lacks ----------------------------------------------------------


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_small_floats_pass_in_and_out(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    graph = built(lambda b, x: b.op("Identity", x), x=TensorType(dtype, (None,)))
    for fed in (np.array([0.5, -2, 3], dtype), np.zeros(0, dtype)):
        result = run(graph, {"x": fed})["y"]
        assert result.dtype == dtype
        assert result.tolist() == fed.tolist()


@pytest.mark.parametrize("name", ["int4", "uint4"])
def test_two_numbers_in_a_byte_pass_in_and_out(name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    scale = np.float32(0.5)
    there = built(lambda b, x: b.op("DequantizeLinear", x, b.constant(scale)), x=TensorType(dtype, (None,)))
    fed = np.array([0, 3, 7, 1, 5], dtype)
    floats = run(there, {"x": fed})["y"]
    np.testing.assert_array_equal(floats, fed.astype(F32) * scale)
    back = built(
        lambda b, x: b.op("QuantizeLinear", x, b.constant(scale), b.constant(np.zeros((), dtype))),
        x=TensorType(F32, (None,)),
    )
    result = run(back, {"x": floats})["y"]
    assert result.dtype == dtype
    assert result.tolist() == fed.tolist()


def test_such_results_come_with_others_and_with_their_gradients() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, ("N", 2)))
    b = Builder(graph)
    graph.set_outputs({"short": b.cast(x, BF16), "long": b.op("Neg", x)})
    joint = ig.vjp(graph)
    fed = np.float32([[1, 2], [3, 4]]).T
    feeds = {"x": fed, "short_cotangent": fed.astype(BF16), "long_cotangent": fed}
    want = ig.compile(joint)(feeds)
    for name, result in run(joint, feeds).items():
        assert result.dtype == want[name].dtype
        np.testing.assert_array_equal(result, want[name])


def test_sequences_and_optionals_pass_in_and_out() -> None:
    graph = Graph()
    row = TensorType(F32, (None,))
    items, maybe = graph.add_input("items", SequenceType(row)), graph.add_input("maybe", OptionalType(row))
    b = Builder(graph)
    there = b.op("OptionalHasElement", maybe)
    graph.set_outputs(
        {"items": items, "maybe": b.op("Identity", maybe), "there": there, "last": b.op("SequenceAt", items, -1)}
    )
    fed = [np.float32([1]), np.float32([2, 3])]
    for executor in ("onnxruntime", "numpy"):
        results = ig.compile(graph, executor=executor)({"items": fed, "maybe": None})
        assert [item.tolist() for item in results["items"]] == [[1], [2, 3]]
        assert results["maybe"] is None
        assert not results["there"]
        assert results["last"].tolist() == [2, 3]
        assert ig.compile(graph, executor=executor)({"items": fed, "maybe": [7.0]})["maybe"].tolist() == [7]


def test_text_passes_in_and_out() -> None:
    graph = built(lambda b, x: b.op("StringConcat", x, x), x=TensorType(np.dtype(object), (None,)))
    assert run(graph, {"x": np.array(["a", "ü"])})["y"].tolist() == ["aa", "üü"]


def test_what_the_interface_cannot_pass_is_an_error_that_says_so() -> None:
    graph = Graph()
    text = graph.add_input("text", TensorType(np.dtype(object), (None,)))
    x = graph.add_input("x", TensorType(F32, (None,)))
    b = Builder(graph)
    graph.set_outputs({"text": b.op("Identity", text), "short": b.cast(x, BF16)})
    with pytest.raises(ExecutionError, match=r"does not pass a str\[\?\], where outputs are of dtypes that numpy lacks"):
        run(graph, {"text": np.array(["a"]), "x": np.ones(1, np.float32)})


# --- models -----------------------------------------------------------------------------------------------------------


def test_large_models_go_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "_IN_MEMORY", 0)
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, ("N", 64)))
    w = np.random.default_rng(0).standard_normal((64, 64)).astype(F32)
    graph.set_outputs({"y": Builder(graph).op("MatMul", x, graph.add_constant(w, "w", parameter=True))})
    run = ig.compile(graph, executor="onnxruntime")
    fed = np.ones((2, 64), F32)
    np.testing.assert_allclose(run({"x": fed})["y"], fed @ w, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run({"x": fed, "w": w.T})["y"], fed @ w.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("file", EXPORTS, ids=[file.stem for file in EXPORTS])
def test_gradients_of_exported_models(file: Path) -> None:
    """Against the gradients that PyTorch computed; see tests/test_exports.py."""
    with np.load(file.with_suffix(".npz")) as data:
        arrays = dict(data)
    wanted = {name.removeprefix("grad:"): array for name, array in arrays.items() if name.startswith("grad:")}
    feeds = {name.removeprefix("input:"): array for name, array in arrays.items() if name.startswith("input:")}
    joint = ig.vjp(ig.load(file), list(wanted), ["logits"])
    results = run(joint, {**feeds, "logits_cotangent": arrays["cotangent"]})
    for name, want in {**{joint.gradients[k]: v for k, v in wanted.items()}, "logits": arrays["output:logits"]}.items():
        np.testing.assert_allclose(
            results[name], want, rtol=0, atol=1e-4 * max(1.0, float(np.abs(want).max())), err_msg=name
        )


def test_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    for executor, code in (("onnxruntime", 0), ("nobody", 2)):
        with pytest.raises(SystemExit) as stop:
            main(["grad", "--example", "squeezenet", "--wrt", "inputs", "--executor", executor, "--no-check"])
        assert (stop.value.code or 0) == code
    printed = capsys.readouterr()
    assert "[1, 3, 224, 224]  0.002" in printed.out
    assert "no 'nobody' among the executors; known are: numpy, onnxruntime, reference" in printed.err
