"""Comparing graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.compare import array_key, graphs_equal
from irgrad.graph import Expansion, Graph, Role
from irgrad.op import find_op
from irgrad.types import TensorType

F32 = TensorType(np.dtype(np.float32), (2,))


def small() -> Graph:
    graph = Graph("g")
    x = graph.add_input("x", F32)
    w = graph.add_constant(np.ones(2, np.float32), "w", parameter=True)
    with Builder(graph):
        graph.set_outputs({"y": x * w})
    return graph


DIFFERENCES: list[tuple[Any, str]] = [
    (lambda g: setattr(g, "name", "h"), "the name is 'g' in one graph and 'h' in the other"),
    (lambda g: setattr(g, "opset", 27), "the opset is 28"),
    (lambda g: g.metadata.update(a="b"), "the metadata is {}"),
    (lambda g: g.add_input("z", F32), "the inputs differ at position 1: None in one graph, 'z' in the other"),
    (lambda g: g.set_type(g.value("x"), TensorType(np.dtype(np.float32), ("N",))), "%x is f32[2]"),
    (lambda g: setattr(g.value("x"), "contents", (1, 2)), "%x is f32[2]"),
    (lambda g: g.set_constant(g.value("w"), np.array([1, 2], np.float32)), "the constant %w holds other elements"),
    (lambda g: setattr(g.value("w"), "is_parameter", False), "the constant %w is a parameter in only one"),
    (lambda g: g.rename(g.node("Mul"), "n"), "the nodes differ at position 0: 'Mul' in one graph, 'n' in the other"),
    (lambda g: g.rename(g.value("Mul"), "v"), "the results of the node 'Mul' are ['Mul']"),
    (lambda g: g.set_input(g.node("Mul"), 1, g.value("x")), "the operands of the node 'Mul' are ['x', 'w']"),
    (lambda g: setattr(g.node("Mul"), "role", Role.UPDATE), "the role of the node 'Mul'"),
    (lambda g: setattr(g.node("Mul"), "origin", "o"), "the origin of the node 'Mul'"),
    (lambda g: setattr(g.node("Mul"), "rule", "Add"), "the rule of the node 'Mul'"),
    (lambda g: setattr(g.node("Mul"), "expansion", Expansion("Gelu", "g")), "the expansion of the node 'Mul'"),
    (lambda g: setattr(g.node("Mul"), "op", find_op("Add")), "the operation of the node 'Mul'"),
    (lambda g: g.node("Mul").attrs.update(a=1), "the attributes of the node 'Mul'"),
    (lambda g: g.set_outputs({"z": g.value("Mul")}), "the outputs differ at position 0"),
    (lambda g: g.gradients.update(w="y"), "the gradients differ at position 0"),
]


@pytest.mark.parametrize(("change", "message"), DIFFERENCES, ids=[m for _, m in DIFFERENCES])
def test_differences_are_told(change: Any, message: str) -> None:
    one, other = small(), small()
    assert graphs_equal(one, other) is None
    change(other)
    difference = graphs_equal(one, other)
    assert difference is not None
    assert message in difference


def test_differences_of_attributes_are_told() -> None:
    def with_attribute(value: Any) -> Graph:
        graph = Graph()
        graph.add_node(find_op("Opaque"), [], [F32], {"a": value}, name="n")
        return graph

    def with_graph(name: str) -> Graph:
        return with_attribute(Graph(name))

    for same in ((1, True), ((1, 2), [1, 2]), (float("nan"), float("nan")), (np.float64(0.5), 0.5)):
        assert graphs_equal(with_attribute(same[0]), with_attribute(same[1])) is None
    for one, other in ((1, 1.0), (0.0, -0.0), ("a", b"a"), ((1,), (1, 2)), (np.ones(2), np.ones(2, np.float32)), (1, None)):
        assert "the attribute 'a' of the node 'n' is" in str(graphs_equal(with_attribute(one), with_attribute(other)))
    assert graphs_equal(with_graph("b"), with_graph("b")) is None
    assert graphs_equal(with_graph("b"), with_graph("c")) == (
        "in the attribute 'a' of the node 'n': the name is 'b' in one graph and 'c' in the other"
    )


def test_the_order_of_bytes_does_not_matter() -> None:
    assert array_key(np.arange(100, dtype=">f4")) == array_key(np.arange(100, dtype="<f4"))
