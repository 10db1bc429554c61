"""Convolutions whose windows are single pixels, one for each: products of matrices with images as they lie, no copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irgrad.op import WorkspaceKernel
from irgrad.ops.convolution.problem import Problem, add_products, crews, multiply, result
from irgrad.runtime.threads import parallel, threads
from irgrad.runtime.workspace import Workspace, ranges

__all__ = ["forward", "image_adjoint", "weight_adjoint"]


def _parts(problem: Problem) -> Sequence[Sequence[tuple[int, slice]]]:
    """(image, which of its pixels) for each share of the work."""
    pieces = 1 if problem.images >= threads() else threads()
    items = [(n, slice(a, e)) for n in range(problem.images) for a, e in ranges(problem.area, pieces)]
    return crews(items, problem.products)


def _matrices(w: np.ndarray, problem: Problem) -> np.ndarray:
    return w.reshape(problem.groups, problem.group_filters, problem.group_channels)


def _product(problem: Problem, transpose: bool) -> WorkspaceKernel:
    """``kernel(x, w, bias=None)`` of images of `problem`, or (transpose) with the transposes of w, of its maps."""
    parts = _parts(problem)
    first, last = (problem.y_shape, problem.x_shape) if transpose else (problem.x_shape, problem.y_shape)

    def run(
        x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None, *, out: np.ndarray | None = None, work: np.ndarray
    ) -> np.ndarray:
        y = result(last, problem.dtype, out)
        matrices = _matrices(w, problem)
        matrices = matrices.swapaxes(1, 2) if transpose else matrices
        source = x.reshape(problem.images, problem.groups, first[1] // problem.groups, problem.area)
        target = y.reshape(problem.images, problem.groups, last[1] // problem.groups, problem.area)
        shift = None if bias is None else bias.reshape(problem.groups, -1, 1)

        def some(part: Sequence[tuple[int, slice]]) -> None:
            for n, pixels in part:
                view = target[n, :, :, pixels]
                multiply(matrices, source[n, :, :, pixels], view)
                if shift is not None:
                    np.add(view, shift, out=view)

        parallel(some, parts)
        return y

    return WorkspaceKernel(run, 0)


def forward(problem: Problem) -> WorkspaceKernel:
    """``kernel(x, w, bias=None)``: the convolution."""
    return _product(problem, transpose=False)


def image_adjoint(problem: Problem) -> WorkspaceKernel:
    """``kernel(dy, w)``: the adjoint of the convolution in its images."""
    return _product(problem, transpose=True)


def weight_adjoint(problem: Problem) -> WorkspaceKernel:
    """``kernel(x, dy)``: the adjoint of the convolution in its weights.

    Of images and maps, those with fewer channels are turned: products of rows with columns that lie beside each other are
    faster than those of rows with rows, by more than that takes.
    """
    parts = _parts(problem)
    space = Workspace()
    turned = problem.filters <= problem.channels  # the maps; then the result is that of the transposed weights
    few, many = sorted((problem.group_filters, problem.group_channels))
    shape = (problem.groups, many, few)
    sums = [space.array(shape, problem.dtype) for _ in parts]
    rooms = [space.array(shape, problem.dtype) for _ in parts]
    columns = [space.array((problem.groups, problem.area, few), problem.dtype) for _ in parts]

    def run(x: np.ndarray, dy: np.ndarray, *, out: np.ndarray | None = None, work: np.ndarray) -> np.ndarray:
        dw = result(problem.w_shape, problem.dtype, out)
        images = x.reshape(problem.images, problem.groups, problem.group_channels, problem.area)
        maps = dy.reshape(problem.images, problem.groups, problem.group_filters, problem.area)
        left, right = (images, maps) if turned else (maps, images)
        totals = [place(work) for place in sums]

        def some(share: int) -> None:
            total, room, column = totals[share], rooms[share](work), columns[share](work)
            for index, (n, pixels) in enumerate(parts[share]):
                some_columns = column[:, : pixels.stop - pixels.start]
                np.copyto(some_columns, right[n, :, :, pixels].swapaxes(1, 2))
                add_products(left[n, :, :, pixels], some_columns, total, room, fresh=not index)

        parallel(some, range(len(parts)))
        for other in totals[1:]:
            np.add(totals[0], other, out=totals[0])
        np.copyto(_matrices(dw, problem), totals[0].swapaxes(1, 2) if turned else totals[0])
        return dw

    return space.kernel(run)
