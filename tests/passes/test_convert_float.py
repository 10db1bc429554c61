"""Changing the precision of a graph, and what must keep its own."""

from __future__ import annotations

import numpy as np

from irgrad.builder import Builder
from irgrad.graph import Graph
from irgrad.passes.convert_float import ConvertFloat
from irgrad.runtime import compile
from irgrad.types import TensorType
from irgrad.verify import verify

F32 = np.dtype(np.float32)


def test_operands_of_one_dtype_only_stay() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (1, 1, 2, 2)))
    with Builder(graph) as b:
        alone = graph.add_constant(np.array([1, 1, 2, 2], np.float32), "alone", parameter=True)
        shared = graph.add_constant(np.array([1, 1, 3, 3], np.float32), "shared")
        computed = b.op("Add", shared, shared)
        results = [b.op("Resize", x, None, scales) for scales in (alone, shared, computed)]
        graph.set_outputs({"a": results[0], "b": results[1], "c": results[2], "d": shared})
    for _ in range(2):
        ConvertFloat("f64").run(graph)
        verify(graph)
        assert alone.dtype == F32
        assert shared.dtype == np.float64
        assert [node.operand(2).dtype for node in graph.nodes() if node.op.name == "Resize"] == [F32] * 3
        assert [v.dtype for v in graph.outputs.values()] == [np.dtype(np.float64)] * 4
    assert not ConvertFloat("f64").run(graph)
    shapes = [array.shape[2] for array in compile(graph)({"x": np.ones((1, 1, 2, 2))}).values() if array.ndim == 4]
    assert shapes == [4, 6, 12]


def test_a_cast_to_float64_is_converted() -> None:
    graph = Graph()
    n, x = (
        graph.add_input("n", TensorType(np.dtype(np.int64), ())),
        graph.add_input("x", TensorType(np.dtype(np.float64), ())),
    )
    with Builder(graph) as b:
        graph.set_outputs({"y": x * b.cast(n, np.dtype(np.float64))})
    ConvertFloat("f32").run(graph)
    verify(graph)
    assert compile(graph)({"n": np.array(3), "x": np.float32(2)})["y"] == np.float32(6)


def test_results_of_one_dtype_only_are_cast() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (3,)))
    with Builder(graph) as b:
        y, scale, _ = b.multi("DynamicQuantizeLinear", x, outputs=3)
        graph.set_outputs({"y": y, "product": x * scale})
    ConvertFloat("f64").run(graph)
    verify(graph)
    results = compile(graph)({"x": np.array([-1.0, 0.0, 1.55])})
    assert results["product"].dtype == np.float64
    np.testing.assert_allclose(results["product"][0], -2.55 / 255, rtol=1e-6)
