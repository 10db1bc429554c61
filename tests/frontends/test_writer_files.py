"""Models on disk: tensors beside them, files whole or not at all, and graphs that have no form as a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import irgrad as ig
from irgrad.errors import ExportError, UsageError
from irgrad.frontends.onnx import storage
from irgrad.graph import Graph
from irgrad.op import find_op
from irgrad.types import TensorType
from tests.frontends.round_trip import assert_round_trips, is_standard

F32 = np.dtype(np.float32)


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def network(size: int = 64) -> Graph:
    graph = Graph("network")
    x = graph.add_input("x", TensorType(F32, ("N", size)))
    generator = np.random.default_rng(0)
    w = graph.add_constant(generator.standard_normal((size, size)).astype(F32), "w", parameter=True)
    v = graph.add_constant(generator.standard_normal((size, 600)).astype(F32), "v", parameter=True)
    bias = graph.add_constant(np.ones(600, F32), "bias", parameter=True)
    b = ig.Builder(graph)
    with b:
        graph.set_outputs({"y": (b.op("Tanh", x @ w) @ v) + bias})
    return graph


def test_save_and_load(tmp_path: Path) -> None:
    graph = network()
    ig.save(graph, tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    assert ig.graphs_equal(graph, ig.load(tmp_path / "model.onnx")) is None
    assert files_in(tmp_path) == ["model.onnx"]


# --- external data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "outside"), [(0, 3), (2400, 3), (2401, 2), (10**9, 0)])
def test_external_data(tmp_path: Path, threshold: int, outside: int) -> None:
    graph = network()
    path = tmp_path / "model.onnx"
    ig.save(graph, str(path), external_data=True, threshold=threshold)
    model = onnx.load(path, load_external_data=False)
    entries = [{e.key: e.value for e in tensor.external_data} for tensor in model.graph.initializer if tensor.external_data]
    assert len(entries) == outside
    assert {entry["location"] for entry in entries} <= {"model.onnx.data"}
    assert all(int(entry["offset"]) % 4096 == 0 for entry in entries)
    assert files_in(tmp_path) == ["model.onnx", "model.onnx.data"][: 1 + bool(outside)]
    onnx.checker.check_model(str(path), full_check=True)
    assert ig.graphs_equal(graph, ig.load(path)) is None
    assert all(tensor.raw_data or tensor.external_data for tensor in onnx.load(path).graph.initializer)


def test_large_tensors_begin_where_windows_can_map_them(tmp_path: Path) -> None:
    graph = network(600)
    ig.save(graph, tmp_path / "model.onnx", external_data=True)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    offsets = {t.name: int(e.value) for t in model.graph.initializer for e in t.external_data if e.key == "offset"}
    assert offsets["w"] % 65536 == offsets["v"] % 65536 == 0
    assert ig.graphs_equal(graph, ig.load(tmp_path / "model.onnx")) is None


@pytest.mark.parametrize(
    "dtype", ["float16", "bfloat16", "int4", "uint4", "int2", "uint2", "float8_e4m3fn", "float4_e2m1fn", "bool", "int64"]
)
def test_every_width_of_elements(tmp_path: Path, dtype: str) -> None:
    import ml_dtypes

    graph = Graph("weights")
    x = graph.add_input("x", TensorType(F32, ()))
    array = np.arange(7 * 5).reshape(7, 5) % 2
    graph.add_constant(array.astype(getattr(ml_dtypes, dtype, dtype)), "w")
    graph.add_constant(array.T.astype(getattr(ml_dtypes, dtype, dtype)), "not contiguous")
    graph.add_constant(np.broadcast_to(F32.type(3), (5, 700)), "one element seen many times")
    graph.set_outputs({"y": ig.Builder(graph).op("Tanh", x)})
    assert_round_trips(graph)
    ig.save(graph, tmp_path / "model.onnx", external_data=True, threshold=0)
    assert ig.graphs_equal(graph, ig.load(tmp_path / "model.onnx")) is None


def test_models_that_are_too_large_for_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_LARGEST", 10_000)
    ig.save(network(), tmp_path / "model.onnx")
    assert files_in(tmp_path) == ["model.onnx", "model.onnx.data"]
    ig.save(network(), tmp_path / "other.onnx", external_data=False)
    assert not (tmp_path / "other.onnx.data").exists()
    monkeypatch.setattr(storage, "_MOST", 10_000)
    with pytest.raises(ExportError, match=r"larger than the 2 GiB .* external_data=True"):
        ig.save(network(), tmp_path / "other.onnx", external_data=False)


def test_a_model_may_be_written_over_the_data_that_it_was_read_from(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    ig.save(network(), path, external_data=True)
    graph = ig.load(path)  # its arrays are the mapped file
    want = {name: array.copy() for name, array in graph.parameters.items()}
    ig.save(graph, path, external_data=True, threshold=10_000)
    again = ig.load(path)
    assert all((again.parameters[name] == array).all() for name, array in want.items())


# --- whole or not at all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("external", "step"), [(False, "_serialized"), (True, "_serialized"), (True, "_write_elements")])
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, external: bool, step: str
) -> None:
    path = tmp_path / "model.onnx"
    ig.save(network(), path, external_data=external)
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}

    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, step, fails)
    with pytest.raises(UsageError, match=r"cannot be written: No space left"):
        ig.save(network(48), path, external_data=external)
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before


def test_paths_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        ig.save(network(), tmp_path / "nowhere" / "model.onnx")
    for external in (True, False):
        with pytest.raises(UsageError, match="it is a folder"):
            ig.save(network(), tmp_path, external_data=external)
    with pytest.raises(UsageError, match="threshold=-1"):
        ig.save(network(), tmp_path / "model.onnx", threshold=-1)
    assert files_in(tmp_path) == []


# --- what has no form in ONNX -----------------------------------------------------------------------------------------


def test_operations_that_only_a_plugin_knows(tmp_path: Path) -> None:
    graph = Graph("opaque")
    x = graph.add_input("x", TensorType(F32, (3,)))
    for name in ("first", "second"):
        x = graph.add_node(find_op("Whatever", "com.example"), [x], [x.type], name=name).outputs[0]
    graph.set_outputs({"y": x})
    for functions in (False, True):
        with pytest.raises(ExportError, match="2 nodes cannot be written in standard operations") as caught:
            ig.save(graph, tmp_path / "model.onnx", functions=functions)
        assert [text.split(":")[0] for text in caught.value.nodes] == [
            "'first' (com.example.Whatever)",
            "'second' (com.example.Whatever)",
        ]
    assert files_in(tmp_path) == []


def test_element_types_that_onnx_does_not_have_for_an_operation() -> None:
    graph = Graph("rotated")
    x = graph.add_input("x", TensorType(F32, (1, 2, 3, 4)))
    cache = [graph.add_constant(np.ones((1, 3, 2), F32)) for _ in range(2)]
    graph.set_outputs({"y": ig.Builder(graph).op("RotaryEmbedding", x, *cache)})
    ig.to_onnx(graph)
    double = ig.apply(graph, "convert_float{to=f64}")
    with pytest.raises(ExportError, match=r"cannot be said in ONNX.*does not take f64"):
        ig.to_onnx(double)


def test_graphs_of_another_opset() -> None:
    graph = network()
    graph.opset = 20
    with pytest.raises(UsageError, match="is written in opset 20"):
        ig.to_onnx(graph)


def test_what_onnx_infers_wrongly_is_not_declared() -> None:
    """By onnx's inference the windows of this pool begin in the padding; its text says that such windows are ignored."""
    graph = Graph("pool")
    x = graph.add_input("x", TensorType(F32, (1, 1, 7, 7)))
    pooled = ig.Builder(graph).op("MaxPool", x, kernel_shape=(2, 2), strides=(3, 3), auto_pad="VALID", ceil_mode=1)
    graph.set_outputs({"y": ig.Builder(graph).op("Tanh", pooled)})
    assert is_standard(graph)
    assert_round_trips(graph)
