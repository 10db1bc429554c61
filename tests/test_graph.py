"""The graph's mutators, its order, and that everything about it costs in proportion to its size."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from functools import cache
from typing import Any

import networkx as nx
import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.compare import graphs_equal
from irgrad.errors import GraphError
from irgrad.graph import Graph, Node, Role, Value, active_emitter
from irgrad.op import find_op
from irgrad.passes.simplify.dce import remove_dead
from irgrad.text import parse_text, to_text
from irgrad.types import SequenceType, TensorType
from irgrad.verify import verify

F32 = TensorType(np.dtype(np.float32), (3,))
TANH, ADD = find_op("Tanh"), find_op("Add")


def chain(length: int) -> Graph:
    graph = Graph()
    value = graph.add_input("x", F32)
    for _ in range(length):
        (value,) = graph.add_node(TANH, [value], [F32]).outputs
    graph.set_outputs([value])
    return graph


def diamond() -> tuple[Graph, dict[str, Value]]:
    """x → a → (b, c) → d, returned as `y`."""
    graph = Graph("diamond")
    x = graph.add_input("x", F32)
    (a,) = graph.add_node(TANH, [x], [F32], name="a").outputs
    (b,) = graph.add_node(TANH, [a], [F32], name="b").outputs
    (c,) = graph.add_node(TANH, [a], [F32], name="c").outputs
    (d,) = graph.add_node(ADD, [b, c], [F32], name="d").outputs
    graph.set_outputs({"y": d})
    return graph, {"x": x, "a": a, "b": b, "c": c, "d": d}


def names(nodes: list[Node]) -> list[str]:
    return [node.name for node in nodes]


# --- adding -----------------------------------------------------------------------------------------------------------


def test_an_operand_twice_is_one_edge() -> None:
    graph = Graph()
    x = graph.add_input("x", F32)
    node = graph.add_node(ADD, [x, x], [F32])
    assert node.inputs == (x, x)
    assert x.users == [node]
    assert graph.dag.number_of_edges() == 2
    verify(graph)


def test_absent_operands_have_no_edge() -> None:
    graph = Graph()
    x = graph.add_input("x", F32)
    node = graph.add_node(find_op("Clip"), [x, None, x], [F32])
    assert node.inputs == (x, None, x)
    assert node.input(1) is None
    assert node.input(7) is None
    with pytest.raises(GraphError, match="no operand 1"):
        node.operand(1)
    verify(graph)


def test_names_are_made_up_and_kept_unique() -> None:
    graph = chain(3)
    assert names(graph.nodes()) == ["Tanh", "Tanh_1", "Tanh_2"]
    assert [v.name for v in graph.values()] == ["x", "Tanh", "Tanh_1", "Tanh_2"]
    with pytest.raises(GraphError, match="already a node 'Tanh'"):
        graph.add_node(TANH, [graph.value("x")], [F32], name="Tanh")
    with pytest.raises(GraphError, match="already a value 'x'"):
        graph.add_input("x", F32)
    with pytest.raises(GraphError, match="not new and unique"):
        graph.add_node(find_op("Split"), [graph.value("x")], [F32, F32], output_names=["p", "p"])
    with pytest.raises(GraphError, match="not new and unique"):
        graph.add_node(TANH, [graph.value("x")], [F32], output_names=["x"])
    assert len(graph) == 3
    verify(graph)


def test_operands_of_another_graph_are_refused() -> None:
    graph, other = chain(1), chain(1)
    foreign = other.value("x")
    with pytest.raises(GraphError, match="another graph"):
        graph.add_node(TANH, [foreign], [F32])
    with pytest.raises(GraphError, match="another graph"):
        graph.set_input(graph.node("Tanh"), 0, foreign)
    with pytest.raises(GraphError, match="another graph"):
        graph.set_outputs([foreign])
    erased = graph.add_input("gone", F32)
    graph.erase(erased)
    with pytest.raises(GraphError, match="erased"):
        graph.add_node(TANH, [erased], [F32])


def test_a_further_output() -> None:
    graph = Graph()
    node = graph.add_node(find_op("Dropout"), [graph.add_input("x", F32)], [F32], name="drop")
    mask = graph.add_output(node, TensorType(np.dtype(np.bool_), (3,)))
    assert node.outputs[1] is mask
    assert mask.name == "drop.1"
    assert mask.producer is node
    verify(graph)


def test_outputs_may_come_and_go_between_others() -> None:
    graph = Graph()
    node = graph.add_node(find_op("Split"), [graph.add_input("x", F32)], [F32, F32], name="split")
    first, last = node.outputs
    between = graph.add_output(node, F32, at=1)
    assert node.outputs == (first, between, last)
    graph.set_outputs([last])
    with pytest.raises(GraphError, match="is an output of the graph"):
        graph.remove_output(node, 2)
    user = graph.add_node(TANH, [between], [F32])
    with pytest.raises(GraphError, match="still used"):
        graph.remove_output(node, 1)
    graph.erase(user)
    graph.remove_output(node, 1)
    graph.remove_output(node, 0)
    assert node.outputs == (last,)
    assert not graph.has_value(between.name)
    verify(graph)


def test_operands_may_become_more_and_fewer() -> None:
    graph, v = diamond()
    node = graph.node("d")
    graph.set_operands(node, [v["x"], None, v["x"], v["b"]])
    assert node.inputs == (v["x"], None, v["x"], v["b"])
    assert v["c"].users == []
    assert node in v["x"].users
    assert len(graph.dag.in_edges(node)) == 2
    graph.set_operands(node, [v["c"], v["b"]])
    assert node not in v["x"].users
    verify(graph)
    with pytest.raises(GraphError, match="another graph"):
        graph.set_operands(node, [chain(1).value("x")])


def test_attributes_fall_back_to_the_schema() -> None:
    graph = Graph()
    node = graph.add_node(find_op("Gemm"), [graph.add_input("x", F32)] * 2, [F32], {"transA": 1})
    assert (node.attr("transA"), node.attr("transB"), node.attr("alpha"), node.attr("nothing", 5)) == (1, 0, 1.0, 5)


# --- order ------------------------------------------------------------------------------------------------------------


def test_order_is_that_of_adding_where_it_can_be() -> None:
    graph, v = diamond()
    assert names(graph.nodes()) == ["a", "b", "c", "d"]
    graph.set_input(graph.node("b"), 0, v["c"])
    assert names(graph.nodes()) == ["a", "c", "b", "d"]
    graph.set_input(graph.node("b"), 0, v["a"])
    assert names(graph.nodes()) == ["a", "b", "c", "d"]


def test_near_takes_the_place_of_a_node() -> None:
    graph, v = diamond()
    graph.add_node(TANH, [v["x"]], [F32], name="last")
    graph.add_node(TANH, [v["x"]], [F32], name="by_b", near=graph.node("b"))
    graph.add_node(TANH, [v["x"]], [F32], name="by_b_too", near=graph.node("by_b"))
    assert names(graph.nodes()) == ["a", "b", "by_b", "by_b_too", "c", "d", "last"]


def test_nodes_is_a_snapshot() -> None:
    graph, v = diamond()
    seen = []
    for node in graph.nodes():
        graph.add_node(TANH, [v["x"]], [F32])
        seen.append(node.name)
    assert seen == ["a", "b", "c", "d"]
    assert len(graph) == 8
    listed = graph.nodes()
    listed.clear()
    assert len(graph.nodes()) == 8


def test_order_does_not_depend_on_hashes() -> None:
    """The nodes are hashed by address; many runs in one process have them at many addresses."""
    texts = set()
    junk: list[Any] = []
    for seed in range(20):
        generator = np.random.default_rng(7)
        graph = Graph()
        values = [graph.add_input(f"x{k}", F32) for k in range(3)]
        for _ in range(40):
            picked = [values[k] for k in generator.integers(0, len(values), 2)]
            values += graph.add_node(ADD, picked, [F32]).outputs
            junk.append(bytearray(seed * 16))
        graph.set_outputs(values[-4:])
        for value in values[10:20]:
            graph.replace_all_uses(value, values[4])
        texts.add(to_text(graph))
    assert len(texts) == 1


def test_a_cycle_is_an_error() -> None:
    graph, v = diamond()
    graph.set_input(graph.node("a"), 0, v["d"])
    with pytest.raises(GraphError, match="cycle"):
        graph.nodes()


# --- changing ---------------------------------------------------------------------------------------------------------


def test_set_input_moves_the_edge_with_the_last_use() -> None:
    graph, v = diamond()
    d = graph.add_node(find_op("Opaque", "test"), [v["b"], v["c"]], [F32], name="o")
    graph.set_outputs([])
    graph.erase(graph.node("d"))
    graph.set_input(d, 0, v["c"])
    assert d.inputs == (v["c"], v["c"])
    assert v["b"].users == []
    graph.set_input(d, 0, None)
    assert v["c"].users == [d]
    graph.set_input(d, 1, None)
    assert v["c"].users == []
    verify(graph)


def test_replace_all_uses_reaches_operands_and_outputs() -> None:
    graph, v = diamond()
    graph.set_outputs({"y": v["d"], "again": v["d"], "b": v["b"]})
    graph.replace_all_uses(v["d"], v["x"])
    assert graph.outputs == {"y": v["x"], "again": v["x"], "b": v["b"]}
    assert v["x"].is_output
    assert not v["d"].is_output
    graph.replace_all_uses(v["a"], v["x"])
    assert [n.name for n in v["x"].users] == ["a", "b", "c"]
    assert v["a"].users == []
    graph.replace_all_uses(v["x"], v["x"])
    verify(graph)
    graph.erase(graph.node("d"))
    graph.erase(graph.node("c"))
    graph.erase(graph.node("a"))
    verify(graph)


def test_replacing_keeps_both_operands_of_one_node() -> None:
    graph = Graph()
    x, y = graph.add_input("x", F32), graph.add_input("y", F32)
    node = graph.add_node(ADD, [x, x], [F32])
    graph.replace_all_uses(x, y)
    assert node.inputs == (y, y)
    verify(graph)


def test_erase_refuses_what_is_used() -> None:
    graph, v = diamond()
    for thing, message in (
        (graph.node("a"), "still used by %b = Tanh"),
        (graph.node("d"), "an output of the graph"),
        (v["a"], "made by a node"),
        (v["x"], "still used by %a = Tanh"),
    ):
        with pytest.raises(GraphError, match=message):
            graph.erase(thing)
    assert len(graph) == 4
    verify(graph)


def test_erase_frees_the_names() -> None:
    graph, v = diamond()
    graph.replace_all_uses(v["d"], v["b"])
    graph.erase(graph.node("d"))
    assert not graph.has_node("d")
    assert not graph.has_value("d")
    assert [n.name for n in v["b"].users] == []
    constant = graph.add_constant(np.ones(2, np.float32), "d")
    graph.erase(constant)
    assert graph.constants == {}
    verify(graph)


def test_outputs_need_names_of_their_own() -> None:
    graph, v = diamond()
    with pytest.raises(GraphError, match="listed twice"):
        graph.set_outputs([v["d"], v["d"]])
    graph.set_outputs({"one": v["d"], "two": v["d"]})
    assert list(graph.outputs) == ["one", "two"]


def test_rename() -> None:
    graph, v = diamond()
    graph.rename(v["a"], "hidden")
    graph.rename(graph.node("a"), "first")
    graph.rename(v["a"], "hidden")
    assert graph.value("hidden") is v["a"]
    assert graph.node("first").outputs == (v["a"],)
    with pytest.raises(GraphError, match="'b' is taken"):
        graph.rename(v["a"], "b")
    verify(graph)


def test_look_ups_suggest_close_names() -> None:
    graph, _ = diamond()
    graph.add_input("weights", F32)
    with pytest.raises(GraphError, match="did you mean 'weights'"):
        graph.value("wieghts")
    with pytest.raises(GraphError, match="no node 'nothing'"):
        graph.node("nothing")


def test_constants_know_their_contents() -> None:
    graph = Graph()
    axes = graph.add_constant(np.array([1, -1]), "axes")
    assert axes.contents == (1, -1)
    graph.set_constant(axes, np.array([[0.5]], np.float32))
    assert axes.contents is None
    assert axes.type == TensorType(np.dtype(np.float32), (1, 1))
    with pytest.raises(GraphError, match="no constant"):
        graph.set_constant(graph.add_input("x", F32), np.ones(3))
    assert graph.add_constant(np.arange(65)).contents is None


def test_only_tensors_have_a_dtype() -> None:
    value = Graph().add_input("s", SequenceType(F32))
    with pytest.raises(GraphError, match="not a tensor"):
        _ = value.dtype


# --- views and copies -------------------------------------------------------------------------------------------------


def test_dag_is_a_frozen_view() -> None:
    graph, v = diamond()
    dag = graph.dag
    assert nx.is_directed_acyclic_graph(dag)
    assert nx.is_bipartite(dag)
    assert nx.has_path(dag, v["x"], v["d"])
    for change in (dag.add_node, dag.remove_node):
        with pytest.raises(nx.NetworkXError, match=r"[Ff]rozen"):
            change(v["a"])
    with pytest.raises(nx.NetworkXError, match=r"[Ff]rozen"):
        dag.add_edge(v["a"], v["d"])
    assert len(dag) == 9
    verify(graph)


def test_copy_is_the_same_and_apart() -> None:
    graph, v = diamond()
    inner, _ = diamond()
    inner.value("x").contents = None
    graph.add_node(find_op("If"), [v["x"]], [F32], {"then_branch": inner, "captured": 0}, name="if")
    graph.add_constant(np.ones((2, 2), np.float32), "w", parameter=True)
    shape = graph.add_input("shape", TensorType(np.dtype(np.int64), (2,)))
    shape.contents = ("N", 3)
    v["a"].contents = None
    graph.add_node(TANH, [v["x"]], [F32], name="near", role=Role.BACKWARD, origin="a", near=graph.node("a"))
    graph.gradients["x"] = "y"
    graph.metadata["producer"] = "test"
    copy = graph.copy()
    assert graphs_equal(graph, copy) is None
    assert copy.value("shape").contents == ("N", 3)
    assert copy.parameters["w"] is graph.parameters["w"]
    copy.rename(copy.value("a"), "other")
    copy.node("if").attrs["then_branch"].rename(copy.node("if").attrs["then_branch"].value("a"), "changed")
    copy.gradients.clear()
    assert graph.has_value("a")
    assert inner.has_value("a")
    assert graph.gradients == {"x": "y"}
    verify(copy)
    verify(graph)


def test_walk_finds_graphs_inside_graphs() -> None:
    outer, middle, inner = Graph("outer"), Graph("middle"), Graph("inner")
    outer.add_node(find_op("Loop"), [], [], {"body": middle})
    middle.add_node(find_op("If"), [], [], {"then_branch": inner, "else_branch": Graph("other")})
    assert [graph.name for graph in outer.walk()] == ["outer", "middle", "inner", "other"]


def test_walk_leaves_out_what_was_erased_meanwhile() -> None:
    outer = Graph("outer")
    node = outer.add_node(find_op("Loop"), [], [], {"body": Graph("body")})
    seen = []
    for graph in outer.walk():
        seen.append(graph.name)
        if graph is outer:
            outer.erase(node)
    assert seen == ["outer"]


# --- building ---------------------------------------------------------------------------------------------------------


def test_operators_go_through_the_active_builder() -> None:
    graph = Graph()
    x = graph.add_input("x", F32)
    with pytest.raises(GraphError, match="outside the `with` block"):
        _ = x + 1
    with Builder(graph, role=Role.BACKWARD, origin="o"):
        y = 2 * x - 1 / x
    assert [node.op.name for node in graph.nodes()] == ["Mul", "Div", "Sub"]
    assert {(node.role, node.origin) for node in graph.nodes()} == {(Role.BACKWARD, "o")}
    assert y.dtype == np.float32
    assert active_emitter.get() is None


# --- cost -------------------------------------------------------------------------------------------------------------


def calls(function: Callable[[], object]) -> int:
    """How many functions, built-in ones included, are called while a function runs."""
    profile = cProfile.Profile()
    profile.runcall(function)
    return sum(entry.callcount for entry in profile.getstats())


shared_chain = cache(chain)


def unused_chain(length: int) -> Graph:
    graph = chain(length)
    graph.set_outputs([graph.value("Tanh")])
    return graph


def replaced_everywhere(length: int) -> Graph:
    """Many outputs and many changes: neither may be searched for the other's sake."""
    graph = chain(length)
    graph.set_outputs({f"y{k}": value for k, value in enumerate(graph.values()[1:])})
    for value in graph.values()[1:]:
        graph.replace_all_uses(value, graph._inputs[0])
    for node in reversed(graph.nodes()):
        graph.erase(node)
    return graph


OPERATIONS: dict[str, tuple[Callable[[int], Any], Callable[[Any], object]]] = {
    "build": (lambda n: n, chain),
    "copy": (shared_chain, lambda graph: graph.copy()),
    "order": (shared_chain, lambda graph: graph._sorted()),
    "verify": (shared_chain, verify),
    "print": (shared_chain, to_text),
    "parse": (lambda n: to_text(shared_chain(n)), parse_text),
    "compare": (lambda n: (shared_chain(n), chain(n)), lambda pair: graphs_equal(*pair)),
    "dce": (unused_chain, remove_dead),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_cost_is_linear(name: str) -> None:
    prepare, run = OPERATIONS[name]
    run(prepare(10))  # what happens once per process
    counts = {}
    for length in (1_000, 10_000, 100_000):
        given = prepare(length)
        counts[length] = calls(lambda given=given: run(given))
    assert counts[10_000] < 10.5 * counts[1_000]
    assert counts[100_000] < 10.1 * counts[10_000]


def test_cost_of_many_outputs_is_linear() -> None:
    counts = [calls(lambda n=n: replaced_everywhere(n)) for n in (500, 1_000, 2_000)]
    assert counts[1] < 2.1 * counts[0]
    assert counts[2] < 2.1 * counts[1]
