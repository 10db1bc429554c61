"""Running graphs tile by tile: the results of the whole, whatever the cut and the number of threads; no allocation."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph
from irgrad.op import WorkspaceKernel
from irgrad.runtime import fast, tiles
from irgrad.runtime.interpreter import Subprogram
from irgrad.runtime.threads import limited
from irgrad.runtime.tiles import Tiling, tiled
from irgrad.types import TensorType

F32 = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def on_numpy():
    with fast.using(False):
        yield


def body(shapes: Sequence[tuple[int, ...]], make, dtype=F32) -> Graph:
    graph = Graph("body")
    values = [graph.add_input(f"x{k}", TensorType(dtype, shape)) for k, shape in enumerate(shapes)]
    with Builder(graph) as b:
        results = make(b, *values)
    graph.set_outputs({f"y{k}": value for k, value in enumerate(results)})
    return graph


def arrays_for(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(v.tensor_type.static_shape).astype(v.dtype) for v in graph.inputs.values()]


def gelu_slope(b, x, row, dy):
    h = b.op("Tanh", x + row)
    dx = dy * (1 - h * h) * b.op("Sigmoid", x)
    return h, dx, b.op("ReduceSum", dx, b.ints([0]), keepdims=0)


def norm(b, x, scale):
    difference = x - b.op("ReduceMean", x, b.ints([1]), keepdims=1)
    variance = b.op("ReduceMean", difference * difference, b.ints([1]), keepdims=0)
    inverse = b.op("Reciprocal", b.op("Sqrt", variance + 1e-5))
    return difference * b.op("Unsqueeze", inverse, b.ints([1])) * scale, inverse


def channels(b, x, scale):
    average = b.op("ReduceMean", x, b.ints([0, 2, 3]), keepdims=1)
    y = b.op("Relu", (x - average) * b.op("Unsqueeze", scale, b.ints([1, 2])))
    return b.op("Gelu", y), average


CASES = {
    "map and sum over rows": (gelu_slope, [(70, 600), (600,), (70, 600)], "ab,b,ab->ab,ab,b", "ab"),
    "rows": (norm, [(301, 90), (90,)], "ab,b->ab,a", "a"),
    "channels": (channels, [(4, 12, 30, 31), (12,)], "abcd,b->abcd,.b..", "b"),
}


def exact(name: str, output: int) -> bool:
    return not (name == "map and sum over rows" and output == 2)


@pytest.mark.parametrize("name", CASES)
def test_tiles_give_what_the_whole_gives(name: str) -> None:
    make, shapes, layout, axes = CASES[name]
    graph = body(shapes, make)
    operands = arrays_for(graph)
    kernel = tiled(graph, Tiling.parse(layout, axes))
    for position, (got, want) in enumerate(zip(kernel(*operands), Subprogram(graph)(*operands), strict=True)):
        if exact(name, position) and name != "channels":
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6 * np.abs(want).max())


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    make, shapes, layout, axes = CASES[name]
    graph = body(shapes, make)
    operands = arrays_for(graph)
    found = []
    for count in (1, 2, 5):
        with limited(count):
            found.append(tiled(graph, Tiling.parse(layout, axes))(*operands))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CASES)
def test_a_run_in_memory_that_is_there_allocates_next_to_nothing(name: str) -> None:
    make, shapes, layout, axes = CASES[name]
    graph = body([(8 * shape[0], *shape[1:]) if len(shape) > 1 else shape for shape in shapes], make)
    operands = arrays_for(graph)
    kernel = tiled(graph, Tiling.parse(layout, axes))
    assert isinstance(kernel, WorkspaceKernel)
    places = tuple(np.empty(v.tensor_type.static_shape, v.dtype) for v in graph.outputs.values())
    work = np.empty(kernel.workspace, np.uint8)
    for _ in range(3):
        kernel.function(*operands, out=places, work=work)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        kernel.function(*operands, out=places, work=work)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Views of arrays are objects of Python, about 200 bytes each, and numpy takes a buffer of 8192 elements for an operand
    # that it broadcasts. A tile would be 100 kB and more, an operand a megabyte.
    assert peak - before < 8192 * 4 * 3


def test_operands_are_left_alone_and_may_be_views() -> None:
    graph = body([(70, 600), (600,), (70, 600)], gelu_slope)
    x, row, dy = arrays_for(graph)
    strided = [np.asfortranarray(x), row[::-1], np.repeat(dy, 2, 1)[:, ::2]]
    copies = [a.copy() for a in strided]
    kernel = tiled(graph, Tiling.parse("ab,b,ab->ab,ab,b", "ab"))
    for got, want in zip(kernel(*strided), kernel(*(np.ascontiguousarray(a) for a in strided)), strict=True):
        np.testing.assert_array_equal(got, want)
    for a, b in zip(strided, copies, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    tile=st.integers(1, 30),
    data=st.data(),
)
def test_any_cut_of_any_space(sizes: list[int], tile: int, data: st.DataObject) -> None:
    """Small spaces in tiny tiles: every way to cut them, sums over any of the axes, operands that are broadcast."""
    letters = "abcd"[: len(sizes)]
    kept = data.draw(st.sets(st.integers(0, len(sizes) - 1)), label="axes of the sum that are kept")
    flat = data.draw(st.sets(st.integers(0, len(sizes) - 1)), label="axes along which an operand has the size 1")
    over = [k for k in range(len(sizes)) if k not in kept]
    shape = tuple(1 if k in flat else size for k, size in enumerate(sizes))

    def make(b, x, y):
        z = x * y + 1
        return z, b.reduce_sum(z, over) if over else b.op("Neg", z)

    layout = f"{letters},{''.join('.' if k in flat else letters[k] for k in range(len(sizes)))}->{letters},"
    layout += "".join(letters[k] for k in sorted(kept))
    graph = body([tuple(sizes), shape], make, np.dtype(np.float64))
    operands = arrays_for(graph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "WHOLE", 0)
        patch.setattr(tiles, "_TILE", tile)
        patch.setattr(tiles, "_WORTH", 0)
        results = tiled(graph, Tiling.parse(layout, letters))(*operands)
    for got, want in zip(results, Subprogram(graph)(*operands), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("layout", "axes"), [("ab,b", "a"), ("ab->ab", "c"), ("a1->a", "a"), ("a b->ab", "a")])
def test_what_is_no_layout(layout: str, axes: str) -> None:
    with pytest.raises(TypeInferenceError, match="is no layout"):
        Tiling.parse(layout, axes)


@pytest.mark.parametrize("layout", ["ab->ab", "ab,b,b->ab", "ba,b->ab", "ab,.->ab", "ab,bc->ab"])
def test_a_layout_has_to_fit_the_types(layout: str) -> None:
    x, row = TensorType(F32, (3, 4)), TensorType(F32, (4,))
    with pytest.raises(TypeInferenceError, match="the layout"):
        Tiling.parse(layout, "a").check([x, row], [x])
    assert Tiling.parse("ab,b->ab", "a").check([x, row], [x]) == {"a": 3, "b": 4}
