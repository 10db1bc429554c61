"""Gradients through If, Loop and Scan: what the cases of single nodes do not show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import irgrad as ig
from irgrad.builder import Builder
from irgrad.errors import UnsupportedOpError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph, Role, Value
from irgrad.op import find_op
from irgrad.ops import subgraphs
from irgrad.ops.backward_body import set_named_outputs
from irgrad.passes.autodiff.derivatives import Jvp, Vjp
from irgrad.passes.simplify import Simplify
from irgrad.runtime import compile
from irgrad.types import TensorType, dtype_from_name
from irgrad.verify import verify
from tests.frontends.control_models import choice, decay, growing, integer, nested
from tests.ops.bodies import F64, I64, branch_on, loop_over, subgraph
from tests.ops.harness import Case, leaves, mapped, rng

CASES: list[Case] = [
    case for family in ("control", "loop", "scan") for case in import_module(f"tests.ops.{family}_cases").CASES
]
VECTOR = TensorType(np.dtype(np.float64), (3,))
X, W = rng(0).standard_normal(3), rng(1).standard_normal(3)


def graph_of(inputs: dict[str, TensorType], make: Callable[..., Value | Sequence[Value]]) -> Graph:
    """A graph whose outputs, y0, y1, ..., are what ``make(b, *inputs)`` returns."""
    graph = Graph("model")
    values = [graph.add_input(name, type) for name, type in inputs.items()]
    with Builder(graph) as b:
        made = make(b, *values)
    results = [made] if isinstance(made, Value) else list(made)
    set_named_outputs(graph, results, [f"y{k}" for k in range(len(results))])
    return graph


def gradients(graph: Graph, feeds: dict[str, Any], wrt: Sequence[str], outputs: Sequence[str] = ("y0",)) -> dict[str, Any]:
    """The results of a graph and, for cotangents of ones, the gradients; simplified, which must not change a bit."""
    joint = graph.copy()
    Vjp(list(wrt), list(outputs)).run(joint)
    verify(joint, types=True)
    base = compile(graph)(feeds)
    given = {**feeds, **{f"{name}_cotangent": mapped(np.ones_like, base[name]) for name in outputs}}
    results = compile(joint)(given)
    Simplify().run(joint)
    verify(joint, types=True)
    again = compile(joint)(given)
    for name, result in results.items():
        for a, b in zip(leaves(result), leaves(again[name]), strict=True):
            np.testing.assert_array_equal(a, b)
    return results


# --- derivatives of every kind, of every case -------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_simplified_and_forward_mode(case: Case, dynamic: bool) -> None:
    """The simplified joint graph gives the same bits; ⟨u, J t⟩ = ⟨Jᵀ u, t⟩."""
    graph = case.graph(dynamic=dynamic)
    feeds, wrt = case.feeds(graph), [f"x{k}" for k in case.differentiated()]
    results = compile(graph)(feeds)
    outputs = [name for name, value in graph.outputs.items() if value.type.differentiable]
    generator = np.random.default_rng(0)

    def random_like(value: Any) -> Any:
        return mapped(lambda array: generator.standard_normal(array.shape), value)

    cotangents = {name: random_like(results[name]) for name in outputs}
    tangents = {name: random_like(feeds[name]) for name in wrt}
    joint, forward = graph.copy(), graph.copy()
    Vjp(wrt, outputs).run(joint)
    given = {**feeds, **{f"{name}_cotangent": u for name, u in cotangents.items()}}
    pulled = compile(joint)(given)
    Simplify().run(joint)
    verify(joint, types=True)
    for name, result in compile(joint)(given).items():
        for a, b in zip(leaves(result), leaves(pulled[name]), strict=True):
            np.testing.assert_array_equal(a, b)
    Jvp(wrt, outputs).run(forward)
    verify(forward, types=True)
    pushed = compile(forward)({**feeds, **{f"{name}_tangent": t for name, t in tangents.items()}})

    def product(a: Any, b: Any) -> float:
        return sum(float(np.vdot(x, y)) for x, y in zip(leaves(a), leaves(b), strict=True))

    left = sum(product(u, pushed[f"{name}_tangent"]) for name, u in cotangents.items())
    right = sum(product(pulled[f"{name}_grad"], t) for name, t in tangents.items())
    assert left == pytest.approx(right, rel=1e-9, abs=1e-12)


# --- the same without control flow ------------------------------------------------------------------------------------


def step(b: Builder, s: Value, x: Value, w: Value) -> tuple[Value, Value]:
    after = b.op("Tanh", s * w + x)
    return after, after * s


def unrolled(trips: int) -> Graph:
    def make(b: Builder, s: Value, xs: Value, w: Value) -> list[Value]:
        parts = []
        for i in range(trips):
            s, part = step(b, s, b.op("Gather", xs, np.array(i)), w)
            parts.append(b.op("Unsqueeze", part, b.ints([0])))
        empty = b.constant(np.zeros((0, 3)))
        return [b.op("Identity", s), b.op("Concat", empty, *parts, axis=0)]

    return graph_of({"s": VECTOR, "xs": VECTOR.with_shape((5, 3)), "w": VECTOR}, make)


def looped(trips: int) -> Graph:
    def body(b: Builder, i: Value, c: Value, s: Value, xs: Value, w: Value) -> list[Value]:
        return [c, *step(b, s, b.op("Gather", xs, i), w)]

    return graph_of(
        {"s": VECTOR, "xs": VECTOR.with_shape((5, 3)), "w": VECTOR},
        lambda b, s, xs, w: loop_over(b, trips, [s], [xs, w], body),
    )


def ended(trips: int) -> Graph:
    """A Loop that could go on, but whose condition ends it."""

    def body(b: Builder, i: Value, c: Value, s: Value, xs: Value, w: Value) -> list[Value]:
        return [b.op("Less", i + 1, trips), *step(b, s, b.op("Gather", xs, i), w)]

    return graph_of(
        {"s": VECTOR, "xs": VECTOR.with_shape((5, 3)), "w": VECTOR},
        lambda b, s, xs, w: loop_over(b, 100, [s], [xs, w], body, going=trips > 0),
    )


def scanned(trips: int, reverse: bool = False) -> Graph:
    body = subgraph({"s": F64, "x": F64, "w": F64}, lambda b, s, x, w: step(b, s, x, w))
    attrs = {"body": body, "captured": 1, "num_scan_inputs": 1}
    if reverse:
        attrs |= {"scan_input_directions": (1,), "scan_output_directions": (1,)}

    def make(b: Builder, s: Value, xs: Value, w: Value) -> Sequence[Value]:
        first = b.op("Slice", xs, b.ints([0]), b.ints([trips]), b.ints([0]))
        order = b.constant(np.arange(trips)[::-1].copy())
        first = b.op("Gather", first, order) if reverse else first
        last, slices = b.node(find_op("Scan"), [s, first, w], attrs, outputs=2).outputs
        return [last, b.op("Gather", slices, order) if reverse else slices]

    return graph_of({"s": VECTOR, "xs": VECTOR.with_shape((5, 3)), "w": VECTOR}, make)


@pytest.mark.parametrize("trips", [0, 1, 2, 5])
@pytest.mark.parametrize(
    "make", [looped, ended, scanned, lambda n: scanned(n, True)], ids=["Loop", "condition", "Scan", "back"]
)
def test_agrees_with_the_unrolled_graph(make: Callable[[int], Graph], trips: int) -> None:
    feeds = {"s": X, "xs": rng(2).standard_normal((5, 3)), "w": W}
    want = gradients(unrolled(trips), feeds, ["s", "xs", "w"], ["y0", "y1"])
    got = gradients(make(trips), feeds, ["s", "xs", "w"], ["y0", "y1"])
    for name, result in want.items():
        assert got[name].shape == result.shape
        np.testing.assert_allclose(got[name], result, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("trips", [0, 3])
def test_the_trip_count_is_known_at_run_time_only(trips: int) -> None:
    def body(b: Builder, i: Value, c: Value, s: Value, w: Value) -> list[Value]:
        return [c, b.op("Sin", s * w)]

    graph = graph_of(
        {"n": I64.with_shape(()), "s": VECTOR, "w": VECTOR}, lambda b, n, s, w: loop_over(b, n, [s], [w], body)[0]
    )
    found = gradients(graph, {"n": np.array(trips), "s": X, "w": W}, ["s", "w"])
    if not trips:
        np.testing.assert_array_equal(found["s_grad"], np.ones(3))
        np.testing.assert_array_equal(found["w_grad"], np.zeros(3))
    check_grads(graph, {"n": np.array(trips), "s": X, "w": W}, ["s", "w"], ["y0"])


# --- models as files have them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [True, False])
def test_if_that_captures_an_intermediate(condition: bool) -> None:
    graph = ig.load(choice((2, 3)))
    feeds = {"x": rng(3).standard_normal((2, 3)).astype(np.float32), "c": np.array(condition)}
    check_grads(graph, feeds, ["x"], ["y"])
    joint = ig.vjp(graph, ["x"], ["y"])
    h = np.tanh(feeds["x"])
    dy = rng(4).standard_normal((3, 2) if condition else (2, 3)).astype(np.float32)
    want = (dy.T if condition else dy * (h > 0)) * (1 - h * h)
    got = compile(joint)({**feeds, "y_cotangent": dy})["x_grad"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_nested_model(trips: int) -> None:
    graph = ig.load(nested())
    check_grads(graph, {"x": rng(5).standard_normal((2, 3)), "m": integer(trips)}, ["x", "w"], ["y"])


@pytest.mark.parametrize(("bound", "limit"), [(0.1, 100), (0.1, 2), (1e9, 100), (0.1, 0)])
def test_early_exit_of_a_model(bound: float, limit: int) -> None:
    graph = ig.load(decay())
    feeds = {"x": rng(6).standard_normal((2, 3)), "bound": np.float32(bound), "m": integer(limit), "go0": np.array(True)}
    check_grads(graph, feeds, ["x"], list(graph.outputs))


def test_integers_beside_floats() -> None:
    graph = ig.load(growing())
    feeds = {"x": rng(7).standard_normal((2, 3)), "m": integer(3), "start": np.array([7])}
    check_grads(graph, feeds, ["x"], ["sum"])


def test_half_precision_is_summed_in_single() -> None:
    """4096 ones: a sum of float16 or bfloat16 would stop growing at 2048 or 256."""
    for name in ("f16", "bf16", "f32"):
        type = TensorType(dtype_from_name(name), (2,))
        inputs = {"i": I64.with_shape(()), "c": TensorType(np.dtype(bool), ()), "w": type}
        body = subgraph(inputs, lambda b, i, c, w: [c, b.op("Identity", w)])
        graph = Graph("half")
        w = graph.add_input("w", type)
        b = Builder(graph)
        node = b.node(find_op("Loop"), [b.constant(np.array(4096)), None, w], {"body": body, "captured": 1})
        graph.set_outputs({"y0": node.outputs[0]})
        found = gradients(graph, {"w": np.zeros(2, type.dtype)}, ["w"])["w_grad"]
        assert found.dtype == type.dtype
        np.testing.assert_array_equal(found.astype(np.float64), [4096, 4096])


# --- cost -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often subgraphs of each name have run."""
    counts: Counter[str] = Counter()
    plain = subgraphs.Subprogram

    class Counting(plain):  # type: ignore[valid-type, misc]
        def __init__(self, graph: Graph) -> None:
            super().__init__(graph)
            self.name = graph.name

        def __call__(self, *operands: Any) -> list[Any]:
            counts[self.name] += 1
            return super().__call__(*operands)  # type: ignore[no-any-return]

    monkeypatch.setattr(subgraphs, "Subprogram", Counting)
    yield counts


def tower(depth: int, trips: int) -> Graph:
    """Loops inside of each other."""

    def level(b: Builder, depth: int, s: Value, w: Value) -> Value:
        if depth == 0:
            return b.op("Tanh", s * w)
        return loop_over(b, trips, [s], [w], lambda b, i, c, s, w: [c, b.op("Sin", level(b, depth - 1, s * w, w))])[0]

    return graph_of({"s": VECTOR, "w": VECTOR}, lambda b, s, w: level(b, depth, s, w))


@pytest.mark.parametrize("trips", [1, 10, 100])
def test_a_body_runs_once_forward_and_once_backward(runs: Counter[str], trips: int) -> None:
    graph = tower(1, trips)
    joint = graph.copy()
    Vjp(["s", "w"]).run(joint)
    compile(joint)({"s": X, "w": W, "y0_cotangent": X})
    assert runs == {"body": trips, "body_adjoint": trips}


def test_the_cost_of_nesting(runs: Counter[str]) -> None:
    """Each level computes those inside of it once more, so that the factor grows by one per level, not by a factor."""
    sizes, factors = [], []
    for depth in (1, 2, 3, 4):
        graph = tower(depth, 3)
        runs.clear()
        compile(graph)({"s": X, "w": W})
        forward = runs.total()
        Vjp(["s", "w"]).run(graph)
        Simplify().run(graph)
        runs.clear()
        compile(graph)({"s": X, "w": W, "y0_cotangent": X})
        factors.append(runs.total() / forward)
        sizes.append(sum(len(inner) for inner in graph.walk()))
    assert all(factor <= depth + 1 for depth, factor in enumerate(factors, 1)), factors
    growth = np.diff(sizes)
    assert growth[-1] <= 1.5 * growth[0], sizes


def test_what_the_backward_pass_does_not_read_is_not_kept() -> None:
    def body(b: Builder, i: Value, c: Value, s: Value, w: Value) -> list[Value]:
        return [c, s * w]

    graph = graph_of({"s": VECTOR, "w": VECTOR}, lambda b, s, w: loop_over(b, 4, [s], [w], body)[0])
    for wrt, kept in ((["s"], 1), (["w"], 2)):
        joint = graph.copy()
        Vjp(wrt, ["y0"]).run(joint)
        Simplify().run(joint)
        forward = next(node for node in joint.nodes() if node.op.qualified_name == "Loop")
        assert len(forward.outputs) == kept


def test_picked_rows_are_not_summed_in_every_iteration() -> None:
    """The cotangent of x in ``x[i]`` is put together once, after the last iteration."""
    table = TensorType(np.dtype(np.float64), (1000, 3))

    def body(b: Builder, i: Value, c: Value, s: Value, x: Value) -> list[Value]:
        return [c, b.op("Tanh", s * b.op("Gather", x, i))]

    graph = graph_of({"s": VECTOR, "x": table}, lambda b, s, x: loop_over(b, 1000, [s], [x], body)[0])
    joint = graph.copy()
    Vjp(["s", "x"], ["y0"]).run(joint)
    second = joint.copy()
    second.set_outputs({"first_s": second.outputs["s_grad"], "first_x": second.outputs["x_grad"]})
    Vjp(["s", "x"]).run(second)
    for made in (joint, second):
        inside = [inner for inner in made.walk() if inner is not made]
        assert len(inside) > 1
        results = [value for inner in inside for node in inner.nodes() for value in node.outputs]
        assert all(value.shape != (1000, 3) for value in results)


def test_repeated_nodes_are_told_from_backward_ones() -> None:
    joint = tower(1, 3)
    Vjp(["s"]).run(joint)
    forward, backward = (node.subgraphs[0] for node in joint.nodes() if node.op.qualified_name == "Loop")
    assert {node.role for node in forward.nodes()} == {Role.FORWARD}
    again = [node for node in backward.nodes() if node.role is Role.RECOMPUTE]
    assert again
    assert all(forward.has_node(node.origin or "") for node in again)


# --- random numbers ---------------------------------------------------------------------------------------------------


def noisy(b: Builder, s: Value) -> Value:
    return s * b.op("RandomNormalLike", s)


def test_random_numbers_in_a_loop_are_those_of_the_forward_pass() -> None:
    def body(b: Builder, i: Value, c: Value, s: Value) -> list[Value]:
        return [c, noisy(b, s)]

    graph = graph_of({"s": VECTOR}, lambda b, s: loop_over(b, 3, [s], [], body)[0])
    _check_linear(graph)


def test_random_numbers_in_nested_control_flow() -> None:
    def chosen(b: Builder, i: Value, s: Value) -> Value:
        return branch_on(b, b.op("Equal", b.op("Mod", i, 2), 0), [s], noisy, lambda b, s: noisy(b, s * 2.0))

    def body(b: Builder, i: Value, c: Value, s: Value) -> list[Value]:
        return [c, loop_over(b, 2, [s], [i], lambda b, j, c, s, i: [c, chosen(b, i + j, s)])[0]]

    graph = graph_of({"s": VECTOR}, lambda b, s: loop_over(b, 3, [s], [], body)[0])
    _check_linear(graph)


def test_random_numbers_in_a_scan() -> None:
    body = subgraph({"s": F64, "x": F64}, lambda b, s, x: [noisy(b, s) + b.op("Floor", x)])

    def make(b: Builder, s: Value) -> Value:
        xs = b.constant(np.zeros((3, 3)))
        attrs = {"body": body, "captured": 0, "num_scan_inputs": 1}
        return b.node(find_op("Scan"), [s, xs], attrs).outputs[0]

    _check_linear(graph_of({"s": VECTOR}, make))


@pytest.mark.parametrize("condition", [True, False])
def test_random_numbers_in_a_branch(condition: bool) -> None:
    def make(b: Builder, s: Value) -> Value:
        return branch_on(b, b.constant(np.array(condition)), [s], noisy, lambda b, s: noisy(b, noisy(b, s)))

    _check_linear(graph_of({"s": VECTOR}, make))


def _check_linear(graph: Graph) -> None:
    """Of a function s ↦ s r for random numbers r the gradient is r, and so is the result for s = 1."""
    Vjp(["s"], ["y0"]).run(graph)
    verify(graph, types=True)
    simplified = graph.copy()
    Simplify().run(simplified)
    for made in (graph, simplified):
        results = compile(made)({"s": np.ones(3), "y0_cotangent": np.ones(3)})
        np.testing.assert_allclose(results["s_grad"], results["y0"], rtol=1e-12)


# --- refused ----------------------------------------------------------------------------------------------------------


def opaque(b: Builder, name: str, s: Value) -> Value:
    made = b.node(find_op(name, "com.acme"), [s], name=f"{name.lower()}_node").outputs[0]
    b.graph.set_type(made, s.type)
    return made


def test_all_nodes_inside_are_named() -> None:
    def body(b: Builder, i: Value, c: Value, s: Value) -> list[Value]:
        chosen = branch_on(
            b, b.op("Less", i, 2), [s], lambda b, s: opaque(b, "Yes", s), lambda b, s: opaque(b, "No", opaque(b, "Not", s))
        )
        return [c, opaque(b, "Behind", chosen)]

    graph = graph_of(
        {"s": VECTOR}, lambda b, s: opaque(b, "Outside", loop_over(b, 3, [opaque(b, "Before", s)], [], body)[0])
    )
    with pytest.raises(UnsupportedOpError, match=r"6 node\(s\)") as caught:
        Vjp(["s"]).run(graph)
    named = ["before_node", "yes_node", "not_node", "no_node", "behind_node", "outside_node"]
    assert [next(name for name in named if repr(name) in text) for text in caught.value.nodes] == named
    assert caught.value.nodes[1].endswith("inside 'If', inside 'Loop'")


def test_nodes_off_the_path_do_not_matter() -> None:
    def body(b: Builder, i: Value, c: Value, s: Value, t: Value) -> list[Value]:
        return [c, b.op("Tanh", s), opaque(b, "Strange", t)]

    graph = graph_of({"s": VECTOR, "t": VECTOR}, lambda b, s, t: loop_over(b, 2, [s, t], [], body))
    Vjp(["s"], ["y0"]).run(graph)
    with pytest.raises(UnsupportedOpError, match=r"'strange_node' = com\.acme\.Strange"):
        Vjp(["t"], ["y1"]).run(graph)
