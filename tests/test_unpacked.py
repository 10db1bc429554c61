"""Sequences and optionals at the edges of a graph, taken apart."""

from __future__ import annotations

import numpy as np

from irgrad.runtime import compile
from irgrad.text import parse_text
from irgrad.types import TensorType
from irgrad.unpacked import Unpacked

TEXT = """
graph g {
  input %x: f64[2]
  input %s: seq(f64[2])
  input %o: optional(f64[2])
  input %p: optional(seq(f64[2]))
  %t = SequenceInsert(%s, %x)
  %there = OptionalHasElement(%o)
  %kept = Optional(%t)
  output t
  output there
  output kept
  output p
  output o
}
"""
X = np.array([1.0, 2.0])


def test_parts_have_names_of_their_own() -> None:
    graph = parse_text(TEXT)
    feeds = {"x": X, "s": [2 * X], "o": None, "p": [3 * X, 4 * X]}
    whole = Unpacked(graph, feeds)
    assert list(whole.feeds) == ["x", "s[0]", "p![0]", "p![1]"]
    assert all(isinstance(v.type, TensorType) for v in (*whole.graph.inputs.values(), *whole.graph.outputs.values()))
    assert whole.names(["x", "s", "o", "p", "t", "kept"]) == [
        *("x", "s[0]"),
        *("p![0]", "p![1]", "t[0]", "t[1]"),
        *("kept![0]", "kept![1]"),
    ]
    results = compile(whole.graph)(whole.feeds)
    np.testing.assert_array_equal(results["kept![0]"], 2 * X)
    np.testing.assert_array_equal(results["p![1]"], 4 * X)
    assert whole.graph.outputs["p![1]"] is whole.graph.inputs["p![1]"]
    assert not results["there"]
    assert len(graph.inputs) == 4


def test_an_empty_sequence_has_no_parts() -> None:
    whole = Unpacked(parse_text(TEXT), {"x": X, "s": [], "o": X, "p": None})
    assert (whole.names(["s"]), whole.names(["t"]), whole.names(["o"])) == ([], ["t[0]"], ["o!"])
    np.testing.assert_array_equal(compile(whole.graph)(whole.feeds)["t[0]"], X)


def test_a_graph_of_tensors_serves_itself() -> None:
    graph = parse_text("graph g {\n input %x: f64[2]\n %y = Neg(%x)\n output y\n}")
    assert Unpacked(graph, {"x": X}).graph is graph
