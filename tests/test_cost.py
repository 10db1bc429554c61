"""What operations and graphs cost: known numbers, formulas worked by hand, what is not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import irgrad as ig
from irgrad.builder import Builder, typed_call
from irgrad.bundled import bundled_model
from irgrad.cost import cost
from irgrad.errors import TypeInferenceError, UsageError
from irgrad.graph import Graph, Role, Value
from irgrad.op import Cost
from irgrad.types import TensorType

F32 = np.dtype(np.float32)


def made(emit: Callable[..., Value | tuple[Value, ...]], *shapes: tuple[Any, ...]) -> Graph:
    graph = Graph()
    inputs = [graph.add_input(f"x{k}", TensorType(F32, shape)) for k, shape in enumerate(shapes)]
    with Builder(graph) as b:
        results = emit(b, *inputs)
    graph.set_outputs(results if isinstance(results, tuple) else [results])
    return graph


def total(emit: Callable[..., Value | tuple[Value, ...]], *shapes: tuple[Any, ...]) -> Cost:
    return ig.cost(made(emit, *shapes)).total()


# --- whole models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("resnet50", 4.09), ("vgg19", 19.63), ("densenet121", 2.83), ("squeezenet", 0.35)],
)
def test_published_numbers(name: str, gmacs: float) -> None:
    """Multiply-adds of one image of 224 × 224, as in the tables of torchvision and of the papers (He 2016: 3.8, rounded)."""
    graph = ig.load(bundled_model(name))
    table = ig.cost(graph)
    products = sum(c.flops for node, c in table if c and node.op.name in ("Conv", "Gemm", "MatMul"))
    assert products / 2e9 == pytest.approx(gmacs, rel=0.03)
    assert products <= table.total().flops < 1.05 * products
    assert not table.unknown


@pytest.mark.parametrize("name", ["resnet50", "vgg19"])
def test_backward_costs_about_twice_the_forward(name: str) -> None:
    table = ig.cost(ig.vjp(ig.load(bundled_model(name)), wrt="parameters"))
    assert list(table.roles) == [Role.FORWARD, Role.BACKWARD]
    assert 1.9 < table.total(Role.BACKWARD).flops / table.total(Role.FORWARD).flops < 2.05
    assert table.total().flops == sum(c.flops for c in table.roles.values())
    assert "backward" in str(table) and "GFLOP" in str(table)


# --- one operation ----------------------------------------------------------------------------------------------------

M, N, K = 3, 5, 7
CASES: dict[str, tuple[int, Any, list[tuple[int, ...]]]] = {
    "MatMul": (2 * M * N * K, lambda b, x, w: x @ w, [(M, K), (K, N)]),
    "MatMul of a batch": (2 * 4 * M * N * K, lambda b, x, w: x @ w, [(4, M, K), (K, N)]),
    "MatMul of vectors": (2 * K, lambda b, x, w: x @ w, [(K,), (K,)]),
    "Gemm": (2 * M * N * K + M * N, lambda b, x, w, c: b.op("Gemm", x, w, c), [(M, K), (K, N), (N,)]),
    "Gemm transposed": (2 * M * N * K, lambda b, x, w: b.op("Gemm", x, w, transA=1, transB=1), [(K, M), (N, K)]),
    "Conv": (2 * (2 * 6 * 4 * 4) * (3 * 9), lambda b, x, w: b.op("Conv", x, w), [(2, 3, 6, 6), (6, 3, 3, 3)]),
    "Conv with bias": (
        2 * 6 * 16 * 27 + 6 * 16,
        lambda b, x, w, c: b.op("Conv", x, w, c),
        [(1, 3, 6, 6), (6, 3, 3, 3), (6,)],
    ),
    "depthwise Conv": (2 * 3 * 16 * 9, lambda b, x, w: b.op("Conv", x, w, group=3), [(1, 3, 6, 6), (3, 1, 3, 3)]),
    "ConvTranspose": (2 * 3 * 16 * (6 * 9), lambda b, x, w: b.op("ConvTranspose", x, w), [(1, 3, 4, 4), (3, 6, 3, 3)]),
    "MaxPool": (3 * 9 * 4, lambda b, x: b.op("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2)), [(1, 3, 6, 6)]),
    "GlobalAveragePool": (3 * 36, lambda b, x: b.op("GlobalAveragePool", x), [(1, 3, 6, 6)]),
    "ReduceSum": (12, lambda b, x: b.op("ReduceSum", x, b.ints([1])), [(3, 4)]),
    "Softmax": (5 * 12, lambda b, x: b.op("Softmax", x), [(3, 4)]),
    "Tanh": (12, lambda b, x: b.op("Tanh", x), [(3, 4)]),
    "Add that broadcasts": (12, lambda b, x, y: x + y, [(3, 4), (4,)]),
    "Sum of three": (2 * 12, lambda b, x, y, z: b.op("Sum", x, y, z), [(3, 4)] * 3),
    "Einsum, a product": (2 * M * N * K, lambda b, x, y: b.op("Einsum", x, y, equation="ij,jk->ik"), [(M, K), (K, N)]),
    "Einsum, outer": (M * N, lambda b, x, y: b.op("Einsum", x, y, equation="i,j->ij"), [(M,), (N,)]),
    "Einsum, a sum": (M * N, lambda b, x: b.op("Einsum", x, equation="ij->i"), [(M, N)]),
    "Einsum, a transpose": (0, lambda b, x: b.op("Einsum", x, equation="ij->ji"), [(M, N)]),
    "Einsum of three": (
        2 * 2 * 30 * 4 + 2 * 2 * 4 * 5,
        lambda b, x, y, z: b.op("Einsum", x, y, z, equation="ij,jk,kl->il"),
        [(2, 30), (30, 4), (4, 5)],
    ),
    "Attention": (
        2 * 4 * 5 * 6 * (2 * 8 + 2 * 8 + 5),
        lambda b, q, k, v: b.op("Attention", q, k, v),
        [(2, 4, 5, 8), (2, 4, 6, 8), (2, 4, 6, 8)],
    ),
    "Attention with heads packed": (
        2 * 4 * 5 * 6 * (2 * 8 + 2 * 8 + 5),
        lambda b, q, k, v: b.op("Attention", q, k, v, q_num_heads=4, kv_num_heads=2),
        [(2, 5, 32), (2, 6, 16), (2, 6, 16)],
    ),
    "LSTM": (
        9 * 2 * (2 * 4 * 3 * 5 + 2 * 4 * 3 * 3 + 4 * 4 * 3),
        lambda b, x, w, r: b.multi("LSTM", x, w, r, outputs=1, hidden_size=3),
        [(9, 2, 5), (1, 12, 5), (1, 12, 3)],
    ),
    "LayerNormalization": (7 * 12, lambda b, x, s: b.op("LayerNormalization", x, s), [(3, 4), (4,)]),
    "Reshape": (0, lambda b, x: b.op("Reshape", x, b.ints([-1])), [(3, 4)]),
    "Concat": (0, lambda b, x, y: b.op("Concat", x, y, axis=0), [(3, 4), (3, 4)]),
}


@pytest.mark.parametrize("name", CASES)
def test_flops(name: str) -> None:
    flops, emit, shapes = CASES[name]
    assert total(emit, *shapes).flops == flops


@pytest.mark.parametrize("wrt", [["x0"], ["x1"], ["x0", "x1"]])
def test_each_adjoint_of_a_convolution_costs_as_much_as_the_convolution(wrt: list[str]) -> None:
    forward = made(CASES["Conv"][1], *CASES["Conv"][2])
    table = ig.cost(ig.vjp(forward, wrt=wrt))
    assert table.total(Role.BACKWARD).flops == len(wrt) * table.total(Role.FORWARD).flops


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_an_adjoint_of_a_recurrence_costs_about_twice_the_recurrence(kind: str) -> None:
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind]
    forward = made(
        lambda b, x, w, r: b.multi(kind, x, w, r, outputs=1, hidden_size=64),
        (9, 2, 64),
        (1, gates * 64, 64),
        (1, gates * 64, 64),
    )
    table = ig.cost(ig.vjp(forward, wrt="inputs"))
    assert 1.8 < table.total(Role.BACKWARD).flops / table.total(Role.FORWARD).flops < 2.2


def test_bytes() -> None:
    assert total(lambda b, x, y: x + y, (3, 4), (4,)) == Cost(12, 4 * (12 + 4), 4 * 12)
    assert total(lambda b, x: b.op("Transpose", x), (3, 4)) == Cost(0, 0, 0)


def test_a_gather_does_not_read_the_whole_table() -> None:
    rows = total(lambda b, table: b.op("Gather", table, b.ints([1, 2])), (1000, 8))
    assert rows == Cost(0, 4 * 2 * 8 + 8 * 2, 4 * 2 * 8)


# --- sizes ------------------------------------------------------------------------------------------------------------


def symbolic() -> Graph:
    """Rows that are made into columns: the shape arithmetic goes away once N is a number."""
    return made(lambda b, x, w: b.reshape_like(b.op("Transpose", x), x) @ w, ("N", 4), (4, 3))


def test_sizes_are_put_in() -> None:
    assert ig.cost(symbolic(), {"N": 8}).total().flops == 2 * 8 * 4 * 3
    assert ig.cost(symbolic(), {"N": 16}).total().flops == 2 * 16 * 4 * 3
    assert [node.op.name for node, _ in ig.cost(symbolic(), {"N": 8})] == ["Transpose", "Reshape", "MatMul"]


def test_dimensions_that_are_products() -> None:
    assert ig.cost(made(lambda b, x: x * 2, ("2*N*M", 3)), {"N": 5, "M": 7}).total().flops == 2 * 5 * 7 * 3


def test_mistakes_in_sizes() -> None:
    with pytest.raises(UsageError, match=r"sizes=\{'N': ...\}"):
        ig.cost(symbolic())
    with pytest.raises(UsageError, match="'M'; there are: N"):
        ig.cost(symbolic(), {"N": 2, "M": 3})
    with pytest.raises(UsageError, match="size of 'N' is -1; it must be a whole number"):
        ig.cost(symbolic(), {"N": -1})
    graph = made(lambda b, x, y: x + y, ("N",), ("M",))
    with pytest.raises(TypeInferenceError, match="at the node 'Add'"):
        ig.cost(graph, {"N": 2, "M": 3})


def test_what_depends_on_data_is_told_and_not_counted() -> None:
    table = ig.cost(made(lambda b, x: (b.op("NonZero", x), x * 2), (3, 4)))
    assert [node.op.name for node in table.unknown] == ["NonZero"]
    assert table.total().flops == 12
    assert "not counted: 1 nodes" in str(table)


def test_nodes_that_do_not_run_cost_nothing() -> None:
    graph = made(lambda b, x: x * 2, (3,))
    with Builder(graph) as b:
        b.op("Tanh", graph.inputs["x0"])
    assert len(cost(graph)) == 1


# --- subgraphs --------------------------------------------------------------------------------------------------------

LOOP = """graph g {{
  input %x: f32[4]
  const %count: i64[]{{{count}}}
  {first}
  %y: f32[4] = {op}
  output y
}}"""
BODY = """graph body {
    input %i: i64[]
    input %c: bool[]
    input %s: f32[4]
    %d: f32[4] = Mul(%s, %s)
    output c
    output d
  }"""


def test_a_loop_costs_its_body_as_often_as_it_runs() -> None:
    text = LOOP.format(count=5, first="", op=f"Loop(%count, _, %x, body={BODY})")
    assert ig.cost(ig.parse_text(text)).total() == Cost(5 * 4, 5 * 32, 5 * 16)


def test_of_a_loop_that_data_end_nothing_is_known() -> None:
    text = LOOP.format(count=5, first="", op=f"Loop(%n, _, %x, body={BODY})").replace(
        "const %count: i64[]{5}", "input %n: i64[]"
    )
    assert len(ig.cost(ig.parse_text(text)).unknown) == 1


def test_an_if_costs_its_costlier_branch() -> None:
    branches = [f"graph {name} {{ input %v: f32[4] %r: f32[4] = {op} output r }}" for name, op in BRANCHES]
    text = f"""graph g {{ input %x: f32[4] input %c: bool[]
      %y: f32[4] = If(%c, %x, then_branch={branches[0]}, else_branch={branches[1]}, captured=1) output y }}"""
    assert ig.cost(ig.parse_text(text)).total().flops == 5 * 4


BRANCHES = [("cheap", "Tanh(%v)"), ("dear", "Softmax(%v)")]


def test_an_operation_of_a_plugin_may_tell_its_cost() -> None:
    op = ig.Op("Double", domain="test", kernel=lambda x: 2 * x, cost=lambda call: Cost.of(call, 17))
    op.infer(lambda call: [call.tensor(0)])
    graph = made(lambda b, x: b.node(op, [x]).outputs[0], (3,))
    (node,) = graph.nodes()
    assert op.cost_of(typed_call(node)) == Cost(17, 12, 12)
    op.cost(lambda call: Cost.of(call, 18))
    assert ig.cost(graph).total().flops == 18
