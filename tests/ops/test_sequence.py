"""Sequences and optionals inside of graphs: tensors in, tensors out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from irgrad.builder import Builder
from irgrad.errors import ExecutionError, FeedError, TypeInferenceError
from irgrad.gradcheck import check_grads
from irgrad.graph import Graph, Value
from irgrad.op import find_op
from irgrad.ops.sequence_kernels import sum_of_sequences, zeros_of_sequence
from irgrad.passes.autodiff.derivatives import Grad, Jvp, Vjp
from irgrad.runtime import compile
from irgrad.testing import check_second_order
from irgrad.types import OptionalType, SequenceType, TensorType, Type, dtype_from_name
from irgrad.verify import verify
from tests.ops.harness import loosened, rng

F64, I64 = np.dtype(np.float64), np.dtype(np.int64)
X = rng(0).standard_normal((3, 6))
ROWS = [rng(k).standard_normal((k + 1, 3)) for k in range(3)]
ROW_TYPE = SequenceType(TensorType(F64, (None, 3)))


def graph_of(emit: Callable[..., Value], *types: Type, dynamic: bool = False) -> Graph:
    """The graph of ``y = emit(b, x0, x1, ...)``."""
    graph = Graph("g")
    values = [graph.add_input(f"x{k}", loosened(type) if dynamic else type) for k, type in enumerate(types)]
    b = Builder(graph)
    with b:
        graph.set_outputs({"y": emit(b, *values)})
    verify(graph, types=True)
    return graph


def check(emit: Callable[..., Value], *operands: Any) -> None:
    """Gradients, gradients of gradients and tangents of a function of tensors, with shapes known and unknown."""
    feeds = {f"x{k}": operand for k, operand in enumerate(operands)}
    for dynamic in (False, True):
        graph = graph_of(emit, *map(TensorType.of, operands), dynamic=dynamic)
        check_grads(graph, feeds)
        joint = graph.copy()
        Vjp().run(joint)
        verify(joint, types=True)
        check_tangents(graph, feeds)
        check_second_order(graph, feeds, ["x0"], ["y"])


def check_tangents(graph: Graph, feeds: dict[str, Any]) -> None:
    tangents, run, step = graph.copy(), compile(graph), 1e-5
    Jvp(["x0"]).run(tangents)
    direction = rng(2).standard_normal(feeds["x0"].shape)
    moved = [run({**feeds, "x0": feeds["x0"] + sign * step * direction})["y"] for sign in (1, -1)]
    found = compile(tangents)({**feeds, "x0_tangent": direction})["y_tangent"]
    np.testing.assert_allclose(found, (moved[0] - moved[1]) / (2 * step), rtol=1e-6, atol=1e-8)


def number(b: Builder, k: int) -> Value:
    return b.constant(np.array(k))


def changed(b: Builder, x: Value, k: Value) -> Value:
    """Columns of x, two by two; those at k squared, put in again before the last ones; then those at k taken out."""
    parts = b.op("SplitToSequence", x, number(b, 2), axis=1)
    part = b.op("SequenceAt", parts, k)
    longer = b.op("SequenceInsert", parts, part * part, number(b, -1))
    return b.op("ConcatFromSequence", b.op("SequenceErase", longer, k), axis=1)


@pytest.mark.parametrize("k", [0, 1, 2, -1, -2, -3])
def test_elements_at_positions_that_are_fed_or_known(k: int) -> None:
    check(changed, X, np.array(k))
    check(lambda b, x: changed(b, x, number(b, k)), X)


@pytest.mark.parametrize("k", [0, 3, -1, -3])
def test_insertion_at_a_position_that_is_fed(k: int) -> None:
    def emit(b: Builder, x: Value, position: Value) -> Value:
        parts = b.op("SplitToSequence", x, axis=0)
        return b.op("ConcatFromSequence", b.op("SequenceInsert", parts, b.op("Exp", x), position), axis=0)

    check(emit, X, np.array(k))


def test_a_sequence_that_is_used_many_times() -> None:
    def emit(b: Builder, x: Value) -> Value:
        parts = b.op("SplitToSequence", x, axis=1, keepdims=0)
        doubled = b.op("Identity", parts)
        products = [b.op("SequenceAt", parts, number(b, k)) * b.op("SequenceAt", doubled, number(b, -k)) for k in range(3)]
        joined = b.op("ConcatFromSequence", doubled, axis=0, new_axis=1)
        return b.op("Sum", *products) * joined

    check(emit, X)


@pytest.mark.parametrize("sizes", [[1, 2, 3], [0, 6], [6]])
def test_parts_of_sizes_that_are_fed(sizes: list[int]) -> None:
    def emit(b: Builder, x: Value, sizes: Value) -> Value:
        parts = b.op("SplitToSequence", x, sizes, axis=-1)
        longer = b.op("SequenceInsert", parts, b.op("Sin", b.op("SequenceAt", parts, number(b, -1))))
        return b.op("ConcatFromSequence", longer, axis=-1) ** 2.0

    check(emit, X, np.array(sizes))


@pytest.mark.parametrize("keepdims", [0, 1])
def test_an_axis_that_turns_out_to_be_empty_has_a_gradient_of_nothing(keepdims: int) -> None:
    def emit(b: Builder, x: Value) -> Value:
        parts = b.op("SplitToSequence", x, axis=1, keepdims=keepdims)
        further = b.op("ConstantOfShape", b.ints([3, 1][: 1 + keepdims]), value=np.ones(1))
        longer = b.op("SequenceInsert", parts, further)
        return b.op("ConcatFromSequence", longer, axis=1, new_axis=1 - keepdims)

    graph = graph_of(emit, TensorType(F64, (3, None)))
    Vjp().run(graph)
    for n in (0, 2):
        results = compile(graph)({"x0": X[:, :n], "y_cotangent": X[:, : n + 1]})
        np.testing.assert_array_equal(results["x0_grad"], X[:, :n])


@pytest.mark.parametrize("name", ["f16", "bf16", "f32"])
def test_shorter_floats(name: str) -> None:
    dtype = dtype_from_name(name)
    graph = graph_of(changed, TensorType(dtype, X.shape), TensorType(I64, ()))
    Vjp().run(graph)
    seed = X.astype(dtype)
    found = compile(graph)({"x0": X.astype(dtype), "x1": np.array(1), "y_cotangent": seed})["x0_grad"]
    assert found.dtype == dtype
    want = X.copy()  # of the columns 0 and 1, 2 and 3 squared, 4 and 5
    want[:, 2:4] *= 2 * X[:, 2:4]
    np.testing.assert_allclose(found.astype(np.float64), want, rtol=0.02, atol=0.02)


# --- at the edges of a graph ------------------------------------------------------------------------------------------


def test_gradients_of_and_by_sequences() -> None:
    def emit(b: Builder, s: Value, x: Value) -> Value:
        return b.op("SequenceInsert", b.op("SequenceErase", s), b.op("SequenceAt", s, number(b, 1)) * x, number(b, 0))

    types = ROW_TYPE, TensorType(F64, (3,))
    feeds = {"x0": ROWS, "x1": X[0, :3]}
    check_grads(graph_of(emit, *types), feeds)
    check_grads(graph_of(emit, *types), feeds, ["x0"])
    graph = graph_of(emit, *types)
    Vjp().run(graph)
    assert graph.value("x0_grad").type == ROW_TYPE
    seed = [ROWS[1], ROWS[0], ROWS[1]]
    results = compile(graph)({**feeds, "y_cotangent": seed})
    for found, want in zip(results["x0_grad"], [ROWS[0], ROWS[1] * (1 + X[0, :3]), 0 * ROWS[2]], strict=True):
        np.testing.assert_allclose(found, want)
    check_second_order(graph_of(emit, *types), feeds, ["x0", "x1"], ["y"])


def test_a_sequence_that_nothing_depends_on_has_zeros() -> None:
    def emit(b: Builder, s: Value, o: Value, x: Value) -> Value:
        return b.reduce_sum(x * x, None)

    graph = graph_of(emit, ROW_TYPE, OptionalType(ROW_TYPE), TensorType.of(X))
    Grad(["x0", "x1", "x2"]).run(graph)
    verify(graph, types=True)
    results = compile(graph)({"x0": ROWS, "x1": None, "x2": X})
    assert results["x1_grad"] is None
    assert [(found.shape, found.any()) for found in results["x0_grad"]] == [(row.shape, False) for row in ROWS]
    results["x0_grad"][0][...] = 1  # the caller's own
    assert [found.shape for found in compile(graph)({"x0": [], "x1": ROWS, "x2": X})["x1_grad"]] == [r.shape for r in ROWS]


def test_a_loop_over_a_sequence() -> None:
    def emit(b: Builder, x: Value, w: Value) -> Value:
        parts = b.op("SplitToSequence", x, axis=0, keepdims=0)
        body = Graph("body")
        i, going = body.add_input("i", TensorType(I64, ())), body.add_input("going", TensorType(np.dtype(bool), ()))
        made = body.add_input("made", SequenceType(TensorType(F64, None)))
        read, weight = body.add_input("read", parts.type), body.add_input("weight", w.type)
        inner = Builder(body)
        part = inner.op("Tanh", inner.op("Mul", inner.op("SequenceAt", read, i), weight))
        body.set_outputs({"going": going, "after": inner.op("SequenceInsert", made, part)})
        empty = b.op("SequenceEmpty", dtype=11)
        count = b.op("SequenceLength", parts)
        loop = b.node(find_op("Loop"), [count, None, empty, parts, w], {"body": body, "captured": 2})
        return b.op("ConcatFromSequence", loop.outputs[0], axis=0, new_axis=1)

    check(emit, X, X[0] + 1)


@pytest.mark.parametrize("there", [True, False])
def test_an_optional_that_is_looked_into_by_a_branch(there: bool) -> None:
    def emit(b: Builder, x: Value, flag: Value) -> Value:
        full, empty = Graph("full"), Graph("empty")
        inner = full.add_input("x", x.type), empty.add_input("x", x.type)
        full.set_outputs([Builder(full).op("Optional", Builder(full).op("Exp", inner[0]))])
        empty.set_outputs([Builder(empty).op("Optional", type=x.type)])
        branches = {"then_branch": full, "else_branch": empty, "captured": 1}
        o = b.node(find_op("If"), [flag, x], branches).outputs[0]
        read, other = Graph("read"), Graph("other")
        held, y = read.add_input("o", o.type), read.add_input("x", x.type)
        element = Builder(read).op("OptionalGetElement", held)
        read.set_outputs([Builder(read).op("Mul", element, y)])
        other.add_input("o", o.type)
        other.set_outputs([Builder(other).op("Sin", other.add_input("x", x.type))])
        branches = {"then_branch": read, "else_branch": other, "captured": 2}
        return b.node(find_op("If"), [b.op("OptionalHasElement", o), o, x], branches).outputs[0]

    check(emit, X, np.array(there))


def test_optionals_and_sequences_in_each_other() -> None:
    def emit(b: Builder, x: Value) -> Value:
        kept = b.op("Optional", b.op("SplitToSequence", x, axis=1))
        first, second = b.op("OptionalGetElement", kept), b.op("OptionalGetElement", b.op("Optional", kept))
        product = b.op("SequenceAt", first, number(b, 2)) * b.op("SequenceAt", second, number(b, 1))
        return b.op("ConcatFromSequence", b.op("SequenceInsert", second, product), axis=1)

    check(emit, X)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def run(op: str, *operands: Any, types: dict[int, Type] | None = None, **attrs: Any) -> Any:
    graph = Graph(op)
    found = [(types or {}).get(k) or TensorType.of(np.asarray(o)) for k, o in enumerate(operands)]
    values = [graph.add_input(f"x{k}", type) for k, type in enumerate(found)]
    graph.set_outputs([Builder(graph).op(op, *values, **attrs)])
    return compile(graph)({f"x{k}": operand for k, operand in enumerate(operands)})


SEQUENCE: dict[int, Type] = {0: ROW_TYPE}


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"),
    [
        ("SequenceAt", (ROWS, np.array(3)), {}, "the position 3 is out of range for a sequence of 3 elements"),
        ("SequenceAt", ([], np.array(-1)), {}, "the position -1 is out of range for a sequence of 0 elements"),
        ("SequenceErase", (ROWS, np.array(-4)), {}, "the position -4 is out of range"),
        ("SequenceErase", ([],), {}, "the position -1 is out of range for a sequence of 0 elements"),
        ("SequenceInsert", (ROWS, ROWS[0], np.array(4)), {}, "the position 4 is out of range"),
        ("ConcatFromSequence", ([],), {"axis": 0}, "a sequence without elements cannot be joined"),
        ("irgrad.SequenceSum", (ROWS, ROWS[:2]), {}, "sequences of different lengths cannot be added: 2, 3"),
    ],
)
def test_places_that_do_not_exist(op: str, operands: tuple[Any, ...], attrs: dict[str, Any], message: str) -> None:
    types = SEQUENCE if op != "irgrad.SequenceSum" else {**SEQUENCE, 1: ROW_TYPE}
    with pytest.raises(ExecutionError, match=message):
        run(op, *operands, types=types, **attrs)


@pytest.mark.parametrize("sizes", [[1, 2], [7], [-1, 7], 0])
def test_parts_that_do_not_add_up(sizes: Any) -> None:
    with pytest.raises(ExecutionError, match="do not add up to an axis of 6"):
        run("SplitToSequence", X, np.array(sizes), axis=1)


def test_types_that_do_not_fit() -> None:
    def refused(message: str, op: str, *types: Type, **attrs: Any) -> None:
        with pytest.raises(TypeInferenceError, match=message):
            graph_of(lambda b, *values: b.op(op, *values, **attrs), *types)

    tensor, maybe = TensorType(F64, (2, 3)), OptionalType(ROW_TYPE)
    refused("must be a sequence of tensors, but it is a f64", "SequenceLength", tensor)
    refused("OptionalGetElement takes it out", "SequenceAt", maybe, TensorType(I64, ()))
    refused("must be of one dtype", "SequenceConstruct", tensor, TensorType(I64, (2,)))
    refused("would make a sequence that holds", "SequenceInsert", ROW_TYPE, TensorType(I64, (2,)))
    refused("cannot be joined along the axis 2", "ConcatFromSequence", ROW_TYPE, axis=2)
    refused("cannot be joined along a new axis -4", "ConcatFromSequence", ROW_TYPE, axis=-4, new_axis=1)
    refused("goes along the axis 2 of", "SplitToSequence", tensor, axis=2)
    refused("cannot hold a seq", "Optional", ROW_TYPE, type=tensor)
    refused("needs the attribute 'type'", "Optional")
    refused("cannot be added", "irgrad.SequenceSum", ROW_TYPE, SequenceType(TensorType(F64, (None, 4))))
    refused("cannot be added", "irgrad.OptionalSum", maybe, OptionalType(tensor))


def test_feeds_that_are_no_sequences_of_such_tensors() -> None:
    def refused(message: str, feed: Any) -> None:
        with pytest.raises(FeedError, match=message):
            run("SequenceLength", feed, types=SEQUENCE)

    refused("is no list of arrays, but the input is seq", X)
    refused(r"the feed for 'x0\[1\]' has shape \(3, 6\)", [ROWS[0], X])
    refused(r"the feed for 'x0\[0\]' has dtype f32", [ROWS[0].astype(np.float32)])
    with pytest.raises(FeedError, match="has dtype f32"):
        run("OptionalHasElement", X.astype(np.float32), types={0: OptionalType(TensorType(F64, None))})


def test_an_optional_without_an_element() -> None:
    with pytest.raises(ExecutionError, match="the optional holds nothing"):
        run("OptionalGetElement", None, types={0: OptionalType(ROW_TYPE)})
    with pytest.raises(ExecutionError, match="some hold something and some do not"):
        run("irgrad.OptionalSum", None, X, types=dict.fromkeys((0, 1), OptionalType(TensorType.of(X))))


# --- what is not done -------------------------------------------------------------------------------------------------


def test_no_kernel_changes_its_operands() -> None:
    graph = Graph("g")
    s = graph.add_input("s", ROW_TYPE)
    b = Builder(graph)
    same, last = b.op("Identity", s), b.op("SequenceAt", s, number(b, -1))
    longer, shorter = b.op("SequenceInsert", same, last, number(b, 0)), b.op("SequenceErase", same, number(b, 0))
    graph.set_outputs([same, longer, shorter, b.op("irgrad.SequenceSum", same, same)])
    results = compile(graph)({"s": ROWS}).values()
    assert [[len(element) for element in result] for result in results] == [[1, 2, 3], [3, 1, 2, 3], [2, 3], [1, 2, 3]]


def test_adding_zeros_costs_nothing() -> None:
    zeros = zeros_of_sequence(ROWS)
    assert [zero.strides for zero in zeros] == [(0, 0)] * 3
    found = sum_of_sequences([zeros, ROWS, zeros_of_sequence(ROWS)])
    assert all(a is b for a, b in zip(found, ROWS, strict=True))
    (one,) = sum_of_sequences([[np.full((2, 3), 2.0)], [np.broadcast_to(1.0, (2, 3))], [np.broadcast_to(0.0, (2, 3))]])
    np.testing.assert_array_equal(one, np.full((2, 3), 3))
    narrow = [[np.full(2, value, np.float16)] for value in (2048, 1, 1)]
    np.testing.assert_array_equal(sum_of_sequences(narrow)[0], np.full(2, 2050, np.float16))
