"""The numpy executor's contract: what it takes, what it hands out, and how it fails."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import irgrad as ig
from irgrad.builder import Builder
from irgrad.errors import ExecutionError, FeedError
from irgrad.graph import Graph
from irgrad.runtime import compile
from irgrad.types import Dim, SequenceType, TensorType

F32 = np.dtype(np.float32)


def graph_of(*shape: Dim) -> tuple[Graph, Builder]:
    graph = Graph()
    graph.add_input("x", TensorType(F32, shape))
    return graph, Builder(graph)


def test_sequences_that_are_returned_are_the_callers_own() -> None:
    graph = Graph()
    items = graph.add_input("items", SequenceType(TensorType(F32, (2,))))
    graph.set_outputs({"same": Builder(graph).op("Identity", items)})
    fed = [np.ones(2, np.float32)]
    (returned,) = compile(graph)({"items": fed})["same"]
    assert not np.shares_memory(returned, fed[0])


def test_a_node_that_cannot_run_fails_by_name_and_only_where_it_is_needed() -> None:
    graph, b = graph_of("N")
    lost = b.op("Gather", b.constant(np.ones(3, np.float32)), b.ints([10]))
    with b:
        graph.set_outputs({"y": graph.value("x") * 2.0})
        np.testing.assert_array_equal(compile(graph)({"x": np.ones(2, np.float32)})["y"], [2.0, 2.0])
        graph.set_outputs({"y": graph.value("x") * lost})
    with pytest.raises(ExecutionError, match="the node 'Gather'"):
        compile(graph)({"x": np.ones(2, np.float32)})


@pytest.mark.parametrize("kept", [2, 1])
def test_shapes_that_only_data_decides_are_checked_when_they_are_known(kept: int) -> None:
    """numpy would broadcast a single batch of keys, or leave regions out for which no image is told."""
    graph = Graph("data")
    x = graph.add_input("x", TensorType(np.dtype(np.float64), (2, 1, 3, 4)))
    regions = graph.add_input("regions", TensorType(np.dtype(np.float64), (2, 4)))
    keep = graph.add_input("keep", TensorType(np.dtype(np.bool_), (2,)))
    b = Builder(graph)
    keys, images = (b.op("Compress", v, keep, axis=0) for v in (x, b.constant(np.array([0, 1]))))
    results = [b.op("Attention", x, keys, keys), b.op("RoiAlign", x, regions, images)]
    feeds = {"x": np.ones((2, 1, 3, 4)), "regions": np.ones((2, 4)), "keep": np.arange(2) < kept}
    for result, message in zip(results, ("different batch sizes: 1, 2", "for each of the regions"), strict=True):
        graph.set_outputs({"y": result})
        if kept == 2:
            assert compile(graph)(feeds)["y"].shape[0] == 2
            continue
        with pytest.raises(ExecutionError, match=message):
            compile(graph)(feeds)


def test_a_parameter_that_decides_a_shape_cannot_be_fed() -> None:
    graph, b = graph_of("N", 1, 2, 2)
    scales = graph.add_constant(np.array([1, 1, 2, 2], np.float32), "scales", parameter=True)
    weight = graph.add_constant(np.array(2.0, np.float32), "weight", parameter=True)
    with b:
        graph.set_outputs({"y": b.op("Resize", graph.value("x") * weight, None, scales)})
    run, x = compile(graph), np.ones((1, 1, 2, 2), np.float32)
    np.testing.assert_array_equal(run({"x": x, "weight": np.array(3.0, np.float32)})["y"], np.full((1, 1, 4, 4), 3.0))
    with pytest.raises(FeedError, match="'scales' decides the shape"):
        run({"x": x, "scales": np.array([1, 1, 3, 3], np.float32)})


def test_one_executable_in_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irgrad.runtime.executable._CACHED", 2)
    graph, b = graph_of("N", "M")
    with b:
        graph.set_outputs({"y": b.op("Transpose", b.op("Tanh", graph.value("x")), perm=(1, 0))})
    run = compile(graph)

    def work(seed: int) -> None:
        generator = np.random.default_rng(seed)
        for _ in range(50):
            x = generator.standard_normal(generator.integers(1, 9, 2)).astype(np.float32)
            np.testing.assert_array_equal(run({"x": x})["y"], np.tanh(x).T)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_gradients_of_an_empty_batch(rows: int) -> None:
    graph, b = graph_of("N", 3, 4)
    with b:
        picked = b.op("Gather", graph.value("x"), b.ints([1, 1]), axis=2)
        graph.set_outputs({"y": picked * b.op("ReduceMean", picked, b.ints([1]))})
    feeds = {"x": np.ones((rows, 3, 4), np.float32), "y_cotangent": np.ones((rows, 3, 2), np.float32)}
    assert compile(ig.vjp(graph))(feeds)["x_grad"].shape == (rows, 3, 4)
