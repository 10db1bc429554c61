"""Depthwise convolution over one or two axes, the forms that numba compiles: a plane at a time, which stays in the cache.

The layout is that of `flat`, so that every loop runs over one long run, however narrow the image. Where the stride is 1 and
the width stays what it is, that of `depthwise_same` needs no surplus and is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from irgrad.op import Kernel, WorkspaceKernel
from irgrad.ops.convolution import depthwise, depthwise_loops, depthwise_same, im2col
from irgrad.ops.convolution.depthwise_same import Same
from irgrad.ops.convolution.flat import flat_of
from irgrad.ops.convolution.problem import Problem, crews, result
from irgrad.ops.convolution.rows import planar
from irgrad.runtime.fast import compiled, enabled
from irgrad.runtime.jit import jit, read, reals, write
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Workspace, ranges

__all__ = ["forward", "image_adjoint", "weight_adjoint"]

_PIECES = 16  # ranges of planes, for threads to share


def _may_compile(problem: Problem) -> bool:
    return enabled() and reals(problem.dtype) and problem.windows.rank <= 2


class Layout:
    """What the compiled functions are told of a layout: numbers and small arrays."""

    def __init__(self, problem: Problem) -> None:
        windows = planar(problem.windows)
        self.problem = replace(problem, windows=windows)
        self.flat = flat = flat_of(windows)
        self.planes = problem.images * problem.channels
        parts = []
        for written, source in flat.copies:
            (residue, *inside), steps = written, [s.step for s in source]
            parts.append(
                [residue.start, *(v for s in inside for v in (s.start, s.stop)), *(s.start for s in source), *steps]
            )
        # residue; rows first and end, columns first and end, in the layout; row, column, row step, column step in the image
        self.parts = np.array(parts, np.int64).reshape(-1, 9)
        self.shape = (flat.shape[1], flat.shape[2])
        self.plane = flat.shape[1] * flat.shape[2]

    def images(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(self.planes, *self.problem.windows.size)

    def maps(self, y: np.ndarray) -> np.ndarray:
        return y.reshape(self.planes, *self.problem.windows.counts)


def _same(problem: Problem) -> Same | None:
    """The layout for a problem that keeps the width of its images."""
    return Same.of(planar(problem.windows), problem.dtype)


def _usable(*arrays: np.ndarray | None) -> bool:
    return all(a is None or a.flags.c_contiguous for a in arrays)


def forward(problem: Problem) -> WorkspaceKernel:
    """``kernel(x, w, bias=None)``: the convolution."""
    plain = im2col.forward(problem)
    if not _may_compile(problem):
        return plain
    same = _same(problem)
    if same is not None:
        return _compiled(*depthwise_same.forward(problem, same, plain), plain)
    layout = Layout(problem)
    todo = crews(ranges(layout.planes, _PIECES), 8 * problem.products)
    space = Workspace()
    rooms = [
        (space.array((layout.flat.length,), problem.dtype), space.array((layout.flat.span,), problem.dtype)) for _ in todo
    ]
    nothing = np.zeros(problem.filters, problem.dtype)
    function, dtype = plain.function, problem.dtype

    def build() -> Kernel:
        arrays = [read(dtype, 3), read(dtype, 2), read(dtype, 1), write(dtype, 3), write(dtype, 1), write(dtype, 1)]
        run = jit(depthwise_loops.forward, *arrays, read(np.int64, 1), read(np.int64, 2), *["int64"] * 4, reorder=True)

        def fast(
            x: np.ndarray,
            w: np.ndarray,
            bias: np.ndarray | None = None,
            *,
            out: np.ndarray | None = None,
            work: np.ndarray,
        ) -> Any:
            if not _usable(x, w, bias, out):
                return function(x, w, bias, out=out, work=work)
            y = result(problem.y_shape, dtype, out)
            shift = nothing if bias is None else bias
            images, maps, weights = layout.images(x), layout.maps(y), w.reshape(problem.filters, -1)

            def some(share: int) -> None:
                plane, sums = (place(work) for place in rooms[share])
                for a, e in todo[share]:
                    run(images, weights, shift, maps, plane, sums, layout.flat.starts, layout.parts, *layout.shape, a, e)

            parallel(some, range(len(todo)))
            return y

        return fast

    return _compiled(build, space.size, plain)


def image_adjoint(problem: Problem) -> WorkspaceKernel:
    """``kernel(dy, w)``: the adjoint of the convolution in its images."""
    reversible = set(problem.windows.strides) == {1}
    plain = im2col.image_adjoint(problem) if reversible else depthwise.image_adjoint(problem)
    if not _may_compile(problem):
        return plain
    if reversible:
        same = _same(problem.transposed())
        if same is not None:
            return _compiled(*depthwise_same.forward(problem.transposed(), same, plain, reverse=True), plain)
    layout = Layout(problem)
    todo = crews(ranges(layout.planes, _PIECES), 8 * problem.products)
    before = int((layout.flat.starts % layout.plane).max())  # zeros that are read before the first cotangent
    space = Workspace()
    rooms = [
        (space.array((before + layout.plane,), problem.dtype), space.array((layout.plane,), problem.dtype)) for _ in todo
    ]
    order = np.argsort(layout.flat.starts // layout.plane, kind="stable")
    residues = (layout.flat.starts // layout.plane)[order]
    bounds = np.searchsorted(residues, np.arange(layout.flat.shape[0] + 1)).astype(np.int64)
    backward = before - (layout.flat.starts % layout.plane)[order]
    function, dtype = plain.function, problem.dtype

    def build() -> Kernel:
        arrays = [read(dtype, 3), read(dtype, 2), write(dtype, 3), write(dtype, 1), write(dtype, 1)]
        run = jit(
            depthwise_loops.image_adjoint, *arrays, *[read(np.int64, 1)] * 3, read(np.int64, 2), *["int64"] * 4, reorder=True
        )

        def fast(dy: np.ndarray, w: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> Any:
            if not _usable(dy, w, out):
                return function(dy, w, out=out, work=work)
            dx = result(problem.x_shape, dtype, out)
            maps, images, weights = layout.maps(dy), layout.images(dx), w.reshape(problem.filters, -1)

            def some(share: int) -> None:
                padded, sums = (place(work) for place in rooms[share])
                for a, e in todo[share]:
                    run(
                        maps,
                        weights,
                        images,
                        padded,
                        sums,
                        order,
                        backward,
                        bounds,
                        layout.parts,
                        before,
                        layout.shape[1],
                        a,
                        e,
                    )

            parallel(some, range(len(todo)))
            return dx

        return fast

    return _compiled(build, space.size, plain)


def weight_adjoint(problem: Problem) -> WorkspaceKernel:
    """``kernel(x, dy)``: the adjoint of the convolution in its weights."""
    plain = depthwise.weight_adjoint(problem)
    if not _may_compile(problem):
        return plain
    same = _same(problem)
    if same is not None:
        return _compiled(*depthwise_same.weight_adjoint(problem, same, plain), plain)
    layout = Layout(problem)
    todo = crews(ranges(problem.channels, _PIECES), 8 * problem.products)
    space = Workspace()
    rooms = [
        (space.array((layout.flat.length,), problem.dtype), space.array((layout.flat.span,), problem.dtype)) for _ in todo
    ]
    function, dtype, zero = plain.function, problem.dtype, problem.dtype.type(0)

    def build() -> Kernel:
        arrays = [read(dtype, 3), read(dtype, 3), write(dtype, 2), write(dtype, 1), write(dtype, 1)]
        types = [read(np.int64, 1), read(np.int64, 2), *["int64"] * 4, dtype.name]
        run = jit(depthwise_loops.weight_adjoint, *arrays, *types, reorder=True)

        def fast(x: np.ndarray, dy: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> Any:
            if not _usable(x, dy, out):
                return function(x, dy, out=out, work=work)
            dw = result(problem.w_shape, dtype, out)
            images, maps, weights = layout.images(x), layout.maps(dy), dw.reshape(problem.filters, -1)

            def some(share: int) -> None:
                plane, cotangents = (place(work) for place in rooms[share])
                for a, e in todo[share]:
                    run(
                        images, maps, weights, plane, cotangents, layout.flat.starts, layout.parts, *layout.shape, a, e, zero
                    )

            parallel(some, range(len(todo)))
            return dw

        return fast

    return _compiled(build, space.size, plain)


def _compiled(build: Callable[[], Kernel], workspace: int, plain: WorkspaceKernel) -> WorkspaceKernel:
    """The plain kernel until the other is there; either runs, never both, so that they share the workspace."""
    kernel = compiled(build, WorkspaceKernel(plain.function, max(workspace, plain.workspace)))
    assert isinstance(kernel, WorkspaceKernel)
    return kernel
