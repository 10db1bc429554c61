"""Planned runs against plain ones: the same bits, in memory that is decided ahead."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import irgrad as ig
from irgrad.builder import Builder
from irgrad.bundled import bundled_model
from irgrad.errors import ExecutionError, FeedError, UsageError
from irgrad.graph import Graph
from irgrad.passes.fusion.fuse import Fuse
from irgrad.plausible import plausible_feeds
from irgrad.runtime import fast
from irgrad.runtime.executable import NumpyExecutable, _in_order, _specialised
from irgrad.runtime.liveness import liveness
from irgrad.runtime.plan import kernels_of, lives_of, plan
from irgrad.runtime.program import Program
from irgrad.testing import START, random_graph
from irgrad.text import parse_text
from irgrad.types import SequenceType, TensorType

EXPORTS = sorted((Path(__file__).parent.parent / "data" / "exports").glob("*.onnx"))
F32 = np.dtype(np.float32)
POISON = 0xFF  # makes NaN of every float, and large negative numbers of integers


def parsed(body: str, outputs: str = "y", shape: str = "4,6") -> Graph:
    return parse_text(f"graph g {{ input %x: f32[{shape}] {body} output {outputs} }}")


def poisoned(graph: Graph, feeds: Mapping[str, Any], *, fuse: bool = False) -> dict[str, Any]:
    """Run a plan whose memory holds rubbish wherever nothing lives: before the run, and whatever has died during it."""
    run = ig.compile(graph)
    assert isinstance(run, NumpyExecutable)
    feeds = {name: _in_order(array) for name, array in run._check(feeds).items()}
    graph = _specialised(run.graph, feeds)
    if fuse:
        Fuse().run(graph)
    planned = plan(graph)
    program = Program(planned)
    arena, steps, nodes = program._arena, program._steps, program._nodes
    arena[:] = POISON
    for returned in program._roots.values():
        returned.memory[:] = POISON
    ends = {node: position for position, node in enumerate(planned.liveness.nodes)}
    dying: dict[int, list[tuple[Any, int, int]]] = {}
    for buffer, offset in planned.offsets.items():
        dying.setdefault(buffer.end, []).append((None, offset, offset + buffer.size))
    for guest, (host, offset) in planned.guests.items():
        end, size = (guest, planned.liveness.workspaces[guest]) if isinstance(guest, int) else (guest.end, guest.size)
        dying.setdefault(end, []).append((program._roots[host], offset, offset + size))
    for end, offset in planned.workspaces.items():
        dying.setdefault(end, []).append((None, offset, offset + planned.liveness.workspaces[end]))
    for index, (step, node) in enumerate(zip(list(steps), nodes, strict=True)):
        last = index + 1 == len(steps) or nodes[index + 1] is not node

        def run(*operands: Any, step: Any = step, node: Any = node, last: bool = last) -> None:
            step.function(*operands)
            for returned, low, high in dying.get(ends[node], ()) if last else ():
                (arena if returned is None else returned.memory)[low:high] = POISON

        steps[index] = step._replace(function=run)
    return program(dict(feeds))


def assert_identical(got: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == array.dtype
        np.testing.assert_array_equal(got[name], array, name)


# --- the same bits ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**16), st.integers(1, 25))
def test_random_graphs_run_the_same_in_poisoned_memory(seed: int, size: int) -> None:
    graph = ig.vjp(random_graph(seed, size=size), ["x"])
    feeds = {"x": START} | {n: np.array(1.0) for n in graph.inputs if n != "x"}
    run, plain = ig.compile(graph), ig.compile(graph, plan=False)(feeds)
    want = run(feeds)
    for name, array in plain.items():  # sums go by the order in memory, which is not always that of numpy's own results
        np.testing.assert_allclose(want[name], array, rtol=1e-12, atol=1e-15, err_msg=name)
    for _ in range(2):
        assert_identical(run(feeds), want)
    assert_identical(poisoned(graph, feeds), want)


@pytest.mark.parametrize("file", EXPORTS, ids=[file.stem for file in EXPORTS])
def test_exports_run_the_same_in_poisoned_memory(file: Path) -> None:
    graph = ig.vjp(ig.load(file), "parameters")
    feeds = plausible_feeds(graph)
    got = poisoned(graph, feeds)
    assert_identical(ig.compile(graph, fuse=False)(feeds), got)
    for name, array in ig.compile(graph, plan=False)(feeds).items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-6 * np.abs(array).max(), err_msg=name)


@pytest.mark.parametrize("fuse", [False, True])
def test_a_network_runs_the_same_in_poisoned_memory(fuse: bool) -> None:
    graph = ig.vjp(ig.load(bundled_model("squeezenet")), "parameters")
    feeds = plausible_feeds(graph)
    got = poisoned(graph, feeds, fuse=fuse)
    assert_identical(got, ig.compile(graph, fuse=fuse)(feeds))
    for name, array in ig.compile(graph, plan=False)(feeds).items():
        np.testing.assert_allclose(got[name], array, rtol=0, atol=1e-5 * np.abs(array).max(), err_msg=name)


DATA_DEPENDENT = {
    "a result of unknown size": "%i: i64[2,?] = NonZero(%x) %y = Exp(%x)|i output y",
    "computed with further": "%a = Exp(%x) %i: i64[2,?] = NonZero(%a) %s = Shape(%i) %y = Mul(%a, %x)|s output y",
    "a view of an input": "%t: f32[6,4] = Transpose(%x) %y = Exp(%t)|y output t",
    "an input itself": "%y = Exp(%x)|x output y",
    "a constant": "const %c: f32[2]{1, 2} %y = Exp(%x)|c output y",
    "one result twice": "%y = Exp(%x)|y output z = %y",
    "a result and a view of it": "%y = Exp(%x) %t: f32[6,4] = Transpose(%y)|y output t",
    "a result that is used further": "%y = Exp(%x) %z = Neg(%y)|y output z",
}


@pytest.mark.parametrize("name", DATA_DEPENDENT)
def test_what_a_plan_leaves_to_numpy(name: str) -> None:
    body, outputs = DATA_DEPENDENT[name].split("|")
    graph = parsed(body, outputs)
    run, plain = ig.compile(graph), ig.compile(graph, plan=False)
    kept = []
    for seed in range(4):
        x = np.random.default_rng(seed).standard_normal((4, 6)).astype(F32)
        x[seed] = 0
        kept.append((run({"x": x}), plain({"x": x})))
    for got, want in kept:
        assert_identical(got, want)
        arrays = list(got.values())
        for k, array in enumerate(arrays):
            assert not any(np.shares_memory(array, other) for other in arrays[:k])
            array[...] = 0  # the caller's own
    x = np.ones((4, 6), F32)
    assert_identical(run({"x": x}), plain({"x": x}))
    np.testing.assert_array_equal(x, 1)


def test_sequences_pass_through() -> None:
    graph = Graph()
    items = graph.add_input("items", SequenceType(TensorType(F32, (2,))))
    b = Builder(graph)
    x = b.op("SequenceAt", items, b.constant(np.array(1)))
    with b:
        graph.set_outputs({"all": b.op("SequenceInsert", items, x * 2.0), "y": x * 3.0})
    got = ig.compile(graph)({"items": [np.ones(2, F32), np.full(2, 5, F32)]})
    np.testing.assert_array_equal(got["y"], [15, 15])
    np.testing.assert_array_equal(got["all"], [[1, 1], [5, 5], [10, 10]])


# --- whose memory it is -----------------------------------------------------------------------------------------------


def test_results_stay_as_they_are_and_memory_that_is_let_go_of_serves_again() -> None:
    graph = parsed("%a = Exp(%x) %y = Neg(%a)")
    run = ig.compile(graph)
    first = run({"x": np.zeros((4, 6), F32)})["y"]
    part = first[1:2, ::2]
    where = first.__array_interface__["data"][0]
    del first
    second = run({"x": np.ones((4, 6), F32)})["y"]
    np.testing.assert_array_equal(part, -1)  # a view of the first result keeps it alive
    assert second.__array_interface__["data"][0] != where
    del part, second
    addresses = {run({"x": np.ones((4, 6), F32)})["y"].__array_interface__["data"][0] for _ in range(5)}
    assert len(addresses) == 1


def test_results_without_copies_lie_in_the_executables_own_memory() -> None:
    run = ig.compile(parsed("%y = Neg(%x)"), copy_outputs=False)
    first = run({"x": np.zeros((4, 6), F32)})["y"]
    second = run({"x": np.ones((4, 6), F32)})["y"]
    assert np.shares_memory(first, second)
    np.testing.assert_array_equal(first, -1)


def test_feeds_are_let_go_of_and_never_written_to() -> None:
    run = ig.compile(
        parsed(
            "const %s: i64[1]{-1} %a = Neg(%x) %b: f32[24] = Reshape(%x, %s) %c: f32[24] = Reshape(%a, %s) %y = Add(%b, %c)"
        )
    )
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(F32).T  # not in C order
    before = x.copy()
    np.testing.assert_array_equal(run({"x": x})["y"], 0)
    np.testing.assert_array_equal(x, before)
    fed = np.ones((4, 6), F32)
    run({"x": fed})
    gc.collect()
    assert not [r for r in gc.get_referrers(fed) if isinstance(r, list)]


def test_parameters_may_be_fed_for_one_run() -> None:
    graph = parsed("param %w: f32[6]{1, 2, 3, 4, 5, 6} %t = Neg(%w) %y = Mul(%x, %t)")
    run = ig.compile(graph)
    x = np.ones((4, 6), F32)
    own = run({"x": x})["y"]
    np.testing.assert_array_equal(run({"x": x, "w": np.full(6, 7, F32)})["y"], np.full((4, 6), -7))
    np.testing.assert_array_equal(run({"x": x})["y"], own)


def test_kernels_that_count_on_constants_do_not_count_on_parameters_that_are_fed() -> None:
    """A compiled kernel knows what was a constant when it was made."""
    shape = (2, 8, 40, 40)
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, shape))
    generator = np.random.default_rng(0)
    own = {n: generator.uniform(0.5, 1.5, 8).astype(F32) for n in ("scale", "bias", "mean", "variance")}
    statistics = [graph.add_constant(array, name, parameter=True) for name, array in own.items()]
    graph.set_outputs({"y": Builder(graph).op("BatchNormalization", x, *statistics)})
    run, plain = ig.compile(graph), ig.compile(graph, plan=False, fast=False)
    feeds = {"x": generator.standard_normal(shape).astype(F32)}
    other = feeds | {name: generator.uniform(0.5, 1.5, 8).astype(F32) for name in own}
    for fed in (feeds, other):
        for _ in range(4):
            run(fed)
        assert fast.wait(120)
        np.testing.assert_allclose(run(fed)["y"], plain(fed)["y"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plain(other)["y"], run(other)["y"], rtol=1e-5, atol=1e-5)


def test_threads_have_memory_of_their_own() -> None:
    graph = ig.vjp(ig.load(EXPORTS[-1]), "parameters")
    feeds = plausible_feeds(graph)
    run = ig.compile(graph)
    want = run(feeds)

    def work(_: int) -> dict[str, np.ndarray]:
        return run(feeds)

    with ThreadPoolExecutor(4) as threads:
        for got in threads.map(work, range(12)):
            assert_identical(got, want)


def test_a_run_after_one_that_failed() -> None:
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (4, 6)))
    b = Builder(graph)
    graph.set_outputs({"y": b.op("GatherElements", x, b.cast(x, np.dtype(np.int64)))})
    run = ig.compile(graph)
    with pytest.raises(ExecutionError, match="the node 'GatherElements'"):
        run({"x": np.full((4, 6), 99, F32)})
    x = np.tile(np.arange(4, dtype=F32)[::-1, None], (1, 6))
    np.testing.assert_array_equal(run({"x": x})["y"], x[::-1])
    with pytest.raises(FeedError, match="dtype"):
        run({"x": np.ones((4, 6))})


# --- memory -----------------------------------------------------------------------------------------------------------


IN_PLACE = {
    "over what dies": ("%a = Exp(%x) %b = Neg(%a) %y = Tanh(%b)", 1),
    "not over what is needed still": ("%a = Exp(%x) %b = Neg(%a) %y = Add(%a, %b)", 2),
    "not over an operand that it has twice": ("%a = Exp(%x) %b = Mul(%a, %a) %y = Tanh(%b)", 2),
    "not where it is seen from aside": ("%a = Exp(%x) %t: f32[6,6] = Transpose(%a) %b = Add(%a, %t) %y = Neg(%b)", 2),
    "through a view of the whole": ("%a = Exp(%x) %b: f32[24] = Reshape(%a, %s) %c = Neg(%b) %y = Neg(%c)", 1),
    "not over a part": ("%a = Exp(%x) %b: f32[4,1] = Slice(%a, %o, %i, %i) %c = Neg(%b) %y = Neg(%c)", 2),
    "never over an input": ("%b = Neg(%x) %y = Tanh(%b)", 1),
    "not by kernels that do not allow it": ("%a = Exp(%x) %b = LpNormalization(%a) %y = Tanh(%b)", 2),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_results_are_written_over_operands(name: str) -> None:
    body, buffers = IN_PLACE[name]
    constants = "const %s: i64[1]{-1} const %o: i64[1]{0} const %i: i64[1]{1} "
    shape = "6,6" if "aside" in name else "4,6"
    shape = "4,6" if "not over a part" in name else shape
    graph = parsed(constants + body, shape=shape)
    assert len(liveness(graph, in_place=True).buffers) == buffers
    assert len(liveness(graph, in_place=graph.nodes()).buffers) == buffers
    assert len(liveness(graph, in_place=[]).buffers) == len(liveness(graph).buffers)
    feeds = {"x": np.random.default_rng(0).standard_normal(graph.inputs["x"].tensor_type.static_shape).astype(F32)}
    assert_identical(poisoned(graph, feeds), ig.compile(graph, plan=False)(feeds))


def test_the_memory_is_the_foretold_one() -> None:
    graph = ig.vjp(ig.load(bundled_model("squeezenet")), "parameters")
    run = ig.compile(graph)
    run(plausible_feeds(graph))
    assert isinstance(run, NumpyExecutable)
    (planned,) = run._programs.values()
    (program,) = planned._idle
    assert program._arena.nbytes == planned.plan.arena
    assert sum(r.memory.nbytes for r in program._roots.values()) == planned.plan.returned
    memory = run.memory
    assert memory.measured_peak == memory.predicted_peak == planned.plan.peak
    assert memory.lower_bound is not None and memory.predicted_peak is not None
    assert memory.lower_bound <= memory.predicted_peak <= 1.15 * memory.lower_bound
    assert [name for name, _ in memory.timeline] == [node.name for node in planned.plan.liveness.nodes]


def test_a_planned_step_allocates_nothing() -> None:
    """Nothing but headers of arrays; numpy's buffers for ufuncs over strides, 32 kB whatever the size, are made small."""
    graph = Graph()
    x = graph.add_input("x", TensorType(F32, (128, 256)))
    w, bias = (graph.add_constant(np.ones(s, F32), n, parameter=True) for n, s in (("w", (256, 256)), ("b", 256)))
    with Builder(graph) as b:
        h = b.op("Tanh", b.op("MatMul", x, w) + bias)
        graph.set_outputs({"y": h * h + x})
    joint = ig.vjp(graph, ["w", "b", "x"])
    run, feeds = ig.compile(joint, fast=False), plausible_feeds(joint)
    for _ in range(3):
        run(feeds)
    buffers = np.setbufsize(16)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        results = run(feeds)
        grown = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        np.setbufsize(buffers)
    assert grown < 8192
    assert results["y"].nbytes == 131072


def test_steps_can_be_timed() -> None:
    graph = parsed("%a = Exp(%x) %t: f32[6,4] = Transpose(%a) %y = Neg(%t)")
    run = ig.compile(graph)
    assert isinstance(run, NumpyExecutable)
    ticks = iter(range(100))
    results, times = run.timed({"x": np.zeros((4, 6), F32)}, lambda: float(next(ticks)))
    np.testing.assert_array_equal(results["y"], -1)
    assert [(node.name, seconds) for node, seconds in times] == [("a", 1.0), ("y", 1.0)]


def test_options() -> None:
    graph = parsed("%y = Neg(%x)")
    with pytest.raises(UsageError, match="threads must be at least 1"):
        ig.compile(graph, threads=0)
    with pytest.raises(UsageError, match='"fast" or "exact"'):
        ig.compile(graph, precision="double")
    np.testing.assert_array_equal(ig.compile(graph, threads=1)({"x": np.ones((4, 6), F32)})["y"], -1)


def test_compiled_kernels_are_never_in_place() -> None:
    """They promise their compiler that results do not lie over operands, also those inside of a tile."""
    pytest.importorskip("numba")
    graph = parsed("%a = Exp(%x) %b = Softmax(%a) %y = Add(%b, %x)", shape="64,256")
    for wanted, buffers in ((True, 2), (False, 1)):
        with fast.using(wanted):
            kernels = kernels_of(graph)
        assert len(lives_of(graph, kernels).buffers) == buffers
