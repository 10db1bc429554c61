"""Maxima of windows, with where they were, and where their cotangents go: the forms that numba compiles."""

from __future__ import annotations

from math import prod
from typing import Any, TypeAlias

import numpy as np

from irgrad.op import Kernel, WorkspaceKernel
from irgrad.ops.pool_kernels import index_weights, lowest, max_pool_with_indices
from irgrad.ops.windows import Windows
from irgrad.runtime.fast import compiled, enabled
from irgrad.runtime.jit import jit, read, reals, write
from irgrad.runtime.threads import parallel
from irgrad.runtime.workspace import Workspace, shared_ranges

__all__ = ["max_pool_and_places", "sent_to_maxima"]

_RANK = 3  # spatial axes of the compiled form; images with fewer have further ones of size 1

Triple: TypeAlias = "tuple[int, int, int]"


def max_pool_and_places(shape: tuple[int, int], dtype: np.dtype, windows: Windows, column_major: bool) -> Kernel:
    """What `max_pool_with_indices` gives, compiled where that is wanted and possible."""
    plain = max_pool_with_indices(shape, dtype, windows, column_major)
    area, planes, most = prod(windows.size), prod(shape), np.iinfo(np.int32).max
    if not (enabled() and reals(dtype) and windows.rank <= _RANK and planes and 0 < area < most):
        return plain
    assert isinstance(plain, WorkspaceKernel)
    more = _RANK - windows.rank
    size, counts = (1,) * more + windows.size, (1,) * more + windows.counts
    kernel, dilations = (1,) * more + windows.kernel, (1,) * more + windows.dilations
    strides, begins = (1,) * more + windows.strides, (0,) * more + windows.begins
    weights = (0,) * more + tuple(index_weights(windows, column_major))
    steps = [np.arange(k, dtype=np.int64) * d * w for k, d, w in zip(kernel, dilations, weights, strict=True)]
    table = (steps[0][:, None, None] + steps[1][:, None] + steps[2]).reshape(-1)
    reach = np.zeros((2, kernel[2]), np.int64)
    for j in range(kernel[2]):
        found = windows.positions(windows.rank - 1, j)
        if found is not None:
            reach[:, j] = found[0].start, found[0].stop
    todo = shared_ranges(planes, planes * max(area, prod(counts)))
    space = Workspace()
    rows = [[space.array((n,), t) for n in (size[2], counts[2]) for t in (dtype, np.int32)] for _ in todo]
    space.size = max(space.size, plain.workspace)  # either form runs, never both
    function, least = plain.function, lowest(dtype)[()]

    def build() -> Kernel:
        arrays = [read(dtype, 4), write(dtype, 4), write(np.int64, 4), read(np.int64, 1), read(np.int64, 2)]
        buffers = [write(dtype, 1), write(np.int32, 1)] * 2
        run = jit(_max_pool, *arrays, *["UniTuple(int64, 3)"] * 5, *buffers, dtype.name, "int64", "int64")

        def fast(x: np.ndarray, *, out: Any = None, work: np.ndarray) -> Any:
            full = (*shape, *windows.counts)
            y, places = (np.empty(full, dtype), np.empty(full, np.int64)) if out is None else out
            if not (x.flags.c_contiguous and y.flags.c_contiguous and places.flags.c_contiguous):
                return function(x, out=(y, places), work=work)
            images, maxima, indices = x.reshape(planes, *size), y.reshape(planes, *counts), places.reshape(planes, *counts)
            geometry = (table, reach, kernel, strides, dilations, begins, weights)

            def some(share: int) -> None:
                buffers = [row(work) for row in rows[share]]
                for first, last in todo[share]:
                    run(images, maxima, indices, *geometry, *buffers, least, first, last)

            parallel(some, range(len(todo)))
            return y, places

        return fast

    return compiled(build, WorkspaceKernel(function, space.size))


def _max_pool(
    x: np.ndarray,
    y: np.ndarray,
    places: np.ndarray,
    table: np.ndarray,
    reach: np.ndarray,
    kernel: Triple,
    strides: Triple,
    dilations: Triple,
    begins: Triple,
    weights: Triple,
    column: np.ndarray,
    column_at: np.ndarray,
    row: np.ndarray,
    row_at: np.ndarray,
    least: float,
    first: int,
    last: int,
) -> None:
    """Some planes: for each row of windows first the maxima of the columns that they read, then those of the windows.

    The images x are [P, depth, height, width]; their maxima y and the `places` of those are [P, *counts]. The `table` has
    the index of each position of a window, relative to the first, and `reach`, for each position along the last axis, which
    windows read the image there: the first one and the end. In `column` and `row`, of the sizes of a row of x and of y, are
    maxima while they are sought, beside them their positions in their window.
    """
    _, depth, height, width = x.shape
    across = y.shape[3]
    area = depth * height * width
    for p in range(first, last):
        for i in range(y.shape[1]):
            top = i * strides[0] - begins[0]
            for j in range(y.shape[2]):
                left = j * strides[1] - begins[1]
                empty = True
                for a in range(kernel[0]):
                    d = top + a * dilations[0]
                    if d < 0 or d >= depth:
                        continue
                    for b in range(kernel[1]):
                        h = left + b * dilations[1]
                        if h < 0 or h >= height:
                            continue
                        line = x[p, d, h]
                        number = np.int32((a * kernel[1] + b) * kernel[2])
                        if empty:
                            empty = False
                            for w in range(width):
                                column[w] = line[w]
                                column_at[w] = number
                            continue
                        for w in range(width):
                            v, best = line[w], column[w]
                            better = (v > best) | ((v != v) & (best == best))
                            column[w] = v if better else best
                            column_at[w] = number if better else column_at[w]
                for o in range(across):
                    row[o] = least
                    row_at[o] = np.int32(-1)
                if not empty:
                    for c in range(kernel[2]):
                        start, count = reach[0, c], reach[1, c] - reach[0, c]
                        if count <= 0:
                            continue
                        where = start * strides[2] + c * dilations[2] - begins[2]
                        read = column[where :: strides[2]]
                        read_at = column_at[where :: strides[2]]
                        best_row, best_at = row[start:], row_at[start:]
                        offset = np.int32(c)
                        for o in range(count):
                            v, best, at, best_number = read[o], best_row[o], read_at[o] + offset, best_at[o]
                            alike = (v == best) | ((v != v) & (best != best))
                            better = (best_number < 0) | (v > best) | ((v != v) & (best == best))
                            better |= alike & (at < best_number)
                            best_row[o] = v if better else best
                            best_at[o] = at if better else best_number
                base = p * area + top * weights[0] + left * weights[1] - begins[2] * weights[2]
                for o in range(across):
                    y[p, i, j, o] = row[o]
                    at = row_at[o]
                    places[p, i, j, o] = base + o * strides[2] * weights[2] + table[at] if at >= 0 else -1


# --- the adjoint ------------------------------------------------------------------------------------------------------


def sent_to_maxima(shape: tuple[int, ...], counts: tuple[int, ...], dtype: np.dtype, plain: Kernel) -> Kernel:
    """``kernel(dy, indices, shape)``: zeros, with each element of dy added where its flat index says.

    Compiled where that is wanted and possible. The work is done plane by plane as long as every index lies in the plane of
    its element, which those of a pooling do.

    Args:
        shape: that of the result.
        counts: the shape of dy.
        dtype: its dtype.
        plain: numpy's form.
    """
    planes, elements = prod(shape[:2]), (prod(shape), prod(counts))
    if not (enabled() and reals(dtype) and all(elements) and len(shape) > 2 and shape[:2] == counts[:2]):
        return plain
    todo = shared_ranges(planes, max(elements))

    def build() -> Kernel:
        types = [read(dtype, 2), read(np.int64, 2), write(dtype, 2)]
        run = jit(_add_in_planes, *types, "int64", "int64", result="int64")

        def fast(dy: np.ndarray, indices: np.ndarray, _: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
            dx = np.empty(shape, dtype) if out is None else out
            if not (dy.flags.c_contiguous and indices.flags.c_contiguous and dx.flags.c_contiguous):
                return np.asarray(plain(dy, indices, _, out=dx))
            operands = (dy.reshape(planes, -1), indices.reshape(planes, -1), dx.reshape(planes, -1))
            strays = []

            def some(share: int) -> None:
                for first, last in todo[share]:
                    strays.append(run(*operands, first, last))

            parallel(some, range(len(todo)))
            return np.asarray(plain(dy, indices, _, out=dx)) if any(strays) else dx

        return fast

    return compiled(build, plain)


def _add_in_planes(dy: np.ndarray, indices: np.ndarray, dx: np.ndarray, first: int, last: int) -> int:
    """Fill some planes of dx [P, area]; 1 where that cannot be done, since an index leads out of its plane."""
    area = dx.shape[1]
    for p in range(first, last):
        plane = dx[p]
        for k in range(area):
            plane[k] = 0
        for k in range(dy.shape[1]):
            place = indices[p, k] - p * area
            if place < 0 or place >= area:
                return 1
            plane[np.uint64(place)] += dy[p, k]
    return 0
