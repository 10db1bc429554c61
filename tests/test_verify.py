"""Every invariant, broken by hand through private fields, is caught."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto

from irgrad.errors import VerifyError
from irgrad.graph import Graph, Role, Value
from irgrad.op import find_op
from irgrad.text import parse_text
from irgrad.types import OptionalType, SequenceType, TensorType
from irgrad.verify import verify

TEXT = """
graph sound opset 28 {
  input %x: f32[N,3]
  param %w: f32[3,4]{1.0}
  const %axes: i64[1]{0}
  const %shape: i64[2]{3,4}
  %h: f32[N,4] = MatMul(%x, %w)
  %c: bool[] = Opaque(%h)
  %s: f32[4] = ReduceSum(%h, %axes, keepdims=0)
  %t: f32[4] = If(%c, %s, captured=1, then_branch=graph yes {
    input %s: f32[4]
    %u: f32[4] = Tanh(%s)
    output u
  }, else_branch=graph no {
    input %s: f32[4]
    output s
  })
  %g: f32[3,4] = Expand(%t, %shape) backward of h
  output t
  output w_grad = %g
  gradient w = w_grad
}
"""


def graph() -> Graph:
    return parse_text(TEXT)


F32 = TensorType(np.dtype(np.float32), (4,))
Breaker = Callable[[Graph], object]


def then_branch(g: Graph) -> Graph:
    inner = g.node("t").attrs["then_branch"]
    assert isinstance(inner, Graph)
    return inner


BROKEN: dict[str, tuple[Breaker, str]] = {
    # edges and operand lists
    "an operand without an edge": (
        lambda g: g._dag.remove_edge(g.value("x"), g.node("h")),
        "%x is an operand of the node 'h', but no edge says so",
    ),
    "an edge without an operand": (
        lambda g: g._dag.add_edge(g.value("x"), g.node("s")),
        "an edge joins %x and the node 's', which does not list it as an operand",
    ),
    "an output without an edge": (
        lambda g: g._dag.remove_edge(g.node("h"), g.value("h")),
        "%h is an output of the node 'h', but no edge says so",
    ),
    "an edge to a value that is no output": (
        lambda g: g.node("c")._outputs.clear(),
        "an edge joins %c and the node 'c', which does not list it as an output",
    ),
    "an output listed twice": (
        lambda g: g.node("h")._outputs.append(g.value("h")),
        "the node 'h' lists an output twice",
    ),
    # origins of values
    "two producers": (
        lambda g: (g._dag.add_edge(g.node("c"), g.value("h")), g.node("c")._outputs.append(g.value("h"))),
        "%h has 2 producers: 'h', 'c'",
    ),
    "no producer": (
        lambda g: (g._dag.remove_edge(g.node("c"), g.value("c")), g.node("c")._outputs.clear()),
        "%c is made by no node and is neither an input nor a constant",
    ),
    "an input with a producer": (
        lambda g: g._inputs.append(g.value("h")),
        "%h is made by the node 'h' and also an input or a constant",
    ),
    "an input that is a constant": (
        lambda g: g._inputs.append(g.value("w")),
        "%w is listed 2 times among the inputs and constants",
    ),
    "an input outside of the graph": (
        lambda g: g._inputs.append(Value(g, "ghost", F32)),
        "%ghost is an input or a constant but not in the graph",
    ),
    # names
    "a value under another name": (
        lambda g: setattr(g.value("h"), "_name", "other"),
        "the value 'other' is registered under the name 'h'",
    ),
    "a node under another name": (
        lambda g: setattr(g.node("h"), "_name", "other"),
        "the node 'other' is registered under the name 'h'",
    ),
    "two values of one name": (
        lambda g: g._dag.add_node(Value(g, "h", F32)),
        "the value 'h' is in the graph, but another one has that name",
    ),
    "a value that is not registered": (
        lambda g: g._values.pop("h"),
        "the value 'h' is in the graph, but it is not registered",
    ),
    "a name of nothing": (
        lambda g: g._values.update(ghost=Value(g, "ghost", F32)),
        "the value 'ghost' is registered but not in the graph",
    ),
    "a node registered twice": (
        lambda g: g._node_names.update(again=g.node("h")),
        "the node 'h' is registered more than once",
    ),
    "a value of another graph": (
        lambda g: setattr(g.value("h"), "_graph", Graph()),
        "the value 'h' belongs to another graph",
    ),
    # structure
    "an edge between nodes": (
        lambda g: g._dag.add_edge(g.node("h"), g.node("s")),
        "edges join nodes and values",
    ),
    "an edge between values": (
        lambda g: g._dag.add_edge(g.value("x"), g.value("h")),
        "edges join nodes and values",
    ),
    "a stranger": (
        lambda g: g._dag.add_node("stranger"),
        "'stranger' is in the graph, which is neither a node nor a value",
    ),
    "a cycle": (
        lambda g: g.set_input(g.node("h"), 0, g.value("g")),
        "the graph has a cycle through 'c', 't', 'g', 'h'",
    ),
    "an order without a node": (
        lambda g: setattr(g, "_order", g.nodes()[1:]),
        "the remembered order of the nodes is not that of the nodes that there are",
    ),
    "an order upside down": (
        lambda g: setattr(g, "_order", g.nodes()[::-1]),
        "the node 's' stands before 'h', which it depends on",
    ),
    # types
    "no type": (lambda g: setattr(g.value("h"), "_type", None), "%h has no type"),
    "something else than a type": (lambda g: setattr(g.value("h"), "_type", "f32"), "%h is typed 'f32', which is no type"),
    "a dtype that is none": (
        lambda g: setattr(g.value("h"), "_type", TensorType(np.float32, (4,))),  # type: ignore[arg-type]
        "%h has the dtype <class 'numpy.float32'>, which is no numpy dtype",
    ),
    "a shape that is none": (
        lambda g: setattr(g.value("h"), "_type", SequenceType(OptionalType(TensorType(np.dtype(np.float32), (-1,))))),
        "%h has the shape (-1,), in which something is no dimension",
    ),
    "a constant of another type": (
        lambda g: g._constants.update({g.value("w"): np.ones((3, 5), np.float32)}),
        "%w is typed f32[3,4], but its array is f32[3,5]",
    ),
    "a constant that is no array": (
        lambda g: g._constants.update({g.value("w"): [1.0]}),  # type: ignore[dict-item]
        "%w is typed f32[3,4], but its array is list",
    ),
    "a parameter that is no constant": (
        lambda g: setattr(g.value("x"), "is_parameter", True),
        "%x is marked as a parameter but is no constant",
    ),
    "contents of a float": (
        lambda g: setattr(g.value("s"), "contents", (1, 2, 3, 4)),
        "%s has known contents but is f32[4], no integers",
    ),
    "contents of another length": (
        lambda g: setattr(g.value("axes"), "contents", (0, 1)),
        "%axes is i64[1] but has 2 known elements",
    ),
    # nodes
    "a role that is none": (lambda g: setattr(g.node("h"), "role", "sideways"), "the node 'h' has the role 'sideways'"),
    "a rule that is no name": (
        lambda g: setattr(g.node("g"), "rule", g.node("h").op),
        "the node 'g' has a rule that is no name: <Op MatMul>",
    ),
    "an expansion that is none": (
        lambda g: setattr(g.node("g"), "expansion", "h"),
        "the node 'g' has an expansion that is none: 'h'",
    ),
    "an origin that is no name": (
        lambda g: setattr(g.node("g"), "origin", g.node("h")),
        "the node 'g' has an origin that is no name: %h = MatMul(%x, %w)",
    ),
    "an attribute of a wrong kind": (
        lambda g: g.node("h").attrs.update(perm=[1, 0]),
        "the attribute 'perm' of the node 'h' is of a kind that no attribute has: list",
    ),
    "an attribute of wrong items": (
        lambda g: g.node("h").attrs.update(perm=(1, None)),
        "the attribute 'perm' of the node 'h' is of a kind that no attribute has: tuple",
    ),
    "too few operands": (
        lambda g: (g._dag.remove_edge(g.value("w"), g.node("h")), g.node("h")._inputs.pop()),
        "the node 'h' (MatMul) takes 2 operands, not 1",
    ),
    "too many operands": (
        lambda g: g.node("s")._inputs.extend([None, None]),
        "the node 's' (ReduceSum) takes 1 to 2 operands, not 4",
    ),
    "an operand that must be there": (
        lambda g: g.set_input(g.node("h"), 1, None),
        "the operand 'B' of the node 'h' must not be absent",
    ),
    "too many outputs": (
        lambda g: g.add_output(g.node("h"), F32),
        "the node 'h' (MatMul) takes 1 outputs, not 2",
    ),
    # subgraphs
    "a subgraph that is broken": (
        lambda g: setattr(then_branch(g).value("u"), "_type", None),
        "in 'then_branch' of the node 't': %u has no type",
    ),
    "a subgraph of two nodes": (
        lambda g: g.node("t").attrs.update(else_branch=then_branch(g)),
        "in 'else_branch' of the node 't': the graph 'yes' is the attribute of more than one node",
    ),
    "a captured value of another type": (
        lambda g: then_branch(g).set_type(then_branch(g).value("s"), TensorType(np.dtype(np.float64), (4,))),
        "the subgraph 'yes' of the node 't' captures %s: f64[4], which is %s: f32[4] there",
    ),
    "a captured value that is absent": (
        lambda g: g.set_input(g.node("t"), 1, None),
        "the subgraph 'yes' of the node 't' captures %s: f32[4], which is absent there",
    ),
    "too few inputs for what is captured": (
        lambda g: g.node("t").attrs.update(then_branch=Graph("yes")),
        "the node 't' captures 1 values, its subgraph 'yes' has 0 inputs",
    ),
    "more captured than there is": (
        lambda g: g.node("t").attrs.update(captured=3),
        "the node 't' says that it captures 3 of its 2 operands",
    ),
    # outputs and gradients
    "an output outside of the graph": (
        lambda g: g._outputs.update(ghost=Value(g, "ghost", F32)),
        "the output 'ghost' is %ghost, which is not in the graph",
    ),
    "outputs that are out of date": (
        lambda g: g._returned.clear(),
        "what the graph remembers of which values are outputs is out of date",
    ),
    "a gradient of nothing": (
        lambda g: g.gradients.update(ghost="w_grad"),
        "there is a gradient 'w_grad' of %ghost, but no such value",
    ),
    "a gradient that is no output": (
        lambda g: g.gradients.update(x="x_grad"),
        "the gradient of %x is said to be the output 'x_grad', but there is none",
    ),
    "a gradient of another shape": (
        lambda g: g.gradients.update(h="w_grad", w="t"),
        "%w is f32[3,4], but its gradient 't' is f32[4]",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_is_caught(name: str) -> None:
    broken, (breaker, message) = graph(), BROKEN[name]
    broken.nodes()
    breaker(broken)
    with pytest.raises(VerifyError) as caught:
        verify(broken)
    assert any(message in problem for problem in caught.value.problems), caught.value.problems
    assert all(problem in str(caught.value) for problem in caught.value.problems)


TYPED = """
graph typed {
  input %x: f32[N,3]
  param %w: f32[3,4]{1.0}
  %h: f32[N,4] = MatMul(%x, %w)
  %s: f32[4] = Opaque(%h)
  %t: f32[4] = Tanh(%s)
  output t
}
"""
WRONG_TYPES: dict[str, tuple[Breaker, str]] = {
    "shape": (
        lambda g: g.set_type(g.value("h"), TensorType(np.dtype(np.float32), ("N", 5))),
        "%h is typed f32[N,5], but its node gives f32[N,4]",
    ),
    "dtype": (
        lambda g: g.set_type(g.value("h"), TensorType(np.dtype(np.float64), ("N", 4))),
        "%h is typed f64[N,4], but its node gives f32[N,4]",
    ),
    "kind": (
        lambda g: g.set_type(g.value("t"), SequenceType(F32)),
        "%t is typed seq(f32[4]), but its node gives f32[4]",
    ),
    "operands that do not fit": (
        lambda g: g.set_constant(g.value("w"), np.ones((5, 4), np.float32)),
        "at the node 'h': MatMul(f32[N,3], f32[5,4]) does not type-check",
    ),
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_types_are_inferred_on_request(name: str) -> None:
    broken, (breaker, message) = parse_text(TYPED), WRONG_TYPES[name]
    breaker(broken)
    verify(broken)
    with pytest.raises(VerifyError) as caught:
        verify(broken, types=True)
    assert any(message in problem for problem in caught.value.problems), caught.value.problems


def test_contents_are_inferred_on_request() -> None:
    text = "graph g { input %x: f32[2,N]  %s: i64[2]{2,?} = Shape(%x)  output s }"
    verify(parse_text(text), types=True)
    wrong = parse_text(text.replace("{2,?}", "{3,?}"))
    verify(wrong)
    with pytest.raises(VerifyError, match=r"%s is said to hold \(3, None\), but its node gives \(2, 'N'\)"):
        verify(wrong, types=True)


def test_a_sound_graph_passes() -> None:
    verify(graph())
    verify(graph(), types=True)


def test_the_message_shows_the_lines() -> None:
    broken = graph()
    broken.set_input(broken.node("h"), 1, None)
    broken.set_type(broken.value("x"), None)  # type: ignore[arg-type]
    with pytest.raises(VerifyError) as caught:
        verify(broken)
    assert str(caught.value).splitlines() == [
        "the graph 'sound' breaks 2 invariants:",
        "  - %x has no type",
        "      input %x: ?",
        "  - the operand 'B' of the node 'h' must not be absent",
        "      %h: f32[N,4] = MatMul(%x, _)",
    ]


def test_a_long_list_is_cut_in_the_message_only() -> None:
    broken = Graph("many")
    for k in range(30):
        broken.add_input(f"x{k}", None)  # type: ignore[arg-type]
    with pytest.raises(VerifyError, match=r"30 invariants(.|\n)*and 10 more\Z") as caught:
        verify(broken)
    assert len(caught.value.problems) == 30


def test_attributes_of_every_kind_pass() -> None:
    sound = Graph()
    values = (1, 0.5, "s", b"b", np.ones(2), F32, SequenceType(F32), TensorProto(), (1, 2), ("a",), (), (TensorProto(),))
    sound.add_node(find_op("Opaque"), [], [F32], {f"a{k}": value for k, value in enumerate(values)}, role=Role.UPDATE)
    verify(sound)
