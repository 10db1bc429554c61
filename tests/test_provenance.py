"""Where nodes come from: the forward node, the rule, the expansion, the pass; asked of the graph, copied, written, read."""

from __future__ import annotations

from pathlib import Path

import pytest

import irgrad as ig
from irgrad.builder import Builder
from irgrad.errors import ModelTypeError
from irgrad.graph import Expansion, Graph, Role
from irgrad.pipeline import Pipeline
from irgrad.text import parse_text, to_text

TEXT = """graph g {
  input %x: f32[1,2,2,3]
  param %w: f32[3,3]{1}
  %h: f32[1,2,2,3] = MatMul(%x, %w) @fc
  %n: f32[1,2,2,3] = irgrad.LRNGrad(%h, %x, size=3) @norm
  %a: f32[1,2,2,3] = Tanh(%n) @act
  %y: f32[1,2,2,3] = Mul(%a, %h) @gate
  output y
}"""


@pytest.fixture
def joint() -> Graph:
    return ig.vjp(parse_text(TEXT), wrt=["w"])


def test_every_backward_node_has_a_forward_node_and_a_rule(joint: Graph) -> None:
    backward = [node for node in joint.nodes() if node.role is Role.BACKWARD]
    assert backward
    for node in backward:
        origin = joint.forward_of(node)
        assert origin is not None and origin.role is Role.FORWARD
        assert node in joint.backward_of(origin)
        assert node.rule == origin.op.qualified_name or node.rule is None
    assert {node.rule for node in joint.backward_of(joint.node("act"))} == {"Tanh"}
    assert {node.rule for node in joint.backward_of(joint.node("fc"))} == {"MatMul", None}  # h is read twice: a sum
    assert {node.op.name for node in backward if node.rule is None} <= {"Add", "Sum"}


def test_what_was_expanded_is_told(joint: Graph) -> None:
    """LRNGrad has no rule of its own: it is expanded, and its parts are differentiated."""
    parts = [node for node in joint.nodes() if node.role is Role.FORWARD and node.expansion is not None]
    assert {part.expansion for part in parts} == {Expansion("irgrad.LRNGrad", "norm")}
    assert not joint.has_node("norm")
    made = [node for part in parts for node in joint.backward_of(part)]
    assert made
    assert {node.expansion for node in made} == {Expansion("irgrad.LRNGrad", "norm")}
    assert all(node.expansion is None for node in joint.backward_of(joint.node("act")))


def test_forward_nodes_belong_to_none(joint: Graph) -> None:
    assert joint.forward_of(joint.node("fc")) is None
    assert joint.backward_of(joint.nodes()[-1]) == []


def test_a_forward_node_that_is_gone_is_not_found() -> None:
    graph = parse_text("graph g { input %x: f32[2] %y = Neg(%x) backward of gone output y }")
    assert graph.forward_of(graph.node("y")) is None


def test_what_is_kept_alive(joint: Graph) -> None:
    readers = joint.keeps_alive(joint.value("a"))
    assert readers and all(node.role is Role.BACKWARD and joint.value("a") in node.inputs for node in readers)
    assert joint.keeps_alive(joint.value("y")) == []


def test_queries_follow_changes(joint: Graph) -> None:
    act = joint.node("act")
    before = joint.backward_of(act)
    made = Builder(joint, role=Role.BACKWARD, origin="act").op("Neg", joint.value("a")).producer
    assert made is not None
    assert joint.backward_of(act) == [*before, made]
    made.origin = "fc"
    assert joint.backward_of(act) == before
    assert made in joint.backward_of(joint.node("fc"))
    joint.erase(made)
    assert made not in joint.backward_of(joint.node("fc"))


def test_the_last_pass_is_noted() -> None:
    graph = parse_text(TEXT)
    assert all(node.changed_by is None for node in graph.nodes())
    Pipeline("vjp{wrt=[w]}").run(graph)
    assert {node.changed_by for node in graph.nodes() if node.role is Role.BACKWARD} == {"vjp"}
    assert graph.node("fc").changed_by is None
    text = "graph g { input %x: f32[2] %a = Tanh(%x) %b = Tanh(%x) %c = Exp(%b) %t = Add(%c, %a) output t }"
    merged = ig.apply(parse_text(text), "simplify")
    assert merged.node("c").changed_by == "cse"  # the pass inside of simplify that did it
    assert merged.node("t").changed_by is None


def test_a_change_outside_of_passes_leaves_the_note(joint: Graph) -> None:
    node = next(node for node in joint.nodes() if node.changed_by == "vjp")
    joint.set_op(node, node.op, node.attrs)
    assert node.changed_by == "vjp"


def test_rewriting_keeps_rule_and_expansion() -> None:
    text = """graph g { input %x: f32[2] %n = Neg(%x)
      %a = Add(%x, %n) backward of layer by Tanh via Swish @act output a }"""
    (node,) = ig.apply(parse_text(text), "canonicalize,dce").nodes()
    assert (node.op.name, node.origin, node.rule, node.expansion) == ("Sub", "layer", "Tanh", Expansion("Swish", "act"))


# --- copies, texts, files ---------------------------------------------------------------------------------------------


def noted(graph: Graph) -> list[tuple[object, ...]]:
    return [(n.name, n.role, n.origin, n.rule, n.expansion, n.changed_by) for n in graph.nodes()]


def test_copies_have_it_all(joint: Graph) -> None:
    assert noted(joint.copy()) == noted(joint)


def test_texts_have_it(joint: Graph) -> None:
    again = parse_text(to_text(joint, "full", passes=True))
    assert noted(again) == noted(joint)
    assert ig.graphs_equal(parse_text(to_text(joint, "full")), joint) is None
    assert " after " not in to_text(joint)
    assert " by Tanh" in to_text(joint)
    assert " via irgrad.LRNGrad @norm" in to_text(joint)


def test_files_have_it_except_for_the_pass(joint: Graph, tmp_path: Path) -> None:
    ig.save(joint, tmp_path / "joint.onnx", functions=True)
    again = ig.load(tmp_path / "joint.onnx")
    assert {row[:5] for row in noted(again)} == {row[:5] for row in noted(joint)}


@pytest.mark.parametrize("text", ["irgrad.LRNGrad", '["irgrad.LRNGrad"]', '["irgrad.LRNGrad", 3]'])
def test_a_malformed_mark_in_a_file(joint: Graph, text: str) -> None:
    model = ig.to_onnx(joint)
    entry = next(e for node in model.graph.node for e in node.metadata_props if e.key == "irgrad.expansion")
    entry.value = text
    with pytest.raises(ModelTypeError, match=r"'irgrad\.expansion'"):
        ig.load(model)


def test_gradients_of_gradients_belong_to_the_first_forward_node() -> None:
    twice = ig.hvp(parse_text(TEXT.replace("output y", "%s: f32[] = ReduceSum(%y, keepdims=0) output s")), wrt=["w"])
    assert all(twice.forward_of(node) is not None for node in twice.nodes() if node.role is Role.BACKWARD)


def test_asking_a_long_chain_is_linear() -> None:
    lines = [f"%v{k + 1} = Tanh(%v{k})" for k in range(3_000)]
    graph = parse_text("graph g { input %v0: f32[1] " + " ".join(lines) + f" output v{len(lines)} }}")
    joint = ig.vjp(graph, simplify=False)
    made = [joint.backward_of(node) for node in joint.nodes() if node.role is Role.FORWARD]
    assert sum(map(len, made)) == sum(node.role is Role.BACKWARD for node in joint.nodes())
