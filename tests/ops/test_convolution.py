"""Every algorithm of convolution against the definition, whatever would be chosen: results, memory, and who is chosen."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irgrad.builder import Builder
from irgrad.errors import TypeInferenceError
from irgrad.graph import Graph
from irgrad.op import WorkspaceKernel
from irgrad.ops.convolution import depthwise, depthwise_compiled, im2col, pointwise, rows, select, winograd
from irgrad.ops.convolution.cook_toom import short_convolution
from irgrad.ops.convolution.problem import Problem
from irgrad.ops.windows import windows_of
from irgrad.runtime import compile, fast, precision, threads
from irgrad.types import TensorType


def problem(
    images: int, channels: int, size: tuple[int, ...], filters: int, kernel: tuple[int, ...], groups: int = 1, **attrs: Any
) -> Problem:
    dtype = np.dtype(attrs.pop("dtype", np.float32))
    return Problem(images, channels, filters, groups, windows_of(attrs, size, kernel), dtype)


def definition(p: Problem, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """y, dx and dw in float64, one offset of the windows after the other."""
    groups, n = p.groups, p.images
    x, w, dy = (a.astype(np.float64) for a in (x, w, dy))
    images, weights = (
        x.reshape(n, groups, p.group_channels, *p.windows.size),
        w.reshape(groups, p.group_filters, *p.w_shape[1:]),
    )
    maps = dy.reshape(n, groups, p.group_filters, *p.windows.counts)
    y, dx, dw = np.zeros_like(maps), np.zeros_like(images), np.zeros_like(weights)
    every = (slice(None),) * 3
    for offset, where, position in p.windows.offsets():
        here, read, written = (*every, *offset), (*every, *position), (*every, *where)
        y[written] += np.einsum("gmc,ngc...->ngm...", weights[here], images[read])
        dx[read] += np.einsum("gmc,ngm...->ngc...", weights[here], maps[written])
        dw[here] += np.einsum("ngmo,ngco->gmc", _flat(maps[written]), _flat(images[read]))
    return y.reshape(p.y_shape), dx.reshape(p.x_shape), dw.reshape(p.w_shape)


def _flat(a: np.ndarray) -> np.ndarray:
    return a.reshape(*a.shape[:3], prod(a.shape[3:]))


class Kernels(NamedTuple):
    forward: WorkspaceKernel | None
    image_adjoint: WorkspaceKernel | None
    weight_adjoint: WorkspaceKernel | None


def operands(p: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    shapes = (p.x_shape, p.w_shape, p.y_shape, (p.filters,))
    x, w, dy, bias = (generator.standard_normal(shape).astype(p.dtype) for shape in shapes)
    for a in (x, w, dy, bias):
        a.flags.writeable = False
    return x, w, dy, bias


def run(kernel: WorkspaceKernel, shape: tuple[int, ...], dtype: np.dtype, *arguments: np.ndarray) -> np.ndarray:
    """What a kernel writes over garbage, with garbage to work in; it must not write past its workspace."""
    out = np.full(shape, np.nan, dtype)
    work = np.full(kernel.workspace + 192, 0xFF, np.uint8)
    start = -work.ctypes.data % 64
    mine = work[start : start + kernel.workspace]
    assert kernel.function(*arguments, out=out, work=mine) is out
    assert (work[:start] == 0xFF).all()
    assert (work[start + kernel.workspace :] == 0xFF).all()
    return out


def check(p: Problem, kernels: Kernels, tolerance: float | None = None) -> None:
    x, w, dy, bias = operands(p)
    y, dx, dw = definition(p, x, w, dy)
    shift = bias.astype(np.float64).reshape(-1, *(1,) * (y.ndim - 2))
    tolerance = tolerance or (3e-6 if p.dtype == np.float32 else 1e-13)
    for kernel, arguments, want in (
        (kernels.forward, (x, w, bias), y + shift),
        (kernels.forward, (x, w), y),
        (kernels.image_adjoint, (dy, w), dx),
        (kernels.weight_adjoint, (x, dy), dw),
    ):
        if kernel is not None:
            got = run(kernel, want.shape, p.dtype, *arguments)
            np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * max(1, np.abs(want).max(initial=0)))
            again = kernel(*arguments)
            np.testing.assert_allclose(again, want, rtol=0, atol=tolerance * max(1, np.abs(want).max(initial=0)))


PROBLEMS = {
    "plain": problem(3, 4, (9, 8), 6, (3, 2), pads=(1, 0, 2, 1)),
    "one image": problem(1, 4, (9, 8), 6, (3, 3), pads=(1, 1, 1, 1)),
    "groups, strides, dilations": problem(2, 4, (9, 8), 6, (3, 2), 2, strides=(2, 3), dilations=(2, 1), pads=(1, 1, 1, 0)),
    "one axis": problem(3, 4, (11,), 6, (3,), 2, strides=(2,), pads=(1, 2)),
    "three axes": problem(2, 4, (5, 4, 6), 6, (2, 3, 2), 2, strides=(2, 1, 1), pads=(1, 0, 2, 0, 1, 1)),
    "large windows": problem(2, 3, (12, 12), 4, (5, 5), strides=(3, 2), pads=(2, 2, 2, 2)),
    "pixels": problem(2, 4, (6, 5), 4, (1, 1)),
    "pixels in groups": problem(2, 4, (6, 5), 6, (1, 1), 2),
    "every other pixel": problem(2, 4, (7, 5), 4, (1, 1), strides=(2, 2)),
    "dilated": problem(1, 4, (20, 13), 4, (3, 3), dilations=(2, 3), pads=(2, 3, 2, 3)),
    "wide padding": problem(2, 2, (3, 3), 4, (3, 3), strides=(2, 2), pads=(5, 5, 5, 5)),
    "strides past the kernel": problem(2, 2, (9, 9), 4, (2, 2), strides=(4, 3), pads=(0, 1, 3, 0)),
    "more filters": problem(5, 2, (6, 6), 9, (3, 3), pads=(1, 1, 1, 1)),
    "fewer filters": problem(5, 9, (6, 6), 2, (3, 3), pads=(1, 1, 1, 1)),
    "multiplier": problem(2, 3, (7, 6), 6, (3, 3), 3, pads=(1, 1, 1, 1)),
}
DEPTHWISE = {
    "plain": problem(3, 4, (9, 8), 4, (3, 2), 4, pads=(1, 0, 2, 1)),
    "same": problem(3, 20, (7, 7), 20, (3, 3), 20, pads=(1, 1, 1, 1)),
    "strides, dilations": problem(2, 4, (9, 8), 4, (3, 2), 4, strides=(2, 3), dilations=(2, 1), pads=(1, 1, 1, 0)),
    "one axis": problem(3, 4, (11,), 4, (3,), 4, strides=(2,), pads=(1, 2)),
    "same, one axis": problem(3, 4, (19,), 4, (5,), 4, pads=(2, 2)),
    "three axes": problem(2, 4, (5, 4, 6), 4, (2, 3, 2), 4, strides=(2, 1, 1)),
    "large windows": problem(2, 3, (12, 12), 3, (5, 5), 3, strides=(3, 2), pads=(2, 2, 2, 2)),
    "same, large windows": problem(2, 3, (6, 9), 3, (7, 5), 3, pads=(3, 2, 3, 2)),
    "same, dilated": problem(2, 3, (10, 9), 3, (3, 3), 3, dilations=(2, 2), pads=(2, 2, 2, 2)),
    "same, not centred": problem(2, 3, (6, 5), 3, (3, 4), 3, pads=(2, 3, 0, 0)),
    "pixels": problem(2, 4, (7, 5), 4, (1, 1), 4),
    "wide padding": problem(2, 2, (3, 3), 2, (3, 3), 2, strides=(2, 2), pads=(5, 5, 5, 5)),
    "strides past the kernel": problem(2, 2, (9, 9), 2, (2, 2), 2, strides=(4, 3), pads=(0, 1, 3, 0)),
}
WINOGRAD = {
    "plain": problem(3, 8, (9, 13), 6, (3, 3), pads=(1, 0, 2, 1)),
    "several chunks": problem(2, 4, (30, 33), 6, (3, 3), pads=(1, 1, 1, 1)),
    "5": problem(3, 4, (14, 11), 6, (5, 5), pads=(2, 2, 2, 2)),
    "dilated": problem(3, 4, (17, 12), 6, (3, 3), dilations=(2, 3), pads=(2, 3, 2, 3)),
    "one window": problem(1, 4, (3, 3), 6, (3, 3)),
    "wide padding": problem(1, 4, (5, 33), 6, (3, 3), pads=(4, 4, 4, 4)),
    "one image": problem(1, 16, (24, 24), 16, (3, 3), pads=(1, 1, 1, 1)),
}


@pytest.fixture
def several_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work is shared out, however small."""
    monkeypatch.setattr("irgrad.runtime.workspace._WORTH", 1)
    with threads.limited(3):
        yield


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize(("block", "wide"), [(1, 1), (600, 30), (1 << 20, 1), (1 << 20, 500)])
@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.usefixtures("several_threads")
def test_im2col(name: str, block: int, wide: int, stacked: bool, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(im2col, "_BLOCK", block)
    monkeypatch.setattr(im2col, "_WIDE", wide)
    p = replace(PROBLEMS[name], dtype=np.dtype(dtype))
    reversible = set(p.windows.strides) == {1}
    kernels = Kernels(
        im2col.forward(p, stacked=stacked),
        im2col.image_adjoint(p, columns=not (stacked and reversible)),
        im2col.weight_adjoint(p, stacked=stacked, turned=True),
    )
    check(p, kernels)
    check(p, Kernels(None, None, im2col.weight_adjoint(p, stacked=stacked, turned=False)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [name for name in PROBLEMS if PROBLEMS[name].windows.pointwise])
@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.usefixtures("several_threads")
def test_pointwise(name: str, images: int, dtype: Any) -> None:
    p = replace(PROBLEMS[name], dtype=np.dtype(dtype), images=images)
    check(p, Kernels(pointwise.forward(p), pointwise.image_adjoint(p), pointwise.weight_adjoint(p)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEPTHWISE)
@pytest.mark.usefixtures("several_threads")
def test_depthwise(name: str, dtype: Any) -> None:
    p = replace(DEPTHWISE[name], dtype=np.dtype(dtype))
    assert depthwise.serves(p)
    check(p, Kernels(im2col.forward(p), depthwise.image_adjoint(p), depthwise.weight_adjoint(p)))


def warmed(p: Problem, kernels: Kernels) -> Kernels:
    """The same kernels, compiled by now."""
    x, w, dy, _ = operands(p)
    for kernel, arguments in zip(kernels, ((x, w), (dy, w), (x, dy)), strict=True):
        assert kernel is not None
        kernel(*arguments)
        kernel(*arguments)
    assert fast.wait(300)
    return kernels


@pytest.mark.skipif(not fast.available(), reason="numba is not installed")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEPTHWISE)
@pytest.mark.usefixtures("several_threads")
def test_compiled_depthwise(name: str, dtype: Any) -> None:
    p, of = replace(DEPTHWISE[name], dtype=np.dtype(dtype)), depthwise_compiled
    check(p, warmed(p, Kernels(of.forward(p), of.image_adjoint(p), of.weight_adjoint(p))))


@pytest.mark.parametrize("m", [2, 4, 6])
@pytest.mark.parametrize("chunk", [6, 28])
@pytest.mark.parametrize("together", [None, 2])
@pytest.mark.parametrize("name", WINOGRAD)
@pytest.mark.usefixtures("several_threads")
def test_winograd(name: str, m: int, chunk: int, together: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    p = WINOGRAD[name]
    tiling = winograd.Tiling(min(m, 9 - p.windows.kernel[0]), chunk, together)
    kernels = Kernels(winograd.forward(p, tiling), winograd.image_adjoint(p, tiling), winograd.weight_adjoint(p, tiling))
    check(p, kernels, tolerance=1e-4)
    monkeypatch.setattr(winograd, "_WEIGHTS", 0)  # threads share the points
    kernels = Kernels(winograd.forward(p, tiling), winograd.image_adjoint(p, tiling), winograd.weight_adjoint(p, tiling))
    check(p, kernels, tolerance=1e-4)


def test_short_convolutions() -> None:
    generator = np.random.default_rng(0)
    for k in (2, 3, 5):
        for m in range(1, 10 - k):
            d, g = generator.standard_normal(m + k - 1), generator.standard_normal(k)
            outputs, weights, inputs = short_convolution(m, k)
            np.testing.assert_allclose(outputs @ ((weights @ g) * (inputs @ d)), np.correlate(d, g), rtol=1e-12)


def test_short_convolutions_of_too_many_points() -> None:
    with pytest.raises(ValueError, match="needs 9 points"):
        short_convolution(7, 3)


@pytest.mark.parametrize("k", [3, 5])
@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_winograd_is_exact_enough(k: int, mean: float) -> None:
    """The largest error that the choice allows: all tilings, many channels, images that are not centred."""
    p = problem(1, 128, (14, 14), 32, (k, k), pads=(k // 2,) * 4)
    x, w, dy, _ = operands(p)
    x, dy = np.maximum(x + np.float32(mean), 0), dy + np.float32(mean)
    y, dx, dw = definition(p, x, w, dy)
    for m in range(2, 10 - k):
        tiling = winograd.Tiling(m)
        for kernel, arguments, want in (
            (winograd.forward(p, tiling), (x, w), y),
            (winograd.image_adjoint(p, tiling), (dy, w), dx),
            (winograd.weight_adjoint(p, tiling), (x, dy), dw),
        ):
            assert np.abs(kernel(*arguments) - want).max() < 1e-4 * np.abs(want).max()


# --- what is chosen ---------------------------------------------------------------------------------------------------


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    rank = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    each = st.integers(1, 3)
    size, kernel, strides, dilations, begins, ends = [], [], [], [], [], []
    for _ in range(rank):
        kernel.append(draw(st.integers(1, 4)))
        dilations.append(draw(st.integers(1, 3)))
        strides.append(draw(st.integers(1, 4)))
        begins.append(draw(st.integers(0, 4)))
        ends.append(draw(st.integers(0, 4)))
        extent = (kernel[-1] - 1) * dilations[-1] + 1
        least = max(1, extent - begins[-1] - ends[-1])
        size.append(draw(st.integers(least, least + 8)))
    attrs = {"strides": strides, "dilations": dilations, "pads": (*begins, *ends)}
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    channels, filters = groups * draw(each), groups * draw(each)
    return problem(draw(each), channels, tuple(size), filters, tuple(kernel), groups, dtype=dtype, **attrs)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_any_geometry(p: Problem) -> None:
    check(p, Kernels(select.forward(p), select.image_adjoint(p), select.weight_adjoint(p)), tolerance=2e-5)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_any_geometry_of_one_filter_each(p: Problem) -> None:
    p = replace(p, channels=3, filters=3, groups=3)
    check(p, Kernels(im2col.forward(p), depthwise.image_adjoint(p), depthwise.weight_adjoint(p)))


def test_what_is_chosen() -> None:
    def chosen(p: Problem) -> set[str]:
        return {select.choice(p, role).name for role in select.Role}

    wide = problem(8, 64, (28, 28), 64, (3, 3), pads=(1, 1, 1, 1))
    assert chosen(wide) == {"winograd"}
    assert chosen(replace(wide, dtype=np.dtype(np.float64))) == {"im2col"}
    with precision.using(exact=True):
        assert chosen(wide) == {"im2col"}
    assert chosen(wide) == {"winograd"}
    assert chosen(problem(8, 64, (28, 28), 64, (3, 3), strides=(2, 2))) == {"im2col"}
    assert chosen(problem(8, 64, (28, 28), 64, (3, 3), 4)) == {"im2col"}
    assert chosen(problem(8, 64, (28, 28), 64, (1, 1))) == {"pointwise"}
    assert chosen(problem(8, 64, (28, 28), 64, (3, 3), 64)) == {"depthwise"}
    assert chosen(replace(wide, images=0)) == {"nothing"}


def test_exact_kernels_are_not_mistaken_for_others() -> None:
    """Kernels are remembered by their problem; how exact they have to be counts as well."""
    p = problem(2, 32, (28, 28), 32, (3, 3), pads=(1, 1, 1, 1))
    x, w, dy, _ = operands(p)
    y, _, _ = definition(p, x, w, dy)
    fast_error = np.abs(select.forward(p)(x, w) - y).max()
    with precision.using(exact=True):
        error = np.abs(select.forward(p)(x, w) - y).max()
    assert error < 1e-6 * np.abs(y).max() < fast_error


def test_nothing_to_multiply() -> None:
    for images, channels, filters in ((0, 2, 3), (2, 0, 3), (2, 2, 0)):
        p = problem(images, channels, (4, 4), filters, (3, 3))
        check(p, Kernels(select.forward(p), select.image_adjoint(p), select.weight_adjoint(p)))


# --- memory -----------------------------------------------------------------------------------------------------------


def peak(function: Callable[[], Any]) -> int:
    """Bytes that a call allocates at most at a time."""
    function()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.fixture
def small_buffers() -> Iterator[None]:
    """The buffers that numpy makes room for are as small as can be on this thread."""
    before = np.setbufsize(16)
    yield
    np.setbufsize(before)


LARGE = {
    "winograd": problem(4, 32, (28, 28), 32, (3, 3), pads=(1, 1, 1, 1)),
    "im2col": problem(4, 32, (28, 28), 32, (3, 3), pads=(1, 1, 1, 1), strides=(2, 2)),
    "im2col of some images": problem(9, 32, (8, 8), 32, (3, 3), 2, pads=(1, 1, 1, 1)),
    "im2col, full columns": problem(4, 3, (28, 28), 32, (5, 5)),
    "pointwise": problem(4, 32, (28, 28), 32, (1, 1)),
    "depthwise": problem(4, 32, (28, 28), 32, (3, 3), 32, pads=(1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.usefixtures("small_buffers")
def test_arrays_are_in_the_workspace(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated are views and what Python needs for a call, not as much as any array of the problem.

    numpy makes room for three buffers for each ufunc of operands that are not contiguous, even where it does not use them;
    they are as small as can be here, but not on other threads.
    """
    p = LARGE[name]
    monkeypatch.setattr("irgrad.runtime.workspace._WORTH", 1000)
    x, w, dy, bias = operands(p)
    with threads.limited(count):
        for prepare, arguments, shape in (
            (select.forward, (x, w, bias), p.y_shape),
            (select.image_adjoint, (dy, w), p.x_shape),
            (select.weight_adjoint, (x, dy), p.w_shape),
        ):
            kernel = prepare(p)
            out, work = np.empty(shape, p.dtype), np.empty(kernel.workspace, np.uint8)

            def call() -> None:
                kernel.function(*arguments, out=out, work=work)  # noqa: B023 (called at once)

            if fast.available():
                call(), call(), fast.wait(300)
            assert peak(call) < (12_000 if count == 1 else 12_000 + 3 * 8192 * p.dtype.itemsize)


def test_operands_may_be_views() -> None:
    """Channels last, reversed, every other row: what a planned Transpose or Slice may hand over."""
    for p in (*LARGE.values(), PROBLEMS["three axes"]):
        x, w, dy, _ = operands(p)
        y, dx, dw = definition(p, x, w, dy)
        views = [np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) for a in (x, w, dy)]
        views2 = [np.repeat(a, 2, -1)[..., ::2] for a in (x, w, dy)]
        for a, b, c in (views, views2):
            np.testing.assert_allclose(select.forward(p)(a, b), y, rtol=0, atol=1e-4 * np.abs(y).max())
            np.testing.assert_allclose(select.image_adjoint(p)(c, b), dx, rtol=0, atol=1e-4 * np.abs(dx).max())
            np.testing.assert_allclose(select.weight_adjoint(p)(a, c), dw, rtol=0, atol=1e-4 * np.abs(dw).max())


def test_rows_beside_a_box() -> None:
    covered = np.zeros((5, 4, 3), int)
    box = (slice(1, 3), slice(0, 4), slice(2, 3))
    covered[box] += 1
    for beside in rows.around(box, covered.shape):
        covered[beside] += 1
    assert (covered == 1).all()


# --- graphs -----------------------------------------------------------------------------------------------------------


def one_node(op: str, types: list[TensorType], **attrs: Any) -> Graph:
    graph = Graph(op)
    values = [graph.add_input(f"x{k}", type) for k, type in enumerate(types)]
    graph.set_outputs({"y": Builder(graph).op(op, *values, **attrs)})
    return graph


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("dynamic", [False, True])
def test_operations(dtype: Any, dynamic: bool) -> None:
    """The planned kernels behind the operations, with static shapes and with shapes that only a run tells."""
    p = problem(2, 4, (9, 8), 6, (3, 3), 2, strides=(2, 1), pads=(1, 1, 1, 1))
    x, w, dy, bias = (a.astype(dtype) for a in operands(p))
    y, dx, dw = definition(p, x, w, dy)
    attrs: dict[str, Any] = {"strides": (2, 1), "pads": (1, 1, 1, 1), "group": 2}
    shift = bias.astype(np.float64)[:, None, None]
    tolerance = {np.float16: 2e-2, np.float32: 1e-5, np.float64: 1e-12}[dtype]
    x_shape, w_shape = (np.array(s, np.int64) for s in (p.x_shape, p.w_shape))
    for op, arguments, want in (
        ("Conv", (x, w, bias), y + shift),
        ("irgrad.ConvInputGrad", (dy, w, x_shape), dx),
        ("irgrad.ConvWeightGrad", (x, dy, w_shape), dw),
    ):
        types = [TensorType(a.dtype, (None,) * a.ndim if dynamic else a.shape) for a in arguments]
        run = compile(one_node(op, types, **attrs))
        for _ in range(2):
            got = run({f"x{k}": a for k, a in enumerate(arguments)})["y"]
            assert got.dtype == dtype
            np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * np.abs(want).max())


@pytest.mark.parametrize("known", [True, False])
def test_precision_of_an_executable(known: bool) -> None:
    """What was asked for when a graph was compiled holds for kernels that are prepared in a run, too."""
    p = problem(2, 32, (28, 28), 32, (3, 3), pads=(1, 1, 1, 1))
    x, w, dy, _ = operands(p)
    y, _, _ = definition(p, x, w, dy)
    graph = Graph("some images")
    images, weights, chosen = (
        graph.add_input(name, TensorType(np.dtype(np.float32), shape))
        for name, shape in (("x", x.shape), ("w", w.shape), ("chosen", (2,)))
    )
    b = Builder(graph)
    if not known:
        images = b.op("Gather", images, b.op("Squeeze", b.op("NonZero", chosen), b.ints([0])), axis=0)
    graph.set_outputs({"y": b.op("Conv", images, weights, pads=(1, 1, 1, 1))})
    for wanted, least, most in (("exact", 0.0, 1e-6), ("fast", 1e-6, 1e-4)):
        got = compile(graph, precision=wanted)({"x": x, "w": w, "chosen": np.ones(2, np.float32)})["y"]
        assert least <= np.abs(got - y).max() / np.abs(y).max() < most


def test_dynamic_shapes_are_checked() -> None:
    run = compile(one_node("Conv", [TensorType(np.dtype(np.float32), (None,) * 4)] * 2))
    with pytest.raises((TypeInferenceError, Exception), match="take 2 channels"):
        run({"x0": np.ones((1, 3, 4, 4), np.float32), "x1": np.ones((2, 2, 3, 3), np.float32)})


def test_all_pairs_of_sizes_around_a_tile() -> None:
    """Where the last tile is cut off, in every way."""
    for height, width in product(range(3, 12), repeat=2):
        p = problem(1, 2, (height, width), 3, (3, 3), pads=(1, 0, 0, 1))
        tiling = winograd.Tiling(4)
        kernels = Kernels(winograd.forward(p, tiling), winograd.image_adjoint(p, tiling), winograd.weight_adjoint(p, tiling))
        check(p, kernels, tolerance=1e-4)
