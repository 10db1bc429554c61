"""Differences between graphs, node by node."""

from __future__ import annotations

import numpy as np
import pytest

import irgrad as ig
from irgrad.bundled import bundled_model
from irgrad.diff import GraphDiff, diff_graphs

TEXT = """
graph g {
  input %x: f32[N,3]
  param %w: f32[3]{1.0}
  const %two: f32[]{2.0}
  %a = Mul(%x, %two) @first
  %b = Add(%a, %w) @second
  %c = Transpose(%b, perm=[1,0]) @third
  output c
}
"""


def diff_of(*changes: tuple[str, str], text: str = TEXT) -> GraphDiff:
    other = text
    for old, new in changes:
        assert old in other, old
        other = other.replace(old, new)
    return diff_graphs(ig.parse_text(text), ig.parse_text(other))


def told(*changes: tuple[str, str], text: str = TEXT) -> list[str]:
    return list(diff_of(*changes, text=text).lines())


def test_equal_graphs_do_not_differ() -> None:
    diff = diff_of()
    assert not diff
    assert (diff.same, list(diff.lines())) == (3, [])


def test_names_that_do_not_matter_do_not_count() -> None:
    assert not diff_of(("%a", "%other"), ("@first", "@another"), ("%two", "%deux"))


def test_added_and_removed_nodes() -> None:
    diff = diff_of(
        ("%c = Transpose(%b, perm=[1,0]) @third", "%c: f32[3,N] = Expand(%t, %s) @fourth"),
        ("  %b =", "  %t = Transpose(%a)\n  %s = Shape(%t)\n  %b ="),
    )
    assert [node.op.name for node in diff.removed] == ["Transpose"]
    assert sorted(node.op.name for node in diff.added) == ["Expand", "Shape", "Transpose"]
    assert diff.by_operation() == {"Transpose": (1, 1, 0), "Expand": (1, 0, 0), "Shape": (1, 0, 0)}
    assert diff.by_role() == {"forward": (3, 1, 0)}


CHANGES = {
    "operand": ([("Add(%a, %w)", "Add(%x, %w)")], "operand 0: %a → %x"),
    "content of a constant": ([("{2.0}", "{3.0}")], "operand 1: %two {2.0} → %two {3.0}"),
    "attribute": ([("perm=[1,0]", "perm=[0,1]")], "perm: [1, 0] → [0, 1]"),
    "attribute given": ([(", perm=[1,0]", "")], "perm: [1, 0] → not given"),
    "operation": ([("Add(%a, %w)", "Sub(%a, %w)")], "operation: Add → Sub"),
    "type": ([("x: f32[N,3]", "x: f32[4,3]")], "type of %a: f32[N,3] → f32[4,3]"),
    "role": ([("@second", "@second backward")], "role: forward → backward"),
    "origin": ([("@second", "@second of first")], "origin: None → first"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_nodes(what: str) -> None:
    changes, expected = CHANGES[what]
    diff = diff_of(*changes)
    assert not diff.added
    assert not diff.removed
    assert f"    {expected}" in list(diff.lines())


INTERFACE = {
    "new input": ([("  param", "  input %z: f32[]\n  param")], "input %z: new, f32[]"),
    "input": ([("x: f32[N,3]", "x: f32[4,3]")], "input %x: f32[N,3] → f32[4,3]"),
    "parameter": ([("param %w", "const %w")], "constant %w: gone, was parameter f32[3]"),
    "elements": ([("w: f32[3]{1.0}", "w: f32[3]{1.5}")], "constant %w: other elements"),
    "output": ([("output c", "output c = %b")], "output %c: %c: f32[3,N] → %b: f32[N,3]"),
    "name": ([("graph g", "graph h")], "name of the graph: 'g' → 'h'"),
    "gradient": ([("output c", "output c\n  output a\n  gradient x = a")], "gradient of %x: new, a"),
}


@pytest.mark.parametrize("what", INTERFACE)
def test_the_interface(what: str) -> None:
    changes, expected = INTERFACE[what]
    assert f"~ {expected}" in told(*changes)


def test_order_of_inputs() -> None:
    two = "graph g {\n  input %x: f32[]\n  input %y: f32[]\n  %z = Add(%x, %y)\n  output z\n}"
    swapped = "graph g {\n  input %y: f32[]\n  input %x: f32[]\n  %z = Add(%x, %y)\n  output z\n}"
    assert list(diff_graphs(ig.parse_text(two), ig.parse_text(swapped)).lines()) == ["~ order of the inputs: x, y → y, x"]


def test_inside_of_subgraphs() -> None:
    text = """
    graph g {
      input %c: bool[]
      input %x: f32[2]
      %y: f32[2] = If(%c, %x, captured=1, then_branch=graph t {
        input %x: f32[2]
        %p = Exp(%x)
        output p
      }, else_branch=graph e {
        input %x: f32[2]
        %q = Neg(%x)
        output q
      })
      output y
    }
    """
    lines = told(("Neg(%x)", "Abs(%x)"), text=text)
    assert "      ~ %q: f32[2] = Abs(%x)" in lines
    assert "          operation: Neg → Abs" in lines
    assert not any("then_branch:" in line for line in lines)


def test_a_pass_that_only_adds_leaves_all_else_the_same() -> None:
    graph = ig.load(bundled_model("shufflenet"))
    diff = diff_graphs(graph, ig.vjp(graph, simplify=False))
    assert not diff.removed
    assert diff.same + len(diff.changed) == len(graph)
    assert set(diff.by_role()) == {"backward", "forward"} if diff.changed else {"backward"}
    assert diff.by_role()["backward"] == (len(diff.added), 0, 0)


def test_rows_are_limited_and_counted() -> None:
    graph = ig.parse_text(TEXT)
    joint = ig.vjp(graph, "parameters")
    everything = list(diff_graphs(graph, joint).lines())
    few = list(diff_graphs(graph, joint).lines(1))
    added = sum(line.startswith("+") for line in everything)
    assert f"  ... and {added - 1} more new nodes" in few
    assert str(diff_graphs(graph, joint)).startswith(f"nodes: {added} added, 0 removed, 0 changed, 3 the same\n")


def test_large_constants_go_by_name_and_elements() -> None:
    def with_table(scale: float) -> ig.Graph:
        graph = ig.Graph("g")
        x = graph.add_input("x", ig.TensorType(np.dtype(np.float64), (100,)))
        table = graph.add_constant(scale * np.arange(100.0), "table")
        with ig.Builder(graph):
            graph.set_outputs({"y": x + table})
        return graph

    assert not diff_graphs(with_table(1), with_table(1))
    assert list(diff_graphs(with_table(1), with_table(2)).lines()) == ["~ constant %table: other elements"]
